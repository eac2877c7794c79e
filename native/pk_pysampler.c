#include "pk_pysampler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pk_pace.h"
#include "pk_worker.h"

enum { STACK_BYTES = 512 * 1024 };
/* One look at hundreds of threads takes milliseconds. */
static const int64_t INTERVAL_LIMIT_NS = 2000LL * 1000 * 1000;

typedef struct {
    int32_t pid;
    uint64_t runtime;
    pk_pylayout layout;
} order;

struct pk_pysampler {
    pk_pyshared shared;
    pk_worker worker;
    pk_pysampler_status status; /* under the worker's lock */
    _Atomic(order *) orders[PK_PYSAMPLER_ORDER_LIMIT];
    int order_count;             /* owner only */
    _Atomic double budget_ratio; /* the owner writes */
    int64_t interval_ns;
    /* The thread's own: */
    pk_pyprocess processes[PK_PYSAMPLER_PROCESS_LIMIT];
    size_t process_count;
    int taken_count; /* orders */
    pk_pace pace;
    int64_t used_cpu_ns;
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void destroy(pk_pysampler *sampler)
{
    for (size_t i = 0; i < sampler->process_count; i++) {
        pk_pyprocess_deinit(&sampler->processes[i], &sampler->shared);
    }
    for (int i = 0; i < PK_PYSAMPLER_ORDER_LIMIT; i++) {
        free(atomic_load(&sampler->orders[i]));
    }
    pk_pyshared_deinit(&sampler->shared);
    pk_worker_deinit(&sampler->worker);
    free(sampler);
}

void pk_pysampler_release(pk_pysampler *sampler)
{
    if (pk_worker_let_go(&sampler->worker)) {
        destroy(sampler);
    }
}

/* True where a process was added: its first look is dear. */
static bool take_orders(pk_pysampler *sampler)
{
    bool has_new = false;
    while (sampler->taken_count < PK_PYSAMPLER_ORDER_LIMIT &&
           sampler->process_count < PK_PYSAMPLER_PROCESS_LIMIT) {
        const order *next = atomic_load(&sampler->orders[sampler->taken_count]);
        if (next == NULL) {
            break;
        }
        sampler->taken_count++;
        pk_pyprocess *process = &sampler->processes[sampler->process_count];
        if (pk_pyprocess_init(process, next->pid, next->runtime, &next->layout) == 0) {
            sampler->process_count++;
            has_new = true;
        }
    }
    return has_new;
}

static void drop_process(pk_pysampler *sampler, size_t index)
{
    pk_pyprocess_deinit(&sampler->processes[index], &sampler->shared);
    sampler->process_count--;
    if (index != sampler->process_count) {
        sampler->processes[index] = sampler->processes[sampler->process_count];
    }
}

static void publish(pk_pysampler *sampler, int64_t now_ns)
{
    const pk_pace *pace = &sampler->pace;
    int64_t thread_count = 0;
    for (size_t i = 0; i < sampler->process_count; i++) {
        thread_count += (int64_t)sampler->processes[i].thread_count;
    }
    pthread_mutex_lock(&sampler->worker.lock);
    sampler->status = (pk_pysampler_status){
        .started_ns = pace->started_ns,
        .last_tick_ns = now_ns,
        .tick_count = pace->tick_count,
        .missed_count = pk_pace_missed_count(pace, now_ns),
        .spent_ns = pace->spent_ns,
        .interval_ns = pace->interval_ns,
        .process_count = (int64_t)sampler->process_count,
        .thread_count = thread_count,
        .counts = sampler->shared.counts,
    };
    pthread_mutex_unlock(&sampler->worker.lock);
}

static void tick(pk_pysampler *sampler)
{
    double budget_ratio = atomic_load_explicit(&sampler->budget_ratio, memory_order_relaxed);
    pk_pace_set_budget(&sampler->pace, budget_ratio, clock_ns(CLOCK_MONOTONIC));
    bool has_new = take_orders(sampler);
    for (size_t i = sampler->process_count; i > 0; i--) {
        pk_pyprocess_look(&sampler->processes[i - 1], &sampler->shared);
        if (sampler->processes[i - 1].is_gone) {
            drop_process(sampler, i - 1);
        }
    }
    int64_t used_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t ended_ns = clock_ns(CLOCK_MONOTONIC);
    pk_pace_account(&sampler->pace, ended_ns, used_cpu_ns - sampler->used_cpu_ns, !has_new);
    sampler->used_cpu_ns = used_cpu_ns;
    publish(sampler, ended_ns);
}

static void *run(void *argument)
{
    pk_pysampler *sampler = argument;
    int64_t planned_ns = clock_ns(CLOCK_MONOTONIC);
    double budget_ratio = atomic_load_explicit(&sampler->budget_ratio, memory_order_relaxed);
    pk_pace_init(&sampler->pace, sampler->interval_ns, budget_ratio, planned_ns);
    sampler->pace.interval_limit_ns = INTERVAL_LIMIT_NS;
    do {
        tick(sampler);
        planned_ns = pk_pace_next(&sampler->pace, clock_ns(CLOCK_MONOTONIC));
    } while (!pk_worker_sleep_until(&sampler->worker, planned_ns));
    tick(sampler);
    while (sampler->process_count > 0) {
        drop_process(sampler, sampler->process_count - 1);
    }
    pk_worker_end(&sampler->worker);
    pk_pysampler_release(sampler);
    return NULL;
}

int pk_pysampler_start(const pk_pysampler_options *options, pk_pysampler **ret)
{
    pk_pysampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL) {
        return ENOMEM;
    }
    sampler->interval_ns = options->interval_ns;
    atomic_init(&sampler->budget_ratio, options->budget_ratio);
    pk_worker_init(&sampler->worker);
    int error = pk_pyshared_init(&sampler->shared, options->row_limit);
    if (error == 0) {
        int folder = open(options->proc_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        sampler->shared.proc_folder = folder;
        error = folder < 0 ? errno
                           : pk_worker_start(&sampler->worker, "perfkit-stacks", STACK_BYTES,
                                             run, sampler);
    }
    if (error != 0) {
        destroy(sampler);
        return error;
    }
    *ret = sampler;
    return 0;
}

int pk_pysampler_add(pk_pysampler *sampler, int32_t pid, uint64_t runtime,
                     const pk_pylayout *layout)
{
    if (sampler->order_count >= PK_PYSAMPLER_ORDER_LIMIT) {
        return ENOSPC;
    }
    order *next = malloc(sizeof *next);
    if (next == NULL) {
        return ENOMEM;
    }
    *next = (order){pid, runtime, *layout};
    atomic_store(&sampler->orders[sampler->order_count++], next);
    return 0;
}

void pk_pysampler_set_budget(pk_pysampler *sampler, double budget_ratio)
{
    atomic_store_explicit(&sampler->budget_ratio, budget_ratio, memory_order_relaxed);
}

int pk_pysampler_stop(pk_pysampler *sampler, int64_t timeout_ns)
{
    return pk_worker_stop(&sampler->worker, timeout_ns);
}

void pk_pysampler_get_status(pk_pysampler *sampler, pk_pysampler_status *ret)
{
    pthread_mutex_lock(&sampler->worker.lock);
    *ret = sampler->status;
    pthread_mutex_unlock(&sampler->worker.lock);
    ret->is_abandoned = sampler->worker.is_abandoned;
}

pk_pyshared *pk_pysampler_shared(pk_pysampler *sampler)
{
    return &sampler->shared;
}
