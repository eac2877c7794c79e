/* Sixteen values at a time with AVX-512.
 *
 * One is taken from the patterns, so that buckets begin at their bounds, and only the upper halves
 * are looked at: 19 bits of the mantissa. The correction of each comes from registers. Groups with
 * a value that these bits leave undecided (0.2 % of random ones), or that is neither plain nor
 * zero, are counted one by one from what was loaded. */
#include "pk_fill.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 8)

#include <immintrin.h>
#include <math.h>

enum {
    PREFETCH_BYTES = 32 * 1024,
    LAG_COUNT = 4,      /* groups between an index and its count */
    PART_SHIFT = 13,    /* of the upper half: its first 7 bits of mantissa */
    PART_TOP_BIT = 19,  /* the first of these */
    LEAST_PLAIN = 0x00100000,
    PLAIN_COUNT = 0x7fdfffff, /* upper halves from there on that are plain for certain */
};

typedef struct {
    __m512i tables[4];
    __m512i rest_mask; /* bits that a bucket's number does not have */
    __m128i shift;
} corrections;

typedef struct {
    __m512d sums[2];
    __m512d min;
    __m512d max;
    uint64_t zero_count;
} statistics;

#define PK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define PK_INLINE static inline __attribute__((always_inline)) PK_TARGET

bool pk_fill_has_vector(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

PK_INLINE corrections load_corrections(const pk_bucketing *mapping)
{
    uint32_t shift = PK_VECTOR_MANTISSA_BITS - mapping->scale;
    corrections loaded;
    for (int i = 0; i < 4; i++) {
        loaded.tables[i] = _mm512_loadu_si512(mapping->vector_corrections + 32 * i);
    }
    loaded.rest_mask = _mm512_set1_epi32((1 << shift) - 1);
    loaded.shift = _mm_cvtsi32_si128((int)shift);
    return loaded;
}

PK_INLINE void load_group(pk_number number, const char *values, __m512d ret[2])
{
    if (number == PK_FLOAT32) {
        __m512 singles = _mm512_loadu_ps(values);
        ret[0] = _mm512_cvtps_pd(_mm512_castps512_ps256(singles));
        ret[1] = _mm512_cvtps_pd(_mm512_extractf32x8_ps(singles, 1));
        return;
    }
    __m512i low = _mm512_loadu_si512(values);
    __m512i high = _mm512_loadu_si512(values + 64);
    if (number == PK_INT64) {
        ret[0] = _mm512_cvtepi64_pd(low);
        ret[1] = _mm512_cvtepi64_pd(high);
    } else if (number == PK_UINT64) {
        ret[0] = _mm512_cvtepu64_pd(low);
        ret[1] = _mm512_cvtepu64_pd(high);
    } else {
        ret[0] = _mm512_castsi512_pd(low);
        ret[1] = _mm512_castsi512_pd(high);
    }
}

/* Keeps a group in registers: the compiler may not read memory, which may have changed, again. */
PK_INLINE void hold_group(__m512d group[2])
{
    __asm__ volatile("" : "+v"(group[0]), "+v"(group[1]));
}

/* The slots of a group; a mask of those that may be wrong. */
PK_INLINE __mmask16 find_slots(const corrections *with, const __m512d group[2], __m512i *ret)
{
    const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    const __mmask32 even_words = 0x55555555;
    __m512i ones = _mm512_set1_epi64(1);
    __m512i low = _mm512_sub_epi64(_mm512_castpd_si512(group[0]), ones);
    __m512i high = _mm512_sub_epi64(_mm512_castpd_si512(group[1]), ones);
    __m512i upper = _mm512_permutex2var_epi32(low, odd, high);
    __m512i part = _mm512_srli_epi32(upper, PART_SHIFT);
    __m512i first =
        _mm512_maskz_permutex2var_epi16(even_words, with->tables[0], part, with->tables[1]);
    __m512i second =
        _mm512_maskz_permutex2var_epi16(even_words, with->tables[2], part, with->tables[3]);
    __mmask16 is_second = _mm512_test_epi32_mask(upper, _mm512_set1_epi32(1 << PART_TOP_BIT));
    __m512i correction = _mm512_mask_blend_epi32(is_second, first, second);
    __m512i sum = _mm512_add_epi32(_mm512_srli_epi32(upper, 1), correction);
    __mmask16 undecided = _mm512_testn_epi32_mask(sum, with->rest_mask);
    __mmask16 special = _mm512_cmpge_epu32_mask(
        _mm512_sub_epi32(upper, _mm512_set1_epi32(LEAST_PLAIN)), _mm512_set1_epi32(PLAIN_COUNT));
    *ret = _mm512_srl_epi32(sum, with->shift);
    return undecided | special;
}

/* Sends zeros to the slot of infinity, which no number has; false where `odd` has others too. */
PK_INLINE bool move_zeros(__mmask16 odd, uint32_t zero_slot, __m512d group[2], __m512i *slots,
                          statistics *statistics)
{
    const __m512i magnitude = _mm512_set1_epi64(INT64_MAX);
    __mmask8 low = _mm512_testn_epi64_mask(_mm512_castpd_si512(group[0]), magnitude);
    __mmask8 high = _mm512_testn_epi64_mask(_mm512_castpd_si512(group[1]), magnitude);
    __mmask16 zero = (__mmask16)(low | (uint32_t)high << 8);
    if ((odd & ~zero) != 0) {
        return false;
    }
    __m512d none = _mm512_set1_pd(INFINITY); /* the least plain value is another one */
    statistics->min = _mm512_min_pd(statistics->min, _mm512_mask_mov_pd(group[0], low, none));
    statistics->min = _mm512_min_pd(statistics->min, _mm512_mask_mov_pd(group[1], high, none));
    statistics->zero_count += (uint64_t)__builtin_popcount(zero);
    *slots = _mm512_mask_set1_epi32(*slots, zero, (int)zero_slot);
    return true;
}

PK_INLINE void count_group(uint32_t *counters, size_t stride, const uint32_t *slots)
{
    for (int i = 0; i < PK_FILL_GROUP_COUNT; i += PK_FILL_SET_COUNT) {
        counters[slots[i]]++;
        counters[stride + slots[i + 1]]++;
        counters[2 * stride + slots[i + 2]]++;
        counters[3 * stride + slots[i + 3]]++;
    }
}

PK_TARGET static __attribute__((noinline)) void count_one_by_one(pk_scratch *scratch,
                                                                 const pk_bucketing *mapping,
                                                                 const __m512d group[2])
{
    double values[PK_FILL_GROUP_COUNT];
    _mm512_storeu_pd(values, group[0]);
    _mm512_storeu_pd(values + 8, group[1]);
    for (int i = 0; i < PK_FILL_GROUP_COUNT; i++) {
        pk_fill_count(scratch, mapping, values[i]);
    }
}

PK_INLINE void add_statistics(statistics *statistics, const __m512d group[2])
{
    statistics->sums[0] = _mm512_add_pd(statistics->sums[0], group[0]);
    statistics->sums[1] = _mm512_add_pd(statistics->sums[1], group[1]);
    statistics->max = _mm512_max_pd(statistics->max, _mm512_max_pd(group[0], group[1]));
}

PK_INLINE void note_min(statistics *statistics, const __m512d group[2])
{
    statistics->min = _mm512_min_pd(statistics->min, _mm512_min_pd(group[0], group[1]));
}

/* Zeros were counted with the others of their groups; their counters are no bucket's. */
PK_INLINE void finish_zeros(pk_scratch *scratch, size_t stride, uint32_t zero_slot,
                            uint64_t zero_count)
{
    pk_tally *tally = &scratch->tally;
    if (zero_count == 0) {
        return;
    }
    for (size_t set = 0; set < PK_FILL_SET_COUNT; set++) {
        scratch->counters[set * stride + zero_slot] = 0;
    }
    tally->zero_count += zero_count;
    tally->min = tally->min > 0 ? 0 : tally->min;
    tally->max = tally->max < 0 ? 0 : tally->max;
}

PK_INLINE void finish(pk_scratch *scratch, const pk_bucketing *mapping,
                      const statistics *statistics, size_t head)
{
    scratch->tally.count += head * PK_FILL_GROUP_COUNT;
    scratch->tally.sum +=
        _mm512_reduce_add_pd(_mm512_add_pd(statistics->sums[0], statistics->sums[1]));
    pk_fill_note(scratch, mapping, _mm512_reduce_min_pd(statistics->min),
                 _mm512_reduce_max_pd(statistics->max));
}

PK_INLINE size_t fill(pk_scratch *scratch, const pk_bucketing *mapping, pk_number number,
                      const char *values, size_t count)
{
    size_t group_bytes = PK_FILL_GROUP_COUNT * pk_number_bytes(number);
    size_t stride = pk_scratch_stride(mapping);
    const uint32_t zero_slot = 2047U << mapping->scale;
    size_t head = 0; /* groups put into the ring */
    corrections with = load_corrections(mapping);
    statistics kept = {
        .min = _mm512_set1_pd(INFINITY),
        .max = _mm512_set1_pd(-INFINITY),
    };
    for (; count >= PK_FILL_GROUP_COUNT; count -= PK_FILL_GROUP_COUNT, values += group_bytes) {
        _mm_prefetch(values + PREFETCH_BYTES, _MM_HINT_T1);
        _mm_prefetch(values + PREFETCH_BYTES + 64, _MM_HINT_T1);
        __m512d group[2];
        __m512i slots;
        load_group(number, values, group);
        hold_group(group);
        __mmask16 odd = find_slots(&with, group, &slots);
        if (__builtin_expect(odd == 0, 1)) {
            note_min(&kept, group);
        } else if (!move_zeros(odd, zero_slot, group, &slots, &kept)) {
            count_one_by_one(scratch, mapping, group);
            continue;
        }
        add_statistics(&kept, group);
        _mm512_store_si512(scratch->ring[head % PK_FILL_RING_COUNT], slots);
        if (head >= LAG_COUNT) {
            count_group(scratch->counters, stride,
                        scratch->ring[(head - LAG_COUNT) % PK_FILL_RING_COUNT]);
        }
        head++;
    }
    for (size_t i = head > LAG_COUNT ? head - LAG_COUNT : 0; i < head; i++) {
        count_group(scratch->counters, stride, scratch->ring[i % PK_FILL_RING_COUNT]);
    }
    finish(scratch, mapping, &kept, head);
    finish_zeros(scratch, stride, zero_slot, kept.zero_count);
    return count;
}

PK_TARGET size_t pk_fill_vector(pk_scratch *scratch, const pk_bucketing *mapping, pk_number number,
                                const void *values, size_t count)
{
    switch (number) {
    case PK_FLOAT64:
        return fill(scratch, mapping, PK_FLOAT64, values, count);
    case PK_FLOAT32:
        return fill(scratch, mapping, PK_FLOAT32, values, count);
    case PK_INT64:
        return fill(scratch, mapping, PK_INT64, values, count);
    case PK_UINT64:
        return fill(scratch, mapping, PK_UINT64, values, count);
    default:
        return count;
    }
}

#else

bool pk_fill_has_vector(void)
{
    return false;
}

size_t pk_fill_vector(pk_scratch *scratch, const pk_bucketing *mapping, pk_number number,
                      const void *values, size_t count)
{
    (void)scratch;
    (void)mapping;
    (void)number;
    (void)values;
    return count;
}

#endif
