/* Feeds pk_profile with records as the kernel writes them, but made up from a seed and hostile,
 * about this process and others; then starts and stops real samplers. Arguments: seed, rounds. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pk_profiler.h"

enum { PID_COUNT = 24, STACK_WORDS = 512 };

static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below == 0 ? state : state % below;
}

/* Ourselves, odd numbers, and ones that share a place in tables. */
static pid_t draw_pid(void)
{
    uint64_t which = draw(PID_COUNT);
    return which == 0 ? getpid() : which == 1 ? -1 : (pid_t)(1 + which * 256);
}

static uint64_t draw_address(void)
{
    switch (draw(4)) {
    case 0:
        return (uint64_t)(uintptr_t)&draw + draw(4096);
    case 1:
        return (uint64_t)(uintptr_t)&memcpy + draw(4096);
    case 2:
        return (uint64_t)(uintptr_t)&state + draw(1 << 20) * 8;
    default:
        return draw(0);
    }
}

static void fill(pk_perf_record *record, uint64_t *stack, uint64_t *kernel, int64_t now_ns)
{
    memset(record, 0, sizeof *record);
    record->kind = (pk_perf_kind)draw(PK_PERF_OTHER + 1);
    record->time_ns = now_ns - (int64_t)draw(30000000) + 1000000;
    record->pid = draw_pid();
    record->tid = draw_pid();
    record->cpu = (int32_t)draw(64);
    record->weight_ns = (int64_t)draw(30000000);
    record->is_switch = draw(3) == 0;
    record->kernel = kernel;
    record->kernel_depth = draw(3) == 0 ? draw(PK_PERF_KERNEL_DEPTH_LIMIT + 1) : 0;
    record->registers.known = draw(8) == 0 ? 0 : (1U << PK_REGISTER_COUNT) - 1;
    for (size_t i = 0; i < PK_REGISTER_COUNT; i++) {
        record->registers.values[i] = draw_address();
    }
    for (size_t i = 0; i < STACK_WORDS; i++) {
        stack[i] = draw_address();
    }
    record->stack = (const uint8_t *)stack;
    record->stack_bytes = draw(STACK_WORDS * 8 + 1);
    if (draw(2) == 0) { /* a stack that goes on in our own memory */
        record->registers.values[PK_RSP] = (uint64_t)(uintptr_t)stack;
        record->registers.values[PK_RIP] = (uint64_t)(uintptr_t)&memcpy + draw(4096);
        record->stack_bytes = 8 * draw(4);
    }
    record->mapping = (pk_mapping){.start = draw_address() & ~4095ULL,
                                   .offset = draw(1 << 20) & ~4095ULL,
                                   .inode = draw(50),
                                   .kind = (uint8_t)draw(3)};
    record->mapping.end = record->mapping.start + (draw(64) << 12);
    record->is_exec = draw(2) == 0;
    record->parent = draw_pid();
    record->is_leaving = draw(2) == 0;
    record->is_preempted = draw(2) == 0;
    record->lost_count = (int64_t)draw(100);
}

static int64_t read_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void take_all(pk_ring *rows)
{
    static int64_t columns[PK_PROFILE_COLUMN_COUNT][512];
    int64_t *places[PK_PROFILE_COLUMN_COUNT];
    for (size_t i = 0; i < PK_PROFILE_COLUMN_COUNT; i++) {
        places[i] = columns[i];
    }
    pk_ring_take(rows, pk_ring_count(rows), places);
}

static int feed(long rounds)
{
    static pk_profile profile;
    static uint64_t stack[STACK_WORDS];
    static uint64_t kernel[PK_PERF_KERNEL_DEPTH_LIMIT];
    int proc = open("/proc", O_RDONLY | O_DIRECTORY);
    if (pk_profile_init(&profile, proc, 512, read_clock()) != 0) {
        return 2;
    }
    profile.has_switches = true;
    for (long round = 0; round < rounds; round++) {
        pk_perf_record record;
        fill(&record, stack, kernel, read_clock());
        if (round % 64 == 0) {
            pid_t wanted[4] = {getpid(), draw_pid(), draw_pid(), 600};
            pk_proctable_set_wanted(&profile.processes, pk_wanted_new(wanted, 4, draw(4) == 0));
            take_all(&profile.rows);
            profile.keep_ratio = draw(2) == 0 ? 1 : 0.5;
        }
        pk_profile_take(&profile, &record);
    }
    pk_profile_close(&profile, read_clock());
    const pk_profile_counts *counts = &profile.counts;
    printf("ok %lld samples %u stacks %u objects %lld late\n", (long long)counts->sample_count,
           atomic_load(&profile.stacks.stack_count), atomic_load(&profile.stacks.object_count),
           (long long)counts->late_count);
    bool is_fair = counts->sample_count > 0 && counts->late_count > 0 &&
                   atomic_load(&profile.stacks.object_count) > 1;
    pk_profile_deinit(&profile);
    return is_fair ? 0 : 3;
}

static int sample(bool is_host_wide, bool has_switches)
{
    pid_t own = getpid();
    const pk_profiler_options options = {
        .proc_root = "/proc",
        .interval_ns = 1000000,
        .budget_ratio = 1,
        .stack_bytes = 4096,
        .row_limit = 1024,
        .is_host_wide = is_host_wide,
        .has_kernel = true,
        .has_switches = has_switches,
        .threads = &own,
        .thread_count = 1,
    };
    pk_profiler *profiler;
    int error = pk_profiler_start(&options, &profiler);
    if (error != 0) {
        return 0; /* it is refused here */
    }
    pk_profiler_set_wanted(profiler, pk_wanted_new(&own, 1, false));
    for (int64_t end_ns = read_clock() + 100000000; read_clock() < end_ns;) {
        draw(0);
    }
    error = pk_profiler_stop(profiler, 5000000000LL);
    pk_profiler_release(profiler);
    return error;
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoull(argv[1], NULL, 10) | 1 : 1;
    int error = feed(argc > 2 ? strtol(argv[2], NULL, 10) : 1000);
    error = error != 0 ? error : sample(true, true);
    error = error != 0 ? error : sample(false, true);
    return error != 0 ? error : sample(true, false);
}
