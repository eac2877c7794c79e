/* The service's TCP sockets that are known now, found by their kernel cookie, in fixed memory. Used
 * by one thread. */
#ifndef PK_SOCKET_TABLE_H
#define PK_SOCKET_TABLE_H
#include "pk_sockdiag.h"

enum pk_socket_role {
    PK_SOCKET_NONE, /* not the service's */
    PK_SOCKET_LISTENER,
    PK_SOCKET_ACCEPTED,
    PK_SOCKET_OUTGOING,
};

enum { PK_SOCKET_LISTENER_LIMIT = 256 };

struct pk_socket_entry {
    struct pk_socket_fact fact; /* as of the open run's first poll */
    enum pk_socket_role role;
    int64_t index; /* socket_index, never reused */
    int64_t first_seen_ns;
    int64_t run_start_ns;
    int64_t run_end_ns;
    int64_t tick_count;  /* polls in the open run, 0: no run is open */
    int64_t gone_ns;     /* when it was first missed, 0: it lives */
    bool is_told;        /* its identity row was written */
    uint32_t order_position;
    uint32_t next_free;
};

struct pk_socket_order {
    uint32_t *ids;
    uint32_t count;
};

struct pk_socket_table {
    struct pk_socket_entry *entries;
    uint32_t *slots; /* open addressing, linear probing: entry id + 1, 0 empty */
    uint32_t slot_mask;
    uint32_t capacity;
    uint32_t free_id; /* head of the free list, capacity: none left */
    struct pk_socket_order connections;
    struct pk_socket_order listeners; /* at most PK_SOCKET_LISTENER_LIMIT */
    int64_t next_index;
    int64_t refused_count; /* sockets that found no room */
    int64_t *inodes;       /* sorted: what the service's processes hold */
    size_t inode_count;
    size_t inode_capacity;
    uint16_t shared_ports[PK_SOCKET_LISTENER_LIMIT]; /* where other processes listen too */
    size_t shared_port_count;
};

/* Returns 0 or ENOMEM. */
int pk_socket_table_init(struct pk_socket_table *table, uint32_t capacity, size_t inode_capacity);
void pk_socket_table_deinit(struct pk_socket_table *table);

/* Replaces the inodes that the service holds; sorts its copy. */
void pk_socket_table_set_inodes(struct pk_socket_table *table, const int64_t *inodes, size_t count);

/* The known socket of this cookie, NULL if there is none. */
struct pk_socket_entry *pk_socket_table_find(const struct pk_socket_table *table, uint64_t cookie);

/* Names the local ports at which processes beside the service listen too, at most
 * PK_SOCKET_LISTENER_LIMIT: what comes in there is the service's only where the service holds it.
 */
void pk_socket_table_set_shared_ports(struct pk_socket_table *table, const uint16_t *ports,
                                      size_t count);

/* Tells whether others listen too where this connection came in, so that it may be theirs. */
bool pk_socket_table_is_shared(const struct pk_socket_table *table,
                               const struct pk_socket_fact *fact);

/* What a socket is to the service, by its listeners and inodes as known now. */
enum pk_socket_role pk_socket_table_role(const struct pk_socket_table *table,
                                         const struct pk_socket_fact *fact);

/* Enters a socket that is not known yet. Returns NULL, and counts it, when the table is full. */
struct pk_socket_entry *pk_socket_table_add(struct pk_socket_table *table,
                                            const struct pk_socket_fact *fact,
                                            enum pk_socket_role role, int64_t now_ns);

void pk_socket_table_remove(struct pk_socket_table *table, struct pk_socket_entry *entry);

/* Writes the distinct local ports of the listeners, at most limit. Returns how many. */
size_t pk_socket_table_ports(const struct pk_socket_table *table, uint16_t *ret, size_t limit);

/* Puts the connections into a new random order; state is the generator's, not 0. */
void pk_socket_table_shuffle(struct pk_socket_table *table, uint64_t *state);

#endif
