#include "pk_pylist.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pk_remote.h"

enum { BATCH_COUNT = 32, ID_LIMIT = 1 << 22 };

/* Where one look at the list stands. */
typedef struct {
    pk_pyprocess *process;
    size_t known;        /* threads of before that lie ahead */
    size_t batch_first;  /* those whose states were read at one go */
    size_t batch_count;
    char batch[BATCH_COUNT * PK_PY_THREAD_SPAN_BYTES];
    char single[PK_PY_THREAD_SPAN_BYTES];
    pk_pythread *found[PK_PYPROCESS_THREAD_LIMIT];
    bool is_new[PK_PYPROCESS_THREAD_LIMIT];
    size_t found_count;
} listing;

static size_t offset_of(const pk_pyprocess *process, int field)
{
    return (size_t)process->layout.offsets[field];
}

static int read_word(const pk_pyprocess *process, uint64_t address, uint64_t *ret)
{
    if (!pk_remote_is_address(address, sizeof *ret)) {
        return EAGAIN;
    }
    return pk_remote_read(process->pid, address, ret, sizeof *ret);
}

static void read_batch(listing *list, size_t first)
{
    pk_pyprocess *process = list->process;
    pk_gather gather;
    gather.count = 0;
    size_t size = process->layout.thread_bytes;
    size_t got = 0;
    for (size_t i = first; i < process->thread_count && gather.count < BATCH_COUNT; i++) {
        pk_gather_add(&gather, process->threads[i]->address, size);
    }
    if (pk_gather_read(&gather, process->pid, list->batch, sizeof list->batch, &got) != 0) {
        got = 0;
    }
    list->batch_first = first;
    list->batch_count = got / size;
}

/* The thread of before with this address, if it is not behind us; *ret_state: its state. */
static pk_pythread *find_known(listing *list, uint64_t address, const char **ret_state)
{
    pk_pyprocess *process = list->process;
    for (size_t i = list->known; i < process->thread_count; i++) {
        if (process->threads[i]->address != address) {
            continue;
        }
        list->known = i + 1;
        if (i < list->batch_first || i >= list->batch_first + list->batch_count) {
            read_batch(list, i);
        }
        if (i >= list->batch_first + list->batch_count) {
            return NULL;
        }
        *ret_state = list->batch + (i - list->batch_first) * process->layout.thread_bytes;
        return process->threads[i];
    }
    return NULL;
}

/* CPython tells the number that a thread had when its state was made. Where no thread of the
 * process has it, the process was forked: then the first of its threads is its main one. */
static int32_t to_tid(const pk_pyprocess *process, const pk_pyshared *shared, uint64_t native,
                      bool is_last)
{
    if (native == 0 || native > ID_LIMIT) {
        return 0;
    }
    char path[48];
    struct stat unused;
    snprintf(path, sizeof path, "%d/task/%d", process->pid, (int)native);
    if (fstatat(shared->proc_folder, path, &unused, 0) == 0) {
        return (int32_t)native;
    }
    return is_last ? process->pid : 0;
}

static pk_pythread *make_thread(uint64_t address)
{
    pk_pythread *thread = calloc(1, sizeof *thread);
    if (thread != NULL) {
        thread->address = address;
        thread->run_ns = -1;
        thread->files[0] = thread->files[1] = -1;
    }
    return thread;
}

/* Takes in the thread state at an address; *ret: the next one's. */
static int take_thread(listing *list, const pk_pyshared *shared, uint64_t interpreter,
                       uint64_t address, uint64_t *ret)
{
    pk_pyprocess *process = list->process;
    const char *state = list->single;
    pk_pythread *thread = find_known(list, address, &state);
    bool is_new = thread == NULL;
    if (is_new) {
        size_t size = process->layout.thread_bytes;
        int error = !pk_remote_is_address(address, size)
                        ? EAGAIN
                        : pk_remote_read(process->pid, address, list->single, size);
        if (error != 0) {
            return error;
        }
    }
    if (pk_remote_word(state, offset_of(process, PK_PY_THREAD_INTERPRETER)) != interpreter) {
        return EAGAIN;
    }
    *ret = pk_remote_word(state, offset_of(process, PK_PY_THREAD_NEXT));
    uint64_t native = pk_remote_word(state, offset_of(process, PK_PY_THREAD_NATIVE_ID));
    if (!is_new && thread->native != native) {
        is_new = true; /* the memory was used for another thread's state */
    }
    if (is_new) {
        thread = make_thread(address);
        if (thread == NULL) {
            return ENOMEM;
        }
        thread->native = native;
        thread->tid = to_tid(process, shared, native, *ret == 0);
    }
    thread->interpreter = interpreter;
    list->is_new[list->found_count] = is_new;
    list->found[list->found_count++] = thread;
    return 0;
}

/* The collector holds its interpreter's lock, but for finalizers that let go of it. */
bool pk_pythread_collects(const pk_pyprocess *process, const pk_pythread *thread)
{
    const int64_t *offsets = process->layout.offsets;
    uint64_t flag = 0;
    uint64_t lock = process->runtime + (uint64_t)offsets[PK_PY_RUNTIME_LOCK];
    uint64_t holder = 0;
    if (offsets[PK_PY_INTERPRETER_COLLECTING] < 0 || offsets[PK_PY_LOCK_HOLDER] < 0 ||
        read_word(process,
                  thread->interpreter + offset_of(process, PK_PY_INTERPRETER_COLLECTING),
                  &flag) != 0 ||
        (uint32_t)flag != 1) {
        return false;
    }
    if (offsets[PK_PY_RUNTIME_LOCK] < 0 &&
        (offsets[PK_PY_INTERPRETER_LOCK] < 0 ||
         read_word(process, thread->interpreter + offset_of(process, PK_PY_INTERPRETER_LOCK),
                   &lock) != 0)) {
        return false;
    }
    return read_word(process, lock + offset_of(process, PK_PY_LOCK_HOLDER), &holder) == 0 &&
           holder == thread->address;
}

static int follow(listing *list, pk_pyshared *shared)
{
    pk_pyprocess *process = list->process;
    uint64_t interpreter = 0;
    uint64_t first = process->runtime + offset_of(process, PK_PY_RUNTIME_INTERPRETERS);
    int error = read_word(process, first, &interpreter);
    for (int i = 0; error == 0 && interpreter != 0; i++) {
        if (i >= PK_PYPROCESS_INTERPRETER_LIMIT) {
            shared->counts.over_limit_count++;
            break;
        }
        uint64_t thread = 0;
        error = read_word(process, interpreter + offset_of(process, PK_PY_INTERPRETER_THREADS),
                          &thread);
        while (error == 0 && thread != 0) {
            if (list->found_count >= PK_PYPROCESS_THREAD_LIMIT) {
                shared->counts.over_limit_count++;
                break;
            }
            error = take_thread(list, shared, interpreter, thread, &thread);
        }
        if (error == 0) {
            error = read_word(process, interpreter + offset_of(process, PK_PY_INTERPRETER_NEXT),
                              &interpreter);
        }
    }
    return error;
}

int pk_pylist_update(pk_pyprocess *process, pk_pyshared *shared)
{
    listing whole; /* large: only what is read before it is written is cleared */
    listing *list = &whole;
    list->process = process;
    list->known = list->batch_first = list->batch_count = list->found_count = 0;
    int error = follow(list, shared);
    if (error != 0) {
        for (size_t i = 0; i < list->found_count; i++) {
            if (list->is_new[i]) {
                pk_pythread_release(process, shared, list->found[i]);
            }
        }
        return error;
    }
    for (size_t i = 0; i < list->found_count; i++) {
        if (!list->is_new[i]) {
            list->found[i]->is_listed = true;
        }
    }
    for (size_t i = 0; i < process->thread_count; i++) {
        pk_pythread *thread = process->threads[i];
        if (!thread->is_listed) {
            pk_pythread_release(process, shared, thread);
        }
        /* Those that stay are marked anew by the next listing. */
    }
    for (size_t i = 0; i < list->found_count; i++) {
        list->found[i]->is_listed = false;
        process->threads[i] = list->found[i];
    }
    process->thread_count = list->found_count;
    return 0;
}
