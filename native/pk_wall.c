#include "pk_wall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double PROBABILITY_MIN = 1.0 / 256;
static const double SMOOTHING_RATIO = 0.1;
static const double AT_ONCE_COUNT = 64; /* looks that may come at once: some 3 ms of CPU */
static const double FIRST_COST_NS = 30000;
static const double COST_GROWTH_MAX = 4; /* a look that reads files is no usual one */
static const double BALANCE_SPAN_NS = 500e6; /* what was not spent is kept for so long */
static const double SPENDING_TICKS = 4;      /* and is spent over so many ticks */
static const int64_t ROW_LIMIT_NS = 1000LL * 1000 * 1000;
static const int64_t RETAKE_NS = 1100 * 1000 * 1000; /* mappings are read again after a second */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

pk_wall *pk_wall_create(uint32_t thread_limit, double budget_ratio, pk_ring *rows)
{
    pk_wall *wall = calloc(1, sizeof *wall);
    if (wall == NULL) {
        return NULL;
    }
    wall->python.proc_folder = -1;
    wall->rows = rows;
    wall->look_cost_ns = FIRST_COST_NS;
    wall->probability = 1;
    wall->random = (uint64_t)clock_ns(CLOCK_MONOTONIC) | 1;
    atomic_init(&wall->budget_ratio, budget_ratio);
    wall->samples = calloc(thread_limit, sizeof *wall->samples);
    if (pk_looker_init(&wall->looker, -1) != 0) {
        free(wall->samples);
        free(wall);
        return NULL;
    }
    wall->looker.python = &wall->python;
    if (wall->samples == NULL || pk_nativestacks_init(&wall->stacks) != 0 ||
        pk_pyshared_init(&wall->python, 1) != 0) {
        pk_wall_destroy(wall);
        return NULL;
    }
    return wall;
}

void pk_wall_destroy(pk_wall *wall)
{
    if (wall == NULL) {
        return;
    }
    for (uint32_t i = 0; i < PK_WALL_PROCESS_LIMIT; i++) {
        pk_wall_forget(wall, i);
    }
    pk_looker_deinit(&wall->looker);
    pk_nativestacks_deinit(&wall->stacks);
    pk_pyshared_deinit(&wall->python);
    free(wall->samples);
    free(wall);
}

int pk_wall_open(pk_wall *wall, int proc)
{
    wall->looker.unwinder.objects.proc = proc;
    wall->python.proc_folder = dup(proc); /* closed with it */
    wall->tick_ns = clock_ns(CLOCK_MONOTONIC);
    return wall->python.proc_folder < 0 ? errno : 0;
}

int64_t pk_wall_begin_tick(pk_wall *wall, int64_t now_ns)
{
    double ratio = atomic_load_explicit(&wall->budget_ratio, memory_order_relaxed);
    double income_ns = ratio * (double)(now_ns - wall->tick_ns);
    double limit_ns = ratio * BALANCE_SPAN_NS;
    double room_ns = limit_ns - wall->balance_ns;
    wall->balance_ns += income_ns < room_ns ? income_ns : room_ns;
    /* Hundreds that came at once may come again: they count whole, and are forgotten slowly. */
    double more = (double)wall->tick_chance_count - wall->chance_count;
    wall->chance_count += more > AT_ONCE_COUNT ? more : SMOOTHING_RATIO * more;
    wall->tick_chance_count = 0;
    wall->tick_ns = now_ns;
    double may_ns = income_ns + (wall->balance_ns - income_ns) / SPENDING_TICKS;
    /* Threads met in the last tick are all looked for in this one: a few may be, hundreds not. */
    double met = (double)wall->tick_met_count - AT_ONCE_COUNT;
    double most = wall->chance_count + (met > 0 ? met : 0);
    double need_ns = (most + 1) * wall->look_cost_ns;
    wall->tick_met_count = 0;
    double probability = may_ns / need_ns;
    /* Never 0: what is never looked at would not be counted by those that are. */
    wall->probability = probability > 1                 ? 1
                        : probability < PROBABILITY_MIN ? PROBABILITY_MIN
                                                        : probability;
    const int64_t *counts = (const int64_t *)(const void *)&wall->counts;
    for (size_t i = 0; i < sizeof wall->counts / sizeof *counts; i++) {
        atomic_store_explicit(&wall->status[i], counts[i], memory_order_relaxed);
    }
    return wall->counts.spent_ns;
}

/* xorshift64: uniform in [0, 1). */
static double next_random(pk_wall *wall)
{
    uint64_t x = wall->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    wall->random = x;
    return (double)(x >> 11) / (double)(1ULL << 53);
}

static void push(pk_wall *wall, const pk_wall_sample *sample)
{
    if (sample->is_open && sample->row[PK_WALL_WEIGHT_NS] > 0) {
        pk_ring_push(wall->rows, sample->row);
    }
}

/* Begins another sample in the place of the one before, which is handed over. */
static pk_wall_sample *begin(pk_wall *wall, uint32_t index, const pk_task *task, int32_t pid,
                             double weight_ns)
{
    pk_wall_sample *sample = &wall->samples[index];
    push(wall, sample);
    *sample = (pk_wall_sample){
        .row = {[PK_WALL_T_NS] = task->last_ns,
                [PK_WALL_PID] = pid,
                [PK_WALL_TID] = task->tid,
                [PK_WALL_MOVED_NS] = task->moved_ns,
                [PK_WALL_STACK] = -1,
                [PK_WALL_WEIGHT_NS] = (int64_t)weight_ns,
                [PK_WALL_END] = -1,
                [PK_WALL_PYTHON_STACK] = -1},
        .is_open = true,
        .is_running = true,
    };
    return sample;
}

/* Adds time to a sample; a long one is handed over in pieces, so that it tells when it was. */
static void extend(pk_wall *wall, pk_wall_sample *sample, int64_t interval_ns, int64_t now_ns)
{
    if (now_ns - sample->row[PK_WALL_T_NS] >= ROW_LIMIT_NS) {
        push(wall, sample);
        sample->row[PK_WALL_T_NS] = now_ns;
        sample->row[PK_WALL_WEIGHT_NS] = 0;
    }
    sample->row[PK_WALL_WEIGHT_NS] += interval_ns;
}

static pk_look_process *process_of(pk_wall *wall, uint32_t index, int32_t pid)
{
    pk_look_process *process = wall->processes[index];
    if (process == NULL) {
        process = malloc(sizeof *process);
        if (process == NULL) {
            return NULL;
        }
        pk_look_process_init(process, pid);
        wall->processes[index] = process;
    }
    uint32_t count = atomic_load_explicit(&wall->order_count, memory_order_acquire);
    for (uint32_t i = 0; process->python == NULL && i < count; i++) {
        if (wall->orders[i].pid == pid) {
            (void)pk_look_process_set_python(process, wall->orders[i].runtime,
                                             &wall->orders[i].layout);
        }
    }
    return process;
}

/* A file that the task keeps open, or one that is opened for this look. */
static int open_file(const pk_task *task, const pk_task_context *context, int file,
                     const char *name)
{
    char path[32];
    if (task->files[file] >= 0) {
        return task->files[file];
    }
    snprintf(path, sizeof path, "%d/%s", task->tid, name);
    return openat(context->task_folder, path, O_RDONLY | O_CLOEXEC);
}

static void close_file(const pk_task *task, int file, int descriptor)
{
    if (descriptor >= 0 && descriptor != task->files[file]) {
        close(descriptor);
    }
}

/* Puts what a look brought into a sample. */
static void fill(pk_wall *wall, pk_look_process *process, const pk_look *look, int64_t *row)
{
    uint32_t number = 0;
    if (look->has_stack) {
        row[PK_WALL_END] = wall->looker.stack.end;
        if (pk_look_intern_stack(&wall->looker, process, &wall->stacks, &number) == 0) {
            row[PK_WALL_STACK] = number;
        } else {
            wall->counts.full_count++;
        }
    } else if (look->call.number != PK_SYSCALL_RUNNING) {
        wall->counts.failed_count++;
    }
    if (look->has_frames) {
        int error = pk_look_intern_frames(&wall->looker, process, look->t_ns, &number);
        row[PK_WALL_PYTHON_STACK] = error == 0 ? (int64_t)number : -1;
        wall->counts.full_count += error == ENOSPC;
    }
    row[PK_WALL_IS_EXACT] = look->is_exact;
    wall->counts.moved_count += !look->is_exact;
}

/* A stack that does not reach the root may be one of mappings that were just being replaced: it is
 * taken again, once, when those are read anew. */
static bool is_to_be_retaken(const pk_wall_sample *sample, int64_t now_ns)
{
    return sample->taken_ns != 0 && now_ns - sample->taken_ns >= RETAKE_NS;
}

static void look_at(pk_wall *wall, pk_wall_sample *sample, const pk_task *task,
                    const pk_task_context *context)
{
    pk_look_process *process = process_of(wall, task->process_index, context->pid);
    pk_look_thread thread = {
        task->tid,
        open_file(task, context, PK_TASK_SCHEDSTAT, "schedstat"),
        open_file(task, context, PK_TASK_SYSCALL, "syscall"),
    };
    pk_look look;
    wall->counts.look_count++;
    if (process != NULL && thread.schedstat >= 0 &&
        pk_look_at(&wall->looker, process, &thread, &look) == 0) {
        sample->is_running = look.call.number == PK_SYSCALL_RUNNING;
        fill(wall, process, &look, sample->row);
    } else {
        wall->counts.failed_count++;
    }
    close_file(task, PK_TASK_SCHEDSTAT, thread.schedstat);
    close_file(task, PK_TASK_SYSCALL, thread.syscall);
}

/* Takes a stack, and books what that cost. */
static void take(pk_wall *wall, pk_wall_sample *sample, const pk_task *task,
                 const pk_task_context *context)
{
    int64_t began_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    look_at(wall, sample, task, context);
    double cost_ns = (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - began_ns);
    wall->counts.spent_ns += (int64_t)cost_ns;
    wall->balance_ns -= cost_ns;
    double most_ns = COST_GROWTH_MAX * wall->look_cost_ns;
    cost_ns = cost_ns < most_ns ? cost_ns : most_ns;
    wall->look_cost_ns += SMOOTHING_RATIO * (cost_ns - wall->look_cost_ns);
}

void pk_wall_observe(pk_wall *wall, uint32_t index, const pk_task *task,
                     const pk_task_context *context, pk_task_outcome outcome, int64_t before_ns)
{
    int64_t now_ns = task->last_ns;
    int64_t interval_ns = now_ns - before_ns;
    pk_wall_sample *sample = &wall->samples[index];
    int64_t call = atomic_load_explicit(&task->row[PK_RUN_SYSCALL], memory_order_relaxed);
    if (before_ns == 0 || call == PK_SYSCALL_UNREADABLE) {
        wall->tick_met_count += call != PK_SYSCALL_UNREADABLE;
        return; /* no time has passed; or it is none of ours */
    }
    bool is_same = sample->is_open && sample->row[PK_WALL_MOVED_NS] == task->moved_ns;
    bool is_second = is_same && is_to_be_retaken(sample, now_ns);
    if (outcome == PK_TASK_STILL && is_same && !sample->is_running && !is_second) {
        extend(wall, sample, interval_ns, now_ns);
        return;
    }
    if (outcome == PK_TASK_MOVED && call == PK_SYSCALL_RUNNING) {
        if (sample->is_open && sample->is_running) {
            extend(wall, sample, interval_ns, now_ns);
        } else {
            begin(wall, index, task, context->pid, (double)interval_ns);
        }
        return;
    }
    wall->tick_chance_count++;
    if (next_random(wall) >= wall->probability) {
        wall->counts.passed_count++;
        return;
    }
    sample = begin(wall, index, task, context->pid, (double)interval_ns / wall->probability);
    take(wall, sample, task, context);
    bool is_whole = sample->row[PK_WALL_END] == PK_UNWIND_ROOT;
    sample->taken_ns = is_whole || is_second ? 0 : now_ns;
}

void pk_wall_close(pk_wall *wall, uint32_t index)
{
    push(wall, &wall->samples[index]);
    wall->samples[index].is_open = false;
}

void pk_wall_forget(pk_wall *wall, uint32_t process_index)
{
    pk_look_process *process = wall->processes[process_index];
    if (process != NULL) {
        pk_look_process_deinit(process, &wall->looker);
        free(process);
        wall->processes[process_index] = NULL;
    }
}

int pk_wall_add_python(pk_wall *wall, int32_t pid, uint64_t runtime, const pk_pylayout *layout)
{
    uint32_t count = atomic_load_explicit(&wall->order_count, memory_order_relaxed);
    if (count >= PK_WALL_PYTHON_LIMIT) {
        return ENOSPC;
    }
    wall->orders[count] = (pk_wall_order){pid, runtime, *layout};
    atomic_store_explicit(&wall->order_count, count + 1, memory_order_release);
    return 0;
}

void pk_wall_set_budget(pk_wall *wall, double budget_ratio)
{
    atomic_store_explicit(&wall->budget_ratio, budget_ratio, memory_order_relaxed);
}

void pk_wall_get_status(const pk_wall *wall, pk_wall_status *ret)
{
    int64_t *counts = (int64_t *)(void *)ret;
    for (size_t i = 0; i < sizeof *ret / sizeof *counts; i++) {
        counts[i] = atomic_load_explicit(&wall->status[i], memory_order_relaxed);
    }
}
