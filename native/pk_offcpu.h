/* Threads that are off the CPU, since when, and with what stack they left it. The table has a fixed
 * size: who left longest ago makes room, and that wait is lost. One thread uses it. */
#ifndef PK_OFFCPU_H
#define PK_OFFCPU_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    PK_OFFCPU_SETS = 1024,
    PK_OFFCPU_WAYS = 8,
};

typedef struct {
    pid_t tid; /* 0: unused */
    pid_t pid;
    int32_t cpu;      /* that it left */
    int64_t left_ns;  /* 0: it runs, or has ended */
    bool is_preempted; /* it would have run on */
    bool has_ended;
    int64_t stack; /* -1: none was taken */
    int64_t end;   /* of that stack */
    int64_t seen_ns;
} pk_offcpu_thread;

typedef struct {
    pk_offcpu_thread *threads;
    int64_t evicted_count; /* waits that were lost */
} pk_offcpu;

/* Returns an errno value. */
int pk_offcpu_init(pk_offcpu *table);
void pk_offcpu_deinit(pk_offcpu *table);

/* The stack with which a thread is about to leave. */
void pk_offcpu_note_stack(pk_offcpu *table, pid_t tid, int64_t stack, int64_t end, int64_t t_ns);

/* A thread leaves a CPU; `is_preempted`: it would have run on. */
void pk_offcpu_leave(pk_offcpu *table, const pk_offcpu_thread *leaving);

/* A thread gets a CPU. True: it was off since a known time, and `ret` tells how. */
bool pk_offcpu_return(pk_offcpu *table, pid_t tid, int64_t t_ns, pk_offcpu_thread *ret);

void pk_offcpu_note_birth(pk_offcpu *table, pid_t tid);
void pk_offcpu_note_death(pk_offcpu *table, pid_t tid, int64_t t_ns);

/* One by one the threads that are off; false: there is none from *place on. */
bool pk_offcpu_next(const pk_offcpu *table, size_t *place, pk_offcpu_thread *ret);

/* Forgets all. */
void pk_offcpu_clear(pk_offcpu *table);

#endif
