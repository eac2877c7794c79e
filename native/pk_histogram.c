/* Counts of one histogram, and what is added to and taken from them. */
#include "pk_histogram.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { FIRST_SLACK = 24 /* slots on both sides of the first */ };

void pk_histogram_init(pk_histogram *histogram, const pk_bucketing *mapping, int32_t low_exponent,
                       int32_t high_exponent)
{
    *histogram = (pk_histogram){
        .mapping = mapping,
        .low_exponent = low_exponent,
        .high_exponent = high_exponent,
        .min = INFINITY,
        .max = -INFINITY,
    };
}

void pk_histogram_deinit(pk_histogram *histogram)
{
    for (int sign = 0; sign < PK_SIGN_COUNT; sign++) {
        free(histogram->buckets[sign].counts);
        histogram->buckets[sign] = (pk_buckets){0};
    }
}

uint32_t pk_histogram_range_first(const pk_histogram *histogram)
{
    const pk_bucketing *mapping = histogram->mapping;
    uint32_t first = (uint32_t)(histogram->low_exponent + PK_EXPONENT_BIAS) << mapping->scale;
    uint32_t least = pk_bucketing_least_slot(mapping);
    return first > least ? first : least;
}

uint32_t pk_histogram_range_end(const pk_histogram *histogram)
{
    uint32_t end = (uint32_t)(histogram->high_exponent + PK_EXPONENT_BIAS);
    return end << histogram->mapping->scale;
}

/* Moves the counts into a window that holds the old one. */
static int resize(pk_buckets *buckets, uint32_t first, uint32_t end)
{
    uint64_t *counts = calloc(end - first, sizeof(*counts));
    if (counts == NULL) {
        return ENOMEM;
    }
    if (buckets->length > 0) {
        memcpy(counts + (buckets->first_slot - first), buckets->counts,
               buckets->length * sizeof(*counts));
    }
    free(buckets->counts);
    *buckets = (pk_buckets){.first_slot = first, .length = end - first, .counts = counts};
    return 0;
}

int pk_histogram_reserve(pk_histogram *histogram, pk_sign sign, uint32_t first, uint32_t last)
{
    pk_buckets *buckets = &histogram->buckets[sign];
    if (buckets->length == 0) {
        return resize(buckets, first, last + 1);
    }
    uint32_t old_end = buckets->first_slot + buckets->length;
    if (first >= buckets->first_slot && last < old_end) {
        return 0;
    }
    /* Half as much again to the side where it grows, so that growing costs little over all. */
    uint32_t slack = buckets->length / 2;
    uint32_t range_first = pk_histogram_range_first(histogram);
    uint32_t range_end = pk_histogram_range_end(histogram);
    uint32_t new_first = buckets->first_slot;
    uint32_t new_end = old_end;
    if (first < new_first) {
        new_first = first - range_first > slack ? first - slack : range_first;
    }
    if (last >= new_end) {
        new_end = range_end - last > slack + 1 ? last + slack + 1 : range_end;
    }
    return resize(buckets, new_first, new_end);
}

/* Room for one value's slot; around the first one there is some for its neighbours. */
static int reserve_one(pk_histogram *histogram, pk_sign sign, uint32_t slot)
{
    uint32_t first = slot;
    uint32_t last = slot;
    if (histogram->buckets[sign].length == 0) {
        uint32_t range_first = pk_histogram_range_first(histogram);
        uint32_t range_last = pk_histogram_range_end(histogram) - 1;
        first = slot - range_first > FIRST_SLACK ? slot - FIRST_SLACK : range_first;
        last = range_last - slot > FIRST_SLACK ? slot + FIRST_SLACK : range_last;
    }
    return pk_histogram_reserve(histogram, sign, first, last);
}

static int add_to_slot(pk_histogram *histogram, pk_sign sign, uint32_t slot, uint64_t count)
{
    if (slot < pk_histogram_range_first(histogram)) {
        histogram->under_count += count;
        return 0;
    }
    if (slot >= pk_histogram_range_end(histogram)) {
        histogram->over_counts[sign] += count;
        return 0;
    }
    int error = reserve_one(histogram, sign, slot);
    if (error != 0) {
        return error;
    }
    pk_buckets *buckets = &histogram->buckets[sign];
    buckets->counts[slot - buckets->first_slot] += count;
    return 0;
}

/* A number that is not zero, infinite or NaN. */
static int add_number(pk_histogram *histogram, double value, uint64_t count)
{
    uint64_t bits = pk_to_bits(value);
    uint64_t magnitude = bits & ~PK_SIGN_BIT;
    bool is_subnormal = magnitude < PK_LEAST_NORMAL_BITS;
    uint32_t slot = is_subnormal ? pk_bucketing_least_slot(histogram->mapping)
                                 : pk_bucketing_slot(histogram->mapping, magnitude);
    pk_sign sign = bits == magnitude ? PK_POSITIVE : PK_NEGATIVE;
    int error = add_to_slot(histogram, sign, slot, count);
    if (error == 0 && is_subnormal) {
        histogram->subnormal_count += count;
    }
    return error;
}

int pk_histogram_add(pk_histogram *histogram, double value, uint64_t count)
{
    uint64_t bits = pk_to_bits(value);
    uint64_t magnitude = bits & ~PK_SIGN_BIT;
    if (count > PK_COUNT_LIMIT - histogram->count - histogram->nan_count) {
        return EOVERFLOW;
    }
    if (count == 0) {
        return 0;
    }
    if (magnitude > PK_INFINITY_BITS) {
        histogram->nan_count += count;
        return 0;
    }
    if (magnitude == PK_INFINITY_BITS) {
        histogram->infinite_counts[bits == magnitude ? PK_POSITIVE : PK_NEGATIVE] += count;
        histogram->count += count;
        return 0;
    }
    if (magnitude == 0) {
        value = 0; /* without a sign */
        histogram->zero_count += count;
    } else {
        int error = add_number(histogram, value, count);
        if (error != 0) {
            return error;
        }
    }
    histogram->count += count;
    histogram->sum += value * (double)count;
    histogram->min = value < histogram->min ? value : histogram->min;
    histogram->max = value > histogram->max ? value : histogram->max;
    return 0;
}

static void downscale_buckets(pk_buckets *buckets, uint32_t step)
{
    if (buckets->length == 0) {
        return;
    }
    uint32_t first = buckets->first_slot >> step;
    uint32_t length = ((buckets->first_slot + buckets->length - 1) >> step) - first + 1;
    /* In place: no count moves up. */
    for (uint32_t i = 0; i < buckets->length; i++) {
        uint64_t count = buckets->counts[i];
        buckets->counts[i] = 0;
        buckets->counts[((buckets->first_slot + i) >> step) - first] += count;
    }
    buckets->first_slot = first;
    buckets->length = length;
}

void pk_histogram_downscale(pk_histogram *histogram, const pk_bucketing *mapping)
{
    uint32_t step = histogram->mapping->scale - mapping->scale;
    for (int sign = 0; step > 0 && sign < PK_SIGN_COUNT; sign++) {
        downscale_buckets(&histogram->buckets[sign], step);
    }
    histogram->mapping = mapping;
}

int pk_histogram_copy(const pk_histogram *histogram, pk_histogram *ret)
{
    *ret = *histogram;
    int error = 0;
    for (int sign = 0; sign < PK_SIGN_COUNT; sign++) {
        const pk_buckets *from = &histogram->buckets[sign];
        ret->buckets[sign] = (pk_buckets){0};
        uint32_t first;
        uint32_t last;
        if (error != 0 || !pk_histogram_find_used(histogram, sign, &first, &last)) {
            continue;
        }
        error = resize(&ret->buckets[sign], first, last + 1);
        if (error == 0) {
            memcpy(ret->buckets[sign].counts, from->counts + (first - from->first_slot),
                   (last - first + 1) * sizeof(*from->counts));
        }
    }
    if (error != 0) {
        pk_histogram_deinit(ret);
    }
    return error;
}

static inline bool are_zero(const uint64_t *four)
{
    return (four[0] | four[1] | four[2] | four[3]) == 0;
}

bool pk_histogram_find_used(const pk_histogram *histogram, pk_sign sign, uint32_t *ret_first,
                            uint32_t *ret_last)
{
    const pk_buckets *buckets = &histogram->buckets[sign];
    uint32_t first = 0;
    uint32_t end = buckets->length;
    /* What a window has in reserve is passed in steps of four. */
    while (first + 4 <= end && are_zero(buckets->counts + first)) {
        first += 4;
    }
    while (first + 4 <= end && are_zero(buckets->counts + end - 4)) {
        end -= 4;
    }
    while (first < end && buckets->counts[first] == 0) {
        first++;
    }
    while (end > first && buckets->counts[end - 1] == 0) {
        end--;
    }
    *ret_first = buckets->first_slot + first;
    *ret_last = buckets->first_slot + end - 1;
    return first < end;
}

static bool is_equal_side(const pk_histogram *histogram, const pk_histogram *other, pk_sign sign)
{
    uint32_t first;
    uint32_t last;
    uint32_t other_first;
    uint32_t other_last;
    bool has = pk_histogram_find_used(histogram, sign, &first, &last);
    bool other_has = pk_histogram_find_used(other, sign, &other_first, &other_last);
    if (!has || !other_has) {
        return has == other_has;
    }
    const pk_buckets *buckets = &histogram->buckets[sign];
    const pk_buckets *others = &other->buckets[sign];
    return first == other_first && last == other_last &&
           memcmp(buckets->counts + (first - buckets->first_slot),
                  others->counts + (first - others->first_slot),
                  (last - first + 1) * sizeof(*buckets->counts)) == 0;
}

bool pk_histogram_equal(const pk_histogram *histogram, const pk_histogram *other)
{
    bool has_same_sides = is_equal_side(histogram, other, PK_POSITIVE) &&
                          is_equal_side(histogram, other, PK_NEGATIVE);
    return has_same_sides && histogram->mapping->scale == other->mapping->scale &&
           histogram->low_exponent == other->low_exponent &&
           histogram->high_exponent == other->high_exponent && histogram->count == other->count &&
           histogram->zero_count == other->zero_count &&
           histogram->under_count == other->under_count &&
           histogram->over_counts[0] == other->over_counts[0] &&
           histogram->over_counts[1] == other->over_counts[1] &&
           histogram->infinite_counts[0] == other->infinite_counts[0] &&
           histogram->infinite_counts[1] == other->infinite_counts[1] &&
           histogram->nan_count == other->nan_count &&
           histogram->subnormal_count == other->subnormal_count && histogram->min == other->min &&
           histogram->max == other->max;
}
