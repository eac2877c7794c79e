/* Facts about whole processes: their CPU clock, their open descriptors. */
#ifndef PK_PROCESS_H
#define PK_PROCESS_H
#include <stddef.h>
#include <stdint.h>

enum { PK_PROCESS_LINK_BYTES = 256 }; /* longer targets are cut */

typedef struct {
    int32_t fd;
    uint32_t size_bytes; /* of the link's text, which is not terminated */
    char link[PK_PROCESS_LINK_BYTES];
} pk_process_fd;

/* CPU time of all threads of a process, past ones too; -1 where it is gone. */
int64_t pk_process_cpu_ns(int64_t pid);

/* The same for many: `pids` and `used` hold `count` 64-bit values each, at any alignment. */
void pk_process_list_cpu_ns(const char *pids, size_t count, char *used);

/* Lists at most `limit` open descriptors with what they point to. *ret is malloc'ed, the caller
 * frees it. Returns an errno value where the folder cannot be read. */
int pk_process_list_fds(const char *proc_root, int32_t pid, size_t limit, pk_process_fd **ret,
                        size_t *ret_count);

#endif
