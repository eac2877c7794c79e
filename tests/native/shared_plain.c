/* A server's use of perfkit_histogram.h, in what C and C++ have in common. Counts 1 to N in each of
 * some threads, prints the descriptor of its file, and waits for the end of its input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perfkit_histogram.h"

enum { THREADS_MAX = 64 };

static perfkit_histogram *histogram;
static long value_count;

static void *count_values(void *unused)
{
    (void)unused;
    for (long i = 1; i <= value_count; i++) {
        perfkit_histogram_record(histogram, (double)i);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const LABELS[] = {"stage=tokenize", "shard=3", NULL};
    pthread_t threads[THREADS_MAX];
    perfkit_histogram_options options;
    memset(&options, 0, sizeof(options));
    options.name = "request_duration";
    options.unit = "us";
    options.labels = LABELS;
    options.shard_count = 4;
    int thread_count = argc > 1 ? atoi(argv[1]) : 2;
    value_count = argc > 2 ? atol(argv[2]) : 1000;
    if (thread_count > THREADS_MAX) {
        return 2;
    }
    int error = perfkit_histogram_open(&options, &histogram);
    if (error != 0) {
        fprintf(stderr, "%s\n", strerror(error));
        return 1;
    }
    for (int i = 0; i < thread_count; i++) {
        if (pthread_create(&threads[i], NULL, count_values, NULL) != 0) {
            return 1;
        }
    }
    for (int i = 0; i < thread_count; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    perfkit_histogram_record_common(histogram, 0.5);
    printf("%d\n", histogram->descriptor);
    (void)fflush(stdout);
    (void)getchar();
    perfkit_histogram_close(histogram);
    return 0;
}
