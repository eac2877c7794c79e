/* Records what a child does, whose functions take 60, 30 and 10 % of its time, with the rings of
 * all CPUs, and unwinds its samples. Arguments: samples a second, bytes of stack, rounds of work,
 * "switches" to record these as well. Prints counts; exits with 77 where recording is refused. */
#include "pk_perf.h"
#include "shares.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DRAIN_NS = 20000000, SETTLE_NS = 1000000, LOOPS = 70000 };

static struct {
    long samples, root, late, kernel, heavy, medium, light, births, deaths, names, execs,
        mappings, switches, preempted, foreign;
    int64_t weight_ns;
} seen;

static void *run_thread(void *rounds)
{
    unsigned state = (unsigned)(uintptr_t)&rounds;
    for (long i = *(long *)rounds; i > 0; i--) {
        long unit = LOOPS + rand_r(&state) % LOOPS; /* out of step with the sampling */
        work(unit);
    }
    return NULL;
}

/* Time that the kernel spends for the program. */
static void read_zeros(void)
{
    enum { PIECE_BYTES = 1 << 20, PIECE_COUNT = 800 };
    static char piece[PIECE_BYTES];
    int zeros = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < PIECE_COUNT; i++) {
        result += (double)read(zeros, piece, sizeof piece);
    }
    close(zeros);
}

static void be_child(long rounds)
{
    pthread_t thread;
    prctl(PR_SET_NAME, "burner");
    int own = open("/proc/self/exe", O_RDONLY);
    mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, own, 0);
    close(own);
    read_zeros();
    pthread_create(&thread, NULL, run_thread, &rounds);
    run_thread(&rounds);
    pthread_join(thread, NULL);
    execl("/bin/true", "true", (char *)NULL);
    _exit(1);
}

static int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static size_t read_memory(void *context, uint64_t address, void *buffer, size_t size)
{
    struct iovec local = {buffer, size};
    struct iovec remote = {(void *)(uintptr_t)address, size};
    ssize_t count = process_vm_readv(*(pid_t *)context, &local, 1, &remote, 1, 0);
    return count < 0 ? 0 : (size_t)count;
}

static bool is_in(const pk_stack *stack, const char *start, const char *stop)
{
    for (size_t i = 0; i < stack->depth; i++) {
        uint64_t pc = stack->frames[i].pc;
        if (pc > (uintptr_t)start && pc <= (uintptr_t)stop) {
            return true;
        }
    }
    return false;
}

static void look(pk_unwinder *unwinder, pk_maps *maps, pid_t child, const pk_perf_record *record)
{
    static pk_stack stack;
    pk_snapshot snapshot = {.pid = child,
                            .registers = record->registers,
                            .stack = record->stack,
                            .stack_address = record->registers.values[PK_RSP],
                            .stack_bytes = record->stack_bytes,
                            .read = read_memory,
                            .context = &child};
    pk_unwind(unwinder, maps, &snapshot, &stack);
    seen.samples++;
    seen.weight_ns += record->weight_ns;
    seen.root += stack.end == PK_UNWIND_ROOT;
    seen.late += (stack.flags & PK_FRAME_LATE) != 0;
    seen.kernel += record->kernel_depth > 0;
    seen.heavy += is_in(&stack, __start_heavy, __stop_heavy);
    seen.medium += is_in(&stack, __start_medium, __stop_medium);
    seen.light += is_in(&stack, __start_light, __stop_light);
}

static void take(pk_unwinder *unwinder, pk_maps *maps, pid_t child, const pk_perf_record *record)
{
    static bool has_other_program;
    static bool has_maps;
    if (record->pid != child) {
        seen.foreign += record->kind == PK_PERF_SAMPLE;
        return;
    }
    if (!has_maps) { /* of a fork nobody reports what it has from its parent */
        pk_maps_read(maps, unwinder->objects.proc, child);
        has_maps = true;
    }
    switch (record->kind) {
    case PK_PERF_SAMPLE:
        if (record->registers.known != 0 && !has_other_program) {
            look(unwinder, maps, child, record);
        }
        break;
    case PK_PERF_MAPPING:
        seen.mappings++;
        pk_maps_add(maps, &record->mapping);
        break;
    case PK_PERF_NAME:
        seen.names += record->text_bytes == 6 && memcmp(record->text, "burner", 6) == 0;
        seen.execs += record->is_exec;
        has_other_program = has_other_program || record->is_exec;
        break;
    case PK_PERF_BIRTH:
        seen.births++;
        break;
    case PK_PERF_DEATH:
        seen.deaths++;
        break;
    case PK_PERF_SWITCH:
        seen.switches++;
        seen.preempted += record->is_preempted;
        break;
    default:
        break;
    }
}

int main(int count, char **words)
{
    if (count < 4) {
        return 2;
    }
    const struct timespec pause = {0, DRAIN_NS};
    const pk_perf_record *record;
    pk_perf perf;
    pk_unwinder unwinder;
    pk_maps maps;
    pk_perf_plan plan = {.thread = -1,
                         .interval_ns = 1000000000 / strtol(words[1], NULL, 10),
                         .stack_bytes = (uint32_t)strtoul(words[2], NULL, 10),
                         .page_count = 512,
                         .has_kernel = true,
                         .has_switches = count > 4};
    int error = pk_perf_init(&perf, &plan);
    if (error != 0) {
        printf("refused: %s\n", strerror(error));
        return 77;
    }
    pk_maps_init(&maps);
    if (pk_unwinder_init(&unwinder, open("/proc", O_PATH | O_DIRECTORY)) != 0) {
        return 2;
    }
    pid_t child = fork();
    if (child == 0) {
        be_child(strtol(words[3], NULL, 10));
    }
    int64_t spent_ns = 0;
    for (int left = -1; left != 0; left -= left > 0) {
        nanosleep(&pause, NULL);
        if (left < 0 && waitpid(child, NULL, WNOHANG) != 0) {
            left = 2;
        }
        int64_t start_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID);
        pk_perf_look(&perf, read_clock(CLOCK_MONOTONIC) - SETTLE_NS);
        while (pk_perf_next(&perf, &record)) {
            take(&unwinder, &maps, child, record);
        }
        spent_ns += read_clock(CLOCK_PROCESS_CPUTIME_ID) - start_ns;
    }
    printf("samples %ld root %ld late %ld kernel %ld heavy %ld medium %ld light %ld disordered %ld "
           "births %ld deaths %ld names %ld execs %ld mappings %ld switches %ld preempted %ld "
           "foreign %ld lost %ld damaged %ld weight_ms %ld ns_per_sample %ld\n",
           seen.samples, seen.root, seen.late, seen.kernel, seen.heavy, seen.medium, seen.light,
           (long)perf.late_count, seen.births, seen.deaths, seen.names, seen.execs, seen.mappings,
           seen.switches, seen.preempted, seen.foreign, (long)perf.lost_count,
           (long)pk_perf_count_damaged(&perf), (long)(seen.weight_ns / 1000000),
           (long)(spent_ns / (seen.samples + seen.foreign + 1)));
    pk_perf_deinit(&perf);
    pk_unwinder_deinit(&unwinder);
    pk_maps_deinit(&maps);
    return 0;
}
