#include "pk_worker.h"

#include <errno.h>
#include <time.h>

#include "pk_thread.h"

void pk_worker_init(pk_worker *worker)
{
    *worker = (pk_worker){0};
    atomic_init(&worker->reference_count, 1);
    pk_thread_init_condition(&worker->wake);
    pthread_mutex_init(&worker->lock, NULL);
}

void pk_worker_deinit(pk_worker *worker)
{
    pthread_cond_destroy(&worker->wake);
    pthread_mutex_destroy(&worker->lock);
}

int pk_worker_start(pk_worker *worker, const char *name, size_t stack_bytes,
                    void *(*run)(void *), void *context)
{
    atomic_fetch_add(&worker->reference_count, 1);
    int error = pk_thread_start(name, stack_bytes, run, context, &worker->thread);
    if (error != 0) {
        atomic_fetch_sub(&worker->reference_count, 1);
    }
    return error;
}

static bool wait_for(pk_worker *worker, const bool *flag, int64_t instant_ns)
{
    return pk_thread_wait_for(&worker->wake, &worker->lock, flag, instant_ns);
}

bool pk_worker_sleep_until(pk_worker *worker, int64_t instant_ns)
{
    pthread_mutex_lock(&worker->lock);
    bool stop_requested = wait_for(worker, &worker->stop_requested, instant_ns);
    pthread_mutex_unlock(&worker->lock);
    return stop_requested;
}

void pk_worker_end(pk_worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    worker->has_ended = true;
    pthread_cond_broadcast(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
}

int pk_worker_stop(pk_worker *worker, int64_t timeout_ns)
{
    if (!worker->is_stopped) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t instant_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + timeout_ns;
        pthread_mutex_lock(&worker->lock);
        worker->stop_requested = true;
        pthread_cond_broadcast(&worker->wake);
        worker->is_abandoned = !wait_for(worker, &worker->has_ended, instant_ns);
        pthread_mutex_unlock(&worker->lock);
        worker->is_stopped = true;
        if (worker->is_abandoned) {
            pthread_detach(worker->thread);
        } else {
            pthread_join(worker->thread, NULL);
        }
    }
    return worker->is_abandoned ? ETIMEDOUT : 0;
}

bool pk_worker_let_go(pk_worker *worker)
{
    return atomic_fetch_sub(&worker->reference_count, 1) == 1;
}
