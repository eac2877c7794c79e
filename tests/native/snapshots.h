/* Registers and stacks of a stopped thread, kept so that unwinding can be timed afterwards. */
#ifndef SNAPSHOTS_H
#define SNAPSHOTS_H
#include "pk_unwind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <time.h>

enum { SNAPSHOT_STACK_BYTES = 1 << 18, SNAPSHOT_LIMIT = 2000, SNAPSHOT_KEPT_BYTES = 1 << 14 };

static pk_snapshot kept[SNAPSHOT_LIMIT];
static size_t kept_count;
static uint8_t taken[SNAPSHOT_STACK_BYTES];

typedef struct {
    pid_t pid;
    uint64_t stack_pointer;
} snapshot_owner;

static size_t read_memory(pid_t pid, uint64_t address, void *buffer, size_t size)
{
    struct iovec local = {buffer, size};
    struct iovec remote = {(void *)(uintptr_t)address, size};
    ssize_t count = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    return count < 0 ? 0 : (size_t)count;
}

/* What lies below the stack pointer will have been overwritten before it is read late. */
static size_t read_late(void *context, uint64_t address, void *buffer, size_t size)
{
    const snapshot_owner *owner = context;
    if (address < owner->stack_pointer && address > owner->stack_pointer - (1 << 20)) {
        return 0;
    }
    return read_memory(owner->pid, address, buffer, size);
}


static void snapshot_take(pk_snapshot *snapshot, pid_t thread,
                          const struct user_regs_struct *from, size_t stack_bytes)
{
    static snapshot_owner owner;
    owner = (snapshot_owner){thread, from->rsp};
    const uint64_t values[PK_REGISTER_COUNT] = {
        from->rax, from->rdx, from->rcx, from->rbx, from->rsi, from->rdi, from->rbp, from->rsp,
        from->r8,  from->r9,  from->r10, from->r11, from->r12, from->r13, from->r14, from->r15,
        from->rip};
    *snapshot = (pk_snapshot){.pid = thread, .stack = taken, .stack_address = from->rsp};
    memcpy(snapshot->registers.values, values, sizeof values);
    snapshot->registers.known = (1U << PK_REGISTER_COUNT) - 1;
    snapshot->stack_bytes = read_memory(thread, from->rsp, taken, stack_bytes);
    snapshot->read = read_late;
    snapshot->context = &owner;
}

static void snapshot_keep(const pk_snapshot *snapshot, bool is_short)
{
    if (getenv("REPLAY") == NULL || is_short || kept_count == SNAPSHOT_LIMIT) {
        return;
    }
    pk_snapshot *copy = &kept[kept_count++];
    *copy = *snapshot;
    copy->read = NULL;
    if (copy->stack_bytes > SNAPSHOT_KEPT_BYTES) {
        copy->stack_bytes = SNAPSHOT_KEPT_BYTES;
    }
    uint8_t *bytes = malloc(copy->stack_bytes + 1);
    memcpy(bytes, snapshot->stack, copy->stack_bytes);
    copy->stack = bytes;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int compare_ns(const void *first, const void *second)
{
    int64_t one = *(const int64_t *)first;
    int64_t other = *(const int64_t *)second;
    return (one > other) - (one < other);
}

/* Unwinds all that was kept, again and again. Forgotten before each round: 0 nothing, 1 rules,
 * 2 bytes of files as well. Prints the median round and the fastest one. */
static void replay(pk_unwinder *unwinder, pk_maps *maps, int forgotten, const char *name)
{
    static pk_stack stack;
    enum { ROUNDS = 41 };
    int64_t spent_ns[ROUNDS];
    size_t frames = 0;
    int64_t misses = -unwinder->rules.miss_count;
    for (int round = 0; round < ROUNDS; round++) {
        if (forgotten > 0) {
            memset(unwinder->rules.entries, 0, PK_RULES_LIMIT * sizeof *unwinder->rules.entries);
        }
        if (forgotten > 1) {
            memset(unwinder->blocks.blocks, 0, PK_BLOCK_LIMIT * sizeof *unwinder->blocks.blocks);
        }
        int64_t start_ns = now_ns();
        for (size_t i = 0; i < kept_count; i++) {
            pk_unwind(unwinder, maps, &kept[i], &stack);
            frames += stack.depth;
        }
        spent_ns[round] = now_ns() - start_ns;
    }
    misses += unwinder->rules.miss_count;
    qsort(spent_ns, ROUNDS, sizeof *spent_ns, compare_ns);
    double median_us = (double)spent_ns[ROUNDS / 2] / (double)kept_count / 1e3;
    double per_stack = (double)frames / ROUNDS / (double)kept_count;
    printf("%s us_per_stack %.3f (fastest %.3f) ns_per_frame %.1f frames_per_stack %.1f "
           "misses_per_stack %.3f\n",
           name, median_us, (double)spent_ns[0] / (double)kept_count / 1e3,
           median_us * 1e3 / per_stack, per_stack, (double)misses / ROUNDS / (double)kept_count);
}

static void snapshot_replay(pk_unwinder *unwinder, pk_maps *maps)
{
    if (kept_count == 0) {
        return;
    }
    replay(unwinder, maps, 0, "warm");
    replay(unwinder, maps, 1, "no_rules");
    replay(unwinder, maps, 2, "no_blocks");
}

#endif
