/* One look at all threads of a process, without stopping any: for each what it waits in, and its
 * stacks. Afterwards each is asked again whether it has run: those that have not were all so at
 * one moment, the end of the look. */
#ifndef PK_DUMP_H
#define PK_DUMP_H
#include "pk_look.h"
#include "pk_wait.h"

typedef struct {
    int32_t tid;
    int64_t t_ns;
    pk_stat stat; /* policy -1 and no letter: not read */
    pk_syscall call;
    pk_wait wait;
    int32_t stack; /* -1: none */
    int32_t python_stack;
    pk_unwind_end end;
    int stack_error; /* why there is none; 0: it runs */
    int frames_error;
    bool is_exact; /* it did not run during its own look */
    bool is_still; /* nor from then on to the end */
    pk_schedstat counters;
} pk_dump_row;

typedef struct {
    pk_dump_row *rows;
    size_t row_count;
    int64_t over_limit_count; /* threads that were left out */
    int64_t gone_count;       /* threads that ended meanwhile */
    int64_t begin_ns;
    int64_t end_ns;
    pk_nativestacks stacks;
    pk_pyshared python; /* names and stacks of Python frames */
} pk_dump;

/* `layout` NULL: no Python frames. 0 or an errno value; ESRCH: there is no such process. */
int pk_dump_take(pk_dump *dump, const char *proc_root, int32_t pid, uint64_t runtime,
                 const pk_pylayout *layout, size_t thread_limit);
void pk_dump_deinit(pk_dump *dump);

#endif
