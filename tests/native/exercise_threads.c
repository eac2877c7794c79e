/* Feeds damaged text to the parsers, then runs the sampler on this process while threads come and
 * go, under the sanitizers. Arguments: seed, rounds. Prints "ok" and counts; any fault aborts. */
#include "pk_process.h"
#include "pk_procfile.h"
#include "pk_sampler.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

static uint64_t state;
static atomic_bool ending;

static uint32_t draw(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16) % limit;
}

static const char *const texts[] = {
    "100 200 3\n",
    "running\n",
    "-1 0x7ffc00 0x7f00\n",
    "45 0x3 0x7f304c 0x1 0x0 0x0 0xffffffffffffffff 0x7f304b 0x7f3050\n",
    "77 (a b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 18446744073709551615 22 23 "
    "24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40\n",
    "nr_periods 3\nnr_throttled 2\nthrottled_usec 9223372036854775807\n",
    "socket:[4242]",
};

/* The copy has exactly the text's size, so that a read beyond it is seen. */
static char *damage(size_t *ret_size)
{
    const char *text = texts[draw(sizeof texts / sizeof texts[0])];
    size_t size = strlen(text);
    size = draw(3) == 0 ? draw((uint32_t)size + 1) : size;
    char *copy = malloc(size + (size == 0));
    memcpy(copy, text, size);
    for (uint32_t i = draw(6); size > 0 && i > 0; i--) {
        static const char letters[] = "0123456789abcx-)( :[]\n";
        copy[draw((uint32_t)size)] =
            draw(4) == 0 ? (char)draw(256) : letters[draw(sizeof letters - 1)];
    }
    *ret_size = size;
    return copy;
}

static void parse(void)
{
    size_t size;
    char *text = damage(&size);
    pk_schedstat schedstat;
    pk_syscall call;
    pk_stat stat;
    pk_cpu_stat cpu_stat;
    pk_procfile_parse_schedstat(text, size, &schedstat);
    pk_procfile_parse_syscall(text, size, &call);
    pk_procfile_parse_stat(text, size, &stat);
    pk_procfile_parse_cpu_stat(text, size, &cpu_stat);
    assert(pk_procfile_parse_inode(text, size) >= 0);
    free(text);
}

static void *come_and_go(void *unused)
{
    (void)unused;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        return NULL;
    }
    struct pollfd polled[2] = {{pair[0], POLLIN, 0}, {pair[1], POLLIN, 0}};
    for (int i = 0; i < 20 && !atomic_load(&ending); i++) {
        poll(polled, 1 + i % 2, 1 + i % 7);
    }
    close(pair[0]);
    close(pair[1]);
    return NULL;
}

static size_t take(pk_sampler *sampler)
{
    size_t total = 0;
    for (int table = 0; table < PK_TABLE_COUNT; table++) {
        size_t columns = pk_sampler_column_count((pk_table)table);
        size_t rows = pk_sampler_row_count(sampler, (pk_table)table);
        int64_t *values = calloc(columns * rows + 1, sizeof *values);
        int64_t *starts[64];
        for (size_t i = 0; i < columns; i++) {
            starts[i] = values + i * rows;
        }
        pk_sampler_take(sampler, (pk_table)table, rows, starts);
        for (size_t i = 0; table == PK_TABLE_RUNS && i < rows; i++) {
            assert(starts[2][i] <= starts[3][i] && starts[3][i] <= starts[4][i]);
        }
        free(values);
        total += rows;
    }
    return total;
}

static size_t sample(int64_t descriptor_limit)
{
    enum { THREADS = 40 };
    pthread_t threads[THREADS];
    pk_sampler_options options = {"/proc", 2000000, 0.9, 300, 32, descriptor_limit, 0.5};
    pk_sampler *sampler;
    size_t total = 0;
    assert(pk_sampler_start(&options, &sampler) == 0);
    assert(pk_sampler_add_pid(sampler, getpid()) == 0);
    assert(pk_sampler_add_cgroup(sampler, 0, "/proc/loadavg") == 0);
    for (int i = 0; i < THREADS; i++) {
        assert(pthread_create(&threads[i], NULL, come_and_go, NULL) == 0);
        struct timespec pause = {0, 10000000};
        nanosleep(&pause, NULL);
        total += take(sampler);
    }
    atomic_store(&ending, true);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&ending, false);
    assert(pk_sampler_stop(sampler, 2000000000) == 0);
    total += take(sampler);
    pk_sampler_status status;
    pk_sampler_get_status(sampler, &status);
    assert(status.has_ended && !status.is_abandoned);
    pk_sampler_release(sampler);
    return total;
}

int main(int count, char **arguments)
{
    assert(count == 3);
    state = strtoull(arguments[1], NULL, 10) | 1;
    for (long i = strtol(arguments[2], NULL, 10); i > 0; i--) {
        parse();
    }
    size_t kept = sample(1000);
    size_t reopened = sample(0);
    pk_process_fd *fds;
    size_t fd_count;
    assert(pk_process_list_fds("/proc", getpid(), 100, &fds, &fd_count) == 0);
    free(fds);
    assert(pk_process_cpu_ns(getpid()) > 0 && pk_process_cpu_ns(0) == -1);
    printf("ok %zu %zu %zu\n", kept, reopened, fd_count);
    return 0;
}
