#include "pk_socket_peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pk_socket_peers_init(struct pk_socket_peers *peers)
{
    memset(peers, 0, sizeof *peers);
    peers->strangers = calloc(PK_SOCKET_STRANGER_LIMIT, sizeof *peers->strangers);
    return peers->strangers == NULL ? ENOMEM : 0;
}

void pk_socket_peers_deinit(struct pk_socket_peers *peers)
{
    free(peers->strangers);
    peers->strangers = NULL;
}

static bool is_at(const struct pk_socket_peer *peer, const struct pk_socket_key *key)
{
    return peer->port == key->peer_port && memcmp(peer->address, key->peer, sizeof key->peer) == 0;
}

static bool has_from(const struct pk_socket_peers *peers, size_t first,
                     const struct pk_socket_key *key)
{
    for (size_t index = first; index < peers->peer_count; index++) {
        if (is_at(&peers->peers[index], key)) {
            return true;
        }
    }
    return false;
}

bool pk_socket_peers_has(const struct pk_socket_peers *peers, const struct pk_socket_key *key)
{
    return has_from(peers, 0, key);
}

void pk_socket_peers_note(struct pk_socket_peers *peers, const struct pk_socket_key *key)
{
    if (peers->peer_count == PK_SOCKET_PEER_LIMIT || pk_socket_peers_has(peers, key)) {
        return;
    }
    struct pk_socket_peer *peer = &peers->peers[peers->peer_count++];
    memcpy(peer->address, key->peer, sizeof peer->address);
    peer->port = key->peer_port;
}

void pk_socket_peers_keep(struct pk_socket_peers *peers, const struct pk_socket_fact *fact,
                          int64_t closed_ns)
{
    peers->strangers[peers->next] = (struct pk_socket_stranger){closed_ns, *fact};
    peers->next = (peers->next + 1) % PK_SOCKET_STRANGER_LIMIT;
}

void pk_socket_peers_recall(struct pk_socket_peers *peers,
                            void (*visit)(void *context, const struct pk_socket_stranger *stranger),
                            void *context)
{
    const size_t first = peers->told_count;
    peers->told_count = peers->peer_count;
    for (size_t place = 0; first < peers->peer_count && place < PK_SOCKET_STRANGER_LIMIT; place++) {
        struct pk_socket_stranger *stranger = &peers->strangers[place];
        if (stranger->closed_ns != 0 && has_from(peers, first, &stranger->fact.key)) {
            visit(context, stranger);
            stranger->closed_ns = 0;
        }
    }
}
