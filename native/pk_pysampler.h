/* The sampler of Python stacks: a pthread of its own that looks at processes until it is told to
 * stop. It never stops a process that it looks at.
 *
 * One other thread, the owner, may call the functions below, one call at a time. None of them waits
 * for a read of another process but _stop, which gives up after its timeout. An abandoned sampler
 * frees itself once its read returns. */
#ifndef PK_PYSAMPLER_H
#define PK_PYSAMPLER_H
#include "pk_pyprocess.h"

enum {
    PK_PYSAMPLER_PROCESS_LIMIT = 16, /* at the same time */
    PK_PYSAMPLER_ORDER_LIMIT = 256,  /* in all */
};

typedef struct {
    const char *proc_root;
    int64_t interval_ns;
    double budget_ratio; /* of one core */
    size_t row_limit;    /* between two takes */
} pk_pysampler_options;

typedef struct {
    int64_t started_ns;
    int64_t last_tick_ns;
    int64_t tick_count;
    int64_t missed_count;
    int64_t spent_ns;
    int64_t interval_ns; /* as adapted to the budget */
    int64_t process_count;
    int64_t thread_count;
    pk_pycounts counts;
    bool is_abandoned;
} pk_pysampler_status;

typedef struct pk_pysampler pk_pysampler;

int pk_pysampler_start(const pk_pysampler_options *options, pk_pysampler **ret);

/* Asks for a process to be looked at, whose _PyRuntime lies at an address. ENOSPC: too many. */
int pk_pysampler_add(pk_pysampler *sampler, int32_t pid, uint64_t runtime,
                     const pk_pylayout *layout);
void pk_pysampler_set_budget(pk_pysampler *sampler, double budget_ratio);

/* Ends the thread, which looks once more and closes all rows. ETIMEDOUT: it was abandoned. */
int pk_pysampler_stop(pk_pysampler *sampler, int64_t timeout_ns);
void pk_pysampler_get_status(pk_pysampler *sampler, pk_pysampler_status *ret);

/* Rows, and the tables that they refer to; see pk_ring.h, pk_pyname.h and pk_pystack.h. */
pk_pyshared *pk_pysampler_shared(pk_pysampler *sampler);

/* Gives the sampler up; _stop must have been called. */
void pk_pysampler_release(pk_pysampler *sampler);

#endif
