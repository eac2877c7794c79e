#include "pk_stacktop.h"

#include <errno.h>
#include <stdlib.h>

/* Counts a stack's frames, each once; `seen` has the last stack + 1 that a frame was met in. */
static void count_stack(const pk_stacktable *table, uint32_t stack, uint64_t count,
                        uint32_t *seen, pk_stacktop *sums)
{
    const uint32_t *frames = pk_stacktable_frames(table, stack);
    uint32_t depth = table->stacks[stack].depth;
    for (uint32_t i = 0; i < depth; i++) {
        if (seen[frames[i]] != stack + 1) {
            seen[frames[i]] = stack + 1;
            sums[frames[i]].total += count;
        }
    }
    if (depth > 0) {
        sums[frames[depth - 1]].self += count;
    } else {
        sums[PK_FRAME_ROOT].self += count;
        sums[PK_FRAME_ROOT].total += count;
    }
}

static bool is_before(const pk_stacktop *one, const pk_stacktop *other)
{
    if (one->self != other->self) {
        return one->self > other->self;
    }
    return one->total != other->total ? one->total > other->total : one->rank < other->rank;
}

/* Brings a heap, whose first one is the last in order, into shape again from a place on. */
static void sink(pk_stacktop *heap, size_t count, size_t place)
{
    pk_stacktop moved = heap[place];
    for (size_t child = 2 * place + 1; child < count; child = 2 * place + 1) {
        if (child + 1 < count && is_before(&heap[child], &heap[child + 1])) {
            child++;
        }
        if (!is_before(&moved, &heap[child])) {
            break;
        }
        heap[place] = heap[child];
        place = child;
    }
    heap[place] = moved;
}

static void sort(pk_stacktop *sums, size_t count)
{
    for (size_t place = count / 2; place > 0; place--) {
        sink(sums, count, place - 1);
    }
    for (size_t left = count; left > 1; left--) {
        pk_stacktop last = sums[0];
        sums[0] = sums[left - 1];
        sums[left - 1] = last;
        sink(sums, left - 1, 0);
    }
}

/* Moves frames that were seen to the front. */
static size_t drop_unseen(pk_stacktop *sums, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (sums[i].total > 0) {
            sums[kept++] = sums[i];
        }
    }
    return kept;
}

int pk_stacktop_list(const pk_stacktable *table, size_t limit, pk_stacktop **ret,
                     size_t *ret_count)
{
    size_t count = table->names.count;
    uint64_t *counts = calloc(table->stack_count + 1UL, sizeof *counts);
    uint32_t *ranks = malloc(count * sizeof *ranks);
    uint32_t *seen = calloc(count, sizeof *seen);
    pk_stacktop *sums = calloc(count, sizeof *sums);
    bool is_whole = counts != NULL && ranks != NULL && seen != NULL && sums != NULL &&
                    pk_framenames_rank(&table->names, ranks) == 0;
    if (is_whole) {
        pk_stacktable_gather(table, counts);
        for (uint32_t i = 0; i < count; i++) {
            sums[i].frame = i;
            sums[i].rank = ranks[i];
        }
        for (uint32_t i = 0; i < table->stack_count; i++) {
            count_stack(table, i, counts[i], seen, sums);
        }
        count = drop_unseen(sums, count);
        sort(sums, count);
    }
    free(counts);
    free(ranks);
    free(seen);
    if (!is_whole) {
        free(sums);
        return ENOMEM;
    }
    *ret = sums;
    *ret_count = count < limit ? count : limit;
    return 0;
}
