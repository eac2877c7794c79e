/* cpu.stat of the cgroups that can throttle the target, read at the thread tick. */
#ifndef PK_QUOTA_H
#define PK_QUOTA_H
#include "pk_procfile.h"
#include "pk_ring.h"

enum {
    PK_QUOTA_LIMIT = 64,
    PK_QUOTA_COLUMN_COUNT = 5, /* t_ns cgroup_index period_count throttled_count throttled_ns */
};

typedef struct {
    int64_t cgroup_index;
    int descriptor; /* -1 = gone */
    uint64_t due_tick;
    uint32_t still_count;
    int64_t read_ns;
    pk_cpu_stat counters;
} pk_quota;

/* Opens one cpu.stat file. Returns an errno value where it cannot be opened. */
int pk_quota_init(pk_quota *quota, int64_t cgroup_index, const char *path);
void pk_quota_deinit(pk_quota *quota);

/* Reads it where it is due and pushes a row where it changed, or always where `all` is not 0.
 * A cgroup that was never under a quota is read every 16th tick once it has been still for 20. */
void pk_quota_read(pk_quota *quota, uint64_t tick, int64_t now_ns, int all, pk_ring *rows);

#endif
