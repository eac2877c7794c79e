/* The thread sampler: a pthread of its own that ticks until it is told to stop.
 *
 * One other thread, the owner, may call the functions below (one call at a time). Nothing the owner
 * calls waits for a read under /proc: orders go into a mailbox, rows come out of lock-free rings,
 * and _stop gives up after its timeout. An abandoned sampler frees itself once its read returns. */
#ifndef PK_SAMPLER_H
#define PK_SAMPLER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pk_wall.h"

enum {
    PK_SAMPLER_CGROUP_LIMIT = 64,
    PK_SAMPLER_PATH_BYTES = 4096,
    PK_TICK_COLUMN_COUNT = 4, /* t_ns late_ns thread_read_count cpu_ns */
};

/* What can be taken. OPEN_RUNS: rows still open in a sampler that had to be abandoned. */
typedef enum {
    PK_TABLE_RUNS,
    PK_TABLE_MEMBERS,
    PK_TABLE_TICKS,
    PK_TABLE_QUOTAS,
    PK_TABLE_MET,
    PK_TABLE_WALL, /* samples of stacks */
    PK_TABLE_OPEN_RUNS,
    PK_TABLE_COUNT,
} pk_table;

typedef struct {
    const char *proc_root;    /* copied */
    int64_t interval_ns;      /* of the base rate */
    double budget_ratio;      /* of one core, to begin with */
    uint32_t row_limit;       /* of thread_runs between two takes */
    uint32_t thread_limit;
    int64_t descriptor_limit; /* how many may be kept open */
    double wall_budget_ratio; /* as above, for stacks of blocked threads; 0 = take none */
} pk_sampler_options;

typedef struct {
    int64_t started_ns;
    int64_t last_tick_ns;
    int64_t tick_count;
    int64_t missed_count;
    int64_t interval_ns;
    int64_t spent_ns;         /* without what stacks took */
    int64_t thread_count;
    int64_t descriptor_count;
    int64_t refused_count;    /* reads of syscall files that were refused */
    int64_t over_limit_count; /* processes and threads without room, counted at every listing */
    int64_t put_off_count;    /* ticks that saw threads come or go, but did not list them */
    bool has_ended;
    bool is_abandoned;
} pk_sampler_status;

typedef struct pk_sampler pk_sampler;

/* Allocates all memory and starts the thread. */
int pk_sampler_start(const pk_sampler_options *options, pk_sampler **ret);

/* Asks for a process to be followed. ENOSPC: the mailbox is full. */
int pk_sampler_add_pid(pk_sampler *sampler, int32_t pid);

/* Asks for a cpu.stat file to be read at each tick. ENOSPC, ENAMETOOLONG, ENOMEM. */
int pk_sampler_add_cgroup(pk_sampler *sampler, int64_t cgroup_index, const char *path);

/* Changes what the sampler may cost, a share of one core, from the next tick on. */
void pk_sampler_set_budget(pk_sampler *sampler, double budget_ratio);

/* Ends the thread: it observes every thread once more and closes all rows. ETIMEDOUT: it did not
 * answer within `timeout_ns` and was abandoned. Calling it again is harmless. */
int pk_sampler_stop(pk_sampler *sampler, int64_t timeout_ns);

void pk_sampler_get_status(pk_sampler *sampler, pk_sampler_status *ret);

/* What takes the stacks; NULL where none are. Only what pk_wall.h leaves to the owner. */
pk_wall *pk_sampler_wall(pk_sampler *sampler);

size_t pk_sampler_column_count(pk_table table);
size_t pk_sampler_row_count(const pk_sampler *sampler, pk_table table);

/* Moves `count` rows, at most pk_sampler_row_count, into columns of that length. */
void pk_sampler_take(pk_sampler *sampler, pk_table table, size_t count, int64_t *const *columns);

/* Rows dropped since the start because a ring was full. */
uint64_t pk_sampler_dropped_count(const pk_sampler *sampler, pk_table table);

/* Gives the sampler up; _stop must have been called. */
void pk_sampler_release(pk_sampler *sampler);

#endif
