/* Times one record in C: ours, with sum, min and max; and a log-linear one of 64 buckets an octave,
 * with count, min and max. Prints both in ns, median of rounds. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pk_histogram.h"

enum { VALUE_COUNT = 1 << 16, ROUND_COUNT = 41, SUB_BITS = 6, LINEAR_COUNT = 64 * 64 };

typedef struct {
    int64_t lowest;
    int64_t highest;
    int64_t min;
    int64_t max;
    int64_t total_count;
    int64_t counts_length;
    int64_t counts[LINEAR_COUNT];
} linear;

static __attribute__((noinline)) int record_ours(pk_histogram *histogram, double value)
{
    return pk_histogram_record(histogram, value);
}

static __attribute__((noinline)) bool record_linear(linear *histogram, int64_t value)
{
    if (value < 0 || value > histogram->highest) {
        return false;
    }
    int power = 64 - __builtin_clzll((uint64_t)value | ((2 << SUB_BITS) - 1)) - (SUB_BITS + 1);
    int64_t index = ((int64_t)power << SUB_BITS) + (value >> power);
    if (index < 0 || index >= histogram->counts_length) {
        return false;
    }
    histogram->counts[index]++;
    histogram->total_count++;
    if (value != 0 && value < histogram->min) {
        histogram->min = value;
    }
    if (value > histogram->max) {
        histogram->max = value;
    }
    return true;
}

static double read_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one;
    double b = *(const double *)other;
    return (a > b) - (a < b);
}

static double find_median(double *times)
{
    qsort(times, ROUND_COUNT, sizeof(*times), compare);
    return times[ROUND_COUNT / 2] / VALUE_COUNT;
}

int main(void)
{
    static pk_bucketing mapping;
    static pk_histogram ours;
    static linear theirs = {.lowest = 1, .highest = 1LL << 42, .min = INT64_MAX,
                            .counts_length = LINEAR_COUNT};
    static double values[VALUE_COUNT];
    static int64_t integers[VALUE_COUNT];
    double times[2][ROUND_COUNT];
    srand48(7);
    for (int i = 0; i < VALUE_COUNT; i++) {
        double normal = sqrt(-2 * log(1 - drand48())) * cos(6.283185307179586 * drand48());
        values[i] = 1e6 * exp(normal);
        integers[i] = (int64_t)values[i];
    }
    pk_bucketing_init(6, &mapping);
    pk_histogram_init(&ours, &mapping, PK_EXPONENT_MIN, PK_EXPONENT_MAX);
    long failed = 0;
    for (int round = 0; round < ROUND_COUNT; round++) {
        double start_ns = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            failed += record_ours(&ours, values[i]);
        }
        double middle_ns = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            failed += !record_linear(&theirs, integers[i]);
        }
        times[0][round] = middle_ns - start_ns;
        times[1][round] = read_clock_ns() - middle_ns;
    }
    printf("%.3f %.3f\n", find_median(times[0]), find_median(times[1]));
    return failed != 0;
}
