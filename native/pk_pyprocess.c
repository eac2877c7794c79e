#include "pk_pyprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pk_process.h"
#include "pk_procfile.h"
#include "pk_pylist.h"

enum { SCHEDSTAT, SYSCALL };
/* As if it were a function that the innermost one calls; analysis knows it by this name. */
static const char COLLECTION[] = "(garbage collection)";
static const int64_t DRAW_LIMIT_NS = 100 * 1000 * 1000; /* a look that came late stands for less */
static const int64_t DEBT_LIMIT_NS = 100 * 1000 * 1000;
static const int64_t ROW_LIMIT_NS = 500 * 1000 * 1000;
static const int64_t BIRTH_LAG_NS = 10 * 1000 * 1000;
/* Between two walks of a blocked thread's stack: at least, and for each thread of its process. */
static const int64_t BLOCKED_PAUSE_NS = 100 * 1000 * 1000;
static const int64_t BLOCKED_PAUSE_PER_THREAD_NS = 25 * 1000 * 1000;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int pk_pyshared_init(pk_pyshared *shared, size_t row_limit)
{
    *shared = (pk_pyshared){.proc_folder = -1};
    if (pk_pynames_init(&shared->names) != 0 || pk_pystacks_init(&shared->stacks) != 0 ||
        pk_ring_init(&shared->rows, row_limit, PK_PYROW_COLUMN_COUNT) != 0) {
        pk_pyshared_deinit(shared);
        return ENOMEM;
    }
    return 0;
}

void pk_pyshared_deinit(pk_pyshared *shared)
{
    pk_pynames_deinit(&shared->names);
    pk_pystacks_deinit(&shared->stacks);
    pk_ring_deinit(&shared->rows);
    if (shared->proc_folder >= 0) {
        close(shared->proc_folder);
        shared->proc_folder = -1;
    }
}

int pk_pyprocess_init(pk_pyprocess *process, int32_t pid, uint64_t runtime,
                      const pk_pylayout *layout)
{
    *process = (pk_pyprocess){
        .pid = pid, .runtime = runtime, .layout = *layout, .used_ns = -1,
    };
    process->threads = calloc(PK_PYPROCESS_THREAD_LIMIT, sizeof *process->threads);
    if (process->threads == NULL || pk_pycodes_init(&process->codes) != 0) {
        free(process->threads);
        process->threads = NULL;
        return ENOMEM;
    }
    return 0;
}

static void close_row(pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread)
{
    if (thread->is_open && process->looked_ns > thread->begin_ns) {
        int64_t row[PK_PYROW_COLUMN_COUNT] = {
            [PK_PYROW_BEGIN_NS] = thread->begin_ns,     [PK_PYROW_END_NS] = process->looked_ns,
            [PK_PYROW_PID] = process->pid,              [PK_PYROW_TID] = thread->tid,
            [PK_PYROW_IS_RUNNING] = thread->is_running, [PK_PYROW_STACK] = thread->stack,
            [PK_PYROW_RUN_NS] = thread->row_ns,
        };
        pk_ring_push(&shared->rows, row);
    }
    thread->is_open = false;
}

static void close_files(pk_pythread *thread)
{
    for (int i = 0; i < 2; i++) {
        if (thread->files[i] >= 0) {
            close(thread->files[i]);
            thread->files[i] = -1;
        }
    }
}

void pk_pythread_release(pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread)
{
    close_row(process, shared, thread);
    close_files(thread);
    free(thread);
}

void pk_pyprocess_deinit(pk_pyprocess *process, pk_pyshared *shared)
{
    for (size_t i = 0; i < process->thread_count; i++) {
        pk_pythread_release(process, shared, process->threads[i]);
    }
    process->thread_count = 0;
    free(process->threads);
    process->threads = NULL;
    pk_pycodes_deinit(&process->codes);
}

static int read_file(const pk_pyprocess *process, const pk_pyshared *shared, pk_pythread *thread,
                     int file, char *buffer, size_t *ret)
{
    static const char *const names[2] = {"schedstat", "syscall"};
    if (thread->files[file] < 0) {
        char path[64];
        snprintf(path, sizeof path, "%d/task/%d/%s", process->pid, thread->tid, names[file]);
        thread->files[file] = openat(shared->proc_folder, path, O_RDONLY | O_CLOEXEC);
        if (thread->files[file] < 0) {
            return errno;
        }
    }
    return pk_procfile_read(thread->files[file], buffer, PK_PROCFILE_BYTES, ret);
}

/* Reads how long a thread has run, and puts what is new into its delta_ns. */
static void read_run(pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread,
                     int64_t interval_ns)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    pk_schedstat now;
    thread->delta_ns = 0;
    int error = thread->tid == 0 ? ESRCH
                                 : read_file(process, shared, thread, SCHEDSTAT, text, &size);
    if (error != 0 || pk_procfile_parse_schedstat(text, size, &now) != 0) {
        shared->counts.unknown_count++;
        close_row(process, shared, thread);
        close_files(thread);
        thread->tid = 0; /* exited; or of a namespace whose numbers we do not know */
        return;
    }
    if (thread->run_ns >= 0) {
        thread->delta_ns = now.run_ns - thread->run_ns;
    } else if (process->used_ns >= 0 && now.run_ns <= interval_ns + BIRTH_LAG_NS) {
        thread->delta_ns = now.run_ns; /* born since the last look */
    }
    if (thread->run_ns < 0 && process->used_ns >= 0) {
        thread->blocked_ns = process->looked_ns; /* not there at the first look: no hurry */
    }
    if (thread->delta_ns < 0) {
        thread->delta_ns = 0;
    }
    thread->run_ns = now.run_ns;
}

/* Whether a thread runs, or could if it had a CPU. */
static bool is_running(const pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread,
                       int64_t interval_ns)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    pk_syscall call;
    int error = read_file(process, shared, thread, SYSCALL, text, &size);
    if (error == 0 && pk_procfile_parse_syscall(text, size, &call) == 0) {
        return call.number == PK_SYSCALL_RUNNING;
    }
    shared->counts.refused_count += error == EPERM || error == EACCES;
    return 2 * thread->delta_ns >= interval_ns;
}

/* The number of the stack that a thread has now. ENODATA: it runs no Python code. */
static int read_stack(pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread,
                      int64_t instant_ns, uint32_t *ret)
{
    pk_pyframes frames;
    uint32_t functions[PK_PYSTACK_DEPTH_LIMIT + 1];
    bool collects = pk_pythread_collects(process, thread);
    shared->counts.walk_count++;
    int error =
        pk_pywalk_read(&thread->walk, &process->layout, process->pid, thread->address, &frames);
    if (error == 0 && collects && !pk_pythread_collects(process, thread)) {
        error = EAGAIN; /* it ended meanwhile: these may be the frames of who came next */
    }
    if (error == 0 && frames.depth == 0) {
        return ENODATA;
    }
    for (size_t i = 0; error == 0 && i < frames.depth; i++) {
        error = pk_pycodes_find(&process->codes, &shared->names, &process->layout, process->pid,
                                frames.codes[i], instant_ns, &functions[i + 1]);
    }
    if (error == 0 && collects) {
        error = pk_pynames_intern(&shared->names, COLLECTION, sizeof COLLECTION - 1, 0, functions);
    }
    if (error == 0) {
        size_t depth = frames.depth + collects;
        depth = depth < PK_PYSTACK_DEPTH_LIMIT ? depth : PK_PYSTACK_DEPTH_LIMIT;
        error = pk_pystacks_intern(&shared->stacks, functions + !collects, depth, ret);
    }
    if (error == 0) {
        shared->counts.cut_count += frames.is_cut;
    } else if (error == ENOSPC) {
        shared->counts.full_count++;
    } else if (error == EPERM) {
        shared->counts.refused_count++;
    } else {
        shared->counts.torn_count++;
    }
    return error;
}

/* The CPU time that a look at a running thread stands for. */
static int64_t draw(pk_pyprocess *process, int64_t interval_ns)
{
    int64_t wanted_ns = interval_ns < DRAW_LIMIT_NS ? interval_ns : DRAW_LIMIT_NS;
    int64_t room_ns = process->pool_ns + DEBT_LIMIT_NS;
    int64_t drawn_ns = wanted_ns < room_ns ? wanted_ns : room_ns;
    drawn_ns = drawn_ns < 0 ? 0 : drawn_ns;
    process->pool_ns -= drawn_ns;
    return drawn_ns;
}

/* Whether a blocked thread's stack is worth a walk: of a wait that lasts, and not too often. Most
 * looks meet threads in waits that are soon over; they tell little and cost as much as others. */
static bool is_due(const pk_pyprocess *process, const pk_pythread *thread, int64_t instant_ns)
{
    int64_t pause_ns = BLOCKED_PAUSE_PER_THREAD_NS * (int64_t)process->thread_count;
    pause_ns = pause_ns > BLOCKED_PAUSE_NS ? pause_ns : BLOCKED_PAUSE_NS;
    return thread->blocked_ns == 0 ||
           (thread->delta_ns == 0 && instant_ns - thread->blocked_ns >= pause_ns);
}

static void look_at(pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread,
                    int64_t instant_ns)
{
    int64_t interval_ns = process->looked_ns > 0 ? instant_ns - process->looked_ns : 0;
    bool runs = is_running(process, shared, thread, interval_ns);
    if (!runs && !is_due(process, thread, instant_ns)) {
        close_row(process, shared, thread);
        return;
    }
    thread->blocked_ns = runs ? thread->blocked_ns : instant_ns;
    uint32_t stack = 0;
    int error = read_stack(process, shared, thread, instant_ns, &stack);
    if (error != 0) {
        close_row(process, shared, thread);
        return;
    }
    bool is_same = thread->is_open && thread->stack == stack && thread->is_running == runs;
    /* What happened in a long pause of ours is not known. */
    bool is_late = interval_ns > DRAW_LIMIT_NS;
    bool is_long = is_late || (runs && instant_ns - thread->begin_ns > ROW_LIMIT_NS);
    if (!is_same || is_long) {
        close_row(process, shared, thread);
        thread->is_open = true;
        thread->begin_ns = instant_ns - (is_late ? DRAW_LIMIT_NS : interval_ns);
        thread->row_ns = 0;
        thread->stack = stack;
        thread->is_running = runs;
    }
    if (runs) {
        thread->row_ns += draw(process, interval_ns);
    }
}

int64_t pk_pyprocess_look(pk_pyprocess *process, pk_pyshared *shared)
{
    int64_t instant_ns = now_ns();
    int64_t used_ns = pk_process_cpu_ns(process->pid);
    if (used_ns < 0) {
        process->is_gone = true;
        return 0;
    }
    if (used_ns == process->used_ns) { /* none of its threads has run */
        process->looked_ns = instant_ns;
        return 0;
    }
    int error = pk_pylist_update(process, shared);
    if (error != 0) {
        process->is_gone = error == ESRCH;
        shared->counts.refused_count += error == EPERM;
        return 0;
    }
    int64_t interval_ns = process->looked_ns > 0 ? instant_ns - process->looked_ns : 0;
    for (size_t i = 0; i < process->thread_count; i++) {
        read_run(process, shared, process->threads[i], interval_ns);
        process->pool_ns += process->threads[i]->delta_ns;
    }
    int64_t looked_count = 0;
    for (size_t i = 0; i < process->thread_count; i++) {
        pk_pythread *thread = process->threads[i];
        if (thread->tid != 0 &&
            (thread->delta_ns > 0 || (!thread->is_open && is_due(process, thread, instant_ns)))) {
            look_at(process, shared, thread, instant_ns);
            looked_count++;
        }
    }
    process->used_ns = used_ns;
    process->looked_ns = instant_ns;
    return looked_count;
}
