/* What the kernel's records amount to: samples with stacks of the processes that are wanted, and
 * how long their threads were off the CPU. Everything has a limit, and what is left out is counted.
 * One thread feeds it; rows, stacks and objects may be read by another one. */
#ifndef PK_PROFILE_H
#define PK_PROFILE_H
#include "pk_nativestack.h"
#include "pk_offcpu.h"
#include "pk_perf_ring.h"
#include "pk_proctable.h"
#include "pk_ring.h"

enum {
    /* t_ns pid tid cpu kind stack weight_ns end is_open */
    PK_PROFILE_COLUMN_COUNT = 9,
    PK_PROFILE_DEPTH_LIMIT = PK_UNWIND_DEPTH_LIMIT + PK_PERF_KERNEL_DEPTH_LIMIT,
};

enum { PK_PROFILE_CPU, PK_PROFILE_OFF, PK_PROFILE_PREEMPTED };

typedef struct {
    int64_t sample_count; /* of those wanted, */
    int64_t other_count;  /* and of all others */
    int64_t kernel_count; /* of those wanted, that met them in the kernel */
    int64_t root_count;   /* stacks by how they end; root, truncated, lost, too deep */
    int64_t truncated_count;
    int64_t stray_count;
    int64_t deep_count;
    int64_t late_count;     /* stacks that took a late read */
    int64_t unmapped_count; /* samples without a stack, since the mappings are not known */
    int64_t full_count;     /* samples without a stack, since there was no room */
    int64_t switch_count;   /* how often any thread left a CPU */
} pk_profile_counts;

typedef struct {
    pk_unwinder unwinder;
    pk_proctable processes;
    pk_nativestacks stacks;
    pk_offcpu offcpu;
    pk_ring rows;
    pk_profile_counts counts;
    int proc; /* owned once _init has succeeded */
    bool has_switches; /* waits are told; else their records are not looked at */
    double keep_ratio; /* of the samples; those that are kept stand for all */
    uint64_t random;
    pk_stack stack; /* room for one */
    pk_native_frame frames[PK_PROFILE_DEPTH_LIMIT];
} pk_profile;

/* Returns an errno value; where it fails `proc`, an open folder, stays the caller's. */
int pk_profile_init(pk_profile *profile, int proc, size_t row_limit, int64_t now_ns);
void pk_profile_deinit(pk_profile *profile);

/* Takes one record in. */
void pk_profile_take(pk_profile *profile, const pk_perf_record *record);

/* From here on no switches come: waits that are under way are given up. */
void pk_profile_end_switches(pk_profile *profile);

/* Tells of threads that are off the CPU at the end. */
void pk_profile_close(pk_profile *profile, int64_t now_ns);

#endif
