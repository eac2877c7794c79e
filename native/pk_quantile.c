/* Walks over counts in the order of the values: -inf, negative ones from the largest magnitude
 * down, what is near zero, positive ones, +inf. */
#include "pk_quantile.h"

#include <float.h>
#include <math.h>

static double clamp(const pk_histogram *histogram, double value)
{
    value = value < histogram->min ? histogram->min : value;
    return value > histogram->max ? histogram->max : value;
}

/* Takes `count` from a rank; whether the rank lay within them. */
static bool is_within(uint64_t *rank, uint64_t count)
{
    if (*rank < count) {
        return true;
    }
    *rank -= count;
    return false;
}

/* The slot of a rank among the counts of a sign, by magnitude; false where the rank is beyond. */
static bool find_slot(const pk_histogram *histogram, pk_sign sign, uint64_t *rank, uint32_t *ret)
{
    const pk_buckets *buckets = &histogram->buckets[sign];
    for (uint32_t i = 0; i < buckets->length; i++) {
        uint32_t at = sign == PK_POSITIVE ? i : buckets->length - 1 - i;
        if (is_within(rank, buckets->counts[at])) {
            *ret = buckets->first_slot + at;
            return true;
        }
    }
    return false;
}

static double middle_of(const pk_histogram *histogram, uint32_t slot)
{
    const pk_bucketing *mapping = histogram->mapping;
    return pk_bucketing_lower(mapping, slot) * pk_bucketing_middle_ratio(mapping);
}

double pk_quantile_at_rank(const pk_histogram *histogram, uint64_t rank)
{
    uint32_t slot;
    if (is_within(&rank, histogram->infinite_counts[PK_NEGATIVE])) {
        return -INFINITY;
    }
    if (is_within(&rank, histogram->over_counts[PK_NEGATIVE])) {
        return histogram->min;
    }
    if (find_slot(histogram, PK_NEGATIVE, &rank, &slot)) {
        return clamp(histogram, -middle_of(histogram, slot));
    }
    if (is_within(&rank, histogram->zero_count + histogram->under_count)) {
        return clamp(histogram, 0);
    }
    if (find_slot(histogram, PK_POSITIVE, &rank, &slot)) {
        return clamp(histogram, middle_of(histogram, slot));
    }
    return is_within(&rank, histogram->over_counts[PK_POSITIVE]) ? histogram->max : INFINITY;
}

double pk_quantile(const pk_histogram *histogram, double quantile)
{
    if (histogram->count == 0) {
        return NAN;
    }
    uint64_t last = histogram->count - 1;
    uint64_t rank = (uint64_t)(quantile * (double)last);
    return pk_quantile_at_rank(histogram, rank < last ? rank : last);
}

double pk_quantile_error(const pk_bucketing *mapping)
{
    /* The middle m of (l, u] is l * ratio, and (m - l) / l the error at the lower end. */
    return pk_bucketing_middle_ratio(mapping) - 1;
}

/* The part of (lower, upper] that is at most `value`. */
static double part_below(double lower, double upper, double value)
{
    if (value >= upper) {
        return 1;
    }
    return value <= lower ? 0 : (value - lower) / (upper - lower);
}

/* How many of a sign are of at most that magnitude. */
static double count_below(const pk_histogram *histogram, pk_sign sign, double magnitude)
{
    const pk_bucketing *mapping = histogram->mapping;
    const pk_buckets *buckets = &histogram->buckets[sign];
    double count = 0;
    for (uint32_t i = 0; i < buckets->length; i++) {
        if (buckets->counts[i] == 0) {
            continue;
        }
        uint32_t slot = buckets->first_slot + i;
        bool is_least = slot == pk_bucketing_least_slot(mapping);
        double lower = is_least ? 0 : pk_bucketing_lower(mapping, slot);
        double upper = pk_bucketing_upper(mapping, slot);
        upper = upper > DBL_MAX ? DBL_MAX : upper;
        count += (double)buckets->counts[i] * part_below(lower, upper, magnitude);
    }
    return count;
}

static double count_side(const pk_histogram *histogram, pk_sign sign)
{
    return count_below(histogram, sign, DBL_MAX);
}

double pk_quantile_share(const pk_histogram *histogram, double value)
{
    if (histogram->count == 0) {
        return NAN;
    }
    double below = (double)histogram->infinite_counts[PK_NEGATIVE];
    if (value >= histogram->max) {
        uint64_t above = value == INFINITY ? 0 : histogram->infinite_counts[PK_POSITIVE];
        return (double)(histogram->count - above) / (double)histogram->count;
    }
    if (value < histogram->min) {
        return below / (double)histogram->count;
    }
    below += (double)histogram->over_counts[PK_NEGATIVE];
    if (value < 0) {
        below += count_side(histogram, PK_NEGATIVE) -
                 count_below(histogram, PK_NEGATIVE, -value);
    } else {
        below += count_side(histogram, PK_NEGATIVE);
        below += (double)(histogram->zero_count + histogram->under_count);
        below += count_below(histogram, PK_POSITIVE, value);
    }
    return below / (double)histogram->count;
}
