/* Rows of 64-bit integers in fixed memory, held as columns; rows beyond the capacity are counted as
 * dropped. Not thread-safe by itself. */
#ifndef PK_SOCKET_ROWS_H
#define PK_SOCKET_ROWS_H
#include <stddef.h>
#include <stdint.h>

struct pk_socket_rows {
    size_t column_count;
    size_t capacity;
    size_t row_count;
    int64_t dropped_count;
    int64_t *cells; /* column c is cells[c * capacity] .. + row_count */
};

/* Returns 0 or ENOMEM. */
int pk_socket_rows_init(struct pk_socket_rows *rows, size_t column_count, size_t capacity);
void pk_socket_rows_deinit(struct pk_socket_rows *rows);

/* Appends one row of column_count values, or counts it as dropped. */
void pk_socket_rows_append(struct pk_socket_rows *rows, const int64_t *values);

/* Appends all rows of from, as far as there is room, and its dropped count; from is left empty. */
void pk_socket_rows_move(struct pk_socket_rows *from, struct pk_socket_rows *to);

/* The values of one column. */
const int64_t *pk_socket_rows_column(const struct pk_socket_rows *rows, size_t column);

/* Makes the rows empty again, dropped count included. */
void pk_socket_rows_clear(struct pk_socket_rows *rows);

#endif
