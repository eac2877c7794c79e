/* Quicksort by one symbol at a time (Bentley, Sedgewick, 1997), over a list of parts to be done. */
#include "pk_order.h"

#include <assert.h>
#include <stdbool.h>
#include <time.h>

enum {
    FEW = 10,        /* up to which insertion is faster */
    PART_LIMIT = 64, /* the smallest of three parts is done first, so fewer than 42 wait */
};

typedef struct {
    uint32_t *items;
    size_t count;
    uint32_t depth; /* up to which all are equal */
} part;

typedef struct {
    pk_symbol symbol;
    const void *context;
    uint64_t random; /* pivots that nobody can foresee */
} sorter;

static bool is_less(const sorter *by, uint32_t one, uint32_t other, uint32_t depth)
{
    for (;; depth++) {
        uint32_t symbol = by->symbol(by->context, one, depth);
        uint32_t other_symbol = by->symbol(by->context, other, depth);
        if (symbol != other_symbol || symbol == 0) {
            return symbol < other_symbol;
        }
    }
}

static void insert_few(const sorter *by, part few)
{
    for (size_t i = 1; i < few.count; i++) {
        uint32_t item = few.items[i];
        size_t place = i;
        for (; place > 0 && is_less(by, item, few.items[place - 1], few.depth); place--) {
            few.items[place] = few.items[place - 1];
        }
        few.items[place] = item;
    }
}

static uint32_t draw_symbol(sorter *by, part from)
{
    by->random ^= by->random << 13;
    by->random ^= by->random >> 7;
    by->random ^= by->random << 17;
    return by->symbol(by->context, from.items[(by->random >> 8) % from.count], from.depth);
}

/* The middle one of three symbols. */
static uint32_t draw_pivot(sorter *by, part from)
{
    uint32_t a = draw_symbol(by, from);
    uint32_t b = draw_symbol(by, from);
    uint32_t c = draw_symbol(by, from);
    uint32_t least = a < b ? a : b;
    uint32_t most = a < b ? b : a;
    return c < least ? least : c > most ? most : c;
}

static void swap_items(uint32_t *items, size_t one, size_t other)
{
    uint32_t item = items[one];
    items[one] = items[other];
    items[other] = item;
}

static void swap_larger_first(part *one, part *other)
{
    if (one->count < other->count) {
        part moved = *one;
        *one = *other;
        *other = moved;
    }
}

/* Splits by the symbol at the depth: those below the pivot, those with it, those above it. */
static void split(sorter *by, part whole, part ret[3])
{
    uint32_t pivot = draw_pivot(by, whole);
    size_t below = 0;
    size_t above = whole.count;
    for (size_t i = 0; i < above;) {
        uint32_t symbol = by->symbol(by->context, whole.items[i], whole.depth);
        if (symbol < pivot) {
            swap_items(whole.items, below++, i++);
        } else if (symbol > pivot) {
            swap_items(whole.items, i, --above);
        } else {
            i++;
        }
    }
    /* Those that have ended are equal, and done. */
    size_t same = pivot == 0 ? 0 : above - below;
    ret[0] = (part){whole.items, below, whole.depth};
    ret[1] = (part){whole.items + below, same, whole.depth + 1};
    ret[2] = (part){whole.items + above, whole.count - above, whole.depth};
    swap_larger_first(&ret[0], &ret[1]);
    swap_larger_first(&ret[1], &ret[2]);
    swap_larger_first(&ret[0], &ret[1]);
}

void pk_order_sort(uint32_t *items, size_t count, pk_symbol symbol, const void *context)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    sorter by = {symbol, context, (uint64_t)now.tv_nsec << 20 ^ (uintptr_t)items ^ 1U << 30};
    by.random |= 1;
    part waiting[PART_LIMIT];
    size_t waiting_count = 0;
    part next = {items, count, 0};
    for (;;) {
        if (next.count > FEW) {
            part parts[3];
            split(&by, next, parts);
            assert(waiting_count + 2 <= PART_LIMIT);
            waiting[waiting_count++] = parts[0];
            waiting[waiting_count++] = parts[1];
            next = parts[2];
            continue;
        }
        insert_few(&by, next);
        if (waiting_count == 0) {
            return;
        }
        next = waiting[--waiting_count];
    }
}
