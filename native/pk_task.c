#include "pk_task.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int64_t BLOCK_NS = 250 * 1000 * 1000;
/* A running thread's counters may lag by a scheduler tick, at most 1 s where ticks are off
 * (nohz_full); a delta beyond the time that passed plus this belongs to another thread, which took
 * the id over in an exec. */
static const int64_t COUNTER_LAG_NS = 1100LL * 1000 * 1000;

static const int64_t START_TICK_NS = 10 * 1000 * 1000; /* USER_HZ is 100 on every x86-64 */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void pk_task_init(pk_task *task, int32_t tid, uint32_t process_index, int64_t absent_ns)
{
    task->tid = tid;
    task->process_index = process_index;
    task->generation = 0;
    task->still_count = 0;
    task->is_resting = false;
    task->due_tick = 0;
    task->block = -1;
    task->last_ns = 0;
    task->moved_ns = 0;
    task->start_ticks = 0;
    task->absent_ns = absent_ns;
    for (int i = 0; i < PK_TASK_FILE_COUNT; i++) {
        task->files[i] = -1;
    }
}

static void set_row(pk_task *task, const int64_t *row)
{
    uint32_t sequence = atomic_load_explicit(&task->sequence, memory_order_relaxed);
    atomic_store_explicit(&task->sequence, sequence + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < PK_RUN_COLUMN_COUNT; i++) {
        int64_t value = row == NULL ? 0 : row[i];
        atomic_store_explicit(&task->row[i], value, memory_order_relaxed);
    }
    atomic_store_explicit(&task->sequence, sequence + 2, memory_order_release);
}

int pk_task_copy_row(const pk_task *task, int64_t row[PK_RUN_COLUMN_COUNT])
{
    uint32_t before = atomic_load_explicit(&task->sequence, memory_order_acquire);
    for (int i = 0; i < PK_RUN_COLUMN_COUNT; i++) {
        row[i] = atomic_load_explicit(&task->row[i], memory_order_relaxed);
    }
    atomic_thread_fence(memory_order_acquire);
    uint32_t after = atomic_load_explicit(&task->sequence, memory_order_relaxed);
    return before != after || before % 2 != 0 || row[PK_RUN_TID] == 0 ? EAGAIN : 0;
}

static void push_open_row(pk_task *task, const pk_task_context *context)
{
    int64_t row[PK_RUN_COLUMN_COUNT];
    if (pk_task_copy_row(task, row) == 0) {
        pk_ring_push(context->runs, row);
    }
}

/* Extends the open row to `end_ns`; two plain stores, so a copy is at worst one tick short. */
static void extend_row(pk_task *task, int64_t end_ns)
{
    int64_t count = atomic_load_explicit(&task->row[PK_RUN_TICK_COUNT], memory_order_relaxed);
    atomic_store_explicit(&task->row[PK_RUN_END_NS], end_ns, memory_order_relaxed);
    atomic_store_explicit(&task->row[PK_RUN_TICK_COUNT], count + 1, memory_order_relaxed);
}

/* Reads one of the thread's files; `keep` asks to leave it open for the next time. */
static int read_file(pk_task *task, const pk_task_context *context, int file, bool keep,
                     char *buffer, size_t *ret)
{
    static const char *const names[PK_TASK_FILE_COUNT] = {"schedstat", "syscall", "stat"};
    if (task->files[file] >= 0) {
        return pk_procfile_read(task->files[file], buffer, PK_PROCFILE_BYTES, ret);
    }
    char path[32];
    snprintf(path, sizeof path, "%d/%s", task->tid, names[file]);
    pk_descriptors *descriptors = context->descriptors;
    if (!keep || descriptors->open_count >= descriptors->limit) {
        return pk_procfile_read_at(context->task_folder, path, buffer, PK_PROCFILE_BYTES, ret);
    }
    int descriptor = openat(context->task_folder, path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        if (errno == EMFILE || errno == ENFILE) {
            descriptors->limit = descriptors->open_count;
        }
        return errno;
    }
    task->files[file] = descriptor;
    descriptors->open_count++;
    return pk_procfile_read(descriptor, buffer, PK_PROCFILE_BYTES, ret);
}

static void read_syscall(pk_task *task, const pk_task_context *context, pk_syscall *ret)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    /* Files of threads that never move are not worth a descriptor. */
    bool keep = task->last_ns != 0;
    int error = read_file(task, context, PK_TASK_SYSCALL, keep, text, &size);
    if (error == 0 && pk_procfile_parse_syscall(text, size, ret) == 0) {
        return;
    }
    *ret = (pk_syscall){.number = PK_SYSCALL_UNREADABLE};
    if (error == EACCES || error == EPERM) {
        ++*context->refused_count;
    }
}

static int read_stat(pk_task *task, const pk_task_context *context, pk_stat *ret)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    int error = read_file(task, context, PK_TASK_STAT, task->last_ns != 0, text, &size);
    return error != 0 ? error : pk_procfile_parse_stat(text, size, ret);
}

static void announce(const pk_task *task, const pk_task_context *context, const pk_stat *stat,
                     int64_t seen_ns)
{
    int64_t row[PK_MET_COLUMN_COUNT] = {
        context->pid, task->tid, stat->start_ticks, stat->nice, stat->policy, seen_ns,
    };
    _Static_assert(sizeof stat->name == 2 * sizeof row[0], "a name is two words");
    memcpy(&row[6], stat->name, sizeof stat->name);
    pk_ring_push(context->met, row);
}

/* Puts what stat tells into a new row. False: the id names another thread than before. */
static bool add_stat(pk_task *task, const pk_task_context *context, int64_t moved_ns, int64_t *row)
{
    bool is_first = task->last_ns == 0;
    pk_stat stat;
    if (read_stat(task, context, &stat) != 0) {
        if (is_first) {
            stat = (pk_stat){.nice = 0, .policy = -1, .start_ticks = -1};
            announce(task, context, &stat, moved_ns);
        }
        return true;
    }
    if (is_first) {
        task->minor_faults = stat.minor_faults;
        task->major_faults = stat.major_faults;
        task->start_ticks = stat.start_ticks;
        announce(task, context, &stat, moved_ns);
    } else if (task->start_ticks > 0 && stat.start_ticks != task->start_ticks) {
        return false;
    }
    row[PK_RUN_STATE_LETTER] = stat.state_letter;
    row[PK_RUN_MINOR_FAULTS] = stat.minor_faults - task->minor_faults;
    row[PK_RUN_MAJOR_FAULTS] = stat.major_faults - task->major_faults;
    row[PK_RUN_CPU] = stat.cpu;
    task->minor_faults = stat.minor_faults;
    task->major_faults = stat.major_faults;
    task->block = moved_ns / BLOCK_NS;
    return true;
}

static void add_wait(const pk_task *task, const pk_task_context *context, const pk_syscall *call,
                     int64_t *row)
{
    pk_wait wait;
    pk_wait_read(context->pid, context->fd_folder, call, &wait);
    row[PK_RUN_FD_INODE] = wait.fd_inode;
    row[PK_RUN_FUTEX_OWNER] = wait.futex_owner;
    for (int i = 0; i < wait.member_count; i++) {
        const pk_wait_member *member = &wait.members[i];
        int64_t values[PK_MEMBER_COLUMN_COUNT] = {
            context->pid, task->tid,      row[PK_RUN_MOVED_NS],
            member->fd,   member->events, member->inode,
        };
        pk_ring_push(context->members, values);
    }
}

/* Whether the counters can be those of the thread that was read before. */
static bool continues(const pk_task *task, const pk_schedstat *now, int64_t moved_ns)
{
    int64_t passed_ns = moved_ns - task->last_ns;
    return now->run_ns >= task->counters.run_ns && now->wait_ns >= task->counters.wait_ns &&
           now->slice_count >= task->counters.slice_count &&
           now->run_ns - task->counters.run_ns <= passed_ns + COUNTER_LAG_NS;
}

/* Puts what the counters booked since birth into a thread's first row, where it was surely born in
 * the window: then they began at 0, and nothing that it did before this look is lost. A thread
 * that took its id over in an exec bears the birth of the old leader. */
static void add_birth(const pk_task *task, const pk_task_context *context, const pk_schedstat *now,
                      int64_t *row)
{
    if (task->start_ticks <= 0 || task->start_ticks > INT64_MAX / START_TICK_NS) {
        return; /* stat was not read, or lies */
    }
    int64_t moved_ns = row[PK_RUN_MOVED_NS];
    int64_t suspended_ns = clock_ns(CLOCK_BOOTTIME) - clock_ns(CLOCK_MONOTONIC);
    int64_t born_ns = task->start_ticks * START_TICK_NS - suspended_ns; /* or up to a tick later */
    bool is_new = task->absent_ns > 0 ? born_ns + START_TICK_NS > task->absent_ns
                                      : born_ns >= context->since_ns;
    int64_t start_ns = born_ns > task->absent_ns ? born_ns : task->absent_ns;
    if (!is_new || start_ns > moved_ns || now->run_ns < 0 || now->wait_ns < 0 ||
        now->run_ns > moved_ns - start_ns || now->wait_ns > moved_ns - start_ns - now->run_ns) {
        return;
    }
    row[PK_RUN_START_NS] = start_ns;
    row[PK_RUN_RUN_NS] = now->run_ns;
    row[PK_RUN_WAIT_NS] = now->wait_ns;
    row[PK_RUN_SLICE_COUNT] = now->slice_count;
    row[PK_RUN_MINOR_FAULTS] = task->minor_faults;
    row[PK_RUN_MAJOR_FAULTS] = task->major_faults;
}

static void put_call(const pk_syscall *call, int64_t *row)
{
    row[PK_RUN_SYSCALL] = call->number;
    row[PK_RUN_STACK_POINTER] = call->stack_pointer;
    memcpy(&row[PK_RUN_ARG0], call->arguments, sizeof call->arguments);
}

/* The kernel also says "running" of a thread that fell asleep or woke up under the read (Linux
 * 6.18, lib/syscall.c: EAGAIN), so short waits would be seen too seldom. stat, read a moment later,
 * tells those that sleep: then the call is asked for again. */
static void ask_again(pk_task *task, const pk_task_context *context, pk_syscall *call, int64_t *row)
{
    int64_t letter = row[PK_RUN_STATE_LETTER];
    if (call->number != PK_SYSCALL_RUNNING || (letter != 'D' && letter != 'S')) {
        return;
    }
    pk_syscall second;
    read_syscall(task, context, &second);
    if (second.number >= 0) {
        *call = second;
        put_call(call, row);
    }
}

static pk_task_outcome begin_row(pk_task *task, const pk_task_context *context,
                                 const pk_schedstat *now, int64_t moved_ns)
{
    bool is_first = task->last_ns == 0;
    if (!is_first && !continues(task, now, moved_ns)) {
        return PK_TASK_GONE;
    }
    pk_syscall call;
    read_syscall(task, context, &call);
    int64_t row[PK_RUN_COLUMN_COUNT] = {
        [PK_RUN_PID] = context->pid,
        [PK_RUN_TID] = task->tid,
        [PK_RUN_START_NS] = is_first ? moved_ns : task->last_ns,
        [PK_RUN_MOVED_NS] = moved_ns,
        [PK_RUN_END_NS] = moved_ns,
        [PK_RUN_TICK_COUNT] = 1,
        [PK_RUN_RUN_NS] = is_first ? 0 : now->run_ns - task->counters.run_ns,
        [PK_RUN_WAIT_NS] = is_first ? 0 : now->wait_ns - task->counters.wait_ns,
        [PK_RUN_SLICE_COUNT] = is_first ? 0 : now->slice_count - task->counters.slice_count,
        [PK_RUN_MINOR_FAULTS] = -1,
        [PK_RUN_MAJOR_FAULTS] = -1,
        [PK_RUN_CPU] = -1,
    };
    put_call(&call, row);
    bool needs_stat = call.number == PK_SYSCALL_RUNNING ||
                      call.number == PK_SYSCALL_NOT_IN_SYSCALL ||
                      task->block != moved_ns / BLOCK_NS;
    if (needs_stat && !add_stat(task, context, moved_ns, row)) {
        return PK_TASK_GONE;
    }
    ask_again(task, context, &call, row);
    if (is_first) {
        add_birth(task, context, now, row);
    }
    if (call.number >= 0) {
        add_wait(task, context, &call, row);
    }
    push_open_row(task, context);
    set_row(task, row);
    task->counters = *now;
    task->moved_ns = moved_ns;
    return PK_TASK_MOVED;
}

pk_task_outcome pk_task_observe(pk_task *task, const pk_task_context *context)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    pk_schedstat now;
    int64_t at_ns = clock_ns(CLOCK_MONOTONIC);
    if (read_file(task, context, PK_TASK_SCHEDSTAT, true, text, &size) != 0 ||
        pk_procfile_parse_schedstat(text, size, &now) != 0) {
        return PK_TASK_GONE;
    }
    pk_task_outcome outcome = PK_TASK_STILL;
    if (task->last_ns != 0 && memcmp(&now, &task->counters, sizeof now) == 0) {
        extend_row(task, at_ns);
    } else {
        outcome = begin_row(task, context, &now, at_ns);
    }
    if (outcome != PK_TASK_GONE) {
        task->last_ns = at_ns;
    }
    return outcome;
}

void pk_task_finish(pk_task *task, const pk_task_context *context)
{
    pk_stat stat;
    if (read_stat(task, context, &stat) == 0) {
        int64_t letter = stat.state_letter;
        atomic_store_explicit(&task->row[PK_RUN_END_LETTER], letter, memory_order_relaxed);
    }
}

void pk_task_deinit(pk_task *task, const pk_task_context *context)
{
    push_open_row(task, context);
    set_row(task, NULL);
    for (int i = 0; i < PK_TASK_FILE_COUNT; i++) {
        if (task->files[i] >= 0) {
            close(task->files[i]);
            task->files[i] = -1;
            context->descriptors->open_count--;
        }
    }
    task->tid = 0;
}
