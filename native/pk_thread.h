/* How the samplers start their threads (without signals, which are for the owner's threads), and
 * how a thread and its owner wait for each other. */
#ifndef PK_THREAD_H
#define PK_THREAD_H
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starts a thread under a name (at most 15 characters) with a stack of stack_bytes. Returns 0 or
 * errno; ret holds only if 0. */
int pk_thread_start(const char *name, size_t stack_bytes, void *(*run)(void *), void *context,
                    pthread_t *ret);

/* Makes a condition whose waits are timed by CLOCK_MONOTONIC. */
void pk_thread_init_condition(pthread_cond_t *condition);

/* Under the lock: waits for a flag; false where the instant came first. */
bool pk_thread_wait_for(pthread_cond_t *condition, pthread_mutex_t *lock, const bool *flag,
                        int64_t instant_ns);

#endif
