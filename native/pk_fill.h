/* Counts whole arrays: into counters of a scratch first, without looking at any histogram, so that
 * nothing has to be locked meanwhile; then these are added to a histogram.
 *
 * The scratch has a counter for every pattern of sign, exponent and bucket, so the loop needs no
 * bounds check. Pages are taken as they are touched. There are four sets of counters, in turn,
 * since increments of one counter wait for one another. Each value of the caller's array is read
 * once: another thread may write it meanwhile. */
#ifndef PK_FILL_H
#define PK_FILL_H
#include "pk_histogram.h"

enum {
    PK_FILL_SET_COUNT = 4,
    PK_FILL_GROUP_COUNT = 16, /* what the vector kernel takes at once */
    PK_FILL_RING_COUNT = 8,
    /* Counters have 32 bits: at most so many values between two folds. */
    PK_FILL_VALUE_LIMIT = 1 << 30,
};

typedef enum {
    PK_FLOAT64,
    PK_FLOAT32,
    PK_INT64,
    PK_UINT64,
    PK_INT32,
    PK_UINT32,
    PK_NUMBER_COUNT,
} pk_number;

typedef enum {
    PK_KERNEL_SCALAR,
    PK_KERNEL_VECTOR, /* AVX-512; refused where pk_fill_has_vector says no */
} pk_kernel;

/* What is not in the counters. Slots are those of magnitudes; first > last: none. */
typedef struct {
    uint64_t count; /* without NaN */
    uint64_t zero_count;
    uint64_t nan_count;
    uint64_t subnormal_count;
    uint64_t infinite_counts[PK_SIGN_COUNT];
    double sum; /* of what is finite, as min and max */
    double min;
    double max;
    uint32_t firsts[PK_SIGN_COUNT];
    uint32_t lasts[PK_SIGN_COUNT];
} pk_tally;

typedef struct {
    /* Indices wait here for a few groups before they are counted: the vector unit works ahead. */
    _Alignas(64) uint32_t ring[PK_FILL_RING_COUNT][PK_FILL_GROUP_COUNT];
    pk_tally tally;
    _Alignas(64) uint32_t counters[];
} pk_scratch;

/* ENOMEM. To be used by one thread at a time. */
int pk_scratch_new(pk_scratch **ret);
void pk_scratch_free(pk_scratch *scratch);

/* Gives back the pages of counters where a fill has touched many; else does nothing. */
void pk_scratch_trim(pk_scratch *scratch, const pk_bucketing *mapping);

size_t pk_number_bytes(pk_number number);
bool pk_fill_has_vector(void);

/* Counts values, which need no alignment, into an empty scratch. At most PK_FILL_VALUE_LIMIT. */
void pk_fill(pk_scratch *scratch, const pk_bucketing *mapping, pk_kernel kernel, pk_number number,
             const void *values, size_t count);

/* Adds to the histogram, of the same mapping, what the scratch holds, which is empty afterwards,
 * also where it fails. ENOMEM, EOVERFLOW. */
int pk_fill_fold(pk_scratch *scratch, pk_histogram *histogram);

/* For kernels. How many counters lie between two sets. */
size_t pk_scratch_stride(const pk_bucketing *mapping);
/* Counts a value of any kind. */
void pk_fill_count(pk_scratch *scratch, const pk_bucketing *mapping, double value);
/* Takes note of plain values that were counted, by their extremes. */
void pk_fill_note(pk_scratch *scratch, const pk_bucketing *mapping, double min, double max);
/* Counts values by AVX-512, where the mapping's scale is at most PK_VECTOR_SCALE_MAX and the number
 * is one of the first four; how many of them, the last ones, it did not. */
size_t pk_fill_vector(pk_scratch *scratch, const pk_bucketing *mapping, pk_number number,
                      const void *values, size_t count);

#endif
