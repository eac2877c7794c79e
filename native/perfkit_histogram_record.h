/* How a number is counted in a shard of a shared histogram; part of perfkit_histogram.h.
 *
 * A shard's one writer loads and stores, the common one is added to atomically. Nothing here makes
 * a system call, waits or allocates, but for the first record in a thread or after a fork. */
#ifndef PERFKIT_HISTOGRAM_RECORD_H
#define PERFKIT_HISTOGRAM_RECORD_H
#include "perfkit_histogram_layout.h"

enum { PERFKIT_ATTEMPTS_MAX = 1000000 /* each that fails tells that another thread's did not */ };

struct perfkit_histogram;

/* In a page that is empty after a fork, and stays so: what was claimed before is told by it. */
typedef struct {
    uint32_t slot_count;
    uint32_t none; /* 0 */
} perfkit_process;

/* What one writer needs. */
typedef struct {
    perfkit_shard_head *head;
    const uint32_t *slot_count; /* in `process`; none where it writes the common shard */
    uint64_t low_bits; /* patterns up to span_bits above are within the extremes; at first none */
    uint64_t span_bits;
    uint32_t first_slot;
    bool is_process;
    const perfkit_process *process; /* in which it was claimed */
    uint64_t owner;
    struct perfkit_histogram *histogram;
} perfkit_shard;

/* The slots that have buckets. */
typedef struct {
    uint32_t first;
    uint32_t count;
} perfkit_slots;

/* What is added to a pattern so that it carries into the next bucket exactly from its bound on. */
static const uint64_t PERFKIT_CORRECTIONS[2 << PERFKIT_SCALE] = {
    0xffffffffffffffffULL, 0x00001365c1887f9fULL, 0x0000264f2cea7a8bULL, 0x0000200000000000ULL,
    0x000038bae78a6437ULL, 0x00004aa7930676f0ULL, 0x0000400000000000ULL, 0x00005c13cd2c2e5dULL,
    0x00006cfe2feda4afULL, 0x0000600000000000ULL, 0x00007d655156d220ULL, 0x00008d47c382ae85ULL,
    0x0000800000000000ULL, 0x00009ca41490348aULL, 0x0000ab78ce974655ULL, 0x0000a00000000000ULL,
    0x0000b9c4779d7329ULL, 0x0000c785918a9dc7ULL, 0x0000c00000000000ULL, 0x0000d4ba9a1d8322ULL,
    0x0000e1620ae0211eULL, 0x0000e00000000000ULL, 0x0000ed7a591bfcf4ULL, 0x0000e00000000000ULL,
    0x0000f901f5ce48eaULL, 0x000103f74d9be900ULL, 0x0001000000000000ULL, 0x00010e58c8c55635ULL,
    0x0001000000000000ULL, 0x00011824cb1a6009ULL, 0x00012159b3edcbddULL, 0x0001200000000000ULL,
    0x000129f5de08d1d6ULL, 0x0001200000000000ULL, 0x000131f79f9e76d2ULL, 0x0001200000000000ULL,
    0x0001395d4a3ec32fULL, 0x000140252ac9d5d8ULL, 0x0001400000000000ULL, 0x0001464d8962d359ULL,
    0x0001400000000000ULL, 0x00014bd4a962b07eULL, 0x0001400000000000ULL, 0x000150b8c94ad825ULL,
    0x0001400000000000ULL, 0x000154f822b7abd6ULL, 0x0001400000000000ULL, 0x00015890ea52deb7ULL,
    0x0001400000000000ULL, 0x00015b814fc5aa7bULL, 0x0001400000000000ULL, 0x00015dc77daadddbULL,
    0x0001400000000000ULL, 0x00015f619980c433ULL, 0x0001604dc39ae5d1ULL, 0x0001600000000000ULL,
    0x0001608a1713a08cULL, 0x0001600000000000ULL, 0x00016014a9bd9837ULL, 0x0001600000000000ULL,
    0x0001400000000000ULL, 0x00015eeb8c14fe79ULL, 0x0001400000000000ULL, 0x00015d0cc930b19dULL,
    0x0001400000000000ULL, 0x00015a7666b331edULL, 0x0001400000000000ULL, 0x0001572664bb6d13ULL,
    0x0001400000000000ULL, 0x0001531abdd55f24ULL, 0x0001400000000000ULL, 0x00014e5166ea88c9ULL,
    0x0001400000000000ULL, 0x000148c84f323a1bULL, 0x0001400000000000ULL, 0x0001427d6021b1b0ULL,
    0x0001400000000000ULL, 0x0001200000000000ULL, 0x00013b6e7d5c0f6fULL, 0x0001200000000000ULL,
    0x0001339984a21a9bULL, 0x0001200000000000ULL, 0x00012afc4dc1daa3ULL, 0x0001200000000000ULL,
    0x00012194aa860240ULL, 0x0001200000000000ULL, 0x0001000000000000ULL, 0x0001176066a52c52ULL,
    0x0001000000000000ULL, 0x00010c5d47b0ea05ULL, 0x0001000000000000ULL, 0x000100890d04a1b9ULL,
    0x0001000000000000ULL, 0x0000e00000000000ULL, 0x0000f3e16fb43e2dULL, 0x0000e00000000000ULL,
    0x0000e664227aad63ULL, 0x0000e00000000000ULL, 0x0000c00000000000ULL, 0x0000d80ed1a82eb4ULL,
    0x0000c00000000000ULL, 0x0000c8df23106f96ULL, 0x0000c00000000000ULL, 0x0000a00000000000ULL,
    0x0000b8d2b5f87684ULL, 0x0000a00000000000ULL, 0x0000a7e723045b78ULL, 0x0000a00000000000ULL,
    0x0000800000000000ULL, 0x00009619fc24cd7aULL, 0x0000800000000000ULL, 0x00008368cc8464a1ULL,
    0x0000800000000000ULL, 0x0000600000000000ULL, 0x00006fd11874c009ULL, 0x0000600000000000ULL,
    0x0000400000000000ULL, 0x00005b505d5b6f26ULL, 0x0000400000000000ULL, 0x000045e4119ea5d8ULL,
    0x0000400000000000ULL, 0x0000200000000000ULL, 0x00002f89a491babfULL, 0x0000200000000000ULL,
    0x0000000000000000ULL, 0x0000183e7e616f27ULL, 0x0000000000000000ULL, 0xffffe00000000000ULL,
};

/* The slot of a plain number, 1023 octaves above its OpenTelemetry index. */
static inline uint32_t perfkit_slot(uint64_t bits)
{
    uint64_t part = (bits >> (PERFKIT_SLOT_SHIFT - 1)) & ((2U << PERFKIT_SCALE) - 1);
    return (uint32_t)((bits + PERFKIT_CORRECTIONS[part]) >> PERFKIT_SLOT_SHIFT);
}

static inline uint64_t *perfkit_buckets(perfkit_shard_head *head)
{
    return (uint64_t *)(void *)(head + 1);
}

/* Whether the shard was claimed in this process, and not before a fork. */
static inline bool perfkit_is_own(const perfkit_shard *shard)
{
    return __atomic_load_n(&shard->process->slot_count, __ATOMIC_RELAXED) != 0;
}

static inline void perfkit_add(uint64_t *count, bool is_common)
{
    if (is_common) {
        __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(count, __atomic_load_n(count, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    }
}

/* Sum, min and max by their only writer: plain numbers of 8 bytes, written at once each. */
static inline void perfkit_add_to_sum(perfkit_shard_head *head, uint32_t at, double value)
{
    volatile double *sum = &head->sums[at % PERFKIT_SUM_COUNT];
    *sum = *sum + value;
}

static inline void perfkit_widen(perfkit_shard_head *head, double value)
{
    if (value < head->min) {
        head->min = value;
    }
    if (value > head->max) {
        head->max = value;
    }
}

/* The same beside other writers. */
static inline void perfkit_note_common(perfkit_shard_head *head, double value)
{
    double old;
    double sum;
    int attempts = 0;
    __atomic_load(&head->sums[0], &old, __ATOMIC_RELAXED);
    do {
        sum = old + value;
    } while (!__atomic_compare_exchange(&head->sums[0], &old, &sum, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED) &&
             ++attempts < PERFKIT_ATTEMPTS_MAX);
    __atomic_load(&head->min, &old, __ATOMIC_RELAXED);
    while (value < old && attempts++ < PERFKIT_ATTEMPTS_MAX &&
           !__atomic_compare_exchange(&head->min, &old, &value, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
    }
    __atomic_load(&head->max, &old, __ATOMIC_RELAXED);
    while (value > old && attempts++ < PERFKIT_ATTEMPTS_MAX &&
           !__atomic_compare_exchange(&head->max, &old, &value, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
    }
}

/* Counts any number, in a shard of one writer or in the common one. */
static inline void perfkit_count(perfkit_shard_head *head, perfkit_slots slots, double value,
                                 bool is_common)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const uint64_t magnitude = bits & ~(1ULL << 63);
    const bool is_negative = bits != magnitude;
    if (magnitude >= 0x7ffULL << 52) { /* not finite: moves neither sum nor extremes */
        int apart = magnitude > 0x7ffULL << 52 ? PERFKIT_NAN
                    : is_negative              ? PERFKIT_NEGATIVE_INFINITY
                                               : PERFKIT_POSITIVE_INFINITY;
        perfkit_add(&head->apart[apart], is_common);
        return;
    }
    const bool is_subnormal = magnitude != 0 && magnitude < 1ULL << 52;
    const uint32_t slot = is_subnormal ? 0 : perfkit_slot(magnitude);
    if (magnitude == 0) {
        value = 0; /* without a sign */
        perfkit_add(&head->apart[PERFKIT_ZERO], is_common);
    } else if (is_negative) {
        perfkit_add(&head->apart[PERFKIT_NEGATIVE], is_common);
    } else if (slot < slots.first) {
        perfkit_add(&head->apart[PERFKIT_UNDER], is_common);
    } else if (slot - slots.first >= slots.count) {
        perfkit_add(&head->apart[PERFKIT_OVER], is_common);
    } else {
        perfkit_add(&perfkit_buckets(head)[slot - slots.first], is_common);
    }
    if (is_subnormal) {
        perfkit_add(&head->apart[PERFKIT_SUBNORMAL], is_common);
    }
    if (is_common) {
        perfkit_note_common(head, value);
    } else {
        perfkit_add_to_sum(head, 0, value);
        perfkit_widen(head, value);
    }
}

/* Claims a shard after a fork, and counts what no bucket or no shard of its own is for. */
static void perfkit_shard_record_slowly(perfkit_shard *shard, double value);

/* Takes note of a positive number that is beyond what this writer wrote. */
__attribute__((noinline, cold, unused)) static void perfkit_shard_widen(perfkit_shard *shard,
                                                                        uint64_t bits, double value)
{
    const bool is_first = shard->low_bits == UINT64_MAX;
    const uint64_t high_bits = is_first ? bits : shard->low_bits + shard->span_bits;
    const uint64_t low_bits = bits < shard->low_bits ? bits : shard->low_bits;
    shard->span_bits = (bits > high_bits ? bits : high_bits) - low_bits;
    shard->low_bits = low_bits;
    perfkit_widen(shard->head, value);
}

/* Counts a value, by the one thread, or at the time, that writes the shard. */
static inline void perfkit_shard_record(perfkit_shard *shard, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    /* Of what is negative, zero, subnormal, infinite or NaN the slot is beyond every range; after a
     * fork the range is empty. */
    const uint32_t at = perfkit_slot(bits) - shard->first_slot;
    if (__builtin_expect(at >= __atomic_load_n(shard->slot_count, __ATOMIC_RELAXED), 0)) {
        perfkit_shard_record_slowly(shard, value);
        return;
    }
    perfkit_shard_head *head = shard->head;
    perfkit_add(&perfkit_buckets(head)[at], false);
    perfkit_add_to_sum(head, at, value);
    /* Patterns of positive numbers ascend as these do. */
    if (__builtin_expect(bits - shard->low_bits > shard->span_bits, 0)) {
        perfkit_shard_widen(shard, bits, value);
    }
}

#endif
