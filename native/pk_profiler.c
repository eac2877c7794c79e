#include "pk_profiler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pk_perf.h"
#include "pk_period.h"
#include "pk_worker.h"

enum {
    STACK_BYTES = 512 * 1024,
    PAGE_BYTES = 4096,
    PAGE_COUNT_MIN = 32, /* of a ring; powers of two */
    PAGE_COUNT_MAX = 1024,
    SAMPLE_BYTES = 1024, /* of a sample, beside its stack */
    TICKS_HELD = 4,      /* a ring has room for the samples of so many ticks */
    SWITCH_FACTOR = 4,   /* and for more where each switch brings a stack as well */
};
/* So soon a stack's rest is mostly still there; a tick costs as much as a few samples do. */
static const int64_t TICK_NS_MIN = 25LL * 1000 * 1000;
static const int64_t TICK_NS_MAX = 50LL * 1000 * 1000;
static const double TICK_INTERVALS = 4;
static const int64_t SETTLE_NS = 1000LL * 1000;
static const int64_t SWITCHES_EVERY_NS = 200LL * 1000 * 1000;

struct pk_profiler {
    pk_profile profile;
    pk_worker worker;
    pk_profiler_status status; /* under the worker's lock */
    _Atomic(pk_wanted *) wanted; /* that the thread has not seen yet */
    _Atomic double budget_ratio; /* the owner writes */
    /* The thread's own: */
    pk_perf perf;
    pk_period period;
    int64_t tick_ns;
    bool is_host_wide;
    bool is_stepped_down;
    int64_t unseen_thread_count;
    int64_t spent_ns;
    int64_t checked_ns; /* when switches were counted last, and how many there were */
    int64_t checked_switch_count;
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void destroy(pk_profiler *profiler)
{
    free(atomic_load(&profiler->wanted));
    pk_perf_deinit(&profiler->perf);
    pk_profile_deinit(&profiler->profile);
    pk_worker_deinit(&profiler->worker);
    free(profiler);
}

void pk_profiler_release(pk_profiler *profiler)
{
    if (pk_worker_let_go(&profiler->worker)) {
        destroy(profiler);
    }
}

static void publish(pk_profiler *profiler, int64_t now_ns)
{
    const pk_profile *profile = &profiler->profile;
    const pk_proctable *processes = &profile->processes;
    const pk_objects *objects = &profile->unwinder.objects;
    pthread_mutex_lock(&profiler->worker.lock);
    profiler->status = (pk_profiler_status){
        .started_ns = profiler->period.started_ns,
        .last_tick_ns = now_ns,
        .spent_ns = profiler->spent_ns,
        .interval_ns = profiler->period.interval_ns,
        .slot_count = (int64_t)profiler->period.slot_count,
        .cpu_count = (int64_t)profiler->perf.count,
        .unseen_thread_count = profiler->unseen_thread_count,
        .lost_count = profiler->perf.lost_count,
        .damaged_count = pk_perf_count_damaged(&profiler->perf),
        .disordered_count = profiler->perf.late_count,
        .process_count = processes->process_count,
        .map_read_count = processes->read_count,
        .refused_count = processes->refused_count + objects->refused_count,
        .evicted_count = processes->evicted_count + objects->evicted_count +
                         profile->offcpu.evicted_count,
        .dropped_mapping_count = processes->dropped_mapping_count,
        .is_stepped_down = profiler->is_stepped_down,
        .counts = profile->counts,
    };
    pthread_mutex_unlock(&profiler->worker.lock);
}

static void take_records(pk_profiler *profiler, int64_t until_ns)
{
    const pk_perf_record *record;
    pk_perf_look(&profiler->perf, until_ns);
    while (pk_perf_next(&profiler->perf, &record)) {
        pk_profile_take(&profiler->profile, record);
    }
}

/* Each CPU gets an interval of its own, so that they do not sample in step. Where only threads are
 * recorded those that they begot keep their interval: samples are left out instead. */
static void set_interval(pk_profiler *profiler, int64_t now_ns)
{
    pk_period *period = &profiler->period;
    if (!profiler->is_host_wide) {
        profiler->profile.keep_ratio =
            (double)period->base_interval_ns / (double)period->interval_ns;
        return;
    }
    for (size_t i = 0; i < profiler->perf.count; i++) {
        (void)pk_perf_ring_set_interval(&profiler->perf.rings[i], pk_period_draw(period), now_ns);
    }
}

static void watch_switches(pk_profiler *profiler, int64_t now_ns)
{
    int64_t passed_ns = now_ns - profiler->checked_ns;
    if (!profiler->profile.has_switches || passed_ns < SWITCHES_EVERY_NS) {
        return;
    }
    int64_t count = profiler->profile.counts.switch_count;
    double per_s = 1e9 * (double)(count - profiler->checked_switch_count) / (double)passed_ns;
    profiler->checked_ns = now_ns;
    profiler->checked_switch_count = count;
    if (per_s > PK_PROFILER_SWITCHES_PER_S_MAX) {
        pk_perf_part(&profiler->perf, PK_PERF_SWITCHES);
        pk_perf_part(&profiler->perf, PK_PERF_SWITCH_STACKS);
        pk_profile_end_switches(&profiler->profile);
        profiler->is_stepped_down = true;
    }
}

static void tick(pk_profiler *profiler, int64_t settle_ns)
{
    int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    pk_wanted *wanted = atomic_exchange(&profiler->wanted, NULL);
    if (wanted != NULL) {
        pk_proctable_set_wanted(&profiler->profile.processes, wanted);
    }
    double budget_ratio = atomic_load_explicit(&profiler->budget_ratio, memory_order_relaxed);
    pk_period_set_budget(&profiler->period, budget_ratio, profiler->spent_ns, now_ns);
    take_records(profiler, now_ns - settle_ns);
    watch_switches(profiler, now_ns);
    now_ns = clock_ns(CLOCK_MONOTONIC);
    profiler->spent_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (pk_period_adapt(&profiler->period, profiler->spent_ns, now_ns)) {
        set_interval(profiler, now_ns);
    }
    publish(profiler, now_ns);
}

static void *run(void *argument)
{
    pk_profiler *profiler = argument;
    int64_t planned_ns = clock_ns(CLOCK_MONOTONIC);
    do {
        tick(profiler, SETTLE_NS);
        int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        planned_ns += profiler->tick_ns;
        planned_ns = planned_ns < now_ns ? now_ns + profiler->tick_ns : planned_ns;
    } while (!pk_worker_sleep_until(&profiler->worker, planned_ns));
    tick(profiler, 0);
    pk_profile_close(&profiler->profile, clock_ns(CLOCK_MONOTONIC));
    pk_worker_end(&profiler->worker);
    pk_profiler_release(profiler);
    return NULL;
}

/* The rings of all CPUs, for all that runs or for the first thread that is still there. */
static int open_rings(pk_perf *perf, const pk_profiler_options *options, pk_perf_plan *plan,
                      size_t *ret_opened)
{
    *ret_opened = 0;
    if (options->is_host_wide) {
        return pk_perf_init(perf, plan);
    }
    int error = ESRCH;
    while (error == ESRCH && *ret_opened < options->thread_count) {
        plan->thread = options->threads[(*ret_opened)++];
        error = pk_perf_init(perf, plan);
    }
    return error;
}

/* Adds a source for each thread from `first` on; those that find no room are counted. */
static int join_threads(pk_profiler *profiler, const pk_profiler_options *options,
                        pk_perf_plan plan, pk_perf_source source, size_t first)
{
    for (size_t i = first; i < options->thread_count; i++) {
        plan.thread = options->threads[i];
        int error = pk_perf_join(&profiler->perf, &plan, source);
        if (error == ENOSPC || error == EMFILE || error == ENFILE || error == ENOMEM) {
            profiler->unseen_thread_count += (int64_t)(options->thread_count - i);
            return 0;
        }
        if (error != 0 && error != ESRCH) {
            return error;
        }
    }
    return 0;
}

static int open_switches(pk_profiler *profiler, const pk_profiler_options *options,
                         const pk_perf_plan *plan)
{
    profiler->profile.has_switches = true;
    int error = options->is_host_wide
                    ? pk_perf_join(&profiler->perf, plan, PK_PERF_SWITCHES)
                    : join_threads(profiler, options, *plan, PK_PERF_SWITCHES, 0);
    if (error == 0 && options->has_kernel) { /* they happen there */
        error = join_threads(profiler, options, *plan, PK_PERF_SWITCH_STACKS, 0);
    }
    return error;
}

static int64_t choose_tick_ns(int64_t interval_ns)
{
    int64_t tick_ns = (int64_t)(TICK_INTERVALS * (double)interval_ns);
    tick_ns = tick_ns > TICK_NS_MIN ? tick_ns : TICK_NS_MIN;
    return tick_ns < TICK_NS_MAX ? tick_ns : TICK_NS_MAX;
}

/* How large rings must be, so that the thread may be late. */
static uint32_t choose_page_count(const pk_profiler_options *options)
{
    int64_t tick_ns = choose_tick_ns(options->interval_ns);
    int64_t sample_count = TICKS_HELD * (1 + tick_ns / options->interval_ns);
    sample_count *= options->has_switches ? SWITCH_FACTOR : 1;
    int64_t bytes = sample_count * (SAMPLE_BYTES + (int64_t)options->stack_bytes);
    uint32_t count = PAGE_COUNT_MIN;
    while (count < PAGE_COUNT_MAX && (int64_t)count * PAGE_BYTES < bytes) {
        count *= 2;
    }
    return count;
}

static int open_events(pk_profiler *profiler, const pk_profiler_options *options)
{
    pk_perf_plan plan = {
        .thread = -1,
        .interval_ns = options->interval_ns,
        .stack_bytes = options->stack_bytes,
        .page_count = choose_page_count(options),
        .has_kernel = options->has_kernel,
    };
    size_t opened;
    int error = open_rings(&profiler->perf, options, &plan, &opened);
    if (error == 0 && !options->is_host_wide) {
        error = join_threads(profiler, options, plan, PK_PERF_CLOCK, opened);
    }
    if (error == 0 && options->has_switches) {
        error = open_switches(profiler, options, &plan);
    }
    return error;
}

static int open_all(pk_profiler *profiler, const pk_profiler_options *options)
{
    int proc = open(options->proc_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0) {
        return errno;
    }
    int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    int error = pk_profile_init(&profiler->profile, proc, options->row_limit, now_ns);
    if (error != 0) {
        close(proc);
        return error;
    }
    return open_events(profiler, options);
}

int pk_profiler_start(const pk_profiler_options *options, pk_profiler **ret)
{
    pk_profiler *profiler = calloc(1, sizeof *profiler);
    if (profiler == NULL) {
        return ENOMEM;
    }
    profiler->profile.proc = -1;
    profiler->is_host_wide = options->is_host_wide;
    profiler->tick_ns = choose_tick_ns(options->interval_ns);
    atomic_init(&profiler->wanted, NULL);
    atomic_init(&profiler->budget_ratio, options->budget_ratio);
    pk_worker_init(&profiler->worker);
    int error = open_all(profiler, options);
    if (error == 0) {
        int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
        pk_period_init(&profiler->period, options->interval_ns, options->budget_ratio, now_ns);
        profiler->checked_ns = now_ns;
        publish(profiler, now_ns);
        error =
            pk_worker_start(&profiler->worker, "perfkit-native", STACK_BYTES, run, profiler);
    }
    if (error != 0) {
        destroy(profiler);
        return error;
    }
    *ret = profiler;
    return 0;
}

void pk_profiler_set_wanted(pk_profiler *profiler, pk_wanted *wanted)
{
    free(atomic_exchange(&profiler->wanted, wanted));
}

void pk_profiler_set_budget(pk_profiler *profiler, double budget_ratio)
{
    atomic_store_explicit(&profiler->budget_ratio, budget_ratio, memory_order_relaxed);
}

int pk_profiler_stop(pk_profiler *profiler, int64_t timeout_ns)
{
    return pk_worker_stop(&profiler->worker, timeout_ns);
}

void pk_profiler_get_status(pk_profiler *profiler, pk_profiler_status *ret)
{
    pthread_mutex_lock(&profiler->worker.lock);
    *ret = profiler->status;
    pthread_mutex_unlock(&profiler->worker.lock);
    ret->is_abandoned = profiler->worker.is_abandoned;
}

pk_ring *pk_profiler_rows(pk_profiler *profiler)
{
    return &profiler->profile.rows;
}

const pk_nativestacks *pk_profiler_stacks(const pk_profiler *profiler)
{
    return &profiler->profile.stacks;
}
