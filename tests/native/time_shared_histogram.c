/* Times one record of perfkit_histogram.h, ns, median of rounds of CPU time. Prints that of a shard
 * that the thread keeps, of one that it looks up, of the common one, each by a call that is not
 * inlined, of such a call that is empty, and of the first one inlined. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perfkit_histogram.h"

enum { VALUE_COUNT = 1 << 16, ROUND_COUNT = 41, KIND_COUNT = 5 };

static perfkit_histogram *histogram;

static __attribute__((noinline)) void record_kept(perfkit_shard *shard, double value)
{
    perfkit_shard_record(shard, value);
}

static __attribute__((noinline)) void record_found(double value)
{
    perfkit_histogram_record(histogram, value);
}

static __attribute__((noinline)) void record_common(double value)
{
    perfkit_histogram_record_common(histogram, value);
}

static __attribute__((noinline)) void record_nothing(perfkit_shard *shard, double value)
{
    __asm__ volatile("" : : "r"(shard), "x"(value));
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

int main(void)
{
    static double values[VALUE_COUNT];
    static double times[KIND_COUNT][ROUND_COUNT];
    perfkit_histogram_options options;
    memset(&options, 0, sizeof(options));
    options.name = "timed";
    if (perfkit_histogram_open(&options, &histogram) != 0) {
        return 1;
    }
    srand48(7);
    for (int i = 0; i < VALUE_COUNT; i++) {
        double normal = sqrt(-2 * log(1 - drand48())) * cos(6.283185307179586 * drand48());
        values[i] = 1e6 * exp(normal);
    }
    perfkit_shard *shard = perfkit_histogram_thread_shard(histogram);
    for (int round = 0; round < ROUND_COUNT; round++) {
        double moments_ns[KIND_COUNT + 1];
        moments_ns[0] = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            record_kept(shard, values[i]);
        }
        moments_ns[1] = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            record_found(values[i]);
        }
        moments_ns[2] = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            record_common(values[i]);
        }
        moments_ns[3] = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            record_nothing(shard, values[i]);
        }
        moments_ns[4] = read_clock_ns();
        for (int i = 0; i < VALUE_COUNT; i++) {
            perfkit_shard_record(shard, values[i]);
        }
        moments_ns[5] = read_clock_ns();
        for (int kind = 0; kind < KIND_COUNT; kind++) {
            times[kind][round] = moments_ns[kind + 1] - moments_ns[kind];
        }
    }
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        qsort(times[kind], ROUND_COUNT, sizeof(times[kind][0]), compare);
        printf("%.3f ", times[kind][ROUND_COUNT / 2] / VALUE_COUNT);
    }
    puts("");
    return 0;
}
