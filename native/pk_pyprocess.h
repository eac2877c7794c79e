/* One process with a CPython interpreter: its Python threads, which of them ran since the last look
 * and with what stack. Rows tell a thread's stack from one look to another.
 *
 * A row's run_ns is the CPU time that it stands for: what all threads of the process used is drawn
 * by those that are seen running, each look by the time since the last one at most. So a function
 * that runs often but briefly, and is seldom met, has as much as it used. */
#ifndef PK_PYPROCESS_H
#define PK_PYPROCESS_H
#include "pk_pyname.h"
#include "pk_pywalk.h"
#include "pk_ring.h"

enum {
    PK_PYPROCESS_THREAD_LIMIT = 1024,
    PK_PYPROCESS_INTERPRETER_LIMIT = 16,
};

/* Columns of the rows. */
enum {
    PK_PYROW_BEGIN_NS,
    PK_PYROW_END_NS,
    PK_PYROW_PID,
    PK_PYROW_TID,
    PK_PYROW_IS_RUNNING, /* 1: running, or ready to; 0: blocked */
    PK_PYROW_STACK,
    PK_PYROW_RUN_NS,
    PK_PYROW_COLUMN_COUNT,
};

typedef struct {
    int64_t walk_count;    /* stacks that were asked for, */
    int64_t torn_count;    /* of which these could not be read as one, */
    int64_t cut_count;     /* and these were deeper than the limit */
    int64_t full_count;    /* stacks that found no room in a table */
    int64_t unknown_count; /* threads whose files were not found, counted per look */
    int64_t refused_count; /* reads that were refused */
    int64_t over_limit_count;
} pk_pycounts;

/* What all processes share. */
typedef struct {
    pk_pynames names;
    pk_pystacks stacks;
    pk_ring rows;
    pk_pycounts counts;
    int proc_folder;
} pk_pyshared;

typedef struct {
    uint64_t address; /* of the thread state */
    uint64_t interpreter;
    uint64_t native;  /* the number that CPython knows it by */
    int32_t tid;      /* 0 = not known */
    bool is_listed;
    int files[2];     /* schedstat and syscall; -1 = not open */
    int64_t run_ns;   /* -1 = not read yet */
    int64_t delta_ns; /* of this look */
    int64_t blocked_ns; /* when its stack was last walked while it was blocked; 0 = never */
    bool is_open; /* a row is open: */
    int64_t begin_ns;
    int64_t row_ns; /* its run_ns */
    bool is_running;
    uint32_t stack;
    pk_pywalk walk;
} pk_pythread;

typedef struct {
    int32_t pid;
    uint64_t runtime;
    pk_pylayout layout;
    pk_pythread **threads;
    size_t thread_count;
    pk_pycodes codes;
    int64_t used_ns; /* the process' CPU clock at the last look; -1 = none yet */
    int64_t looked_ns;
    int64_t pool_ns; /* used, not drawn yet; below 0: drawn in advance */
    bool is_gone;
} pk_pyprocess;

int pk_pyshared_init(pk_pyshared *shared, size_t row_limit);
void pk_pyshared_deinit(pk_pyshared *shared);

int pk_pyprocess_init(pk_pyprocess *process, int32_t pid, uint64_t runtime,
                      const pk_pylayout *layout);

/* Closes all rows and files. */
void pk_pyprocess_deinit(pk_pyprocess *process, pk_pyshared *shared);

/* One look at all threads that ran. Returns how many threads were looked at; sets is_gone. */
int64_t pk_pyprocess_look(pk_pyprocess *process, pk_pyshared *shared);

#endif
