/* How the samplers start their threads: without signals, which are for the owner's threads. */
#ifndef PK_THREAD_H
#define PK_THREAD_H
#include <pthread.h>
#include <stddef.h>

/* Starts a thread under a name (at most 15 characters) with a stack of stack_bytes. Returns 0 or
 * errno; ret holds only if 0. */
int pk_thread_start(const char *name, size_t stack_bytes, void *(*run)(void *), void *context,
                    pthread_t *ret);

#endif
