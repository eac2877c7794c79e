#include "pk_offcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { THREAD_COUNT = PK_OFFCPU_SETS * PK_OFFCPU_WAYS };

int pk_offcpu_init(pk_offcpu *table)
{
    *table = (pk_offcpu){.threads = calloc(THREAD_COUNT, sizeof *table->threads)};
    return table->threads == NULL ? ENOMEM : 0;
}

void pk_offcpu_deinit(pk_offcpu *table)
{
    free(table->threads);
    table->threads = NULL;
}

static pk_offcpu_thread *find(pk_offcpu *table, pid_t tid)
{
    pk_offcpu_thread *set =
        table->threads + (size_t)((uint32_t)tid % PK_OFFCPU_SETS) * PK_OFFCPU_WAYS;
    for (size_t i = 0; i < PK_OFFCPU_WAYS; i++) {
        if (set[i].tid == tid) {
            return &set[i];
        }
    }
    return NULL;
}

static pk_offcpu_thread *find_or_add(pk_offcpu *table, pid_t tid, int64_t t_ns)
{
    pk_offcpu_thread *thread = find(table, tid);
    if (thread == NULL) {
        thread = table->threads + (size_t)((uint32_t)tid % PK_OFFCPU_SETS) * PK_OFFCPU_WAYS;
        for (size_t i = 1; i < PK_OFFCPU_WAYS; i++) {
            pk_offcpu_thread *other = thread + i;
            thread = other->seen_ns < thread->seen_ns ? other : thread;
        }
        table->evicted_count += thread->left_ns != 0;
        *thread = (pk_offcpu_thread){.tid = tid, .stack = -1, .end = -1};
    }
    thread->seen_ns = t_ns;
    return thread;
}

void pk_offcpu_note_stack(pk_offcpu *table, pid_t tid, int64_t stack, int64_t end, int64_t t_ns)
{
    pk_offcpu_thread *thread = find_or_add(table, tid, t_ns);
    thread->stack = stack;
    thread->end = end;
}

void pk_offcpu_leave(pk_offcpu *table, const pk_offcpu_thread *leaving)
{
    pk_offcpu_thread *thread = find_or_add(table, leaving->tid, leaving->left_ns);
    if (!thread->has_ended) {
        thread->pid = leaving->pid;
        thread->cpu = leaving->cpu;
        thread->left_ns = leaving->left_ns;
        thread->is_preempted = leaving->is_preempted;
    }
}

bool pk_offcpu_return(pk_offcpu *table, pid_t tid, int64_t t_ns, pk_offcpu_thread *ret)
{
    pk_offcpu_thread *thread = find(table, tid);
    if (thread == NULL) {
        return false;
    }
    *ret = *thread;
    thread->left_ns = 0;
    thread->stack = thread->end = -1;
    thread->seen_ns = t_ns;
    return ret->left_ns != 0 && ret->left_ns <= t_ns;
}

void pk_offcpu_note_birth(pk_offcpu *table, pid_t tid)
{
    pk_offcpu_thread *thread = tid > 0 ? find(table, tid) : NULL;
    if (thread != NULL) {
        memset(thread, 0, sizeof *thread);
    }
}

void pk_offcpu_note_death(pk_offcpu *table, pid_t tid, int64_t t_ns)
{
    if (tid > 0) {
        pk_offcpu_thread *thread = find_or_add(table, tid, t_ns);
        *thread = (pk_offcpu_thread){
            .tid = tid, .has_ended = true, .stack = -1, .end = -1, .seen_ns = t_ns};
    }
}

bool pk_offcpu_next(const pk_offcpu *table, size_t *place, pk_offcpu_thread *ret)
{
    while (*place < THREAD_COUNT) {
        const pk_offcpu_thread *thread = &table->threads[(*place)++];
        if (thread->tid != 0 && thread->left_ns != 0) {
            *ret = *thread;
            return true;
        }
    }
    return false;
}

void pk_offcpu_clear(pk_offcpu *table)
{
    memset(table->threads, 0, THREAD_COUNT * sizeof *table->threads);
}
