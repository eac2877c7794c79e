#include "pk_thread.h"

#include <signal.h>

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
