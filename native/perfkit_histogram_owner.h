/* Who writes a shard of a shared histogram: a thread, or a process whose threads take turns.
 *
 * An owner is the id of the thread or process and, in its lower half, when that began, in ticks of
 * the kernel's clock: an id that was given anew is another owner. Ids are those of the namespace
 * in which the file was made; who lives in another one, or cannot read /proc, owns nothing. */
#ifndef PERFKIT_HISTOGRAM_OWNER_H
#define PERFKIT_HISTOGRAM_OWNER_H
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "perfkit_histogram_layout.h"

#if !defined(__cplusplus) && !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE)
extern long syscall(long number, ...); /* which unistd.h keeps from strict C */
#endif

enum {
    PERFKIT_FREE = 0,
    PERFKIT_GIVEN_BACK = 1,
    PERFKIT_AT_FDCWD = -100,
    PERFKIT_READ_CLOEXEC = 02000000, /* O_RDONLY | O_CLOEXEC */
    PERFKIT_STAT_BYTES = 1024,
    PERFKIT_STAT_FIELD_THREADS = 20, /* proc_pid_stat(5) */
    PERFKIT_STAT_FIELD_START = 22,
};

/* What /proc says of a thread or process. */
typedef struct {
    uint64_t id;
    uint64_t start_ticks;
    uint64_t thread_count;
    char state;
} perfkit_stat;

/* Reads a whole small file as text; 0 or an errno value. */
static inline int perfkit_read_text(const char *path, char *text, size_t room)
{
    long descriptor = syscall(SYS_openat, PERFKIT_AT_FDCWD, path, PERFKIT_READ_CLOEXEC, 0);
    if (descriptor < 0) {
        return errno;
    }
    ssize_t size_bytes = read((int)descriptor, text, room - 1);
    int error = size_bytes < 0 ? errno : 0;
    (void)close((int)descriptor);
    text[size_bytes < 0 ? 0 : size_bytes] = 0;
    return error;
}

/* Reads /proc/NAME/stat; 0, an errno value, or EBADMSG. The name of a program may hold anything,
 * also brackets and spaces: fields are counted from the last bracket on. */
static inline int perfkit_read_stat(const char *path, perfkit_stat *ret)
{
    char text[PERFKIT_STAT_BYTES];
    int error = perfkit_read_text(path, text, sizeof(text));
    if (error != 0) {
        return error;
    }
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == 0) {
        return EBADMSG;
    }
    memset(ret, 0, sizeof(*ret));
    ret->id = strtoull(text, NULL, 10);
    ret->state = at[2];
    at += 2;
    for (int field = 4; field <= PERFKIT_STAT_FIELD_START; field++) {
        at = strchr(at, ' ');
        if (at == NULL) {
            return EBADMSG;
        }
        at++;
        if (field == PERFKIT_STAT_FIELD_THREADS) {
            ret->thread_count = strtoull(at, NULL, 10);
        }
    }
    ret->start_ticks = strtoull(at, NULL, 10);
    return 0;
}

/* The number of the caller's namespace of process ids; 0 where it cannot be told. */
static inline uint64_t perfkit_find_namespace(void)
{
    char link[64];
    long size_bytes =
        syscall(SYS_readlinkat, PERFKIT_AT_FDCWD, "/proc/self/ns/pid", link, sizeof(link) - 1);
    if (size_bytes <= 5 || strncmp(link, "pid:[", 5) != 0) {
        return 0;
    }
    link[size_bytes] = 0;
    return strtoull(link + 5, NULL, 10);
}

static inline uint64_t perfkit_make_owner(uint64_t id, uint64_t start_ticks)
{
    return id << 32 | (start_ticks & UINT32_MAX);
}

/* The caller, its thread or its process; PERFKIT_FREE where it can own nothing. */
static inline uint64_t perfkit_find_owner(uint64_t pid_namespace, bool is_process)
{
    perfkit_stat found;
    uint64_t id = (uint64_t)(is_process ? syscall(SYS_getpid) : syscall(SYS_gettid));
    const char *path = is_process ? "/proc/self/stat" : "/proc/thread-self/stat";
    if (pid_namespace == 0 || perfkit_find_namespace() != pid_namespace ||
        perfkit_read_stat(path, &found) != 0 || found.id != id) {
        return PERFKIT_FREE;
    }
    return perfkit_make_owner(id, found.start_ticks);
}

/* Writes the path of a process's stat, of at most 10 digits. */
static inline void perfkit_write_stat_path(uint64_t id, char path[32])
{
    char digits[16];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + id % 10);
        id /= 10;
    } while (id > 0 && count < sizeof(digits));
    memcpy(path, "/proc/", 6);
    for (size_t i = 0; i < count; i++) {
        path[6 + i] = digits[count - 1 - i];
    }
    memcpy(path + 6 + count, "/stat", 6);
}

/* Whether an owner has ended for certain, seen from its namespace. */
static inline bool perfkit_is_dead(uint64_t owner)
{
    perfkit_stat found;
    char path[32];
    uint64_t id = owner >> 32;
    if (syscall(SYS_kill, (int)id, 0) != 0 && errno == ESRCH) {
        return true;
    }
    perfkit_write_stat_path(id, path);
    if (perfkit_read_stat(path, &found) != 0) {
        return false; /* there is one, though hidden from us */
    }
    /* One whose parent has not asked for its end yet writes no more, unless it has other threads
     * than its first. */
    bool is_ended = (found.state == 'Z' || found.state == 'X') && found.thread_count <= 1;
    return is_ended || perfkit_make_owner(id, found.start_ticks) != owner;
}

#endif
