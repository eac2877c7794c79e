#include "pk_perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int pk_perf_init(pk_perf *perf, const pk_perf_plan *plan)
{
    memset(perf, 0, sizeof *perf);
    long cpu_count = sysconf(_SC_NPROCESSORS_CONF);
    size_t limit = cpu_count < 1 ? 1 : (size_t)cpu_count;
    limit = limit < PK_PERF_CPU_LIMIT ? limit : PK_PERF_CPU_LIMIT;
    perf->rings = calloc(limit, sizeof *perf->rings);
    perf->next = calloc(limit, sizeof *perf->next);
    perf->has_next = calloc(limit, sizeof *perf->has_next);
    int error = perf->rings == NULL || perf->next == NULL || perf->has_next == NULL ? ENOMEM : 0;
    for (size_t cpu = 0; error == 0 && cpu < limit; cpu++) {
        error = pk_perf_ring_init(&perf->rings[perf->count], plan, (int)cpu);
        perf->count += error == 0;
        error = error == ENODEV ? 0 : error; /* it is off */
    }
    if (error == 0 && perf->count == 0) {
        error = ENODEV;
    }
    perf->given = perf->count;
    if (error != 0) {
        pk_perf_deinit(perf);
    }
    return error;
}

void pk_perf_deinit(pk_perf *perf)
{
    for (size_t i = 0; i < perf->joined_count; i++) {
        close(perf->joined[i].descriptor);
    }
    for (size_t i = 0; i < perf->count; i++) {
        pk_perf_ring_deinit(&perf->rings[i]);
    }
    free(perf->rings);
    free(perf->next);
    free(perf->has_next);
    memset(perf, 0, sizeof *perf);
}

int pk_perf_join(pk_perf *perf, const pk_perf_plan *plan, pk_perf_source source)
{
    if (perf->joined_count + perf->count > PK_PERF_JOINED_LIMIT) {
        return ENOSPC;
    }
    size_t first = perf->joined_count;
    int error = 0;
    for (size_t i = 0; error == 0 && i < perf->count; i++) {
        int descriptor = pk_perf_event_open(plan, source, perf->rings[i].cpu);
        if (descriptor < 0) {
            error = errno;
            break;
        }
        perf->joined[perf->joined_count++] = (pk_perf_joined){descriptor, source};
        error = pk_perf_event_join(descriptor, perf->rings[i].descriptor);
    }
    while (error != 0 && perf->joined_count > first) {
        close(perf->joined[--perf->joined_count].descriptor);
    }
    return error;
}

void pk_perf_part(pk_perf *perf, pk_perf_source source)
{
    size_t kept = 0;
    for (size_t i = 0; i < perf->joined_count; i++) {
        if (perf->joined[i].source == source) {
            close(perf->joined[i].descriptor);
        } else {
            perf->joined[kept++] = perf->joined[i];
        }
    }
    perf->joined_count = kept;
}

static void refill(pk_perf *perf, size_t ring)
{
    perf->has_next[ring] = pk_perf_ring_peek(&perf->rings[ring], &perf->next[ring]);
}

void pk_perf_look(pk_perf *perf, int64_t until_ns)
{
    perf->until_ns = until_ns;
    if (perf->given < perf->count) {
        pk_perf_ring_take(&perf->rings[perf->given]);
        perf->given = perf->count;
    }
    for (size_t i = 0; i < perf->count; i++) {
        pk_perf_ring_look(&perf->rings[i]);
        refill(perf, i);
    }
}

bool pk_perf_next(pk_perf *perf, const pk_perf_record **ret)
{
    if (perf->given < perf->count) {
        pk_perf_ring_take(&perf->rings[perf->given]);
        refill(perf, perf->given);
    }
    size_t first = perf->count;
    for (size_t i = 0; i < perf->count; i++) {
        if (perf->has_next[i] && perf->next[i].time_ns <= perf->until_ns &&
            (first == perf->count || perf->next[i].time_ns < perf->next[first].time_ns)) {
            first = i;
        }
    }
    perf->given = first;
    if (first == perf->count) {
        return false;
    }
    *ret = &perf->next[first];
    perf->late_count += (*ret)->time_ns < perf->last_ns;
    perf->last_ns = (*ret)->time_ns;
    if ((*ret)->kind == PK_PERF_LOST) {
        perf->lost_count += (*ret)->lost_count;
    }
    return true;
}

int64_t pk_perf_count_damaged(const pk_perf *perf)
{
    int64_t count = 0;
    for (size_t i = 0; i < perf->count; i++) {
        count += perf->rings[i].damaged_count;
    }
    return count;
}
