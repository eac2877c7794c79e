#include "pk_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pk_ring_init(pk_ring *ring, size_t capacity, size_t column_count)
{
    ring->values = calloc(capacity, column_count * sizeof *ring->values);
    if (ring->values == NULL) {
        return ENOMEM;
    }
    ring->capacity = capacity;
    ring->column_count = column_count;
    atomic_init(&ring->pushed_count, 0);
    atomic_init(&ring->taken_count, 0);
    atomic_init(&ring->dropped_count, 0);
    return 0;
}

void pk_ring_deinit(pk_ring *ring)
{
    free(ring->values);
    ring->values = NULL;
}

int pk_ring_push(pk_ring *ring, const int64_t *row)
{
    uint64_t pushed = atomic_load_explicit(&ring->pushed_count, memory_order_relaxed);
    uint64_t taken = atomic_load_explicit(&ring->taken_count, memory_order_acquire);
    if (pushed - taken >= ring->capacity) {
        atomic_fetch_add_explicit(&ring->dropped_count, 1, memory_order_relaxed);
        return 1;
    }
    size_t place = (size_t)(pushed % ring->capacity) * ring->column_count;
    memcpy(ring->values + place, row, ring->column_count * sizeof *row);
    atomic_store_explicit(&ring->pushed_count, pushed + 1, memory_order_release);
    return 0;
}

size_t pk_ring_count(const pk_ring *ring)
{
    uint64_t taken = atomic_load_explicit(&ring->taken_count, memory_order_relaxed);
    return (size_t)(atomic_load_explicit(&ring->pushed_count, memory_order_acquire) - taken);
}

void pk_ring_take(pk_ring *ring, size_t count, int64_t *const *columns)
{
    uint64_t taken = atomic_load_explicit(&ring->taken_count, memory_order_relaxed);
    for (size_t i = 0; i < count; i++) {
        const int64_t *row =
            ring->values + (size_t)((taken + i) % ring->capacity) * ring->column_count;
        for (size_t k = 0; k < ring->column_count; k++) {
            columns[k][i] = row[k];
        }
    }
    atomic_store_explicit(&ring->taken_count, taken + count, memory_order_release);
}
