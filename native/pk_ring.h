/* A ring of rows of 64-bit values between one writer and one reader, without a lock.
 * Memory is fixed by _init; a full ring drops the new row and counts it. */
#ifndef PK_RING_H
#define PK_RING_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int64_t *values;
    size_t capacity;
    size_t column_count;
    _Atomic uint64_t pushed_count;  /* written by the writer */
    _Atomic uint64_t taken_count;   /* written by the reader */
    _Atomic uint64_t dropped_count; /* written by the writer, only grows */
} pk_ring;

int pk_ring_init(pk_ring *ring, size_t capacity, size_t column_count);
void pk_ring_deinit(pk_ring *ring);

/* Writer: copies one row in. Returns how many rows were dropped: 0 or 1. */
int pk_ring_push(pk_ring *ring, const int64_t *row);

/* Reader: how many rows wait. */
size_t pk_ring_count(const pk_ring *ring);

/* Reader: moves `count` rows (at most pk_ring_count) into columns of that length. */
void pk_ring_take(pk_ring *ring, size_t count, int64_t *const *columns);

#endif
