#include "pk_socket_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pk_socket_rows_init(struct pk_socket_rows *rows, size_t column_count, size_t capacity)
{
    rows->column_count = column_count;
    rows->capacity = capacity;
    rows->row_count = 0;
    rows->dropped_count = 0;
    rows->cells = calloc(column_count * capacity, sizeof *rows->cells);
    return rows->cells == NULL ? ENOMEM : 0;
}

void pk_socket_rows_deinit(struct pk_socket_rows *rows)
{
    free(rows->cells);
    rows->cells = NULL;
}

void pk_socket_rows_append(struct pk_socket_rows *rows, const int64_t *values)
{
    if (rows->row_count >= rows->capacity) {
        rows->dropped_count += 1;
        return;
    }
    for (size_t column = 0; column < rows->column_count; column++) {
        rows->cells[column * rows->capacity + rows->row_count] = values[column];
    }
    rows->row_count += 1;
}

void pk_socket_rows_move(struct pk_socket_rows *from, struct pk_socket_rows *to)
{
    const size_t room = to->capacity - to->row_count;
    const size_t count = from->row_count < room ? from->row_count : room;
    for (size_t column = 0; column < to->column_count; column++) {
        memcpy(to->cells + column * to->capacity + to->row_count,
               from->cells + column * from->capacity, count * sizeof *to->cells);
    }
    to->row_count += count;
    to->dropped_count += from->dropped_count + (int64_t)(from->row_count - count);
    pk_socket_rows_clear(from);
}

const int64_t *pk_socket_rows_column(const struct pk_socket_rows *rows, size_t column)
{
    return rows->cells + column * rows->capacity;
}

void pk_socket_rows_clear(struct pk_socket_rows *rows)
{
    rows->row_count = 0;
    rows->dropped_count = 0;
}
