/* Forks a writer, which counts 1000s as quickly as it can and notes each one that is done, kills
 * it, and forks the next, which takes its shard over. Counts one 2^41 at the end.
 *
 * With "check": whether the counts are those that were noted, or one more for each that was killed;
 * else waits for the end of its input. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "perfkit_histogram.h"

static perfkit_histogram *histogram;
static uint64_t *done_count; /* of all writers, in memory that they share */

static void write_for_ever(void)
{
    perfkit_shard *shard = perfkit_histogram_thread_shard(histogram);
    for (;;) {
        perfkit_shard_record(shard, 1000);
        __atomic_store_n(done_count, *done_count + 1, __ATOMIC_RELAXED);
    }
}

/* Kills a writer after some hundred records at least. */
static void kill_one(unsigned spin_count)
{
    uint64_t before = __atomic_load_n(done_count, __ATOMIC_RELAXED);
    pid_t writer = fork();
    if (writer == 0) {
        write_for_ever();
    }
    while (__atomic_load_n(done_count, __ATOMIC_RELAXED) < before + 100) {
    }
    for (volatile unsigned i = 0; i < spin_count; i++) {
    }
    (void)kill(writer, SIGKILL);
    (void)waitpid(writer, NULL, 0);
}

static uint64_t count_buckets(uint32_t *ret_used_shards)
{
    perfkit_slots slots = perfkit_histogram_slots(histogram);
    uint64_t count = 0;
    *ret_used_shards = 0;
    for (uint32_t i = 0; i <= histogram->header.shard_count; i++) {
        perfkit_shard_head *head = perfkit_histogram_head(histogram, i);
        *ret_used_shards += head->owner != 0;
        for (uint32_t slot = 0; slot < slots.count; slot++) {
            count += perfkit_buckets(head)[slot];
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    perfkit_histogram_options options;
    memset(&options, 0, sizeof(options));
    options.name = "killed";
    options.shard_count = 2;
    uint64_t kill_count = argc > 1 ? (uint64_t)atol(argv[1]) : 0;
    void *page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | PERFKIT_MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || perfkit_histogram_open(&options, &histogram) != 0) {
        return 1;
    }
    done_count = (uint64_t *)page;
    if (argc == 2) {
        puts("ready");
        (void)fflush(stdout);
    }
    for (unsigned i = 0; i < kill_count; i++) {
        kill_one(i * 37 % 1000);
    }
    uint32_t used_shards;
    uint64_t extra = count_buckets(&used_shards) - *done_count;
    perfkit_histogram_record(histogram, 2199023255552.0);
    if (argc > 2) {
        fprintf(stderr, "%lu more, %u shards\n", (unsigned long)extra, used_shards);
        puts(extra <= kill_count && used_shards <= 2 ? "ok" : "lost");
        return 0;
    }
    (void)getchar();
    return 0;
}
