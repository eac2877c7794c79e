#include "pk_dump.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What is open while a dump is taken. */
typedef struct {
    pk_dump *dump;
    int proc;
    int task_folder;
    int fd_folder;
    pk_looker looker;
    pk_look_process process;
} taking;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int open_file(const taking *take, int32_t tid, const char *name)
{
    char path[32];
    snprintf(path, sizeof path, "%d/%s", tid, name);
    return openat(take->task_folder, path, O_RDONLY | O_CLOEXEC);
}

static void close_file(int descriptor)
{
    if (descriptor >= 0) {
        close(descriptor);
    }
}

/* Opens the folders of the process. */
static int open_folders(taking *take, const char *proc_root, int32_t pid)
{
    char path[32];
    take->proc = open(proc_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (take->proc < 0) {
        return errno;
    }
    snprintf(path, sizeof path, "%d/task", pid);
    take->task_folder = openat(take->proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (take->task_folder < 0) {
        return errno == ENOENT ? ESRCH : errno;
    }
    snprintf(path, sizeof path, "%d/fd", pid);
    take->fd_folder = openat(take->proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return 0;
}

/* Lists the threads into rows. */
static int list_threads(taking *take, size_t thread_limit)
{
    pk_dump *dump = take->dump;
    int copy = dup(take->task_folder);
    DIR *folder = copy < 0 ? NULL : fdopendir(copy);
    if (folder == NULL) {
        close_file(copy);
        return errno;
    }
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        int32_t tid = pk_procfile_parse_id(entry->d_name);
        if (tid != 0 && dump->row_count >= thread_limit) {
            dump->over_limit_count++;
        } else if (tid != 0) {
            dump->rows[dump->row_count++] = (pk_dump_row){.tid = tid};
        }
    }
    closedir(folder);
    return dump->row_count == 0 ? ESRCH : 0;
}

static void read_stat(const taking *take, pk_dump_row *row)
{
    char path[32];
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    snprintf(path, sizeof path, "%d/stat", row->tid);
    if (pk_procfile_read_at(take->task_folder, path, text, sizeof text, &size) != 0 ||
        pk_procfile_parse_stat(text, size, &row->stat) != 0) {
        row->stat = (pk_stat){.policy = -1};
    }
}

static void look_at(taking *take, pk_dump_row *row)
{
    pk_look_thread thread = {row->tid, open_file(take, row->tid, "schedstat"),
                             open_file(take, row->tid, "syscall")};
    int syscall_error = thread.syscall < 0 ? errno : 0;
    pk_look look;
    int error = row->tid == 0 || thread.schedstat < 0
                    ? ESRCH
                    : pk_look_at(&take->looker, &take->process, &thread, &look);
    row->stack = row->python_stack = -1;
    if (error == 0) {
        row->t_ns = look.t_ns;
        row->call = look.call;
        row->counters = look.counters;
        row->is_exact = look.is_exact;
        row->stack_error = syscall_error != 0 ? syscall_error : look.stack_error;
        row->frames_error = look.frames_error;
        row->end = take->looker.stack.end;
        uint32_t number = 0;
        if (look.has_stack) {
            error = pk_look_intern_stack(&take->looker, &take->process, &take->dump->stacks,
                                         &number);
            row->stack = error == 0 ? (int32_t)number : -1;
            row->stack_error = error;
        }
        if (look.has_frames) {
            row->frames_error = pk_look_intern_frames(&take->looker, &take->process, look.t_ns,
                                                      &number);
            row->python_stack = row->frames_error == 0 ? (int32_t)number : -1;
        }
        pk_wait_read(take->process.pid, take->fd_folder, &look.call, &row->wait);
        read_stat(take, row);
    } else {
        row->tid = 0;
    }
    close_file(thread.schedstat);
    close_file(thread.syscall);
}

/* Takes out the threads that ended, and asks the others whether they have run since. */
static void ask_again(taking *take)
{
    pk_dump *dump = take->dump;
    size_t kept_count = 0;
    for (size_t i = 0; i < dump->row_count; i++) {
        pk_dump_row *row = &dump->rows[i];
        char path[32];
        char text[PK_PROCFILE_BYTES];
        size_t size = 0;
        pk_schedstat now;
        snprintf(path, sizeof path, "%d/schedstat", row->tid);
        if (row->tid == 0 ||
            pk_procfile_read_at(take->task_folder, path, text, sizeof text, &size) != 0 ||
            pk_procfile_parse_schedstat(text, size, &now) != 0) {
            dump->gone_count++;
            continue;
        }
        row->is_still = row->is_exact && memcmp(&now, &row->counters, sizeof now) == 0;
        dump->rows[kept_count++] = *row;
    }
    dump->row_count = kept_count;
}

static int take_all(taking *take, int32_t pid, uint64_t runtime, const pk_pylayout *layout,
                    size_t thread_limit)
{
    pk_dump *dump = take->dump;
    int error = pk_looker_init(&take->looker, take->proc);
    if (error != 0) {
        return error;
    }
    pk_look_process_init(&take->process, pid);
    dump->python.proc_folder = dup(take->proc); /* closed with it */
    take->looker.python = &dump->python;
    if (layout != NULL) {
        error = pk_look_process_set_python(&take->process, runtime, layout);
    }
    if (error == 0) {
        error = list_threads(take, thread_limit);
    }
    /* The first time opens files; the second is quick, so that less happens under it. */
    for (int round = 0; error == 0 && round < 2; round++) {
        dump->begin_ns = now_ns();
        for (size_t i = 0; i < dump->row_count; i++) {
            look_at(take, &dump->rows[i]);
        }
    }
    if (error == 0) {
        ask_again(take);
    }
    dump->end_ns = now_ns();
    pk_look_process_deinit(&take->process, &take->looker);
    pk_looker_deinit(&take->looker);
    return error;
}

int pk_dump_take(pk_dump *dump, const char *proc_root, int32_t pid, uint64_t runtime,
                 const pk_pylayout *layout, size_t thread_limit)
{
    memset(dump, 0, sizeof *dump);
    dump->python.proc_folder = -1;
    taking *take = calloc(1, sizeof *take);
    dump->rows = calloc(thread_limit, sizeof *dump->rows);
    int error = take == NULL || dump->rows == NULL ? ENOMEM : 0;
    if (error == 0) {
        error = pk_nativestacks_init(&dump->stacks);
    }
    if (error == 0) {
        error = pk_pyshared_init(&dump->python, 1);
    }
    if (error == 0) {
        *take = (taking){.dump = dump, .proc = -1, .task_folder = -1, .fd_folder = -1};
        error = open_folders(take, proc_root, pid);
        if (error == 0) {
            error = take_all(take, pid, runtime, layout, thread_limit);
        }
        close_file(take->fd_folder);
        close_file(take->task_folder);
        close_file(take->proc);
    }
    free(take);
    if (error != 0) {
        pk_dump_deinit(dump);
    }
    return error;
}

void pk_dump_deinit(pk_dump *dump)
{
    free(dump->rows);
    dump->rows = NULL;
    pk_nativestacks_deinit(&dump->stacks);
    pk_pyshared_deinit(&dump->python);
}
