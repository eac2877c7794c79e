/* Sums and differences of histograms. */
#include "pk_histogram.h"

#include <errno.h>
#include <math.h>

static bool is_same_range(const pk_histogram *histogram, const pk_histogram *other)
{
    return histogram->low_exponent == other->low_exponent &&
           histogram->high_exponent == other->high_exponent &&
           histogram->mapping->scale <= other->mapping->scale;
}

/* The slots that the other has counts in. */
typedef struct {
    uint32_t first;
    uint32_t last;
    bool is_used;
} used_slots;

static used_slots find_used(const pk_histogram *histogram, pk_sign sign)
{
    used_slots found;
    found.is_used = pk_histogram_find_used(histogram, sign, &found.first, &found.last);
    return found;
}

static void add_side(pk_histogram *histogram, const pk_histogram *other, pk_sign sign,
                     used_slots used)
{
    uint32_t step = other->mapping->scale - histogram->mapping->scale;
    const pk_buckets *buckets = &other->buckets[sign];
    const uint64_t *from = buckets->counts + (used.first - buckets->first_slot);
    uint64_t *to = histogram->buckets[sign].counts;
    uint32_t to_first = histogram->buckets[sign].first_slot;
    if (step == 0) {
        to += used.first - to_first;
        for (uint32_t i = 0; i <= used.last - used.first; i++) {
            to[i] += from[i];
        }
        return;
    }
    for (uint32_t slot = used.first; slot <= used.last; slot++) {
        to[(slot >> step) - to_first] += from[slot - used.first];
    }
}

/* Makes room for both signs, then adds; so nothing is added where there is no room. */
static int add_buckets(pk_histogram *histogram, const pk_histogram *other)
{
    uint32_t step = other->mapping->scale - histogram->mapping->scale;
    used_slots used[PK_SIGN_COUNT];
    int error = 0;
    for (int sign = 0; error == 0 && sign < PK_SIGN_COUNT; sign++) {
        used[sign] = find_used(other, sign);
        if (used[sign].is_used) {
            error = pk_histogram_reserve(histogram, sign, used[sign].first >> step,
                                         used[sign].last >> step);
        }
    }
    for (int sign = 0; error == 0 && sign < PK_SIGN_COUNT; sign++) {
        if (used[sign].is_used) {
            add_side(histogram, other, sign, used[sign]);
        }
    }
    return error;
}

int pk_histogram_merge(pk_histogram *histogram, const pk_histogram *other)
{
    if (!is_same_range(histogram, other)) {
        return EINVAL;
    }
    if (other->count + other->nan_count >
        PK_COUNT_LIMIT - histogram->count - histogram->nan_count) {
        return EOVERFLOW;
    }
    int error = add_buckets(histogram, other);
    if (error != 0) {
        return error;
    }
    for (int sign = 0; sign < PK_SIGN_COUNT; sign++) {
        histogram->over_counts[sign] += other->over_counts[sign];
        histogram->infinite_counts[sign] += other->infinite_counts[sign];
    }
    histogram->count += other->count;
    histogram->zero_count += other->zero_count;
    histogram->under_count += other->under_count;
    histogram->nan_count += other->nan_count;
    histogram->subnormal_count += other->subnormal_count;
    histogram->sum += other->sum;
    histogram->min = other->min < histogram->min ? other->min : histogram->min;
    histogram->max = other->max > histogram->max ? other->max : histogram->max;
    return 0;
}

/* Whether the earlier state counted no more in any bucket, at the scale of the histogram. */
static bool is_earlier_side(const pk_histogram *histogram, const pk_histogram *earlier,
                            pk_sign sign)
{
    uint32_t step = earlier->mapping->scale - histogram->mapping->scale;
    const pk_buckets *buckets = &earlier->buckets[sign];
    uint64_t sum = 0;
    for (uint32_t i = 0; i < buckets->length; i++) {
        uint32_t slot = (buckets->first_slot + i) >> step;
        uint32_t next = (buckets->first_slot + i + 1) >> step;
        sum += buckets->counts[i];
        if (sum > pk_buckets_at(&histogram->buckets[sign], slot)) {
            return false;
        }
        sum = next == slot ? sum : 0;
    }
    return earlier->over_counts[sign] <= histogram->over_counts[sign] &&
           earlier->infinite_counts[sign] <= histogram->infinite_counts[sign];
}

static bool is_earlier(const pk_histogram *histogram, const pk_histogram *earlier)
{
    return earlier->zero_count <= histogram->zero_count &&
           earlier->under_count <= histogram->under_count &&
           earlier->nan_count <= histogram->nan_count &&
           earlier->subnormal_count <= histogram->subnormal_count &&
           is_earlier_side(histogram, earlier, PK_POSITIVE) &&
           is_earlier_side(histogram, earlier, PK_NEGATIVE);
}

static void subtract_side(pk_histogram *histogram, const pk_histogram *earlier, pk_sign sign)
{
    uint32_t step = earlier->mapping->scale - histogram->mapping->scale;
    const pk_buckets *buckets = &earlier->buckets[sign];
    pk_buckets *to = &histogram->buckets[sign];
    for (uint32_t i = 0; i < buckets->length; i++) {
        if (buckets->counts[i] != 0) {
            to->counts[((buckets->first_slot + i) >> step) - to->first_slot] -= buckets->counts[i];
        }
    }
    histogram->over_counts[sign] -= earlier->over_counts[sign];
    histogram->infinite_counts[sign] -= earlier->infinite_counts[sign];
}

/* The least interval that holds all that can be left. */
typedef struct {
    double low;
    double high;
} interval;

static void widen(interval *held, double low, double high)
{
    held->low = low < held->low ? low : held->low;
    held->high = high > held->high ? high : held->high;
}

/* What the buckets of a sign hold, of either sign in the end: magnitudes from low to high. */
static void widen_by_side(const pk_histogram *histogram, pk_sign sign, interval *held)
{
    const pk_bucketing *mapping = histogram->mapping;
    double range_high = pk_bucketing_lower(mapping, pk_histogram_range_end(histogram));
    interval magnitudes = {INFINITY, -INFINITY};
    uint32_t first;
    uint32_t last;
    if (pk_histogram_find_used(histogram, sign, &first, &last)) {
        /* Subnormal numbers lie below the lower bound of their slot. */
        bool is_least = first == pk_bucketing_least_slot(mapping);
        double least = is_least ? 0 : pk_bucketing_lower(mapping, first);
        widen(&magnitudes, least, pk_bucketing_upper(mapping, last));
    }
    if (histogram->over_counts[sign] > 0) {
        widen(&magnitudes, range_high, INFINITY);
    }
    if (magnitudes.low <= magnitudes.high) {
        bool is_positive = sign == PK_POSITIVE;
        widen(held, is_positive ? magnitudes.low : -magnitudes.high,
              is_positive ? magnitudes.high : -magnitudes.low);
    }
}

/* Which values are gone is not known: min and max become what the counts left allow, within what
 * they were. */
static void find_extremes(pk_histogram *histogram)
{
    interval held = {INFINITY, -INFINITY};
    widen_by_side(histogram, PK_POSITIVE, &held);
    widen_by_side(histogram, PK_NEGATIVE, &held);
    if (histogram->zero_count > 0) {
        widen(&held, 0, 0);
    }
    if (histogram->under_count > 0) {
        uint32_t range_first = pk_histogram_range_first(histogram);
        double range_low = pk_bucketing_lower(histogram->mapping, range_first);
        widen(&held, -range_low, range_low);
    }
    bool is_empty = held.low > held.high;
    histogram->min = is_empty || held.low > histogram->min ? held.low : histogram->min;
    histogram->max = is_empty || held.high < histogram->max ? held.high : histogram->max;
    histogram->sum = is_empty ? 0 : histogram->sum;
}

int pk_histogram_subtract(pk_histogram *histogram, const pk_histogram *earlier)
{
    if (!is_same_range(histogram, earlier)) {
        return EINVAL;
    }
    if (!is_earlier(histogram, earlier)) {
        return EDOM;
    }
    subtract_side(histogram, earlier, PK_POSITIVE);
    subtract_side(histogram, earlier, PK_NEGATIVE);
    histogram->count -= earlier->count;
    histogram->zero_count -= earlier->zero_count;
    histogram->under_count -= earlier->under_count;
    histogram->nan_count -= earlier->nan_count;
    histogram->subnormal_count -= earlier->subnormal_count;
    histogram->sum -= earlier->sum;
    find_extremes(histogram);
    return 0;
}
