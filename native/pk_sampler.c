#include "pk_sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pk_pace.h"
#include "pk_quota.h"
#include "pk_taskset.h"
#include "pk_worker.h"

enum {
    MAILBOX_LIMIT = 4096,
    SIDE_ROW_LIMIT = 16384, /* of ticks, cgroup changes and poll members between two takes */
    STACK_BYTES = 512 * 1024,
};
static const int64_t LISTING_INTERVAL_NS = 250 * 1000 * 1000;
static const double LISTING_SHARE = 0.5; /* of the budget */

static const size_t COLUMN_COUNTS[PK_TABLE_COUNT] = {
    [PK_TABLE_RUNS] = PK_RUN_COLUMN_COUNT,      [PK_TABLE_MEMBERS] = PK_MEMBER_COLUMN_COUNT,
    [PK_TABLE_TICKS] = PK_TICK_COLUMN_COUNT,    [PK_TABLE_QUOTAS] = PK_QUOTA_COLUMN_COUNT,
    [PK_TABLE_MET] = PK_MET_COLUMN_COUNT,       [PK_TABLE_WALL] = PK_WALL_COLUMN_COUNT,
    [PK_TABLE_OPEN_RUNS] = PK_RUN_COLUMN_COUNT,
};

typedef struct {
    int64_t cgroup_index;
    char path[PK_SAMPLER_PATH_BYTES];
} cgroup_order;

struct pk_sampler {
    pk_sampler_options options;
    char proc_root[PK_SAMPLER_PATH_BYTES];
    pk_worker worker;
    pk_sampler_status status; /* under the worker's lock */
    uint64_t frozen_count; /* rows of thread_runs that were pushed when it was abandoned */
    pk_ring pids; /* the mailbox: the owner writes */
    _Atomic(cgroup_order *) orders[PK_SAMPLER_CGROUP_LIMIT];
    int order_count; /* owner only */
    _Atomic double budget_ratio; /* the owner writes */
    pk_ring tables[PK_TABLE_COUNT];
    pk_wall *wall; /* NULL: no stacks are taken */
    /* The thread's own: */
    pk_taskset tasks;
    pk_pace pace;
    pk_quota quotas[PK_SAMPLER_CGROUP_LIMIT];
    int quota_count;
    int64_t next_listing_ns; /* of all processes */
    int64_t next_change_ns;  /* of those that changed: before it listing them is not paid for */
    int64_t used_cpu_ns; /* at the end of the last tick */
};

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void destroy(pk_sampler *sampler)
{
    pk_taskset_deinit(&sampler->tasks);
    for (int i = 0; i < sampler->quota_count; i++) {
        pk_quota_deinit(&sampler->quotas[i]);
    }
    for (int i = 0; i < PK_SAMPLER_CGROUP_LIMIT; i++) {
        free(atomic_load(&sampler->orders[i]));
    }
    for (int i = 0; i < PK_TABLE_COUNT; i++) {
        pk_ring_deinit(&sampler->tables[i]);
    }
    pk_ring_deinit(&sampler->pids);
    pk_wall_destroy(sampler->wall);
    pk_worker_deinit(&sampler->worker);
    free(sampler);
}

void pk_sampler_release(pk_sampler *sampler)
{
    if (pk_worker_let_go(&sampler->worker)) {
        destroy(sampler);
    }
}

static void read_mailbox(pk_sampler *sampler)
{
    int64_t pid;
    int64_t *column = &pid;
    while (pk_ring_count(&sampler->pids) > 0) {
        pk_ring_take(&sampler->pids, 1, &column);
        pk_taskset_add_process(&sampler->tasks, (int32_t)pid);
        sampler->next_listing_ns = 0; /* do not let its threads wait */
    }
    while (sampler->quota_count < PK_SAMPLER_CGROUP_LIMIT) {
        cgroup_order *order = atomic_load(&sampler->orders[sampler->quota_count]);
        if (order == NULL) {
            break;
        }
        pk_quota_init(&sampler->quotas[sampler->quota_count], order->cgroup_index, order->path);
        sampler->quota_count++;
    }
}

static void publish(pk_sampler *sampler, int64_t now_ns)
{
    const pk_pace *pace = &sampler->pace;
    const pk_taskset *tasks = &sampler->tasks;
    pk_sampler_status status = {
        .started_ns = pace->started_ns,
        .last_tick_ns = now_ns,
        .tick_count = pace->tick_count,
        .missed_count = pk_pace_missed_count(pace, now_ns),
        .interval_ns = pace->interval_ns,
        .spent_ns = pace->spent_ns,
        .thread_count = tasks->live_count,
        .descriptor_count = tasks->descriptors.open_count,
        .refused_count = tasks->refused_count,
        .over_limit_count = tasks->over_limit_count,
        .put_off_count = tasks->put_off_count,
    };
    pthread_mutex_lock(&sampler->worker.lock);
    sampler->status = status;
    pthread_mutex_unlock(&sampler->worker.lock);
}

static pk_listing look(pk_sampler *sampler, int64_t now_ns)
{
    if (now_ns >= sampler->next_listing_ns) {
        sampler->next_listing_ns = now_ns + LISTING_INTERVAL_NS;
        return pk_taskset_list(&sampler->tasks, now_ns, PK_LOOK_ALL);
    }
    pk_list_look how = now_ns >= sampler->next_change_ns ? PK_LOOK_CHANGED : PK_LOOK_PUT_OFF;
    return pk_taskset_list(&sampler->tasks, now_ns, how);
}

/* After a tick that listed: puts the next listing off so far that what listings, and the first
 * looks at threads that they find, cost beyond a usual tick stays within a share of the budget. */
static void put_off_listing(pk_sampler *sampler, int64_t now_ns, int64_t cpu_ns)
{
    double extra_ns = (double)cpu_ns - sampler->pace.tick_cost_ns;
    double pause_ns = extra_ns / (LISTING_SHARE * sampler->pace.budget_ratio);
    double limit_ns = (double)LISTING_INTERVAL_NS;
    sampler->next_change_ns = now_ns + (int64_t)(pause_ns < limit_ns ? pause_ns : limit_ns);
}

/* One tick; `planned_ns` is when it was due, `is_last` reads everything whether due or not. */
static void tick(pk_sampler *sampler, int64_t planned_ns, bool is_last)
{
    int64_t began_ns = clock_ns(CLOCK_MONOTONIC);
    uint64_t number = (uint64_t)sampler->pace.tick_count;
    read_mailbox(sampler);
    double budget_ratio = atomic_load_explicit(&sampler->budget_ratio, memory_order_relaxed);
    pk_pace_set_budget(&sampler->pace, budget_ratio, began_ns);
    pk_listing found = is_last ? (pk_listing){0, 0} : look(sampler, began_ns);
    for (int i = 0; i < sampler->quota_count; i++) {
        pk_quota_read(&sampler->quotas[i], number, clock_ns(CLOCK_MONOTONIC), is_last,
                      &sampler->tables[PK_TABLE_QUOTAS]);
    }
    pk_wall *wall = sampler->wall;
    int64_t wall_before_ns = wall == NULL ? 0 : pk_wall_begin_tick(wall, began_ns);
    int64_t read_count = pk_taskset_observe(&sampler->tasks, number, is_last);
    int64_t wall_ns = wall == NULL ? 0 : wall->counts.spent_ns - wall_before_ns;
    /* Since the last tick: falling asleep and waking up cost 25 us and more on virtual machines. */
    int64_t used_cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t cpu_ns = used_cpu_ns - sampler->used_cpu_ns;
    sampler->used_cpu_ns = used_cpu_ns;
    int64_t row[PK_TICK_COLUMN_COUNT] = {began_ns, began_ns - planned_ns, read_count, cpu_ns};
    pk_ring_push(&sampler->tables[PK_TABLE_TICKS], row);
    int64_t ended_ns = clock_ns(CLOCK_MONOTONIC);
    if (found.listed_count > 0) {
        put_off_listing(sampler, ended_ns, cpu_ns - wall_ns);
    }
    pk_pace_account(&sampler->pace, ended_ns, cpu_ns - wall_ns, found.new_count == 0);
    publish(sampler, ended_ns);
}

static void *run(void *argument)
{
    pk_sampler *sampler = argument;
    int64_t planned_ns = clock_ns(CLOCK_MONOTONIC);
    const pk_sampler_options *options = &sampler->options;
    pk_pace_init(&sampler->pace, options->interval_ns, options->budget_ratio, planned_ns);
    sampler->tasks.proc_folder = open(sampler->proc_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (sampler->wall != NULL && pk_wall_open(sampler->wall, sampler->tasks.proc_folder) == 0) {
        sampler->tasks.wall = sampler->wall;
    }
    do {
        tick(sampler, planned_ns, false);
        planned_ns = pk_pace_next(&sampler->pace, clock_ns(CLOCK_MONOTONIC));
    } while (!pk_worker_sleep_until(&sampler->worker, planned_ns));
    tick(sampler, clock_ns(CLOCK_MONOTONIC), true);
    pk_taskset_finish(&sampler->tasks);
    pk_worker_end(&sampler->worker);
    pk_sampler_release(sampler);
    return NULL;
}

static int init_tables(pk_sampler *sampler)
{
    const pk_sampler_options *options = &sampler->options;
    for (int i = 0; i < PK_TABLE_COUNT; i++) {
        size_t capacity = i == PK_TABLE_RUNS ? options->row_limit
                          : i == PK_TABLE_MET || i == PK_TABLE_OPEN_RUNS ? options->thread_limit
                                                                         : SIDE_ROW_LIMIT;
        if (pk_ring_init(&sampler->tables[i], capacity, COLUMN_COUNTS[i]) != 0) {
            return ENOMEM;
        }
    }
    sampler->tasks.runs = &sampler->tables[PK_TABLE_RUNS];
    sampler->tasks.members = &sampler->tables[PK_TABLE_MEMBERS];
    sampler->tasks.met = &sampler->tables[PK_TABLE_MET];
    if (options->wall_budget_ratio > 0) {
        sampler->wall = pk_wall_create(options->thread_limit, options->wall_budget_ratio,
                                       &sampler->tables[PK_TABLE_WALL]);
        if (sampler->wall == NULL) {
            return ENOMEM;
        }
    }
    return pk_ring_init(&sampler->pids, MAILBOX_LIMIT, 1);
}

int pk_sampler_start(const pk_sampler_options *options, pk_sampler **ret)
{
    size_t root_size = strlen(options->proc_root) + 1;
    if (root_size > PK_SAMPLER_PATH_BYTES) {
        return ENAMETOOLONG;
    }
    pk_sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL) {
        return ENOMEM;
    }
    sampler->options = *options;
    atomic_init(&sampler->budget_ratio, options->budget_ratio);
    memcpy(sampler->proc_root, options->proc_root, root_size);
    sampler->options.proc_root = sampler->proc_root;
    pk_worker_init(&sampler->worker);
    int error = pk_taskset_init(&sampler->tasks, options->thread_limit, options->descriptor_limit);
    if (error == 0) {
        error = init_tables(sampler);
    }
    if (error == 0) {
        error =
            pk_worker_start(&sampler->worker, "perfkit-threads", STACK_BYTES, run, sampler);
    }
    if (error != 0) {
        destroy(sampler);
        return error;
    }
    *ret = sampler;
    return 0;
}

int pk_sampler_add_pid(pk_sampler *sampler, int32_t pid)
{
    int64_t row = pid;
    return pk_ring_push(&sampler->pids, &row) == 0 ? 0 : ENOSPC;
}

void pk_sampler_set_budget(pk_sampler *sampler, double budget_ratio)
{
    atomic_store_explicit(&sampler->budget_ratio, budget_ratio, memory_order_relaxed);
}

int pk_sampler_add_cgroup(pk_sampler *sampler, int64_t cgroup_index, const char *path)
{
    size_t size = strlen(path) + 1;
    if (size > PK_SAMPLER_PATH_BYTES) {
        return ENAMETOOLONG;
    }
    if (sampler->order_count >= PK_SAMPLER_CGROUP_LIMIT) {
        return ENOSPC;
    }
    cgroup_order *order = malloc(sizeof *order);
    if (order == NULL) {
        return ENOMEM;
    }
    order->cgroup_index = cgroup_index;
    memcpy(order->path, path, size);
    atomic_store(&sampler->orders[sampler->order_count++], order);
    return 0;
}

/* Saves the open rows of a thread that hangs in a read. What it pushes later is never taken. */
static void salvage(pk_sampler *sampler)
{
    sampler->frozen_count = atomic_load(&sampler->tables[PK_TABLE_RUNS].pushed_count);
    for (uint32_t i = 0; i < sampler->options.thread_limit; i++) {
        int64_t row[PK_RUN_COLUMN_COUNT];
        if (pk_taskset_copy_row(&sampler->tasks, i, row) == 0) {
            pk_ring_push(&sampler->tables[PK_TABLE_OPEN_RUNS], row);
        }
    }
}

int pk_sampler_stop(pk_sampler *sampler, int64_t timeout_ns)
{
    bool was_stopped = sampler->worker.is_stopped;
    int error = pk_worker_stop(&sampler->worker, timeout_ns);
    if (error != 0 && !was_stopped) {
        salvage(sampler);
    }
    return error;
}

void pk_sampler_get_status(pk_sampler *sampler, pk_sampler_status *ret)
{
    pthread_mutex_lock(&sampler->worker.lock);
    *ret = sampler->status;
    ret->has_ended = sampler->worker.has_ended;
    pthread_mutex_unlock(&sampler->worker.lock);
    ret->is_abandoned = sampler->worker.is_abandoned;
}

pk_wall *pk_sampler_wall(pk_sampler *sampler)
{
    return sampler->wall;
}

size_t pk_sampler_column_count(pk_table table)
{
    return COLUMN_COUNTS[table];
}

size_t pk_sampler_row_count(const pk_sampler *sampler, pk_table table)
{
    const pk_ring *ring = &sampler->tables[table];
    if (table == PK_TABLE_RUNS && sampler->worker.is_abandoned) {
        uint64_t taken = atomic_load(&ring->taken_count);
        return (size_t)(sampler->frozen_count - taken);
    }
    return pk_ring_count(ring);
}

void pk_sampler_take(pk_sampler *sampler, pk_table table, size_t count, int64_t *const *columns)
{
    pk_ring_take(&sampler->tables[table], count, columns);
}

uint64_t pk_sampler_dropped_count(const pk_sampler *sampler, pk_table table)
{
    return atomic_load_explicit(&sampler->tables[table].dropped_count, memory_order_relaxed);
}
