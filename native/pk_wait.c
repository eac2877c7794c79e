#include "pk_wait.h"

#include <linux/futex.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "perfkit's thread sampler knows the system calls of Linux on x86-64 only"
#endif

enum {
    FUTEX_OWNER_OFFSET = 8, /* glibc, struct __pthread_mutex_s: lock, count, owner, 32 bits each */
};

/* Whether the first argument of a system call is a descriptor. */
static bool has_descriptor(int64_t number)
{
    switch (number) {
    case SYS_read: case SYS_write: case SYS_readv: case SYS_writev:
    case SYS_pread64: case SYS_pwrite64: case SYS_preadv: case SYS_pwritev:
    case SYS_preadv2: case SYS_pwritev2: case SYS_recvfrom: case SYS_recvmsg:
    case SYS_recvmmsg: case SYS_sendto: case SYS_sendmsg: case SYS_sendmmsg:
    case SYS_accept: case SYS_accept4: case SYS_connect: case SYS_shutdown:
    case SYS_close: case SYS_fsync: case SYS_fdatasync: case SYS_sync_file_range:
    case SYS_syncfs: case SYS_ftruncate: case SYS_fallocate: case SYS_flock:
    case SYS_fcntl: case SYS_ioctl: case SYS_sendfile: case SYS_splice:
    case SYS_getdents64: case SYS_epoll_wait: case SYS_epoll_pwait: case SYS_epoll_ctl:
#ifdef SYS_epoll_pwait2 /* Linux 5.11 */
    case SYS_epoll_pwait2:
#endif
        return true;
    default:
        return false;
    }
}

static bool waits_on_futex(const pk_syscall *call)
{
    if (call->number != SYS_futex) {
        return false;
    }
    int64_t operation = call->arguments[1] & FUTEX_CMD_MASK & INT32_MAX;
    return operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET ||
           operation == FUTEX_LOCK_PI || operation == FUTEX_WAIT_REQUEUE_PI;
}

/* Copies from the target's memory without stopping it; false unless all of it could be read. */
static bool read_memory(int32_t pid, int64_t address, void *buffer, size_t size)
{
    struct iovec local = {buffer, size};
    struct iovec remote = {(void *)(uintptr_t)address, size};
    return address != 0 && process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static int64_t read_inode(int fd_folder, int64_t fd)
{
    char name[24];
    char link[64];
    if (fd_folder < 0 || fd < 0 || fd > INT32_MAX) {
        return 0;
    }
    snprintf(name, sizeof name, "%lld", (long long)fd);
    ssize_t size = readlinkat(fd_folder, name, link, sizeof link);
    return size > 0 ? pk_procfile_parse_inode(link, (size_t)size) : 0;
}

static void add_member(pk_wait *wait, int fd_folder, int64_t fd, int64_t events)
{
    wait->members[wait->member_count++] = (pk_wait_member){fd, events, read_inode(fd_folder, fd)};
}

static void read_poll(int32_t pid, int fd_folder, const pk_syscall *call, pk_wait *wait)
{
    struct pollfd polled[PK_WAIT_MEMBER_LIMIT];
    uint64_t count = (uint64_t)call->arguments[1] & UINT32_MAX;
    size_t wanted = count < PK_WAIT_MEMBER_LIMIT ? (size_t)count : PK_WAIT_MEMBER_LIMIT;
    if (wanted == 0 || !read_memory(pid, call->arguments[0], polled, wanted * sizeof polled[0])) {
        return;
    }
    for (size_t i = 0; i < wanted; i++) {
        if (polled[i].fd >= 0) { /* the kernel passes over negative ones */
            add_member(wait, fd_folder, polled[i].fd, polled[i].events);
        }
    }
}

static void read_select(int32_t pid, int fd_folder, const pk_syscall *call, pk_wait *wait)
{
    static const int64_t events[3] = {POLLIN, POLLOUT, POLLPRI};
    enum { WORD_BITS = 64, WORDS = PK_WAIT_SELECT_BITS / WORD_BITS };
    uint64_t sets[3][WORDS];
    memset(sets, 0, sizeof sets);
    int64_t bits = call->arguments[0] & UINT32_MAX;
    bits = bits > PK_WAIT_SELECT_BITS ? PK_WAIT_SELECT_BITS : bits;
    size_t size = (size_t)(bits + WORD_BITS - 1) / WORD_BITS * sizeof(uint64_t);
    for (int i = 0; i < 3 && size > 0; i++) {
        if (!read_memory(pid, call->arguments[i + 1], sets[i], size)) {
            memset(sets[i], 0, sizeof sets[i]);
        }
    }
    for (int64_t fd = 0; fd < bits && wait->member_count < PK_WAIT_MEMBER_LIMIT; fd++) {
        int64_t wanted = 0;
        for (int i = 0; i < 3; i++) {
            wanted |= sets[i][fd / WORD_BITS] >> (fd % WORD_BITS) & 1 ? events[i] : 0;
        }
        if (wanted != 0) {
            add_member(wait, fd_folder, fd, wanted);
        }
    }
}

void pk_wait_read(int32_t pid, int fd_folder, const pk_syscall *call, pk_wait *ret)
{
    ret->fd_inode = 0;
    ret->futex_owner = 0;
    ret->member_count = 0;
    if (has_descriptor(call->number)) {
        ret->fd_inode = read_inode(fd_folder, call->arguments[0] & UINT32_MAX);
    } else if (waits_on_futex(call)) {
        int32_t owner = 0;
        uint64_t address = (uint64_t)call->arguments[0] + FUTEX_OWNER_OFFSET;
        if (read_memory(pid, (int64_t)address, &owner, sizeof owner)) {
            ret->futex_owner = owner;
        }
    } else if (call->number == SYS_poll || call->number == SYS_ppoll) {
        read_poll(pid, fd_folder, call, ret);
        bool single = (call->arguments[1] & UINT32_MAX) == 1 && ret->member_count == 1;
        ret->fd_inode = single ? ret->members[0].inode : 0;
    } else if (call->number == SYS_select || call->number == SYS_pselect6) {
        read_select(pid, fd_folder, call, ret);
        ret->fd_inode = ret->member_count == 1 ? ret->members[0].inode : 0;
    }
}
