#include "pk_quota.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const uint32_t STILL_LIMIT = 20;
static const uint32_t STILL_INTERVAL = 16;

int pk_quota_init(pk_quota *quota, int64_t cgroup_index, const char *path)
{
    *quota = (pk_quota){.cgroup_index = cgroup_index};
    quota->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    return quota->descriptor < 0 ? errno : 0;
}

void pk_quota_deinit(pk_quota *quota)
{
    if (quota->descriptor >= 0) {
        close(quota->descriptor);
        quota->descriptor = -1;
    }
}

void pk_quota_read(pk_quota *quota, uint64_t tick, int64_t now_ns, int all, pk_ring *rows)
{
    char text[PK_PROCFILE_BYTES];
    size_t size = 0;
    if (quota->descriptor < 0 || (quota->due_tick > tick && !all)) {
        return;
    }
    if (pk_procfile_read(quota->descriptor, text, sizeof text, &size) != 0) {
        pk_quota_deinit(quota); /* the cgroup was removed */
        return;
    }
    pk_cpu_stat now;
    pk_procfile_parse_cpu_stat(text, size, &now);
    int is_first = quota->read_ns == 0;
    quota->read_ns = now_ns;
    int is_still = memcmp(&now, &quota->counters, sizeof now) == 0;
    quota->still_count = is_still ? quota->still_count + 1 : 0;
    int backs_off = now.period_count <= 0 && quota->still_count >= STILL_LIMIT;
    quota->due_tick = tick + (backs_off ? STILL_INTERVAL : 1);
    if (is_first || all || !is_still) {
        int64_t row[PK_QUOTA_COLUMN_COUNT] = {
            now_ns, quota->cgroup_index, now.period_count, now.throttled_count, now.throttled_ns,
        };
        pk_ring_push(rows, row);
    }
    quota->counters = now;
}
