/* Reads the file of a shared histogram (perfkit_histogram.h), which another process writes and
 * which may hold anything: nothing in it is trusted, and its writer is not asked for anything.
 *
 * Only a memfd whose size is sealed is mapped, so no access to it can end in a signal. A snapshot
 * has all that was recorded before it began, and some of what was recorded meanwhile; no count of a
 * later one is lower. */
#ifndef PK_SHARED_H
#define PK_SHARED_H
#include "perfkit_histogram_layout.h"
#include "pk_histogram.h"

typedef struct {
    perfkit_file_header header; /* a copy, which was checked */
    const uint8_t *base;        /* header.file_bytes of it */
    uint64_t inode;             /* tells files apart that exist at the same time */
} pk_shared;

/* Maps a file, by a link such as /proc/PID/fd/N. 0; an errno value where it cannot be opened, or
 * EBADMSG with what is wrong at *ret_why: it is no such file, or not ready. */
int pk_shared_open(const char *path, pk_shared *ret, const char **ret_why);
void pk_shared_close(pk_shared *shared);

/* The same of a file that is mapped already, and stays so; nothing to be closed. */
int pk_shared_view(const uint8_t *base, size_t size_bytes, pk_shared *ret, const char **ret_why);

/* Makes `ret`, not initialised, what all shards counted, of the mapping of scale PERFKIT_SCALE.
 * Negative values have no buckets: they are over_counts[PK_NEGATIVE]. min and max are bounds where
 * a record was just being made. ENOMEM; EBADMSG: counts or header are damaged. */
int pk_shared_read(const pk_shared *shared, const pk_bucketing *mapping, pk_histogram *ret,
                   const char **ret_why);

#endif
