#include "pk_process.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pk_procfile.h"

int64_t pk_process_cpu_ns(int64_t pid)
{
    enum { SCHEDULER_CLOCK = 2, PID_LIMIT = 1 << 28 }; /* linux/posix-timers.h: CPUCLOCK_SCHED */
    struct timespec used;
    if (pid <= 0 || pid >= PID_LIMIT) {
        return -1;
    }
    clockid_t clock = (clockid_t)(~(uint32_t)pid << 3 | SCHEDULER_CLOCK);
    if (clock_gettime(clock, &used) != 0) {
        return -1;
    }
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

void pk_process_list_cpu_ns(const char *pids, size_t count, char *used)
{
    for (size_t i = 0; i < count; i++) {
        int64_t pid;
        memcpy(&pid, pids + i * sizeof pid, sizeof pid);
        int64_t used_ns = pk_process_cpu_ns(pid);
        memcpy(used + i * sizeof used_ns, &used_ns, sizeof used_ns);
    }
}

static int append(pk_process_fd **list, size_t *room, size_t count)
{
    if (count < *room) {
        return 0;
    }
    size_t wanted = *room == 0 ? 64 : *room * 2;
    pk_process_fd *grown = realloc(*list, wanted * sizeof **list);
    if (grown == NULL) {
        return ENOMEM;
    }
    *list = grown;
    *room = wanted;
    return 0;
}

int pk_process_list_fds(const char *proc_root, int32_t pid, size_t limit, pk_process_fd **ret,
                        size_t *ret_count)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%d/fd", proc_root, pid);
    if (length < 0 || (size_t)length >= sizeof path) {
        return ENAMETOOLONG;
    }
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return errno;
    }
    pk_process_fd *list = NULL;
    size_t room = 0;
    size_t count = 0;
    int error = 0;
    while (error == 0 && count < limit) {
        const struct dirent *found = readdir(folder);
        if (found == NULL) {
            break;
        }
        if (found->d_name[0] < '0' || found->d_name[0] > '9') {
            continue;
        }
        error = append(&list, &room, count);
        if (error != 0) {
            break;
        }
        pk_process_fd *item = &list[count];
        ssize_t size = readlinkat(dirfd(folder), found->d_name, item->link, sizeof item->link);
        if (size >= 0) {
            item->fd = pk_procfile_parse_id(found->d_name);
            item->size_bytes = (uint32_t)size;
            count++;
        } else if (errno == EACCES || errno == EPERM) {
            error = errno; /* who may list may not always see where they lead to */
        } /* else it was closed in between */
    }
    closedir(folder);
    if (error != 0) {
        free(list);
        return error;
    }
    *ret = list;
    *ret_count = count;
    return 0;
}
