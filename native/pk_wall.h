/* Where blocked threads wait: stacks taken out of a small budget, in passing, by a sampler that
 * observes the threads anyway.
 *
 * Each observation of a thread stands for the time since the one before. If the thread has not
 * moved since its stack was taken, or runs, what it does is known for nothing, and the time is
 * added to its sample. Else its stack is taken with a probability that keeps the budget, and the
 * time counts for as many times more. So the weights of all samples add up to the time of the
 * threads, whatever the budget, save what was before their second observation.
 *
 * The sampler's thread calls the functions, except those for the owner. */
#ifndef PK_WALL_H
#define PK_WALL_H
#include "pk_look.h"
#include "pk_task.h"

enum {
    PK_WALL_PROCESS_LIMIT = 1024, /* that of the sampler */
    PK_WALL_PYTHON_LIMIT = 64,
};

/* Columns of the table wall_samples, in order. */
enum {
    PK_WALL_T_NS,
    PK_WALL_PID,
    PK_WALL_TID,
    PK_WALL_MOVED_NS,
    PK_WALL_STACK,
    PK_WALL_WEIGHT_NS,
    PK_WALL_END,
    PK_WALL_PYTHON_STACK,
    PK_WALL_IS_EXACT,
    PK_WALL_COLUMN_COUNT,
};

/* What is known of one thread by now. */
typedef struct {
    int64_t row[PK_WALL_COLUMN_COUNT];
    bool is_open;
    bool is_running;
    int64_t taken_ns; /* when its stack was; 0 = it is not taken again */
} pk_wall_sample;

typedef struct {
    int64_t spent_ns;     /* CPU time */
    int64_t look_count;
    int64_t passed_count; /* observations that would have been worth a look, but got none */
    int64_t moved_count;  /* looks at a thread that ran meanwhile */
    int64_t failed_count; /* looks that brought no stack, though the thread was blocked */
    int64_t full_count;   /* stacks that found no room */
} pk_wall_status;

typedef struct {
    int32_t pid;
    uint64_t runtime;
    pk_pylayout layout;
} pk_wall_order;

typedef struct {
    pk_looker looker;
    pk_nativestacks stacks; /* the owner reads what lies below the counts */
    pk_pyshared python;   /* likewise */
    pk_look_process *processes[PK_WALL_PROCESS_LIMIT]; /* by the sampler's index; NULL: none yet */
    pk_wall_sample *samples;                           /* by the sampler's index of threads */
    pk_ring *rows;                                     /* not owned */
    pk_wall_order orders[PK_WALL_PYTHON_LIMIT];
    _Atomic uint32_t order_count; /* the owner writes */
    _Atomic double budget_ratio;  /* the owner writes */
    _Atomic int64_t status[sizeof(pk_wall_status) / sizeof(int64_t)];
    /* The pace: */
    pk_wall_status counts;
    int64_t tick_ns;
    double balance_ns; /* what may be spent */
    double chance_count; /* stacks that could be taken in a tick, smoothed; many count at once */
    int64_t tick_chance_count;
    int64_t tick_met_count; /* threads seen for the first time: chances of the next tick */
    double look_cost_ns; /* smoothed */
    double probability;
    uint64_t random;
} pk_wall;

/* NULL: no memory, all of which is taken here. `rows` outlive it. */
pk_wall *pk_wall_create(uint32_t thread_limit, double budget_ratio, pk_ring *rows);
/* NULL is left alone. */
void pk_wall_destroy(pk_wall *wall);

/* Begins; `proc` is an open folder, which stays the caller's. */
int pk_wall_open(pk_wall *wall, int proc);

/* Before the observations of a tick: works out what may be looked at. Gives the CPU time that was
 * spent so far. */
int64_t pk_wall_begin_tick(pk_wall *wall, int64_t now_ns);

/* After an observation of a thread, the one before it having been at `before_ns`; 0 = none. */
void pk_wall_observe(pk_wall *wall, uint32_t index, const pk_task *task,
                     const pk_task_context *context, pk_task_outcome outcome, int64_t before_ns);

/* A thread or a process is no longer followed: its place is taken by another one. */
void pk_wall_close(pk_wall *wall, uint32_t index);
void pk_wall_forget(pk_wall *wall, uint32_t process_index);

/* The owner: has Python frames of a process read. ENOSPC: of no more processes. */
int pk_wall_add_python(pk_wall *wall, int32_t pid, uint64_t runtime, const pk_pylayout *layout);

/* The owner: changes what it may cost, a share of one core. */
void pk_wall_set_budget(pk_wall *wall, double budget_ratio);
void pk_wall_get_status(const pk_wall *wall, pk_wall_status *ret);

#endif
