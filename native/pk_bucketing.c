/* The tables behind pk_bucketing_slot.
 *
 * The mantissa is cut into 2 N equal parts. Bounds of buckets lie at least 0.69/N apart and parts
 * are 0.5/N wide, so a part has at most one bound in it, and one number added to the pattern
 * carries into the next bucket exactly from that bound on. */
#include "pk_bucketing.h"

/* The bound of the i-th bucket of an octave: the largest mantissa that is in the one below. */
static uint64_t bound_of(uint32_t scale, uint32_t i)
{
    return PK_BOUNDS[i << (PK_SCALE_MAX - scale)];
}

/* How many bounds of an octave are at most `mantissa`. */
static uint32_t count_bounds(uint32_t scale, uint64_t mantissa)
{
    uint32_t count = 0;
    while (count < 1U << scale && bound_of(scale, count) <= mantissa) {
        count++;
    }
    return count;
}

/* The number to add in one part. Bounds belong to the bucket below them, so a bucket begins one
 * above its bound; the first of an octave begins at mantissa 1, and mantissa 0, a power of two,
 * borrows from the exponent. */
static uint64_t make_correction(const pk_bucketing *mapping, uint32_t part)
{
    uint64_t start = (uint64_t)part << (mapping->shift - 1);
    uint64_t end = start + (1ULL << (mapping->shift - 1));
    uint32_t begun_count = start == 0 ? 0 : count_bounds(mapping->scale, start - 1);
    bool has_bound = begun_count < 1U << mapping->scale &&
                     bound_of(mapping->scale, begun_count) + 1 < end;
    if (has_bound) {
        uint64_t next = (uint64_t)begun_count << mapping->shift;
        return next - (bound_of(mapping->scale, begun_count) + 1);
    }
    return ((uint64_t)begun_count - 1) * (1ULL << mapping->shift) - start;
}

/* The same for patterns less one, so that buckets begin at their bound, cut to 19 bits of mantissa.
 * A pattern that equals a bound in those bits leaves none of them after the addition, which tells
 * that it is undecided; where a part has no bound, one is added so that this does not happen. */
static uint16_t make_vector_correction(uint32_t scale, uint32_t part)
{
    const uint32_t cut = PK_MANTISSA_BITS - PK_VECTOR_MANTISSA_BITS;
    const uint32_t shift = PK_VECTOR_MANTISSA_BITS - scale;
    uint64_t width = 1ULL << (PK_MANTISSA_BITS - 7);
    uint64_t start = part * width;
    uint32_t begun_count = count_bounds(scale, start);
    if (begun_count < 1U << scale && bound_of(scale, begun_count) < start + width) {
        uint64_t next = (uint64_t)begun_count << shift;
        return (uint16_t)(next - (bound_of(scale, begun_count) >> cut));
    }
    int64_t least = (int64_t)(((uint64_t)begun_count - 1) << shift) - (int64_t)(start >> cut) + 1;
    return least > 0 ? (uint16_t)least : 0;
}

void pk_bucketing_init(uint32_t scale, pk_bucketing *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->scale = scale;
    ret->shift = PK_MANTISSA_BITS - scale;
    ret->part_mask = (2ULL << scale) - 1;
    for (uint32_t part = 0; part <= ret->part_mask; part++) {
        ret->corrections[part] = make_correction(ret, part);
    }
    for (uint32_t part = 0; scale <= PK_VECTOR_SCALE_MAX && part < PK_VECTOR_PART_COUNT; part++) {
        ret->vector_corrections[part] = make_vector_correction(scale, part);
    }
}

double pk_bucketing_lower(const pk_bucketing *mapping, uint32_t slot)
{
    uint64_t exponent = slot >> mapping->scale;
    uint64_t mantissa = bound_of(mapping->scale, slot & ((1U << mapping->scale) - 1));
    if (exponent == 0) { /* a subnormal number: the leading bit is not implied */
        return pk_to_double((PK_LEAST_NORMAL_BITS + mantissa) >> 1);
    }
    return pk_to_double((exponent << PK_MANTISSA_BITS) + mantissa);
}

double pk_bucketing_upper(const pk_bucketing *mapping, uint32_t slot)
{
    return pk_bucketing_lower(mapping, slot + 1);
}

double pk_bucketing_middle_ratio(const pk_bucketing *mapping)
{
    uint32_t last = (1U << mapping->scale) - 1;
    uint64_t pattern = ((uint64_t)(PK_EXPONENT_BIAS - 1) << PK_MANTISSA_BITS);
    return 2 / (1 + pk_to_double(pattern + bound_of(mapping->scale, last)));
}
