/* One look at one thread, which is not stopped: what it waits in, the native frames of its stack,
 * and its Python frames where it has some.
 *
 * Reads do not hold a thread up, so it may move between them. It is asked before and after whether
 * it has run: if not, all that was read belongs together, and the look is exact; if it has, the
 * look is taken again a few times.
 * Only a thread that sleeps tells where its stack is. One thread uses a looker. */
#ifndef PK_LOOK_H
#define PK_LOOK_H
#include "pk_procfile.h"
#include "pk_pyprocess.h"
#include "pk_nativestack.h"

enum {
    PK_LOOK_COPY_BYTES = 8192, /* of the stack; what lies beyond is read when it is needed */
    PK_LOOK_TRY_COUNT = 3,
};

/* In the stacks of functions: C called it. */
static const uint32_t PK_LOOK_ENTRY_BIT = 1U << 31;

/* One process that is looked at: where its code lies, and its Python threads. */
typedef struct {
    int32_t pid;
    pk_maps maps;
    int64_t maps_ns;       /* when they were read; 0 = not yet */
    int64_t maps_pause_ns; /* for a stack that is lost they are not read again before that */
    int64_t leaf_pause_ns; /* nor before that where even the leaf lies in none of them */
    pk_pyprocess *python;  /* owned; NULL: no Python that is known */
    int64_t listed_ns;     /* when its Python threads were listed; 0 = not yet */
} pk_look_process;

typedef struct {
    pk_unwinder unwinder;
    pk_pyshared *python; /* not owned; NULL: Python frames are not read */
    pk_stack stack;      /* of the last look */
    pk_native_frame native_frames[PK_UNWIND_DEPTH_LIMIT]; /* the same, objects numbered */
    pk_pyframes frames;
    uint8_t copy[PK_LOOK_COPY_BYTES];
    int64_t look_count;
    int64_t moved_count;     /* looks that were never exact */
    int64_t maps_read_count;
} pk_looker;

/* Whose files are read: open, and the caller's. */
typedef struct {
    int32_t tid;
    int schedstat;
    int syscall;
} pk_look_thread;

typedef struct {
    int64_t t_ns;
    pk_schedstat counters; /* before */
    pk_syscall call;
    bool has_stack; /* `stack` of the looker is this thread's */
    int stack_error; /* why it has none: 0 = it runs; EACCES and EPERM: refused */
    bool has_frames; /* `frames` are its Python frames; none and no error: it runs none */
    int frames_error;
    bool is_exact;
} pk_look;

/* 0 or an errno value. `proc` is an open folder, which stays the caller's. */
int pk_looker_init(pk_looker *looker, int proc);
void pk_looker_deinit(pk_looker *looker);

void pk_look_process_init(pk_look_process *process, int32_t pid);
void pk_look_process_deinit(pk_look_process *process, pk_looker *looker);

/* Has Python frames read from now on. 0 or an errno value. */
int pk_look_process_set_python(pk_look_process *process, uint64_t runtime,
                               const pk_pylayout *layout);

/* The numbers of what the last look left in `stack`, and in `frames`; each is added where it is
 * new. 0 or an errno value. */
int pk_look_intern_stack(pk_looker *looker, const pk_look_process *process,
                         pk_nativestacks *stacks, uint32_t *ret);
int pk_look_intern_frames(const pk_looker *looker, pk_look_process *process, int64_t t_ns,
                          uint32_t *ret);

/* Fills `ret`, and the looker's `stack` and `frames`. ESRCH: the thread is gone. */
int pk_look_at(pk_looker *looker, pk_look_process *process, const pk_look_thread *thread,
               pk_look *ret);

#endif
