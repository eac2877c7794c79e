/* One event of the kernel's: what is asked of perf_event_open, for pk_perf_ring and pk_perf. */
#ifndef PK_PERF_EVENT_H
#define PK_PERF_EVENT_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What to record. */
typedef struct {
    pid_t thread;         /* -1 = whatever runs */
    int64_t interval_ns;  /* between samples of a busy CPU */
    uint32_t stack_bytes; /* of each sample: a multiple of 8, at most PK_PERF_STACK_BYTES_MAX */
    uint32_t page_count;  /* of a ring; a power of two. Less is taken where that is refused */
    bool has_kernel;      /* also while the kernel runs, with its stack */
    bool has_switches;    /* each time a thread gets a CPU or leaves it */
} pk_perf_plan;

typedef enum {
    PK_PERF_CLOCK,         /* samples of what runs; births, mappings and so on */
    PK_PERF_SWITCHES,      /* each time a thread gets a CPU or leaves it, and nothing else */
    PK_PERF_SWITCH_STACKS, /* samples of threads that leave a CPU; their weight is 1 */
} pk_perf_source;

/* Opens it for one CPU and the plan's thread, whose later children count as well; the caller closes
 * the descriptor. -1: errno tells why. */
int pk_perf_event_open(const pk_perf_plan *plan, pk_perf_source source, int cpu);

/* Sends what an event tells to the ring of another one of the same CPU. Returns an errno value. */
int pk_perf_event_join(int descriptor, int ring_descriptor);

/* Changes the interval between samples, from now on. Returns an errno value. */
int pk_perf_event_set_interval(int descriptor, int64_t interval_ns);

#endif
