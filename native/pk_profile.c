#include "pk_profile.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

int pk_profile_init(pk_profile *profile, int proc, size_t row_limit, int64_t now_ns)
{
    memset(profile, 0, sizeof *profile);
    profile->proc = -1;
    profile->keep_ratio = 1;
    profile->random = (uint64_t)now_ns | 1;
    int error = pk_unwinder_init(&profile->unwinder, proc);
    if (error == 0) {
        error = pk_proctable_init(&profile->processes, proc, now_ns);
    }
    if (error == 0) {
        error = pk_nativestacks_init(&profile->stacks);
    }
    if (error == 0) {
        error = pk_offcpu_init(&profile->offcpu);
    }
    if (error == 0) {
        error = pk_ring_init(&profile->rows, row_limit, PK_PROFILE_COLUMN_COUNT);
    }
    if (error != 0) {
        pk_profile_deinit(profile);
        return error;
    }
    profile->proc = proc;
    return 0;
}

void pk_profile_deinit(pk_profile *profile)
{
    pk_ring_deinit(&profile->rows);
    pk_offcpu_deinit(&profile->offcpu);
    pk_nativestacks_deinit(&profile->stacks);
    pk_proctable_deinit(&profile->processes);
    pk_unwinder_deinit(&profile->unwinder);
    if (profile->proc >= 0) {
        close(profile->proc);
        profile->proc = -1;
    }
}

static size_t read_memory(void *context, uint64_t address, void *buffer, size_t size)
{
    struct iovec local = {buffer, size};
    struct iovec remote = {(void *)(uintptr_t)address, size}; /* of the other process */
    ssize_t count = process_vm_readv(*(const pid_t *)context, &local, 1, &remote, 1, 0);
    return count < 0 ? 0 : (size_t)count;
}

/* Adds the kernel's frames; returns how many there are now. */
static size_t add_kernel(pk_profile *profile, const pk_perf_record *record)
{
    for (size_t i = 0; i < record->kernel_depth; i++) {
        /* But for the first they are return addresses: the call is before. */
        profile->frames[i] = (pk_native_frame){.offset = record->kernel[i] - (i > 0), .object = 0};
    }
    return record->kernel_depth;
}

static void count_end(pk_profile_counts *counts, pk_unwind_end end)
{
    switch (end) {
    case PK_UNWIND_ROOT:
        counts->root_count++;
        break;
    case PK_UNWIND_TRUNCATED:
        counts->truncated_count++;
        break;
    case PK_UNWIND_LOST:
        counts->stray_count++;
        break;
    default:
        counts->deep_count++;
        break;
    }
}

/* Adds the user's frames. Returns an errno value; ENOENT: its mappings are not known. */
static int add_user(pk_profile *profile, const pk_perf_record *record, size_t *depth)
{
    pid_t pid = record->pid;
    pk_maps *maps = pk_proctable_find_maps(&profile->processes, pid, record->time_ns);
    if (maps == NULL) {
        return ENOENT;
    }
    const pk_snapshot snapshot = {.pid = pid,
                                  .registers = record->registers,
                                  .stack = record->stack,
                                  .stack_address = record->registers.values[PK_RSP],
                                  .stack_bytes = record->stack_bytes,
                                  .read = read_memory,
                                  .context = &pid};
    pk_stack *stack = &profile->stack;
    pk_unwind(&profile->unwinder, maps, &snapshot, stack);
    const size_t first = *depth;
    *depth += stack->depth;
    return pk_nativestacks_write(&profile->stacks, &profile->unwinder.objects, pid, stack,
                                 profile->frames + first);
}

/* The stack of a sample, -1 where there is none, and how it ends. */
static void find_stack(pk_profile *profile, const pk_perf_record *record, int64_t *ret,
                       int64_t *ret_end)
{
    pk_profile_counts *counts = &profile->counts;
    *ret = *ret_end = -1;
    size_t depth = add_kernel(profile, record);
    pk_unwind_end end = PK_UNWIND_ROOT;
    int error = 0;
    if (record->registers.known != 0) {
        error = add_user(profile, record, &depth);
        end = profile->stack.end;
    }
    if (error == ENOENT) {
        counts->unmapped_count++;
        return;
    }
    uint32_t number = 0;
    if (error == 0) {
        error = pk_nativestacks_intern(&profile->stacks, profile->frames, depth, &number);
    }
    if (error != 0 || depth == 0) {
        counts->full_count += error != 0;
        return;
    }
    if (record->registers.known != 0) {
        counts->late_count += (profile->stack.flags & PK_FRAME_LATE) != 0;
    }
    count_end(counts, end);
    *ret = number;
    *ret_end = end;
}

/* xorshift64: uniform in [0, 1). */
static double next_random(pk_profile *profile)
{
    uint64_t x = profile->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    profile->random = x;
    return (double)(x >> 11) / (double)(1ULL << 53);
}

static void take_sample(pk_profile *profile, const pk_perf_record *record)
{
    pk_profile_counts *counts = &profile->counts;
    if (!pk_proctable_is_wanted(&profile->processes, record->pid)) {
        counts->other_count += !record->is_switch;
        return;
    }
    int64_t stack;
    int64_t end;
    if (record->is_switch) {
        find_stack(profile, record, &stack, &end);
        pk_offcpu_note_stack(&profile->offcpu, record->tid, stack, end, record->time_ns);
        return;
    }
    double keep_ratio = profile->keep_ratio;
    if (keep_ratio < 1 && next_random(profile) >= keep_ratio) {
        return;
    }
    counts->sample_count++;
    counts->kernel_count += record->kernel_depth > 0;
    find_stack(profile, record, &stack, &end);
    int64_t weight_ns = (int64_t)((double)record->weight_ns / keep_ratio);
    const int64_t row[PK_PROFILE_COLUMN_COUNT] = {
        record->time_ns, record->pid, record->tid, record->cpu, PK_PROFILE_CPU, stack,
        weight_ns, end, 0,
    };
    pk_ring_push(&profile->rows, row);
}

static void tell_wait(pk_profile *profile, const pk_offcpu_thread *thread, int64_t end_ns,
                      bool is_open)
{
    const int64_t row[PK_PROFILE_COLUMN_COUNT] = {
        thread->left_ns,
        thread->pid,
        thread->tid,
        thread->cpu,
        thread->is_preempted ? PK_PROFILE_PREEMPTED : PK_PROFILE_OFF,
        thread->stack,
        end_ns - thread->left_ns,
        thread->end,
        is_open,
    };
    pk_ring_push(&profile->rows, row);
}

static void take_switch(pk_profile *profile, const pk_perf_record *record)
{
    pk_offcpu_thread thread;
    profile->counts.switch_count += record->is_leaving;
    if (!profile->has_switches || record->tid <= 0 ||
        !pk_proctable_is_wanted(&profile->processes, record->pid)) {
        return;
    }
    if (record->is_leaving) {
        thread = (pk_offcpu_thread){.tid = record->tid,
                                    .pid = record->pid,
                                    .cpu = record->cpu,
                                    .left_ns = record->time_ns,
                                    .is_preempted = record->is_preempted};
        pk_offcpu_leave(&profile->offcpu, &thread);
    } else if (pk_offcpu_return(&profile->offcpu, record->tid, record->time_ns, &thread)) {
        tell_wait(profile, &thread, record->time_ns, false);
    }
}

void pk_profile_take(pk_profile *profile, const pk_perf_record *record)
{
    pk_proctable *processes = &profile->processes;
    switch (record->kind) {
    case PK_PERF_SAMPLE:
        take_sample(profile, record);
        break;
    case PK_PERF_SWITCH:
        take_switch(profile, record);
        break;
    case PK_PERF_MAPPING:
        pk_proctable_add_mapping(processes, record->pid, &record->mapping, record->time_ns);
        break;
    case PK_PERF_NAME:
        if (record->is_exec) {
            pk_proctable_note_exec(processes, record->pid, record->time_ns);
        }
        break;
    case PK_PERF_BIRTH:
        if (profile->has_switches) {
            pk_offcpu_note_birth(&profile->offcpu, record->tid);
        }
        pk_proctable_note_birth(processes, record->pid, record->parent, record->time_ns);
        break;
    case PK_PERF_DEATH:
        if (profile->has_switches && pk_proctable_is_wanted(processes, record->pid)) {
            pk_offcpu_note_death(&profile->offcpu, record->tid, record->time_ns);
        }
        if (record->pid == record->tid) {
            pk_proctable_note_death(processes, record->pid);
        }
        break;
    case PK_PERF_LOST:
        pk_proctable_note_loss(processes);
        if (profile->has_switches) {
            pk_offcpu_clear(&profile->offcpu);
        }
        break;
    default:
        break;
    }
}

void pk_profile_end_switches(pk_profile *profile)
{
    if (profile->has_switches) {
        pk_offcpu_clear(&profile->offcpu);
    }
    profile->has_switches = false;
}

void pk_profile_close(pk_profile *profile, int64_t now_ns)
{
    pk_offcpu_thread thread;
    size_t place = 0;
    while (profile->has_switches && pk_offcpu_next(&profile->offcpu, &place, &thread)) {
        if (thread.left_ns < now_ns) {
            tell_wait(profile, &thread, now_ns, true);
        }
    }
}
