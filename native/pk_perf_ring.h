/* What the kernel records of one CPU (perf_event_open): samples with registers and a piece of the
 * stack, and which programs, threads and mappings come and go. Times are of CLOCK_MONOTONIC.
 * Functions return 0 or an errno value unless they say otherwise. One thread reads a ring. */
#ifndef PK_PERF_RING_H
#define PK_PERF_RING_H
#include "pk_maps.h"
#include "pk_perf_event.h"
#include "pk_unwind.h"

enum {
    PK_PERF_STACK_BYTES_MAX = 65528,
    PK_PERF_RECORD_BYTES_MAX = 1 << 16,
    PK_PERF_PAGES_MIN = 16,
    PK_PERF_KERNEL_DEPTH_LIMIT = 127,
};

typedef enum {
    PK_PERF_SAMPLE,
    PK_PERF_MAPPING, /* of code */
    PK_PERF_NAME,    /* a thread has a new one, perhaps since it runs another program */
    PK_PERF_BIRTH,
    PK_PERF_DEATH,
    PK_PERF_SWITCH,
    PK_PERF_LOST,
    PK_PERF_OTHER,
} pk_perf_kind;

/* Pointers lead into the ring: they are valid until the next record is asked for. */
typedef struct {
    pk_perf_kind kind;
    int64_t time_ns;
    pid_t pid;
    pid_t tid;
    int32_t cpu;
    /* A sample: */
    int64_t weight_ns; /* the CPU time that it stands for */
    bool is_switch;    /* its thread leaves the CPU; it stands for no time */
    const uint64_t *kernel; /* return addresses of the kernel, leaf first */
    size_t kernel_depth;
    pk_registers registers; /* known = 0: a thread of the kernel, or of a 32-bit program */
    const uint8_t *stack;   /* from RSP on */
    size_t stack_bytes;
    /* A mapping: */
    pk_mapping mapping;
    /* A mapping's path, or a name; not terminated. */
    const char *text;
    size_t text_bytes;
    bool is_exec; /* of a name: the thread runs another program from here on */
    pid_t parent; /* of a birth */
    /* A switch: */
    bool is_leaving;
    bool is_preempted; /* it would have run on */
    /* Lost records: */
    int64_t lost_count;
} pk_perf_record;

typedef struct {
    int descriptor;
    int cpu;
    /* Samples from `changed_ns` on, and before. */
    int64_t interval_ns;
    int64_t before_interval_ns;
    int64_t changed_ns;
    void *mapped;
    size_t mapped_bytes;
    const uint8_t *bytes;
    uint64_t size_bytes;
    uint64_t head; /* how far it is known to be written, */
    uint64_t tail; /* and read */
    uint8_t *whole; /* a record that wraps around the end, in one piece */
    int64_t damaged_count;
} pk_perf_ring;

int pk_perf_ring_init(pk_perf_ring *ring, const pk_perf_plan *plan, int cpu);
void pk_perf_ring_deinit(pk_perf_ring *ring);

/* Changes the interval between samples of a ring whose plan names no thread. The one that is under
 * way begins anew, so that this should be seldom. */
int pk_perf_ring_set_interval(pk_perf_ring *ring, int64_t interval_ns, int64_t now_ns);

/* Looks how much was written. */
void pk_perf_ring_look(pk_perf_ring *ring);

/* The next record of what was written, without taking it. False: there is none. */
bool pk_perf_ring_peek(pk_perf_ring *ring, pk_perf_record *ret);

/* Takes the record that was peeked at; its room may be written again once this is called. */
void pk_perf_ring_take(pk_perf_ring *ring);

#endif
