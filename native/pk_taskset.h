/* The processes and threads that are sampled: found by listing /proc/PID/task, kept in fixed
 * tables. One thread uses a set; only pk_taskset_copy_row may be called from another. */
#ifndef PK_TASKSET_H
#define PK_TASKSET_H
#include "pk_task.h"
#include "pk_wall.h"

enum {
    PK_TASKSET_PROCESS_LIMIT = 1024,
    PK_TASKSET_BUCKET_COUNT = 8192,
};

typedef struct {
    int32_t pid; /* 0 = unused */
    int task_folder;
    int fd_folder;
    uint32_t generation;     /* of the last listing */
    uint64_t link_count;     /* of the task folder: 2 + the number of threads */
    int64_t full_listing_ns; /* when to list even if link_count has not changed */
    int64_t listed_ns;       /* begin of the last listing that took in every thread; 0 = none */
    bool is_gone;            /* its last listing was empty */
    bool is_stale;           /* a thread vanished, or this is new: list at the next opportunity */
} pk_process;

typedef struct {
    int proc_folder;
    pk_process processes[PK_TASKSET_PROCESS_LIMIT];
    pk_task *tasks;
    uint32_t *live; /* indexes of used tasks, dense */
    uint32_t *next; /* chains of tasks whose ids fall into one bucket; index + 1, 0 = end */
    uint32_t buckets[PK_TASKSET_BUCKET_COUNT];
    uint32_t *unused;
    uint32_t live_count;
    uint32_t task_limit;
    uint32_t process_end;       /* processes in use lie below */
    uint32_t next_checked;      /* where the next look at link counts begins */
    int64_t since_ns;           /* of the first listing */
    int64_t put_off_count;      /* looks that found changes which were not worth a listing yet */
    int64_t over_limit_count;   /* processes and threads that found no room, counted per listing */
    int64_t refused_count;
    pk_descriptors descriptors;
    pk_ring *runs;
    pk_ring *members;
    pk_ring *met;
    pk_wall *wall; /* not owned; NULL: no stacks are taken */
    char listing[32768];
} pk_taskset;

/* `descriptor_limit`: how many descriptors threads may keep open. The rings outlive the set. */
int pk_taskset_init(pk_taskset *set, uint32_t task_limit, int64_t descriptor_limit);
void pk_taskset_deinit(pk_taskset *set);

/* Begins to follow a process. One that is followed already, or is gone, changes nothing. */
void pk_taskset_add_process(pk_taskset *set, int32_t pid);

typedef enum {
    PK_LOOK_PUT_OFF, /* at the link counts of some processes, in turn; counts, lists nothing */
    PK_LOOK_CHANGED, /* the same, and lists the threads of those that changed */
    PK_LOOK_ALL,     /* at every process; lists also what was not listed for a second */
} pk_list_look;

/* What a look at the processes brought. */
typedef struct {
    int64_t listed_count; /* processes */
    int64_t new_count;    /* threads */
} pk_listing;

/* Lists the threads of processes where they may have changed. */
pk_listing pk_taskset_list(pk_taskset *set, int64_t now_ns, pk_list_look look);

/* Observes every thread that is due at this tick, or all of them; returns how many were read. */
int64_t pk_taskset_observe(pk_taskset *set, uint64_t tick, bool all);

/* Reads the end letters and pushes every open row. */
void pk_taskset_finish(pk_taskset *set);

/* Any thread: copies the open row of the task at `index` < task_limit; 0, or EAGAIN. */
int pk_taskset_copy_row(const pk_taskset *set, uint32_t index, int64_t row[PK_RUN_COLUMN_COUNT]);

#endif
