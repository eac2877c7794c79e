/* Whom the service asks, and connections that ended before that was known.
 *
 * A connection that is opened for one question lives too briefly to be found among what the service
 * holds, and its notice of the end does not tell whose it was. It is the service's, then, if it
 * leads where the service was met with one. Notices that came before are kept, the latest of them.
 * Used by one thread. */
#ifndef PK_SOCKET_PEERS_H
#define PK_SOCKET_PEERS_H
#include "pk_sockdiag.h"

enum {
    PK_SOCKET_PEER_LIMIT = 64,
    PK_SOCKET_STRANGER_LIMIT = 512,
};

struct pk_socket_peer {
    uint8_t address[16];
    uint16_t port;
};

struct pk_socket_stranger {
    int64_t closed_ns; /* 0: none is kept here */
    struct pk_socket_fact fact;
};

struct pk_socket_peers {
    struct pk_socket_peer peers[PK_SOCKET_PEER_LIMIT]; /* the first that were met */
    size_t peer_count;
    size_t told_count; /* peers whose strangers were given */
    struct pk_socket_stranger *strangers;
    size_t next; /* place of the next one */
};

/* Returns 0 or ENOMEM. */
int pk_socket_peers_init(struct pk_socket_peers *peers);
void pk_socket_peers_deinit(struct pk_socket_peers *peers);

/* Notes where an outgoing connection of the service leads. */
void pk_socket_peers_note(struct pk_socket_peers *peers, const struct pk_socket_key *key);

/* Tells whether a connection leads where the service was met with one. */
bool pk_socket_peers_has(const struct pk_socket_peers *peers, const struct pk_socket_key *key);

/* Keeps a connection that ended, in the place of the oldest one. */
void pk_socket_peers_keep(struct pk_socket_peers *peers, const struct pk_socket_fact *fact,
                          int64_t closed_ns);

/* Gives, and forgets, those kept that lead to peers noted since the last call. */
void pk_socket_peers_recall(struct pk_socket_peers *peers,
                            void (*visit)(void *context, const struct pk_socket_stranger *stranger),
                            void *context);

#endif
