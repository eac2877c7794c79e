/* A histogram of numbers in base-2 exponential buckets (pk_bucketing.h), of one writer at a time.
 *
 * What is recorded is counted once: in a bucket of its sign, or as zero, as outside of the range,
 * or as infinite; what is no number is counted beside. Buckets are two windows that grow as needed
 * within the range, so the memory of one is bounded by 2 * 8 bytes * slots of the range.
 * Functions that can fail give 0 or an errno value, and have changed nothing where they fail. */
#ifndef PK_HISTOGRAM_H
#define PK_HISTOGRAM_H
#include "pk_bucketing.h"

enum {
    PK_EXPONENT_MIN = -1023, /* the widest range: every finite number */
    PK_EXPONENT_MAX = 1024,
};

/* At most so many are counted, those that are no number included; beyond it EOVERFLOW. */
static const uint64_t PK_COUNT_LIMIT = INT64_MAX;

typedef enum { PK_POSITIVE, PK_NEGATIVE, PK_SIGN_COUNT } pk_sign;

/* Counts of the slots from first_slot on. */
typedef struct {
    uint32_t first_slot;
    uint32_t length;
    uint64_t *counts; /* owned; NULL where length is 0 */
} pk_buckets;

typedef struct {
    const pk_bucketing *mapping;
    int32_t low_exponent; /* magnitudes in (2^low, 2^high] have buckets */
    int32_t high_exponent;
    pk_buckets buckets[PK_SIGN_COUNT]; /* of magnitudes */
    uint64_t count;                    /* of all below but NaN */
    uint64_t zero_count;
    uint64_t under_count; /* not zero, of a magnitude below the range */
    uint64_t over_counts[PK_SIGN_COUNT];
    uint64_t infinite_counts[PK_SIGN_COUNT];
    uint64_t nan_count;
    uint64_t subnormal_count; /* of those in buckets or under_count */
    double sum;               /* of what is finite */
    double min;               /* of what is finite; +inf and -inf where nothing is */
    double max;
} pk_histogram;

/* Makes an empty one; the mapping has to outlive it. */
void pk_histogram_init(pk_histogram *histogram, const pk_bucketing *mapping, int32_t low_exponent,
                       int32_t high_exponent);
void pk_histogram_deinit(pk_histogram *histogram);

/* Counts a value `count` times. ENOMEM, EOVERFLOW. */
int pk_histogram_add(pk_histogram *histogram, double value, uint64_t count);

/* Makes room for the slots from `first` to `last`, which lie in the range. ENOMEM. */
int pk_histogram_reserve(pk_histogram *histogram, pk_sign sign, uint32_t first, uint32_t last);

/* Slots of the range: from the first to before the end. */
uint32_t pk_histogram_range_first(const pk_histogram *histogram);
uint32_t pk_histogram_range_end(const pk_histogram *histogram);

/* Goes to a lower scale, in which pairs of buckets become one. */
void pk_histogram_downscale(pk_histogram *histogram, const pk_bucketing *mapping);

/* Makes `ret`, which is not initialised, a copy. ENOMEM. */
int pk_histogram_copy(const pk_histogram *histogram, pk_histogram *ret);

/* Adds what the other counted. EINVAL where ranges differ or the scale is higher than the other's,
 * EOVERFLOW, ENOMEM. */
int pk_histogram_merge(pk_histogram *histogram, const pk_histogram *other);

/* Takes away what an earlier state of it counted; min and max become bounds. As merge; EDOM where
 * the other counted more of anything. */
int pk_histogram_subtract(pk_histogram *histogram, const pk_histogram *earlier);

/* Whether all is the same but the sum, which depends on the order of additions. */
bool pk_histogram_equal(const pk_histogram *histogram, const pk_histogram *other);

/* The slots of a sign that have counts, first and last; false where none has. */
bool pk_histogram_find_used(const pk_histogram *histogram, pk_sign sign, uint32_t *ret_first,
                            uint32_t *ret_last);

/* What is counted at a slot. */
static inline uint64_t pk_buckets_at(const pk_buckets *buckets, uint32_t slot)
{
    uint32_t at = slot - buckets->first_slot;
    return at < buckets->length ? buckets->counts[at] : 0;
}

/* Counts a value once; ENOMEM, EOVERFLOW. */
static inline int pk_histogram_record(pk_histogram *histogram, double value)
{
    uint64_t bits = pk_to_bits(value);
    pk_buckets *buckets = &histogram->buckets[PK_POSITIVE];
    uint32_t at = pk_bucketing_slot(histogram->mapping, bits) - buckets->first_slot;
    if (!pk_is_plain(bits) || at >= buckets->length || histogram->count >= PK_COUNT_LIMIT) {
        return pk_histogram_add(histogram, value, 1);
    }
    buckets->counts[at]++;
    histogram->count++;
    histogram->sum += value;
    histogram->min = value < histogram->min ? value : histogram->min;
    histogram->max = value > histogram->max ? value : histogram->max;
    return 0;
}

#endif
