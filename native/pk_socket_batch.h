/* The four kinds of rows that the sockets sampler writes. */
#ifndef PK_SOCKET_BATCH_H
#define PK_SOCKET_BATCH_H
#include "pk_sockdiag.h"
#include "pk_socket_rows.h"

/* Columns of an identity row; a later row of the same index replaces the earlier. */
enum pk_socket_identity_column {
    PK_IDENTITY_INDEX,
    PK_IDENTITY_INODE,
    PK_IDENTITY_FIRST_SEEN_NS,
    PK_IDENTITY_ROLE,
    PK_IDENTITY_FAMILY, /* 4 or 6 */
    PK_IDENTITY_LOCAL_HIGH,
    PK_IDENTITY_LOCAL_LOW,
    PK_IDENTITY_LOCAL_PORT,
    PK_IDENTITY_PEER_HIGH,
    PK_IDENTITY_PEER_LOW,
    PK_IDENTITY_PEER_PORT,
    PK_IDENTITY_COLUMN_COUNT,
};

enum {
    /* socket_index, start_ns, end_ns, tick_count, state, counters */
    PK_RUN_COUNTERS = 5,
    PK_RUN_COLUMN_COUNT = PK_RUN_COUNTERS + PK_SOCKET_COUNTER_COUNT,
    /* an identity row whose third column is t_ns, then counters from last_sent_ms on */
    PK_CLOSED_COUNTERS = PK_IDENTITY_COLUMN_COUNT,
    PK_CLOSED_COLUMN_COUNT =
        PK_CLOSED_COUNTERS + PK_SOCKET_COUNTER_COUNT - PK_SOCKET_LAST_SENT_MS,
    /* t_ns, socket_count, polled_count, cpu_ns */
    PK_POLL_COLUMN_COUNT = 4,
};

struct pk_socket_batch {
    struct pk_socket_rows runs;
    struct pk_socket_rows closed;
    struct pk_socket_rows polls;
    struct pk_socket_rows identities;
};

/* Makes room for row_limit rows of each kind. Returns 0 or ENOMEM. */
int pk_socket_batch_init(struct pk_socket_batch *batch, size_t row_limit);
void pk_socket_batch_deinit(struct pk_socket_batch *batch);
void pk_socket_batch_clear(struct pk_socket_batch *batch);

/* Appends all rows of from, as far as there is room; from is left empty. */
void pk_socket_batch_move(struct pk_socket_batch *from, struct pk_socket_batch *to);

#endif
