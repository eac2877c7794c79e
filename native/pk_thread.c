#include "pk_thread.h"

#include <signal.h>
#include <time.h>

int pk_thread_start(const char *name, size_t stack_bytes, void *(*run)(void *), void *context,
                    pthread_t *ret)
{
    sigset_t all;
    sigset_t before;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(ret, &attributes, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error == 0) {
        pthread_setname_np(*ret, name);
    }
    return error;
}

void pk_thread_init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

bool pk_thread_wait_for(pthread_cond_t *condition, pthread_mutex_t *lock, const bool *flag,
                        int64_t instant_ns)
{
    const struct timespec instant = {instant_ns / 1000000000, instant_ns % 1000000000};
    while (!*flag && pthread_cond_timedwait(condition, lock, &instant) == 0) {
    }
    return *flag;
}
