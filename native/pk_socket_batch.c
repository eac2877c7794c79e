#include "pk_socket_batch.h"

#include <string.h>

int pk_socket_batch_init(struct pk_socket_batch *batch, size_t row_limit)
{
    memset(batch, 0, sizeof *batch);
    const int error = pk_socket_rows_init(&batch->runs, PK_RUN_COLUMN_COUNT, row_limit) |
                      pk_socket_rows_init(&batch->closed, PK_CLOSED_COLUMN_COUNT, row_limit) |
                      pk_socket_rows_init(&batch->polls, PK_POLL_COLUMN_COUNT, row_limit) |
                      pk_socket_rows_init(&batch->identities, PK_IDENTITY_COLUMN_COUNT, row_limit);
    if (error != 0) {
        pk_socket_batch_deinit(batch);
    }
    return error;
}

void pk_socket_batch_deinit(struct pk_socket_batch *batch)
{
    pk_socket_rows_deinit(&batch->runs);
    pk_socket_rows_deinit(&batch->closed);
    pk_socket_rows_deinit(&batch->polls);
    pk_socket_rows_deinit(&batch->identities);
}

void pk_socket_batch_clear(struct pk_socket_batch *batch)
{
    pk_socket_rows_clear(&batch->runs);
    pk_socket_rows_clear(&batch->closed);
    pk_socket_rows_clear(&batch->polls);
    pk_socket_rows_clear(&batch->identities);
}

void pk_socket_batch_move(struct pk_socket_batch *from, struct pk_socket_batch *to)
{
    pk_socket_rows_move(&from->runs, &to->runs);
    pk_socket_rows_move(&from->closed, &to->closed);
    pk_socket_rows_move(&from->polls, &to->polls);
    pk_socket_rows_move(&from->identities, &to->identities);
}
