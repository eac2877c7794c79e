/* The list of a process's Python threads, brought up to date by following the interpreter's own. */
#ifndef PK_PYLIST_H
#define PK_PYLIST_H
#include "pk_pyprocess.h"

/* Known threads stay, new ones are added in the order of CPython's list, others are released.
 * EAGAIN: the list changed under the read, or is none; nothing was changed then. */
int pk_pylist_update(pk_pyprocess *process, pk_pyshared *shared);

/* Whether a thread collects garbage at this moment; false where that is not known. */
bool pk_pythread_collects(const pk_pyprocess *process, const pk_pythread *thread);

/* Closes a thread's row and files, and frees it. */
void pk_pythread_release(pk_pyprocess *process, pk_pyshared *shared, pk_pythread *thread);

#endif
