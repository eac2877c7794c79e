/* Many counts at once. Ids and counts are copied part by part, which reads memory in order and has
 * nobody write what was checked; then the places of their ids are looked up, while those of later
 * ones and the next part are on their way. */
#include <errno.h>

#include "pk_stacktable.h"

enum {
    AHEAD = 16,       /* ids ahead: a miss takes as long as so many hits */
    PART_COUNT = 256, /* pairs, whose copy fits the first cache */
};

/* Ids of 16 bytes and counts of 8, neither aligned. */
typedef struct {
    const char *ids;
    const char *counts;
    size_t count;
    bool is_signed; /* then a count of 2^63 or more is a negative one */
} counted_ids;

/* A copy of some pairs, which nobody else writes, and what their places are made of. */
typedef struct {
    size_t count;
    pk_stackid ids[PART_COUNT];
    uint64_t counts[PART_COUNT];
    uint64_t scattered[PART_COUNT + AHEAD];
    const char *next_ids; /* of the part behind, as long; of this one where it is the last */
    const char *next_counts;
} pair_part;

static void copy_part(const pk_stacktable *table, const counted_ids *pairs, size_t first,
                      pair_part *ret)
{
    size_t left = pairs->count - first;
    size_t count = left < PART_COUNT ? left : PART_COUNT;
    memcpy(ret->ids, pairs->ids + first * sizeof *ret->ids, count * sizeof *ret->ids);
    memcpy(ret->counts, pairs->counts + first * sizeof *ret->counts, count * sizeof *ret->counts);
    for (size_t i = 0; i < count; i++) {
        ret->scattered[i] = pk_scatter_id(table->scatter, ret->ids[i]);
    }
    size_t next = left < 2 * PART_COUNT ? first : first + PART_COUNT;
    ret->next_ids = pairs->ids + next * sizeof *ret->ids;
    ret->next_counts = pairs->counts + next * sizeof *ret->counts;
    memset(ret->scattered + count, 0, AHEAD * sizeof *ret->scattered);
    ret->count = count;
}

/* The sum of all counts of a part, if it can be added. */
static int sum_counts(const pair_part *part, bool is_signed, uint64_t room, uint64_t *ret)
{
    uint64_t seen = 0;
    uint64_t low = 0; /* halves are summed apart, so that no sum overflows */
    uint64_t high = 0;
    for (size_t i = 0; i < part->count; i++) {
        seen |= part->counts[i];
        low += part->counts[i] & UINT32_MAX;
        high += part->counts[i] >> 32;
    }
    if (seen > PK_STACK_COUNT_MAX) {
        return is_signed ? EDOM : EOVERFLOW;
    }
    high += low >> 32;
    *ret = high << 32 | (low & UINT32_MAX);
    return high > UINT32_MAX || *ret > room ? EOVERFLOW : 0;
}

/* Counts from a pair on, up to one whose id is new; returns which that is. The places of ids ahead
 * are on their way from memory meanwhile. */
static size_t add_known(const pk_stacktable *table, const pair_part *part, size_t first)
{
    const uint32_t shift = 64 - table->slot_bits;
    const size_t mask = ((size_t)1 << table->slot_bits) - 1;
    const size_t count = part->count;
    pk_stack_slot *slots = table->slots;
    for (size_t i = first; i < count; i++) {
        __builtin_prefetch(&slots[part->scattered[i + AHEAD] >> shift], 1);
        __builtin_prefetch(part->next_ids + i * sizeof *part->ids);
        __builtin_prefetch(part->next_counts + i * sizeof *part->counts);
        size_t place = part->scattered[i] >> shift;
        while (!pk_stackid_is(slots[place].id, part->ids[i]) && slots[place].number != 0) {
            place = (place + 1) & mask;
        }
        if (slots[place].number == 0) {
            return i;
        }
        slots[place].count += part->counts[i];
    }
    return count;
}

/* Counts a part, and tells how many pairs of it were. */
static int add_part(pk_stacktable *table, const pair_part *part, bool is_signed, size_t *ret_done)
{
    uint64_t sum = 0;
    size_t i = 0;
    int error = sum_counts(part, is_signed, PK_STACK_COUNT_MAX - table->total, &sum);
    while (error == 0 && i < part->count) {
        i = add_known(table, part, i);
        if (i < part->count && part->counts[i] == 0) {
            i++; /* leaves no trace of its id */
        } else if (i < part->count) {
            uint32_t number;
            error = pk_stacktable_admit(table, part->ids[i], &number);
        }
    }
    *ret_done = i;
    table->total += error == 0 ? sum : 0;
    return error;
}

/* Takes away the counts of the first pairs, as far as nobody has written the buffers since; sums
 * hold either way. */
static void take_back(pk_stacktable *table, const counted_ids *pairs, size_t done,
                      uint32_t stack_count)
{
    pair_part part;
    for (size_t first = 0; first < done; first += PART_COUNT) {
        copy_part(table, pairs, first, &part);
        for (size_t i = 0; i < part.count && first + i < done; i++) {
            pk_stack_slot *slot = pk_stacktable_slot(table, part.ids[i]);
            slot->count -= part.counts[i] < slot->count ? part.counts[i] : slot->count;
        }
    }
    pk_stacktable_forget(table, stack_count);
    table->total = 0;
    for (size_t i = 0; i < (size_t)1 << table->slot_bits; i++) {
        table->total += table->slots[i].count;
    }
}

int pk_stacktable_add(pk_stacktable *table, const char *ids, const char *counts, size_t count,
                      bool is_signed)
{
    const counted_ids pairs = {ids, counts, count, is_signed};
    const uint32_t stack_count = table->stack_count;
    int error = 0;
    for (size_t first = 0; error == 0 && first < count; first += PART_COUNT) {
        pair_part part;
        size_t done;
        copy_part(table, &pairs, first, &part);
        error = add_part(table, &part, is_signed, &done);
        if (error != 0) {
            take_back(table, &pairs, first + done, stack_count);
        }
    }
    return error;
}
