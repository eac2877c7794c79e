/* The rings of all CPUs as one sequence of records, by time. One thread reads it. */
#ifndef PK_PERF_H
#define PK_PERF_H
#include "pk_perf_ring.h"

enum {
    PK_PERF_CPU_LIMIT = 1024,
    PK_PERF_JOINED_LIMIT = 512, /* events beside those that have a ring */
};

/* An event that tells into a ring of others. */
typedef struct {
    int descriptor;
    pk_perf_source source;
} pk_perf_joined;

typedef struct {
    pk_perf_ring *rings;
    size_t count;
    pk_perf_record *next; /* of each ring */
    bool *has_next;
    size_t given;      /* the ring whose record was given last; count = none */
    pk_perf_joined joined[PK_PERF_JOINED_LIMIT];
    size_t joined_count;
    int64_t until_ns;  /* later records are left for another time */
    int64_t last_ns;   /* of the record given last */
    int64_t lost_count; /* records that found no room, as the kernel told */
    int64_t late_count; /* records given after younger ones: a CPU wrote them too late */
} pk_perf;

/* Opens a ring for each CPU that is on. An errno value: none could be opened, and why. */
int pk_perf_init(pk_perf *perf, const pk_perf_plan *plan);
void pk_perf_deinit(pk_perf *perf);

/* Adds events of a source for the plan's thread (-1: all), one for each ring. ESRCH: it is gone.
 * ENOSPC: too many. Where it fails nothing is added. */
int pk_perf_join(pk_perf *perf, const pk_perf_plan *plan, pk_perf_source source);

/* Ends all events of a source that were added. */
void pk_perf_part(pk_perf *perf, pk_perf_source source);

/* Looks how much was written. Records of up to `until_ns` follow, which is a moment, 1 ms or so,
 * before now: what is written just now on one CPU may be older than what another has written.
 * That a CPU is held up for longer while it writes is seldom, and counted. */
void pk_perf_look(pk_perf *perf, int64_t until_ns);

/* The next record; false: there is none for now. What it points to is valid until the next call. */
bool pk_perf_next(pk_perf *perf, const pk_perf_record **ret);

/* Records that made no sense, in all rings. */
int64_t pk_perf_count_damaged(const pk_perf *perf);

#endif
