/* The thread of a sampler, and how its owner ends it: a thread that hangs in a read is left behind,
 * and what both share is freed by whoever lets go of it last. */
#ifndef PK_WORKER_H
#define PK_WORKER_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    atomic_int reference_count; /* the owner, and the thread while it runs */
    pthread_t thread;
    pthread_mutex_t lock; /* of the two flags, and of the sampler's status; never held in a read */
    pthread_cond_t wake;
    bool stop_requested;
    bool has_ended;
    bool is_stopped; /* owner only: joined or abandoned */
    bool is_abandoned;
} pk_worker;

void pk_worker_init(pk_worker *worker);
void pk_worker_deinit(pk_worker *worker);

/* See pk_thread_start; where it fails the owner is alone. */
int pk_worker_start(pk_worker *worker, const char *name, size_t stack_bytes,
                    void *(*run)(void *), void *context);

/* The thread: sleeps until an instant of CLOCK_MONOTONIC; true as soon as it shall end. */
bool pk_worker_sleep_until(pk_worker *worker, int64_t instant_ns);

/* The thread, the last but letting go. */
void pk_worker_end(pk_worker *worker);

/* The owner: ends the thread. ETIMEDOUT: it did not end in time and is abandoned. */
int pk_worker_stop(pk_worker *worker, int64_t timeout_ns);

/* Either lets go; true for the last, who frees all. */
bool pk_worker_let_go(pk_worker *worker);

#endif
