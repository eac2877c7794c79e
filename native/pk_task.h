/* One thread of the target: the files kept open to read it, its counters, and its open row.
 *
 * A row is one move: schedstat differed from the last observation. While it does not differ the
 * open row is extended. The first row of a thread that was born under the sampler's eyes holds what
 * its counters booked since birth; that of any other thread holds nothing of before. The open row
 * may be copied by another thread at any time (pk_task_copy_row), also while this one hangs in a
 * read: no write to it lies around a read. */
#ifndef PK_TASK_H
#define PK_TASK_H
#include <stdbool.h>

#include "pk_ring.h"
#include "pk_wait.h"

/* Columns of the table thread_runs, in order. */
enum {
    PK_RUN_PID,
    PK_RUN_TID,
    PK_RUN_START_NS,
    PK_RUN_MOVED_NS,
    PK_RUN_END_NS,
    PK_RUN_TICK_COUNT,
    PK_RUN_RUN_NS,
    PK_RUN_WAIT_NS,
    PK_RUN_SLICE_COUNT,
    PK_RUN_SYSCALL,
    PK_RUN_ARG0,
    PK_RUN_STACK_POINTER = PK_RUN_ARG0 + 6,
    PK_RUN_STATE_LETTER,
    PK_RUN_MINOR_FAULTS,
    PK_RUN_MAJOR_FAULTS,
    PK_RUN_CPU,
    PK_RUN_FD_INODE,
    PK_RUN_FUTEX_OWNER,
    PK_RUN_END_LETTER,
    PK_RUN_COLUMN_COUNT,
};

/* Columns of the table poll_members, and of the feed of threads met for the first time. */
enum {
    PK_MEMBER_COLUMN_COUNT = 6, /* pid tid moved_ns fd events inode */
    PK_MET_COLUMN_COUNT = 8,    /* pid tid start_ticks nice policy first_seen_ns, name in 2 words */
};

typedef enum { PK_TASK_STILL, PK_TASK_MOVED, PK_TASK_GONE } pk_task_outcome;

enum { PK_TASK_SCHEDSTAT, PK_TASK_SYSCALL, PK_TASK_STAT, PK_TASK_FILE_COUNT };

/* How many descriptors may be kept open, and are. */
typedef struct {
    int64_t limit;
    int64_t open_count;
} pk_descriptors;

/* What a task shares with the other threads of its process, and with all others. */
typedef struct {
    int32_t pid;
    int task_folder; /* open /proc/PID/task */
    int fd_folder;   /* open /proc/PID/fd, or -1 where refused */
    pk_descriptors *descriptors;
    pk_ring *runs;
    pk_ring *members;
    pk_ring *met;
    int64_t since_ns; /* when the sampler first listed anything */
    int64_t *refused_count; /* reads of the syscall file that were refused */
} pk_task_context;

typedef struct {
    int32_t tid; /* 0 = unused */
    uint32_t process_index;
    uint32_t generation;
    uint32_t still_count;
    bool is_resting; /* read less often: unmoved for long */
    uint64_t due_tick;
    int files[PK_TASK_FILE_COUNT]; /* -1 = not kept open */
    int64_t block;                 /* 250 ms block of the last read of stat; -1 = never read */
    pk_schedstat counters;
    int64_t last_ns;  /* of the last observation; 0 = never observed */
    int64_t moved_ns; /* of the one that found the last move */
    int64_t minor_faults;
    int64_t major_faults;
    int64_t start_ticks;
    int64_t absent_ns; /* of the last listing of its process that did not hold it; 0 = none */
    _Atomic uint32_t sequence; /* odd while the row is being written */
    _Atomic int64_t row[PK_RUN_COLUMN_COUNT];
} pk_task;

void pk_task_init(pk_task *task, int32_t tid, uint32_t process_index, int64_t absent_ns);

/* Closes the files and pushes the open row. */
void pk_task_deinit(pk_task *task, const pk_task_context *context);

/* One observation. GONE: the thread exited, or its id now names another one. */
pk_task_outcome pk_task_observe(pk_task *task, const pk_task_context *context);

/* Reads the state letter into the open row, the last thing before _deinit at the window's end. */
void pk_task_finish(pk_task *task, const pk_task_context *context);

/* Any thread: copies the open row. EAGAIN: there is none, or it is being written. */
int pk_task_copy_row(const pk_task *task, int64_t row[PK_RUN_COLUMN_COUNT]);

#endif
