#include "pk_look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pk_pylist.h"

static const uint64_t ADDRESS_MIN = 4096;
static const uint64_t ADDRESS_LIMIT = 1ULL << 47;
static const int64_t LEAF_PAUSE_NS = 20 * 1000 * 1000;
static const int64_t MAPS_PAUSE_NS = 1000LL * 1000 * 1000;
static const int64_t MAPS_PAUSE_LIMIT_NS = 32 * 1000LL * 1000 * 1000;
static const int64_t MAPS_AGE_LIMIT_NS = 10 * 1000LL * 1000 * 1000;
static const int64_t LIST_PAUSE_NS = 50 * 1000 * 1000;

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int pk_looker_init(pk_looker *looker, int proc)
{
    looker->python = NULL;
    looker->look_count = looker->moved_count = looker->maps_read_count = 0;
    looker->stack.depth = looker->frames.depth = 0;
    return pk_unwinder_init(&looker->unwinder, proc);
}

void pk_looker_deinit(pk_looker *looker)
{
    pk_unwinder_deinit(&looker->unwinder);
}

void pk_look_process_init(pk_look_process *process, int32_t pid)
{
    *process = (pk_look_process){.pid = pid, .maps_pause_ns = MAPS_PAUSE_NS,
                                 .leaf_pause_ns = LEAF_PAUSE_NS};
    pk_maps_init(&process->maps);
}

void pk_look_process_deinit(pk_look_process *process, pk_looker *looker)
{
    pk_maps_deinit(&process->maps);
    if (process->python != NULL) {
        pk_pyprocess_deinit(process->python, looker->python);
        free(process->python);
        process->python = NULL;
    }
}

int pk_look_process_set_python(pk_look_process *process, uint64_t runtime,
                               const pk_pylayout *layout)
{
    if (process->python != NULL) {
        return EEXIST;
    }
    pk_pyprocess *python = malloc(sizeof *python);
    int error = python == NULL ? ENOMEM
                               : pk_pyprocess_init(python, process->pid, runtime, layout);
    if (error != 0) {
        free(python);
        return error;
    }
    process->python = python;
    return 0;
}

static int read_schedstat(const pk_look_thread *thread, pk_schedstat *ret)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    int error = pk_procfile_read(thread->schedstat, text, sizeof text, &size);
    return error != 0 || pk_procfile_parse_schedstat(text, size, ret) != 0 ? ESRCH : 0;
}

static void read_call(const pk_look_thread *thread, pk_look *look)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    int error = thread->syscall < 0
                    ? EACCES
                    : pk_procfile_read(thread->syscall, text, sizeof text, &size);
    if (error == 0 && pk_procfile_parse_syscall(text, size, &look->call) == 0) {
        return;
    }
    look->call = (pk_syscall){.number = PK_SYSCALL_UNREADABLE};
    look->stack_error = error != 0 ? error : EBADMSG;
}

/* Copies what there is of a range; how many bytes came. Pages beyond the end are no error. */
static size_t read_memory(void *context, uint64_t address, void *buffer, size_t size)
{
    if (address < ADDRESS_MIN || address >= ADDRESS_LIMIT - size) {
        return 0;
    }
    const pk_look_process *process = context;
    struct iovec local = {buffer, size};
    struct iovec remote = {(void *)(uintptr_t)address, size};
    ssize_t count = process_vm_readv(process->pid, &local, 1, &remote, 1, 0);
    return count < 0 ? 0 : (size_t)count;
}

static int read_maps(pk_looker *looker, pk_look_process *process, int64_t at_ns)
{
    looker->maps_read_count++;
    process->maps_ns = at_ns;
    return pk_maps_read(&process->maps, looker->unwinder.objects.proc, process->pid);
}

static int64_t lengthen(int64_t pause_ns)
{
    return 2 * pause_ns < MAPS_PAUSE_LIMIT_NS ? 2 * pause_ns : MAPS_PAUSE_LIMIT_NS;
}

/* Has mappings at hand that are young enough, and that the code at hand lies in: where it does not
 * another program is executed. */
static int renew_maps(pk_looker *looker, pk_look_process *process, const pk_look *look)
{
    uint64_t leaf = (uint64_t)look->call.program_counter;
    int64_t age_ns = look->t_ns - process->maps_ns;
    bool is_known = process->maps_ns != 0 && pk_maps_find(&process->maps, leaf) != NULL;
    int64_t limit_ns = is_known ? MAPS_AGE_LIMIT_NS : process->leaf_pause_ns;
    if (process->maps_ns != 0 && age_ns <= limit_ns) {
        return 0;
    }
    int error = read_maps(looker, process, look->t_ns);
    is_known = error == 0 && pk_maps_find(&process->maps, leaf) != NULL;
    process->leaf_pause_ns = is_known ? LEAF_PAUSE_NS : lengthen(process->leaf_pause_ns);
    return error;
}

static void unwind(pk_looker *looker, pk_look_process *process, const pk_syscall *call,
                   size_t copied_bytes)
{
    pk_snapshot snapshot = {.pid = process->pid,
                            .stack = looker->copy,
                            .stack_address = (uint64_t)call->stack_pointer,
                            .stack_bytes = copied_bytes,
                            .read = read_memory,
                            .context = process};
    snapshot.registers.values[PK_RSP] = (uint64_t)call->stack_pointer;
    snapshot.registers.values[PK_RIP] = (uint64_t)call->program_counter;
    snapshot.registers.known = 1U << PK_RSP | 1U << PK_RIP;
    pk_unwind(&looker->unwinder, &process->maps, &snapshot, &looker->stack);
}

static bool is_astray(const pk_stack *stack)
{
    return stack->end == PK_UNWIND_LOST || stack->end == PK_UNWIND_TRUNCATED;
}

/* Reads and unwinds the stack; mappings are read again where they do not explain it. */
static void read_stack(pk_looker *looker, pk_look_process *process, pk_look *look)
{
    look->stack_error = 0;
    uint64_t address = (uint64_t)look->call.stack_pointer;
    if (address < ADDRESS_MIN || address >= ADDRESS_LIMIT - PK_LOOK_COPY_BYTES) {
        look->stack_error = EFAULT;
        return;
    }
    look->stack_error = renew_maps(looker, process, look);
    if (look->stack_error != 0) {
        process->maps_ns = 0;
        return;
    }
    errno = 0;
    size_t copied_bytes = read_memory(process, address, looker->copy, sizeof looker->copy);
    if (copied_bytes == 0) {
        look->stack_error = errno != 0 ? errno : EFAULT;
        return;
    }
    unwind(looker, process, &look->call, copied_bytes);
    if (is_astray(&looker->stack) &&
        look->t_ns - process->maps_ns >= process->maps_pause_ns) {
        look->stack_error = read_maps(looker, process, look->t_ns);
        if (look->stack_error != 0) {
            return;
        }
        unwind(looker, process, &look->call, copied_bytes);
        process->maps_pause_ns = !is_astray(&looker->stack)
                                     ? MAPS_PAUSE_NS
                                     : lengthen(process->maps_pause_ns);
    }
    look->has_stack = true;
}

static pk_pythread *search(const pk_pyprocess *python, int32_t tid)
{
    for (size_t i = 0; i < python->thread_count; i++) {
        if (python->threads[i]->tid == tid) {
            return python->threads[i];
        }
    }
    return NULL;
}

/* Whether the memory of a thread's state still is that: it may have ended since it was listed. */
static bool is_current(const pk_pyprocess *python, const pk_pythread *thread)
{
    uint64_t native = 0;
    uint64_t place = thread->address + (uint64_t)python->layout.offsets[PK_PY_THREAD_NATIVE_ID];
    return pk_remote_read(python->pid, place, &native, sizeof native) == 0 &&
           native == thread->native;
}

static pk_pythread *find_python(pk_looker *looker, pk_look_process *process, int32_t tid,
                                int64_t at_ns, int *ret_error)
{
    pk_pyprocess *python = process->python;
    pk_pythread *thread = search(python, tid);
    *ret_error = 0;
    if (thread != NULL && is_current(python, thread)) {
        return thread;
    }
    if (process->listed_ns != 0 && at_ns - process->listed_ns < LIST_PAUSE_NS) {
        return NULL;
    }
    process->listed_ns = at_ns;
    *ret_error = pk_pylist_update(python, looker->python);
    return *ret_error == 0 ? search(python, tid) : NULL;
}

static void read_frames(pk_looker *looker, pk_look_process *process, int32_t tid, pk_look *look)
{
    pk_pythread *thread = find_python(looker, process, tid, look->t_ns, &look->frames_error);
    if (thread == NULL) {
        return;
    }
    look->frames_error = pk_pywalk_read(&thread->walk, &process->python->layout, process->pid,
                                        thread->address, &looker->frames);
    look->has_frames = look->frames_error == 0 && looker->frames.depth > 0;
}

int pk_look_at(pk_looker *looker, pk_look_process *process, const pk_look_thread *thread,
               pk_look *ret)
{
    looker->look_count++;
    for (int i = 0; i < PK_LOOK_TRY_COUNT; i++) {
        *ret = (pk_look){.t_ns = now_ns()};
        pk_schedstat after;
        if (read_schedstat(thread, &ret->counters) != 0) {
            return ESRCH;
        }
        read_call(thread, ret);
        if (ret->call.number >= PK_SYSCALL_NOT_IN_SYSCALL) {
            read_stack(looker, process, ret);
        }
        if (process->python != NULL) {
            read_frames(looker, process, thread->tid, ret);
        }
        if (read_schedstat(thread, &after) != 0) {
            return ESRCH;
        }
        /* One that runs all the while may not have been booked yet. */
        ret->is_exact = ret->call.number != PK_SYSCALL_RUNNING &&
                        memcmp(&after, &ret->counters, sizeof after) == 0;
        if (ret->is_exact || ret->call.number == PK_SYSCALL_RUNNING) {
            return 0;
        }
    }
    looker->moved_count++;
    return 0;
}

int pk_look_intern_stack(pk_looker *looker, const pk_look_process *process,
                         pk_nativestacks *stacks, uint32_t *ret)
{
    const pk_stack *stack = &looker->stack;
    int error = pk_nativestacks_write(stacks, &looker->unwinder.objects, process->pid, stack,
                                      looker->native_frames);
    return error != 0 ? error
                      : pk_nativestacks_intern(stacks, looker->native_frames, stack->depth, ret);
}

int pk_look_intern_frames(const pk_looker *looker, pk_look_process *process, int64_t t_ns,
                          uint32_t *ret)
{
    pk_pyprocess *python = process->python;
    const pk_pyframes *frames = &looker->frames;
    uint32_t functions[PK_PYSTACK_DEPTH_LIMIT];
    for (size_t i = 0; i < frames->depth; i++) {
        int error = pk_pycodes_find(&python->codes, &looker->python->names, &python->layout,
                                    process->pid, frames->codes[i], t_ns, &functions[i]);
        if (error != 0) {
            return error;
        }
        functions[i] |= frames->entries[i] ? PK_LOOK_ENTRY_BIT : 0;
    }
    return pk_pystacks_intern(&looker->python->stacks, functions, frames->depth, ret);
}
