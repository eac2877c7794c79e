/* What lies behind a blocked system call: the inode of its descriptor, the owner word behind a
 * futex, the members of a poll. Facts only; all of them may be stale by microseconds. */
#ifndef PK_WAIT_H
#define PK_WAIT_H
#include "pk_procfile.h"

enum {
    PK_WAIT_MEMBER_LIMIT = 8,
    PK_WAIT_SELECT_BITS = 1024,
};

typedef struct {
    int64_t fd;
    int64_t events;
    int64_t inode;
} pk_wait_member;

typedef struct {
    int64_t fd_inode;    /* 0 where the call has no descriptor, or it is no socket and no pipe */
    int64_t futex_owner; /* 0 unread */
    int member_count;
    pk_wait_member members[PK_WAIT_MEMBER_LIMIT];
} pk_wait;

/* `fd_folder` is an open /proc/PID/fd, or -1. Never fails: what cannot be read stays 0. */
void pk_wait_read(int32_t pid, int fd_folder, const pk_syscall *call, pk_wait *ret);

#endif
