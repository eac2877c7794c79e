/* The sampler of native stacks: a pthread of its own that takes in what the kernel records of all
 * CPUs, or of chosen threads, until it is told to stop. It never stops a process that it looks at.
 *
 * One other thread, the owner, may call the functions below, one call at a time. None of them waits
 * for a read of another process or of a file but _stop, which gives up after its timeout. An
 * abandoned sampler frees itself once its read returns. */
#ifndef PK_PROFILER_H
#define PK_PROFILER_H
#include "pk_profile.h"

/* Above so many switches of all threads a second, they are told no longer. */
enum { PK_PROFILER_SWITCHES_PER_S_MAX = 10000 };

typedef struct {
    const char *proc_root;
    int64_t interval_ns;
    double budget_ratio; /* of one core */
    uint32_t stack_bytes;
    size_t row_limit; /* between two takes */
    bool is_host_wide; /* else the threads alone, with what they beget */
    bool has_kernel;
    bool has_switches; /* and the threads' stacks when they leave a CPU, where the kernel is seen */
    const pid_t *threads;
    size_t thread_count;
} pk_profiler_options;

typedef struct {
    int64_t started_ns;
    int64_t last_tick_ns;
    int64_t spent_ns;
    int64_t interval_ns; /* as adapted to the budget */
    int64_t slot_count;  /* intervals that have passed on each CPU */
    int64_t cpu_count;
    int64_t unseen_thread_count; /* threads that no event could be opened for */
    int64_t lost_count;          /* records that found no room, */
    int64_t damaged_count;       /* made no sense, */
    int64_t disordered_count;    /* or came too late to be in order */
    int64_t process_count;       /* whose mappings are known */
    int64_t map_read_count;
    int64_t refused_count; /* mappings and files that could not be read */
    int64_t evicted_count;
    int64_t dropped_mapping_count;
    bool is_stepped_down; /* there were too many switches */
    bool is_abandoned;
    pk_profile_counts counts;
} pk_profiler_status;

typedef struct pk_profiler pk_profiler;

/* Begins. Returns an errno value: EACCES, EPERM: the kernel refuses to record that. */
int pk_profiler_start(const pk_profiler_options *options, pk_profiler **ret);

/* Tells whose stacks are wanted, from the next tick on; takes the list over. */
void pk_profiler_set_wanted(pk_profiler *profiler, pk_wanted *wanted);
void pk_profiler_set_budget(pk_profiler *profiler, double budget_ratio);

/* Ends the thread, which looks once more. ETIMEDOUT: it was abandoned. */
int pk_profiler_stop(pk_profiler *profiler, int64_t timeout_ns);
void pk_profiler_get_status(pk_profiler *profiler, pk_profiler_status *ret);

/* Rows, and the stacks and objects that they refer to; see pk_ring.h and pk_nativestack.h. */
pk_ring *pk_profiler_rows(pk_profiler *profiler);
const pk_nativestacks *pk_profiler_stacks(const pk_profiler *profiler);

/* Gives the sampler up; _stop must have been called. */
void pk_profiler_release(pk_profiler *profiler);

#endif
