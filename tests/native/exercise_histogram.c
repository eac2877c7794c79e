/* Histograms against themselves, on numbers of every kind: kernels count alike, sums and
 * differences undo each other, bytes are read back, and damaged ones are refused. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pk_fill.h"
#include "pk_quantile.h"
#include "pk_wire.h"

enum { LENGTH_MAX = 200, SCALE_COUNT = PK_SCALE_MAX + 1 };

static pk_bucketing MAPPINGS[SCALE_COUNT];
static uint64_t seed;
static bool is_wide; /* numbers of all exponents: takes all counters, and time */
static unsigned long checked_count;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void expect(bool is_so, const char *what)
{
    if (!is_so) {
        printf("failed: %s, after %lu checks\n", what, checked_count);
        exit(1);
    }
    checked_count++;
}

/* Ordinary numbers mostly, some at bounds of buckets, and everything else now and then. */
static double draw_value(unsigned special_in)
{
    static const double SPECIALS[] = {
        0.0,  -0.0, INFINITY, -INFINITY, NAN, 5e-324, -1e-310, 2.2250738585072014e-308,
        -3.5, 1.7976931348623157e308,
    };
    static const int NARROW_COUNT = 5;
    if (special_in > 0 && draw() % special_in == 0) {
        int count = is_wide ? sizeof(SPECIALS) / sizeof(SPECIALS[0]) : NARROW_COUNT;
        return SPECIALS[draw() % (unsigned)count];
    }
    uint64_t exponent = 1 + (is_wide && draw() % 4 == 0 ? draw() % 2046 : 1010 + draw() % 20);
    uint64_t mantissa = draw() & (PK_LEAST_NORMAL_BITS - 1);
    switch (draw() % 4) {
    case 0:
        mantissa = PK_BOUNDS[draw() % PK_BOUND_COUNT] + draw() % 3;
        break;
    case 1:
        mantissa &= ~0ULL << 40; /* as small integers have it */
        break;
    default:
        break;
    }
    return pk_to_double((exponent << PK_MANTISSA_BITS) + mantissa);
}

static void add_all(pk_histogram *histogram, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        expect(pk_histogram_record(histogram, values[i]) == 0, "a value is recorded");
    }
}

static void check_kernels(pk_scratch *scratch, uint32_t scale, size_t count, unsigned special_in)
{
    is_wide = count % 16 == 0;
    char room[LENGTH_MAX * sizeof(double) + 8];
    double values[LENGTH_MAX];
    for (size_t i = 0; i < count; i++) {
        values[i] = draw_value(special_in);
    }
    char *unaligned = room + draw() % 8;
    memcpy(unaligned, values, count * sizeof(double));
    int32_t low = draw() % 2 == 0 ? PK_EXPONENT_MIN : -8;
    int32_t high = draw() % 2 == 0 ? PK_EXPONENT_MAX : 4;
    pk_histogram alone;
    pk_histogram_init(&alone, &MAPPINGS[scale], low, high);
    add_all(&alone, values, count);
    for (int kernel = 0; kernel <= (pk_fill_has_vector() ? PK_KERNEL_VECTOR : 0); kernel++) {
        pk_histogram many;
        pk_histogram_init(&many, &MAPPINGS[scale], low, high);
        pk_fill(scratch, &MAPPINGS[scale], kernel, PK_FLOAT64, unaligned, count);
        expect(pk_fill_fold(scratch, &many) == 0, "a scratch is folded");
        expect(pk_histogram_equal(&alone, &many), "kernels count alike");
        pk_histogram_deinit(&many);
    }
    pk_histogram_deinit(&alone);
}

/* Each kind of number against its conversion to doubles. */
static void check_numbers(pk_scratch *scratch, pk_number number)
{
    uint64_t raw[LENGTH_MAX];
    for (size_t i = 0; i < LENGTH_MAX; i++) {
        /* Patterns of ordinary doubles too, and halves of them as floats of whatever kind. */
        raw[i] = draw() % 2 == 0 ? draw() >> draw() % 64 : pk_to_bits(draw_value(0));
    }
    pk_histogram counted[2];
    for (int kernel = 0; kernel < 2; kernel++) {
        bool is_vector = kernel == 1 && pk_fill_has_vector();
        pk_histogram_init(&counted[kernel], &MAPPINGS[6], PK_EXPONENT_MIN, PK_EXPONENT_MAX);
        pk_fill(scratch, &MAPPINGS[6], is_vector ? PK_KERNEL_VECTOR : PK_KERNEL_SCALAR, number,
                raw, LENGTH_MAX);
        expect(pk_fill_fold(scratch, &counted[kernel]) == 0, "numbers are folded");
    }
    expect(counted[0].count + counted[0].nan_count == LENGTH_MAX, "every number is counted");
    expect(pk_histogram_equal(&counted[0], &counted[1]), "kernels convert alike");
    pk_histogram_deinit(&counted[0]);
    pk_histogram_deinit(&counted[1]);
}

static pk_histogram draw_histogram(uint32_t scale)
{
    pk_histogram made;
    pk_histogram_init(&made, &MAPPINGS[scale], PK_EXPONENT_MIN, PK_EXPONENT_MAX);
    size_t count = draw() % 50;
    for (size_t i = 0; i < count; i++) {
        uint64_t times = draw() >> (10 + draw() % 54);
        expect(pk_histogram_add(&made, draw_value(8), times) == 0, "values are added");
    }
    return made;
}

static void check_sums(void)
{
    uint32_t scale = (uint32_t)(draw() % SCALE_COUNT);
    uint32_t lower = (uint32_t)(draw() % (scale + 1));
    pk_histogram one = draw_histogram(lower);
    pk_histogram other = draw_histogram(scale);
    pk_histogram sum;
    expect(pk_histogram_copy(&one, &sum) == 0, "it is copied");
    expect(pk_histogram_equal(&one, &sum), "a copy is equal");
    expect(pk_histogram_merge(&sum, &other) == 0, "they are added");
    expect(sum.count == one.count + other.count, "no count is lost");
    expect(pk_histogram_subtract(&sum, &one) == 0, "one is taken away");
    pk_histogram_downscale(&other, &MAPPINGS[lower]);
    sum.min = other.min;
    sum.max = other.max;
    expect(pk_histogram_equal(&sum, &other), "the other is left");
    expect(other.count == 0 || pk_histogram_subtract(&one, &other) != 0 || other.count <= one.count,
           "only what was counted is taken away");
    (void)pk_quantile(&other, 0.5);
    (void)pk_quantile_share(&other, 1.5);
    pk_histogram_deinit(&one);
    pk_histogram_deinit(&other);
    pk_histogram_deinit(&sum);
}

/* Reads bytes from memory that ends where they do. */
static int decode(const uint8_t *bytes, size_t size_bytes, pk_histogram *ret)
{
    uint8_t *own = malloc(size_bytes > 0 ? size_bytes : 1);
    pk_unit unit;
    memcpy(own, bytes, size_bytes);
    int error = pk_wire_decode(own, size_bytes, MAPPINGS, ret, &unit);
    free(own);
    return error;
}

static void check_damage(uint8_t *bytes, size_t size_bytes)
{
    pk_histogram found;
    for (size_t i = 0; i < size_bytes; i++) {
        expect(decode(bytes, i, &found) == EBADMSG, "what was cut off is refused");
    }
    for (size_t bit = 0; bit < 8 * size_bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        int error = decode(bytes, size_bytes, &found);
        expect(error == 0 || error == EBADMSG, "a flipped bit is refused, or makes another");
        if (error == 0) {
            (void)pk_quantile(&found, 0.5);
            (void)pk_quantile_share(&found, 1.5);
            pk_histogram_deinit(&found);
        }
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

static void check_wire(bool is_damaged)
{
    pk_histogram made = draw_histogram((uint32_t)(draw() % SCALE_COUNT));
    pk_histogram found;
    uint8_t *bytes;
    size_t size_bytes;
    pk_unit unit = {.text = "ms", .size_bytes = 2};
    expect(pk_wire_encode(&made, unit, &bytes, &size_bytes) == 0, "it is encoded");
    expect(decode(bytes, size_bytes, &found) == 0, "it is decoded");
    expect(pk_histogram_equal(&made, &found), "what is decoded is what was encoded");
    if (is_damaged && size_bytes < 200) {
        check_damage(bytes, size_bytes);
    }
    pk_histogram_deinit(&made);
    pk_histogram_deinit(&found);
    free(bytes);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 100;
    pk_scratch *scratch;
    for (uint32_t scale = 0; scale < SCALE_COUNT; scale++) {
        pk_bucketing_init(scale, &MAPPINGS[scale]);
    }
    expect(pk_scratch_new(&scratch) == 0, "there is a scratch");
    for (size_t count = 0; count < LENGTH_MAX; count++) {
        check_kernels(scratch, (uint32_t)(count % SCALE_COUNT), count, 0);
        check_kernels(scratch, 6, count, 1 + (unsigned)(draw() % 40));
    }
    for (unsigned long i = 0; i < rounds; i++) {
        is_wide = i % 8 == 0;
        if (i % 8 == 0) {
            check_numbers(scratch, (pk_number)(i / 8 % PK_NUMBER_COUNT));
        }
        check_sums();
        check_wire(i % 8 == 0);
    }
    pk_scratch_free(scratch);
    printf("ok %lu\n", checked_count);
    return 0;
}
