/* What perfkit_histogram.h refuses, and what it bears: prints "ok". */
#define _GNU_SOURCE /* for waitid */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "perfkit_histogram.h"

static void expect(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "failed: %s\n", what);
        exit(1);
    }
}

static perfkit_histogram *open_one(uint32_t shard_count)
{
    perfkit_histogram *histogram = NULL;
    perfkit_histogram_options options;
    memset(&options, 0, sizeof(options));
    options.name = "edges";
    options.shard_count = shard_count;
    expect(perfkit_histogram_open(&options, &histogram) == 0, "open");
    return histogram;
}

static void check_options(void)
{
    static const char *const EMPTY[] = {"", NULL};
    static const char *const NO_VALUE[] = {"stage", NULL};
    perfkit_histogram *histogram;
    perfkit_histogram_options options;
    memset(&options, 0, sizeof(options));
    expect(perfkit_histogram_open(&options, &histogram) == EINVAL, "no name");
    options.name = "edges";
    expect(perfkit_histogram_fault(&options) == NULL, "name");
    options.labels = EMPTY;
    expect(perfkit_histogram_fault(&options) != NULL, "empty label");
    options.labels = NO_VALUE;
    expect(perfkit_histogram_fault(&options) != NULL, "label without value");
    options.labels = NULL;
    options.max_value = 5;
    expect(perfkit_histogram_fault(&options) != NULL, "no least value");
    options.min_value = 4.450147717014403e-308;
    expect(perfkit_histogram_fault(&options) != NULL, "wide range");
    options.max_value = 1e-300;
    expect(perfkit_histogram_fault(&options) == NULL, "low range");
    expect(perfkit_histogram_open(&options, &histogram) == 0, "low range");
    perfkit_histogram_record(histogram, 5e-324);
    perfkit_histogram_record(histogram, 4.5e-308);
    perfkit_shard_head *head = perfkit_histogram_thread_shard(histogram)->head;
    expect(head->apart[PERFKIT_UNDER] == 1 && head->apart[PERFKIT_SUBNORMAL] == 1, "subnormal");
    perfkit_histogram_close(histogram);
}

/* Each kind in the thread's shard and in the common one. */
static void check_numbers(void)
{
    static const double VALUES[] = {0.0, -0.0, 0.5, 1e300, -7, INFINITY, -INFINITY, NAN, 5e-324, 3};
    static const uint64_t APART[] = {2, 2, 1, 1, 1, 1, 1, 1};
    perfkit_histogram *histogram = open_one(1);
    for (size_t i = 0; i < sizeof(VALUES) / sizeof(VALUES[0]); i++) {
        perfkit_histogram_record(histogram, VALUES[i]);
        perfkit_histogram_record_common(histogram, VALUES[i]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        perfkit_shard_head *head = perfkit_histogram_head(histogram, i);
        expect(memcmp(head->apart, APART, sizeof(APART)) == 0, "counts apart");
        expect(head->min == -7 && head->max == 1e300, "extremes");
    }
    perfkit_histogram_close(histogram);
}

/* A child without the C library's fork handlers has its own shard too. */
static void check_clone(void)
{
    perfkit_histogram *histogram = open_one(2);
    perfkit_shard *shard = perfkit_histogram_thread_shard(histogram);
    perfkit_shard_record(shard, 3);
    expect(shard->head == perfkit_histogram_head(histogram, 1), "first shard");
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        perfkit_shard_record(shard, 3);
        bool is_second = shard->head == perfkit_histogram_head(histogram, 2);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            perfkit_shard_record(shard, 3);
            _exit(shard->head != perfkit_histogram_head(histogram, 0)); /* none is left */
        }
        int status = 1;
        (void)waitpid(grandchild, &status, 0);
        _exit(!is_second || status != 0);
    }
    int status = 1;
    (void)waitpid(child, &status, 0);
    expect(status == 0, "shards of children");
    expect(perfkit_histogram_take(histogram, shard->owner) == 2, "what an ended child had");
    expect(perfkit_histogram_take(histogram, shard->owner) == 0, "what lives is not taken");
    perfkit_histogram_close(histogram);
}

/* A child that ended and was not asked for, and an id that was given anew, own nothing. */
static void check_owners(void)
{
    perfkit_histogram *histogram = open_one(1);
    perfkit_shard_head *head = perfkit_histogram_head(histogram, 1);
    const uint64_t own = perfkit_find_owner(histogram->header.pid_namespace, true);
    expect(own >> 32 == (uint64_t)getpid() && !perfkit_is_dead(own), "the living");
    expect(perfkit_find_owner(histogram->header.pid_namespace + 1, true) == 0, "namespace");
    head->owner = own + 1;
    expect(perfkit_histogram_take(histogram, own) == 1, "another start");
    pid_t child = fork();
    if (child == 0) {
        head->owner = perfkit_find_owner(histogram->header.pid_namespace, true);
        _exit(0);
    }
    siginfo_t ended;
    (void)waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT);
    expect(head->owner >> 32 == (uint64_t)child, "the child's");
    expect(perfkit_histogram_take(histogram, own) == 1, "what a zombie had");
    (void)waitpid(child, NULL, 0);
    perfkit_histogram_close(histogram);
}

static void *record_one(void *histogram)
{
    perfkit_histogram_record((perfkit_histogram *)histogram, 3);
    return perfkit_histogram_thread_shard((perfkit_histogram *)histogram)->head;
}

/* A thread that ended leaves its shard to the next one. */
static void check_threads(void)
{
    perfkit_histogram *histogram = open_one(2);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        void *head = NULL;
        expect(pthread_create(&thread, NULL, record_one, histogram) == 0, "thread");
        (void)pthread_join(thread, &head);
        expect(head == perfkit_histogram_head(histogram, 1), "shard of an ended thread");
    }
    perfkit_histogram_close(histogram);
}

enum { CONTENDED_COUNT = 300000, CONTENDER_COUNT = 4 };

static void *contend(void *histogram)
{
    for (int i = 0; i < CONTENDED_COUNT; i++) {
        perfkit_histogram_record_common((perfkit_histogram *)histogram, 3);
    }
    return NULL;
}

/* Threads that add to the same bucket at the same time lose nothing. */
static void check_contention(void)
{
    perfkit_histogram *histogram = open_one(1);
    pthread_t threads[CONTENDER_COUNT];
    for (int i = 0; i < CONTENDER_COUNT; i++) {
        expect(pthread_create(&threads[i], NULL, contend, histogram) == 0, "thread");
    }
    for (int i = 0; i < CONTENDER_COUNT; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    perfkit_shard_head *head = perfkit_histogram_head(histogram, 0);
    const uint32_t at = 165; /* of 3, from just below 1 on: 64 + 64 * log2(3) - 1 */
    expect(perfkit_buckets(head)[at] == CONTENDED_COUNT * CONTENDER_COUNT, "contended count");
    expect(head->sums[0] == 3.0 * CONTENDED_COUNT * CONTENDER_COUNT, "contended sum");
    perfkit_histogram_close(histogram);
}

/* A descriptor that somebody closed, and that is another file by now, stays open. */
static void check_descriptor(void)
{
    perfkit_histogram *histogram = open_one(1);
    int number = histogram->descriptor;
    (void)close(number);
    expect(open("/dev/null", O_RDONLY) == number, "the lowest number is free");
    perfkit_histogram_record(histogram, 3);
    perfkit_histogram_close(histogram);
    expect(close(number) == 0, "another file is left alone");
}

int main(void)
{
    check_options();
    check_numbers();
    check_clone();
    check_owners();
    check_threads();
    check_contention();
    check_descriptor();
    puts("ok");
    return 0;
}
