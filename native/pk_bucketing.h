/* Which bucket a number belongs to: base-2 exponential buckets, as OpenTelemetry and Prometheus
 * define them, without a compare and without floating-point arithmetic.
 *
 * Bucket i of scale s holds (2^(i/N), 2^((i+1)/N)], N = 2^s. A slot is that index with the bias of
 * exponents: slot = i + (1023 << s), so it is never negative, and slot >> d is that at scale s - d.
 * Credit: DynaHist and NrSketch look up linear parts of the mantissa too; here one addition does
 * the compare and takes the exponent along. */
#ifndef PK_BUCKETING_H
#define PK_BUCKETING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PK_SCALE_MAX = 8,
    PK_BOUND_COUNT = 1 << PK_SCALE_MAX,
    PK_EXPONENT_BIAS = 1023,
    PK_MANTISSA_BITS = 52,
    PK_VECTOR_SCALE_MAX = 6,    /* up to which the table of the vector kernel fits registers */
    PK_VECTOR_PART_COUNT = 128,
    PK_VECTOR_MANTISSA_BITS = 19, /* what that kernel looks at */
};

static const uint64_t PK_SIGN_BIT = 1ULL << 63;
static const uint64_t PK_INFINITY_BITS = 0x7ffULL << 52;
static const uint64_t PK_LEAST_NORMAL_BITS = 1ULL << 52;

extern const uint64_t PK_BOUNDS[PK_BOUND_COUNT];

typedef struct {
    uint32_t scale;
    uint32_t shift;     /* 52 - scale */
    uint64_t part_mask; /* 2 N - 1 */
    uint64_t corrections[2 * PK_BOUND_COUNT];
    uint16_t vector_corrections[PK_VECTOR_PART_COUNT]; /* where scale <= PK_VECTOR_SCALE_MAX */
} pk_bucketing;

/* Makes the mapping of a scale from 0 to PK_SCALE_MAX. */
void pk_bucketing_init(uint32_t scale, pk_bucketing *ret);

/* Bounds of a slot as doubles, (lower, upper], to one unit in the last place. The least one holds
 * subnormal numbers too, which its bounds leave out; the upper bound of the last is infinite. */
double pk_bucketing_lower(const pk_bucketing *mapping, uint32_t slot);
double pk_bucketing_upper(const pk_bucketing *mapping, uint32_t slot);

/* What a slot's lower bound is multiplied with to be off by the same ratio at both ends. */
double pk_bucketing_middle_ratio(const pk_bucketing *mapping);

static inline uint64_t pk_to_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline double pk_to_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Whether it is finite, positive and normal. */
static inline bool pk_is_plain(uint64_t bits)
{
    return bits - PK_LEAST_NORMAL_BITS < PK_INFINITY_BITS - PK_LEAST_NORMAL_BITS;
}

/* What a loop keeps in registers of a mapping. */
typedef struct {
    const uint64_t *corrections;
    uint64_t part_mask;
    uint32_t shift;
} pk_shifts;

static inline pk_shifts pk_bucketing_shifts(const pk_bucketing *mapping)
{
    return (pk_shifts){mapping->corrections, mapping->part_mask, mapping->shift};
}

/* The slot of a normal number; that of a negative one lies 2048 << scale above its magnitude's. */
static inline uint32_t pk_shifts_slot(pk_shifts shifts, uint64_t bits)
{
    uint64_t part = (bits >> (shifts.shift - 1)) & shifts.part_mask;
    return (uint32_t)((bits + shifts.corrections[part]) >> shifts.shift);
}

static inline uint32_t pk_bucketing_slot(const pk_bucketing *mapping, uint64_t bits)
{
    return pk_shifts_slot(pk_bucketing_shifts(mapping), bits);
}

/* The lowest slot, for subnormal numbers and the least normal one. */
static inline uint32_t pk_bucketing_least_slot(const pk_bucketing *mapping)
{
    return (1U << mapping->scale) - 1;
}

#endif
