/* Adds up the shards of a shared histogram while they are written. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "pk_shared.h"

static_assert(PERFKIT_SUM_COUNT == 4, "all sums are added up");

static const char *const TOO_MANY = "it counts more than 2**63 - 1 values";

/* Sums of all shards; is_over where one is beyond what a histogram counts. */
typedef struct {
    uint64_t *slots; /* header.slot_count of them */
    uint64_t apart[PERFKIT_APART_COUNT];
    double sum;
    double min;
    double max;
    bool is_over;
} totals;

static uint64_t load(const uint64_t *count)
{
    return __atomic_load_n(count, __ATOMIC_RELAXED);
}

static void add(totals *sums, uint64_t *sum, uint64_t count)
{
    sums->is_over |= count > PK_COUNT_LIMIT || *sum > PK_COUNT_LIMIT - count;
    *sum += sums->is_over ? 0 : count;
}

/* What of a shard says less than its counts is read first, so that these hold it all. */
static void add_shard(totals *sums, const perfkit_shard_head *head, uint32_t slot_count)
{
    double sum = (head->sums[0] + head->sums[1]) + (head->sums[2] + head->sums[3]);
    double min = head->min;
    double max = head->max;
    uint64_t subnormal_count = load(&head->apart[PERFKIT_SUBNORMAL]);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    sums->sum += sum;
    sums->min = min < sums->min ? min : sums->min;
    sums->max = max > sums->max ? max : sums->max;
    for (int i = 0; i < PERFKIT_SUBNORMAL; i++) {
        add(sums, &sums->apart[i], load(&head->apart[i]));
    }
    add(sums, &sums->apart[PERFKIT_SUBNORMAL], subnormal_count);
    const uint64_t *buckets = (const uint64_t *)(const void *)(head + 1);
    for (uint32_t i = 0; i < slot_count; i++) {
        uint64_t count = load(&buckets[i]);
        if (count != 0) {
            add(sums, &sums->slots[i], count);
        }
    }
}

static void add_shards(totals *sums, const pk_shared *shared)
{
    const perfkit_file_header *header = &shared->header;
    for (uint32_t i = 0; i <= header->shard_count; i++) {
        const uint8_t *place = shared->base + sizeof(*header) + (size_t)header->shard_bytes * i;
        const perfkit_shard_head *head = (const perfkit_shard_head *)(const void *)place;
        if (i == 0 || __atomic_load_n(&head->owner, __ATOMIC_ACQUIRE) != 0) {
            add_shard(sums, head, header->slot_count);
        }
    }
}

/* Adds up all counts but NaN's, within what a histogram counts. */
static bool find_count(const totals *sums, uint32_t slot_count, uint64_t *ret)
{
    uint64_t count = 0;
    bool is_over = sums->is_over;
    for (uint32_t i = 0; i < slot_count + PERFKIT_SUBNORMAL; i++) {
        uint64_t one = i < slot_count ? sums->slots[i] : sums->apart[i - slot_count];
        is_over |= one > PK_COUNT_LIMIT - count;
        count += is_over ? 0 : one;
    }
    *ret = count - (is_over ? 0 : sums->apart[PERFKIT_NAN]);
    return !is_over;
}

static int fill_buckets(const totals *sums, const perfkit_file_header *header, pk_histogram *ret)
{
    uint32_t first = 0;
    uint32_t end = header->slot_count;
    while (first < end && sums->slots[first] == 0) {
        first++;
    }
    while (end > first && sums->slots[end - 1] == 0) {
        end--;
    }
    if (first == end) {
        return 0;
    }
    uint32_t range_first = pk_histogram_range_first(ret);
    int error =
        pk_histogram_reserve(ret, PK_POSITIVE, range_first + first, range_first + end - 1);
    if (error == 0) {
        pk_buckets *buckets = &ret->buckets[PK_POSITIVE];
        memcpy(buckets->counts + (range_first + first - buckets->first_slot),
               sums->slots + first, (end - first) * sizeof(*sums->slots));
    }
    return error;
}

/* The least interval that holds what the counts say. */
static void find_bounds(const pk_histogram *histogram, double *ret_low, double *ret_high)
{
    const pk_bucketing *mapping = histogram->mapping;
    uint32_t first;
    uint32_t last;
    *ret_low = INFINITY;
    *ret_high = -INFINITY;
    if (histogram->over_counts[PK_POSITIVE] > 0) {
        *ret_low = pk_bucketing_lower(mapping, pk_histogram_range_end(histogram));
        *ret_high = DBL_MAX;
    }
    if (pk_histogram_find_used(histogram, PK_POSITIVE, &first, &last)) {
        *ret_low = pk_bucketing_lower(mapping, first);
        *ret_high = fmax(*ret_high, pk_bucketing_upper(mapping, last));
    }
    if (histogram->under_count > 0) {
        uint32_t range_first = pk_histogram_range_first(histogram);
        *ret_high = fmax(*ret_high, pk_bucketing_lower(mapping, range_first));
    }
    if (histogram->under_count > 0 || histogram->zero_count > 0) {
        *ret_low = 0;
        *ret_high = fmax(*ret_high, 0);
    }
    if (histogram->over_counts[PK_NEGATIVE] > 0) {
        *ret_low = -DBL_MAX;
        *ret_high = fmax(*ret_high, 0);
    }
}

/* Sum and extremes as they were written, or bounds where a record had not written them yet, and
 * where they cannot be true. */
static void settle(const totals *sums, pk_histogram *ret)
{
    double low;
    double high;
    find_bounds(ret, &low, &high);
    if (low > high) { /* nothing finite was counted */
        return;
    }
    ret->sum = sums->sum;
    ret->min = sums->min >= low && sums->min <= high ? sums->min : low;
    ret->max = sums->max >= ret->min && sums->max <= high ? sums->max : high;
}

static int to_histogram(const totals *sums, const pk_shared *shared, pk_histogram *ret)
{
    ret->zero_count = sums->apart[PERFKIT_ZERO];
    ret->under_count = sums->apart[PERFKIT_UNDER];
    ret->over_counts[PK_POSITIVE] = sums->apart[PERFKIT_OVER];
    ret->over_counts[PK_NEGATIVE] = sums->apart[PERFKIT_NEGATIVE];
    ret->infinite_counts[PK_POSITIVE] = sums->apart[PERFKIT_POSITIVE_INFINITY];
    ret->infinite_counts[PK_NEGATIVE] = sums->apart[PERFKIT_NEGATIVE_INFINITY];
    ret->nan_count = sums->apart[PERFKIT_NAN];
    uint64_t low_count = ret->under_count + ret->over_counts[PK_NEGATIVE];
    uint64_t subnormal_count = sums->apart[PERFKIT_SUBNORMAL];
    ret->subnormal_count = subnormal_count < low_count ? subnormal_count : low_count;
    int error = fill_buckets(sums, &shared->header, ret);
    if (error == 0) {
        settle(sums, ret);
    }
    return error;
}

/* Whether the file is the one whose header was checked. */
static bool is_same(const pk_shared *shared)
{
    const perfkit_file_header *now = (const perfkit_file_header *)(const void *)shared->base;
    return __atomic_load_n(&now->generation, __ATOMIC_ACQUIRE) == shared->header.generation;
}

int pk_shared_read(const pk_shared *shared, const pk_bucketing *mapping, pk_histogram *ret,
                   const char **ret_why)
{
    const perfkit_file_header *header = &shared->header;
    totals sums = {.min = INFINITY, .max = -INFINITY};
    sums.slots = calloc(header->slot_count, sizeof(*sums.slots));
    if (sums.slots == NULL) {
        return ENOMEM;
    }
    pk_histogram_init(ret, mapping, header->low_exponent, header->high_exponent);
    bool was_same = is_same(shared);
    add_shards(&sums, shared);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    int error = 0;
    if (!was_same || !is_same(shared)) {
        *ret_why = "its header was written over";
        error = EBADMSG;
    } else if (!find_count(&sums, header->slot_count, &ret->count)) {
        *ret_why = TOO_MANY;
        error = EBADMSG;
    } else {
        error = to_histogram(&sums, shared, ret);
    }
    if (error != 0) {
        pk_histogram_deinit(ret);
    }
    free(sums.slots);
    return error;
}
