/* Forks processes whose threads, each of several that follow one another, count a number of values.
 * One histogram of few shards is theirs. Prints a line at the start; ends with its input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "perfkit_histogram.h"

enum { THREADS_MAX = 64, LIVES = 4 /* threads that follow one another */ };

static perfkit_histogram *histogram;
static long value_count;

static void *count_values(void *unused)
{
    (void)unused;
    perfkit_shard *shard = perfkit_histogram_thread_shard(histogram);
    for (long i = 0; i < value_count / LIVES; i++) {
        perfkit_shard_record(shard, (double)(1 + i % 3000));
    }
    return NULL;
}

static int run_threads(int thread_count)
{
    pthread_t threads[THREADS_MAX];
    for (int life = 0; life < LIVES; life++) {
        for (int i = 0; i < thread_count; i++) {
            if (pthread_create(&threads[i], NULL, count_values, NULL) != 0) {
                return 1;
            }
        }
        for (int i = 0; i < thread_count; i++) {
            (void)pthread_join(threads[i], NULL);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    perfkit_histogram_options options;
    memset(&options, 0, sizeof(options));
    options.name = "crowd";
    options.shard_count = 9;
    if (argc != 4 || atoi(argv[2]) > THREADS_MAX ||
        perfkit_histogram_open(&options, &histogram) != 0) {
        return 1;
    }
    value_count = atol(argv[3]);
    /* The shard of the thread that forks must not be written by its children. */
    (void)perfkit_histogram_thread_shard(histogram);
    puts("ready");
    (void)fflush(stdout);
    for (int i = 0; i < atoi(argv[1]); i++) {
        if (fork() == 0) {
            _exit(run_threads(atoi(argv[2])));
        }
    }
    int status = 0;
    int failed = 0;
    while (wait(&status) > 0) {
        failed |= status;
    }
    (void)getchar();
    return failed;
}
