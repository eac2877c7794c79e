/* Parsers of the files under /proc that the thread sampler reads, and the bounded reads before
 * them. All text is hostile: a parser touches `size` bytes at most and refuses what it does not
 * understand.
 * Every function returns 0 or an errno value; on failure *ret is left alone. */
#ifndef PK_PROCFILE_H
#define PK_PROCFILE_H
#include <stddef.h>
#include <stdint.h>

enum {
    PK_PROCFILE_BYTES = 1024,        /* schedstat, syscall and stat are all far shorter */
    PK_SYSCALL_NOT_IN_SYSCALL = -1,  /* blocked elsewhere, e.g. in a page fault */
    PK_SYSCALL_RUNNING = -2,         /* the text was "running" */
    PK_SYSCALL_UNREADABLE = -3,      /* refused, or not understood */
    PK_NAME_BYTES = 16,              /* TASK_COMM_LEN */
};

typedef struct {
    int64_t run_ns;
    int64_t wait_ns;
    int64_t slice_count;
} pk_schedstat;

typedef struct {
    int64_t number;
    int64_t arguments[6];
    int64_t stack_pointer;
    int64_t program_counter;
} pk_syscall;

typedef struct {
    char name[PK_NAME_BYTES]; /* zero-filled, not terminated when 16 bytes long */
    int64_t state_letter;
    int64_t minor_faults;
    int64_t major_faults;
    int64_t nice;
    int64_t start_ticks;
    int64_t cpu;
    int64_t policy;
} pk_stat;

/* Counters of a cgroup's cpu.stat since it was made; -1 where the file has no such line. */
typedef struct {
    int64_t period_count;
    int64_t throttled_count;
    int64_t throttled_ns;
} pk_cpu_stat;

int pk_procfile_parse_schedstat(const char *text, size_t size, pk_schedstat *ret);
int pk_procfile_parse_syscall(const char *text, size_t size, pk_syscall *ret);
int pk_procfile_parse_stat(const char *text, size_t size, pk_stat *ret);
int pk_procfile_parse_cpu_stat(const char *text, size_t size, pk_cpu_stat *ret);

/* The number in a link such as "socket:[123]" or "pipe:[123]"; 0 for every other link. */
int64_t pk_procfile_parse_inode(const char *link, size_t size);

/* A name of decimal digits as a positive number, or 0 where it is none (or over 2^30). */
int32_t pk_procfile_parse_id(const char *name);

/* Reads from the start of an open file, at most `limit` bytes. */
int pk_procfile_read(int descriptor, char *buffer, size_t limit, size_t *ret);

/* Opens, reads and closes. */
int pk_procfile_read_at(int folder, const char *path, char *buffer, size_t limit, size_t *ret);

#endif
