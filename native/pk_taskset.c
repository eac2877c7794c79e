#include "pk_taskset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A listing costs some 2.5 us a thread: the more there are, the rarer it is, within limits. */
static const int64_t FULL_LISTING_NS_MIN = 1000LL * 1000 * 1000;
static const int64_t FULL_LISTING_NS_MAX = 10 * 1000LL * 1000 * 1000;
static const int64_t FULL_LISTING_NS_PER_THREAD = 5 * 1000 * 1000;
/* Unmoved for 20 ticks of the base rate, and so many observations: back off to every 16th tick. It
 * is time that counts: at a low rate 20 ticks would take seconds that the budget does not pay. */
static const int64_t STILL_NS = 200 * 1000 * 1000;
static const uint32_t STILL_COUNT = 3;
static const uint32_t STILL_INTERVAL = 16;
/* Before that, after so many observations without a move: every 2nd tick. */
static const uint32_t PAUSE_COUNT = 4;
static const uint32_t PAUSE_INTERVAL = 2;
static const uint32_t CHECK_LIMIT = 32; /* link counts looked at in one tick */
static const uint32_t REOPEN_INTERVAL = 4; /* threads without kept descriptors: every 4th tick */

int pk_taskset_init(pk_taskset *set, uint32_t task_limit, int64_t descriptor_limit)
{
    memset(set, 0, sizeof *set);
    set->proc_folder = -1;
    set->task_limit = task_limit;
    set->descriptors.limit = descriptor_limit;
    set->tasks = calloc(task_limit, sizeof *set->tasks);
    set->live = calloc(task_limit, sizeof *set->live);
    set->next = calloc(task_limit, sizeof *set->next);
    set->unused = calloc(task_limit, sizeof *set->unused);
    if (set->tasks == NULL || set->live == NULL || set->next == NULL || set->unused == NULL) {
        pk_taskset_deinit(set);
        return ENOMEM;
    }
    for (uint32_t i = 0; i < task_limit; i++) {
        set->unused[i] = task_limit - 1 - i; /* low indexes first */
    }
    return 0;
}

static pk_task_context context_of(pk_taskset *set, uint32_t process_index)
{
    const pk_process *process = &set->processes[process_index];
    return (pk_task_context){
        .pid = process->pid,
        .task_folder = process->task_folder,
        .fd_folder = process->fd_folder,
        .descriptors = &set->descriptors,
        .runs = set->runs,
        .members = set->members,
        .met = set->met,
        .since_ns = set->since_ns,
        .refused_count = &set->refused_count,
    };
}

static uint32_t *bucket_of(pk_taskset *set, int32_t tid)
{
    return &set->buckets[(uint32_t)tid % PK_TASKSET_BUCKET_COUNT];
}

static pk_task *find_task(pk_taskset *set, int32_t tid)
{
    for (uint32_t link = *bucket_of(set, tid); link != 0; link = set->next[link - 1]) {
        if (set->tasks[link - 1].tid == tid) {
            return &set->tasks[link - 1];
        }
    }
    return NULL;
}

static bool add_task(pk_taskset *set, int32_t tid, uint32_t process_index)
{
    if (set->live_count >= set->task_limit) {
        set->over_limit_count++;
        return false;
    }
    uint32_t index = set->unused[set->task_limit - 1 - set->live_count];
    const pk_process *process = &set->processes[process_index];
    pk_task_init(&set->tasks[index], tid, process_index, process->listed_ns);
    set->tasks[index].generation = process->generation;
    set->live[set->live_count++] = index;
    uint32_t *bucket = bucket_of(set, tid);
    set->next[index] = *bucket;
    *bucket = index + 1;
    return true;
}

/* Removes the task at a place of `live`; the last one takes its place. */
static void remove_task(pk_taskset *set, uint32_t place)
{
    uint32_t index = set->live[place];
    pk_task *task = &set->tasks[index];
    uint32_t *link = bucket_of(set, task->tid);
    while (*link != index + 1) {
        link = &set->next[*link - 1];
    }
    *link = set->next[index];
    pk_task_context context = context_of(set, task->process_index);
    if (set->wall != NULL) {
        pk_wall_close(set->wall, index);
    }
    pk_task_deinit(task, &context);
    set->live[place] = set->live[--set->live_count];
    set->unused[set->task_limit - 1 - set->live_count] = index;
}

static void close_process(pk_process *process)
{
    if (process->task_folder >= 0) {
        close(process->task_folder);
    }
    if (process->fd_folder >= 0) {
        close(process->fd_folder);
    }
    process->pid = 0;
}

void pk_taskset_add_process(pk_taskset *set, int32_t pid)
{
    pk_process *process = NULL;
    for (int i = 0; i < PK_TASKSET_PROCESS_LIMIT; i++) {
        if (set->processes[i].pid == pid) {
            return;
        }
        if (set->processes[i].pid == 0 && process == NULL) {
            process = &set->processes[i];
        }
    }
    if (process == NULL) {
        set->over_limit_count++;
        return;
    }
    char path[32];
    snprintf(path, sizeof path, "%d/task", pid);
    int task_folder = openat(set->proc_folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (task_folder < 0) {
        return;
    }
    snprintf(path, sizeof path, "%d/fd", pid);
    *process = (pk_process){
        .pid = pid,
        .task_folder = task_folder,
        .fd_folder = openat(set->proc_folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        .is_stale = true,
    };
    uint32_t end = (uint32_t)(process - set->processes) + 1;
    set->process_end = end > set->process_end ? end : set->process_end;
}

/* As the kernel writes it, see getdents64(2). */
typedef struct {
    uint64_t inode;
    int64_t offset;
    uint16_t size_bytes;
    uint8_t type;
    char name[];
} entry;

/* Marks the threads of a process that are listed, adds new ones; returns how many are new, -1 where
 * the process is gone. */
static int64_t list_process(pk_taskset *set, uint32_t process_index)
{
    pk_process *process = &set->processes[process_index];
    process->generation++;
    int64_t new_count = 0;
    int64_t seen_count = 0;
    lseek(process->task_folder, 0, SEEK_SET);
    for (;;) {
        long size = syscall(SYS_getdents64, process->task_folder, set->listing,
                            sizeof set->listing);
        if (size <= 0) {
            break;
        }
        for (long at = 0; at < size;) {
            const entry *found = (const entry *)(const void *)(set->listing + at);
            at += found->size_bytes != 0 ? found->size_bytes : size;
            int32_t tid = pk_procfile_parse_id(found->name);
            pk_task *task = tid == 0 ? NULL : find_task(set, tid);
            seen_count += tid != 0;
            if (task != NULL && task->process_index == process_index) {
                task->generation = process->generation;
            } else if (tid != 0 && task == NULL) {
                new_count += add_task(set, tid, process_index);
            }
        }
    }
    return seen_count == 0 ? -1 : new_count;
}

/* Forgets the threads that their process no longer lists. */
static void sweep(pk_taskset *set)
{
    for (uint32_t place = set->live_count; place-- > 0;) {
        const pk_task *task = &set->tasks[set->live[place]];
        const pk_process *process = &set->processes[task->process_index];
        if (task->generation != process->generation) {
            remove_task(set, place);
        }
    }
}

static bool has_changed(const pk_process *process)
{
    struct stat status;
    return process->is_stale || fstat(process->task_folder, &status) != 0 ||
           (uint64_t)status.st_nlink != process->link_count;
}

/* How long a process's threads need not be listed while their number stays the same. */
static int64_t to_listing_pause_ns(uint64_t thread_count)
{
    if (thread_count > (uint64_t)(FULL_LISTING_NS_MAX / FULL_LISTING_NS_PER_THREAD)) {
        return FULL_LISTING_NS_MAX;
    }
    int64_t wanted_ns = (int64_t)thread_count * FULL_LISTING_NS_PER_THREAD;
    return wanted_ns > FULL_LISTING_NS_MIN ? wanted_ns : FULL_LISTING_NS_MIN;
}

/* Lists one process; returns how many of its threads are new. */
static int64_t renew_process(pk_taskset *set, uint32_t process_index, int64_t now_ns)
{
    pk_process *process = &set->processes[process_index];
    struct stat status;
    /* Before the listing: a thread that comes in between is found by the next look. */
    bool is_known = fstat(process->task_folder, &status) == 0;
    process->link_count = is_known ? (uint64_t)status.st_nlink : 0;
    process->full_listing_ns = now_ns + to_listing_pause_ns(process->link_count);
    process->is_stale = false;
    int64_t left_out_count = set->over_limit_count;
    int64_t new_count = list_process(set, process_index);
    process->listed_ns = set->over_limit_count == left_out_count ? now_ns : 0;
    process->is_gone = new_count < 0;
    return new_count < 0 ? 0 : new_count;
}

static void close_gone(pk_taskset *set)
{
    for (uint32_t i = 0; i < set->process_end; i++) {
        if (set->processes[i].pid != 0 && set->processes[i].is_gone) {
            close_process(&set->processes[i]);
            if (set->wall != NULL) {
                pk_wall_forget(set->wall, i);
            }
        }
    }
    while (set->process_end > 0 && set->processes[set->process_end - 1].pid == 0) {
        set->process_end--;
    }
}

pk_listing pk_taskset_list(pk_taskset *set, int64_t now_ns, pk_list_look look)
{
    pk_listing found = {0, 0};
    uint32_t end = set->process_end;
    uint32_t count = look == PK_LOOK_ALL || end < CHECK_LIMIT ? end : CHECK_LIMIT;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t i = (set->next_checked + k) % end;
        pk_process *process = &set->processes[i];
        bool is_due = look == PK_LOOK_ALL && now_ns >= process->full_listing_ns;
        if (process->pid == 0 || (!is_due && !has_changed(process))) {
            continue;
        }
        if (look == PK_LOOK_PUT_OFF) {
            set->put_off_count++;
            break;
        }
        found.new_count += renew_process(set, i, now_ns);
        found.listed_count++;
    }
    set->next_checked = count == 0 ? 0 : (set->next_checked + count) % end;
    set->since_ns = set->since_ns == 0 && end > 0 ? now_ns : set->since_ns;
    if (found.listed_count > 0) {
        sweep(set);
        close_gone(set);
    }
    return found;
}

static uint64_t next_due(pk_task *task, uint64_t tick, pk_task_outcome outcome)
{
    bool was_resting = task->is_resting;
    task->still_count = outcome == PK_TASK_STILL ? task->still_count + 1 : 0;
    int64_t still_ns = task->last_ns - task->moved_ns;
    task->is_resting = task->still_count >= STILL_COUNT && still_ns >= STILL_NS;
    if (task->is_resting && !was_resting) {
        /* Spread those that fell still together over the ticks to come. */
        return tick + 1 + (uint32_t)task->tid % STILL_INTERVAL;
    }
    if (task->is_resting) {
        return tick + STILL_INTERVAL;
    }
    if (task->files[PK_TASK_SCHEDSTAT] < 0) {
        return tick + REOPEN_INTERVAL;
    }
    return tick + (task->still_count >= PAUSE_COUNT ? PAUSE_INTERVAL : 1);
}

int64_t pk_taskset_observe(pk_taskset *set, uint64_t tick, bool all)
{
    int64_t read_count = 0;
    for (uint32_t place = set->live_count; place-- > 0;) {
        pk_task *task = &set->tasks[set->live[place]];
        if (task->due_tick > tick && !all) {
            continue;
        }
        pk_task_context context = context_of(set, task->process_index);
        int64_t before_ns = task->last_ns;
        pk_task_outcome outcome = pk_task_observe(task, &context);
        if (set->wall != NULL && outcome != PK_TASK_GONE) {
            pk_wall_observe(set->wall, set->live[place], task, &context, outcome, before_ns);
        }
        read_count++;
        if (outcome == PK_TASK_GONE) {
            set->processes[task->process_index].is_stale = true;
            remove_task(set, place);
        } else {
            task->due_tick = next_due(task, tick, outcome);
        }
    }
    return read_count;
}

void pk_taskset_finish(pk_taskset *set)
{
    for (uint32_t place = set->live_count; place-- > 0;) {
        pk_task *task = &set->tasks[set->live[place]];
        pk_task_context context = context_of(set, task->process_index);
        pk_task_finish(task, &context);
        remove_task(set, place);
    }
}

int pk_taskset_copy_row(const pk_taskset *set, uint32_t index, int64_t row[PK_RUN_COLUMN_COUNT])
{
    return pk_task_copy_row(&set->tasks[index], row);
}

void pk_taskset_deinit(pk_taskset *set)
{
    while (set->tasks != NULL && set->live_count > 0) {
        remove_task(set, set->live_count - 1);
    }
    for (int i = 0; i < PK_TASKSET_PROCESS_LIMIT; i++) {
        if (set->processes[i].pid != 0) {
            close_process(&set->processes[i]);
        }
    }
    if (set->proc_folder >= 0) {
        close(set->proc_folder);
    }
    free(set->tasks);
    free(set->live);
    free(set->next);
    free(set->unused);
}
