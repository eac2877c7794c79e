/* The scratch, the scalar kernel, and the way into a histogram. */
#include "pk_fill.h"

#include <errno.h>
#include <math.h>
#include <sys/mman.h>

enum {
    SET_SLOTS_PER_OCTAVE = 4096, /* sign and exponent */
    /* Between sets, so that a bucket's four counters differ in the low 12 bits of their address:
     * the processor takes equal ones for the same place when it orders loads and stores. */
    SET_GAP = (1024 + 64) / sizeof(uint32_t),
    BLOCK_COUNT = 512,            /* values that are converted at once */
    SUM_COUNT = 1 << 16,          /* values of one partial sum */
    TRIM_SLOT_COUNT = 1 << 16,
};

size_t pk_scratch_stride(const pk_bucketing *mapping)
{
    return ((size_t)SET_SLOTS_PER_OCTAVE << mapping->scale) + SET_GAP;
}

static size_t scratch_bytes(void)
{
    size_t stride = ((size_t)SET_SLOTS_PER_OCTAVE << PK_SCALE_MAX) + SET_GAP;
    return sizeof(pk_scratch) + PK_FILL_SET_COUNT * stride * sizeof(uint32_t);
}

static void clear_tally(pk_tally *tally)
{
    *tally = (pk_tally){
        .min = INFINITY,
        .max = -INFINITY,
        .firsts = {UINT32_MAX, UINT32_MAX},
    };
}

int pk_scratch_new(pk_scratch **ret)
{
    void *memory = mmap(NULL, scratch_bytes(), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return ENOMEM;
    }
    /* A few kilobytes are touched, here and there: no page of 2 MiB for each. */
    (void)madvise(memory, scratch_bytes(), MADV_NOHUGEPAGE);
    *ret = memory;
    clear_tally(&(*ret)->tally);
    return 0;
}

void pk_scratch_free(pk_scratch *scratch)
{
    if (scratch != NULL) {
        munmap(scratch, scratch_bytes());
    }
}

size_t pk_number_bytes(pk_number number)
{
    return number == PK_FLOAT32 || number == PK_INT32 || number == PK_UINT32 ? 4 : 8;
}

static void note_slot(pk_tally *tally, pk_sign sign, uint32_t slot)
{
    tally->firsts[sign] = slot < tally->firsts[sign] ? slot : tally->firsts[sign];
    tally->lasts[sign] = slot > tally->lasts[sign] ? slot : tally->lasts[sign];
}

static void note_finite(pk_tally *tally, double value)
{
    tally->count++;
    tally->sum += value;
    tally->min = value < tally->min ? value : tally->min;
    tally->max = value > tally->max ? value : tally->max;
}

void pk_fill_note(pk_scratch *scratch, const pk_bucketing *mapping, double min, double max)
{
    pk_tally *tally = &scratch->tally;
    if (min > max) {
        return;
    }
    note_slot(tally, PK_POSITIVE, pk_bucketing_slot(mapping, pk_to_bits(min)));
    note_slot(tally, PK_POSITIVE, pk_bucketing_slot(mapping, pk_to_bits(max)));
    tally->min = min < tally->min ? min : tally->min;
    tally->max = max > tally->max ? max : tally->max;
}

void pk_fill_count(pk_scratch *scratch, const pk_bucketing *mapping, double value)
{
    pk_tally *tally = &scratch->tally;
    uint64_t bits = pk_to_bits(value);
    uint64_t magnitude = bits & ~PK_SIGN_BIT;
    pk_sign sign = bits == magnitude ? PK_POSITIVE : PK_NEGATIVE;
    if (magnitude > PK_INFINITY_BITS) {
        tally->nan_count++;
    } else if (magnitude == PK_INFINITY_BITS) {
        tally->infinite_counts[sign]++;
        tally->count++;
    } else if (magnitude == 0) {
        tally->zero_count++;
        note_finite(tally, 0);
    } else {
        bool is_subnormal = magnitude < PK_LEAST_NORMAL_BITS;
        uint32_t slot = is_subnormal ? pk_bucketing_least_slot(mapping)
                                     : pk_bucketing_slot(mapping, magnitude);
        tally->subnormal_count += is_subnormal;
        uint32_t side = sign == PK_NEGATIVE ? 2048U << mapping->scale : 0;
        scratch->counters[side + slot]++;
        note_slot(tally, sign, slot);
        note_finite(tally, value);
    }
}

/* Every fourth value's sum and extremes: in one of each, additions would wait for one another. */
typedef struct {
    uint32_t *counters;
    double sum;
    double min;
    double max;
} lane;

static inline void count_plain(lane *lane, pk_shifts shifts, double value)
{
    lane->counters[pk_shifts_slot(shifts, pk_to_bits(value))]++;
    lane->sum += value;
    lane->min = value < lane->min ? value : lane->min;
    lane->max = value > lane->max ? value : lane->max;
}

static void note_lane(pk_scratch *scratch, const pk_bucketing *mapping, lane lane)
{
    scratch->tally.sum += lane.sum;
    pk_fill_note(scratch, mapping, lane.min, lane.max);
}

static inline lane make_lane(pk_scratch *scratch, size_t first_counter)
{
    return (lane){
        .counters = scratch->counters + first_counter,
        .min = INFINITY,
        .max = -INFINITY,
    };
}

static inline bool are_plain(const double four[PK_FILL_SET_COUNT])
{
    return pk_is_plain(pk_to_bits(four[0])) & pk_is_plain(pk_to_bits(four[1])) &
           pk_is_plain(pk_to_bits(four[2])) & pk_is_plain(pk_to_bits(four[3]));
}

/* Counts doubles one by one; the common ones four at a time. */
static void fill_block(pk_scratch *scratch, const pk_bucketing *mapping, const double *values,
                       size_t count)
{
    /* A copy that no counter can be a part of, so that it stays in registers. */
    const pk_shifts shifts = pk_bucketing_shifts(mapping);
    size_t stride = pk_scratch_stride(mapping);
    lane a = make_lane(scratch, 0);
    lane b = make_lane(scratch, stride);
    lane c = make_lane(scratch, 2 * stride);
    lane d = make_lane(scratch, 3 * stride);
    size_t plain_count = 0;
    size_t i = 0;
    for (; i + PK_FILL_SET_COUNT <= count; i += PK_FILL_SET_COUNT) {
        const double *four = values + i;
        if (!are_plain(four)) {
            for (int k = 0; k < PK_FILL_SET_COUNT; k++) {
                pk_fill_count(scratch, mapping, four[k]);
            }
            continue;
        }
        count_plain(&a, shifts, four[0]);
        count_plain(&b, shifts, four[1]);
        count_plain(&c, shifts, four[2]);
        count_plain(&d, shifts, four[3]);
        plain_count += PK_FILL_SET_COUNT;
    }
    for (; i < count; i++) {
        pk_fill_count(scratch, mapping, values[i]);
    }
    scratch->tally.count += plain_count;
    note_lane(scratch, mapping, a);
    note_lane(scratch, mapping, b);
    note_lane(scratch, mapping, c);
    note_lane(scratch, mapping, d);
}

/* A block of values as doubles: the one time that they are read. */
static void convert(pk_number number, const char *values, size_t count, double *ret)
{
    size_t item_bytes = pk_number_bytes(number);
    if (number == PK_FLOAT64) {
        memcpy(ret, values, count * sizeof(double));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        union {
            float float32;
            int64_t int64;
            uint64_t uint64;
            int32_t int32;
            uint32_t uint32;
        } item;
        memcpy(&item, values + i * item_bytes, item_bytes);
        switch (number) {
        case PK_FLOAT32:
            ret[i] = (double)item.float32;
            break;
        case PK_INT64:
            ret[i] = (double)item.int64;
            break;
        case PK_UINT64:
            ret[i] = (double)item.uint64;
            break;
        case PK_INT32:
            ret[i] = item.int32;
            break;
        default:
            ret[i] = item.uint32;
        }
    }
}

static void fill_scalar(pk_scratch *scratch, const pk_bucketing *mapping, pk_number number,
                        const char *values, size_t count)
{
    double block[BLOCK_COUNT];
    for (size_t done = 0; done < count; done += BLOCK_COUNT) {
        size_t block_count = count - done < BLOCK_COUNT ? count - done : BLOCK_COUNT;
        convert(number, values + done * pk_number_bytes(number), block_count, block);
        fill_block(scratch, mapping, block, block_count);
    }
}

void pk_fill(pk_scratch *scratch, const pk_bucketing *mapping, pk_kernel kernel, pk_number number,
             const void *values, size_t count)
{
    bool is_vector = kernel == PK_KERNEL_VECTOR && mapping->scale <= PK_VECTOR_SCALE_MAX &&
                     number <= PK_UINT64;
    const char *bytes = values;
    while (count > 0) {
        size_t part_count = count < SUM_COUNT ? count : SUM_COUNT;
        size_t left = part_count;
        if (is_vector) {
            left = pk_fill_vector(scratch, mapping, number, bytes, part_count);
        }
        size_t done_bytes = (part_count - left) * pk_number_bytes(number);
        fill_scalar(scratch, mapping, number, bytes + done_bytes, left);
        bytes += part_count * pk_number_bytes(number);
        count -= part_count;
    }
}

/* Adds one sign's counters to the histogram's, whose room is there, and clears them. */
static void fold_side(pk_scratch *scratch, pk_histogram *histogram, pk_sign sign, bool is_wanted)
{
    size_t stride = pk_scratch_stride(histogram->mapping);
    size_t side = sign == PK_NEGATIVE ? 2048U << histogram->mapping->scale : 0;
    pk_buckets *buckets = &histogram->buckets[sign];
    uint32_t range_first = pk_histogram_range_first(histogram);
    uint32_t range_end = pk_histogram_range_end(histogram);
    uint32_t last = scratch->tally.lasts[sign];
    for (uint32_t slot = scratch->tally.firsts[sign]; slot <= last; slot++) {
        uint64_t count = 0;
        for (size_t set = 0; set < PK_FILL_SET_COUNT; set++) {
            uint32_t *counter = &scratch->counters[set * stride + side + slot];
            count += *counter;
            *counter = 0;
        }
        if (!is_wanted) {
            continue;
        }
        if (slot >= range_first && slot < range_end) {
            buckets->counts[slot - buckets->first_slot] += count;
        } else if (slot < range_first) {
            histogram->under_count += count;
        } else {
            histogram->over_counts[sign] += count;
        }
    }
}

/* Room for what one sign's counters have within the range. */
static int reserve_side(const pk_tally *tally, pk_histogram *histogram, pk_sign sign)
{
    uint32_t first = pk_histogram_range_first(histogram);
    uint32_t last = pk_histogram_range_end(histogram) - 1;
    first = tally->firsts[sign] > first ? tally->firsts[sign] : first;
    last = tally->lasts[sign] < last ? tally->lasts[sign] : last;
    return first > last ? 0 : pk_histogram_reserve(histogram, sign, first, last);
}

static void fold_tally(const pk_tally *tally, pk_histogram *histogram)
{
    histogram->count += tally->count;
    histogram->zero_count += tally->zero_count;
    histogram->nan_count += tally->nan_count;
    histogram->subnormal_count += tally->subnormal_count;
    histogram->infinite_counts[PK_POSITIVE] += tally->infinite_counts[PK_POSITIVE];
    histogram->infinite_counts[PK_NEGATIVE] += tally->infinite_counts[PK_NEGATIVE];
    histogram->sum += tally->sum;
    histogram->min = tally->min < histogram->min ? tally->min : histogram->min;
    histogram->max = tally->max > histogram->max ? tally->max : histogram->max;
}

int pk_fill_fold(pk_scratch *scratch, pk_histogram *histogram)
{
    const pk_tally *tally = &scratch->tally;
    bool is_over = tally->count + tally->nan_count >
                   PK_COUNT_LIMIT - histogram->count - histogram->nan_count;
    int error = is_over ? EOVERFLOW : reserve_side(tally, histogram, PK_POSITIVE);
    error = error == 0 ? reserve_side(tally, histogram, PK_NEGATIVE) : error;
    fold_side(scratch, histogram, PK_POSITIVE, error == 0);
    fold_side(scratch, histogram, PK_NEGATIVE, error == 0);
    if (error == 0) {
        fold_tally(tally, histogram);
    }
    pk_scratch_trim(scratch, histogram->mapping);
    clear_tally(&scratch->tally);
    return error;
}

void pk_scratch_trim(pk_scratch *scratch, const pk_bucketing *mapping)
{
    const pk_tally *tally = &scratch->tally;
    uint64_t touched_count = 0;
    for (int sign = 0; sign < PK_SIGN_COUNT; sign++) {
        if (tally->firsts[sign] <= tally->lasts[sign]) {
            touched_count += tally->lasts[sign] - tally->firsts[sign] + 1;
        }
    }
    if (touched_count > TRIM_SLOT_COUNT) {
        size_t page_bytes = 4096;
        size_t bytes = PK_FILL_SET_COUNT * pk_scratch_stride(mapping) * sizeof(uint32_t);
        (void)madvise((char *)scratch + page_bytes, bytes - page_bytes, MADV_DONTNEED);
    }
}
