/* A thread that reads the service's TCP sockets at a steady rate, in the target's network
 * namespace.
 *
 * Discovery: a dump of all sockets about once a second, and in between dumps of the listeners'
 * local ports, each as often as it is cheap. Reading: exact requests for known sockets, at most
 * get_limit a poll. The rate falls below the one asked for where it would cost more than a share of
 * a core, which set_budget changes.
 *
 * Thread rule: create, take, set_inodes, set_budget, read_stats, stop and destroy belong to one
 * caller at a time. Nothing here blocks on the sampler's system calls: the lock is held for copies
 * only. */
#ifndef PK_SOCKET_SAMPLER_H
#define PK_SOCKET_SAMPLER_H
#include "pk_socket_batch.h"
#include "pk_socket_table.h"

struct pk_socket_config {
    const char *namespace_path; /* NULL: stay in the caller's namespace */
    int64_t poll_interval_ns;
    int64_t dump_interval_ns;
    int64_t accept_interval_ns; /* between dumps of the listeners' ports */
    double budget_ratio;        /* CPU of the sampler per wall time */
    uint32_t get_limit;
    uint32_t socket_limit;
    uint32_t inode_limit;
    uint32_t row_limit; /* rows kept of one kind between two takes */
    uint16_t shared_ports[PK_SOCKET_LISTENER_LIMIT]; /* see pk_socket_table_set_shared_ports */
    size_t shared_port_count;
};

struct pk_socket_stats {
    int64_t start_ns;
    int64_t last_poll_ns;
    int64_t poll_count;
    int64_t cpu_ns;            /* of the thread, since it began */
    int64_t interval_ns;       /* as adapted to the budget */
    int64_t polled_count;      /* sockets read in the last poll */
    int64_t dump_count;        /* all dumps */
    int64_t full_dump_count;   /* those of all sockets */
    int64_t dump_error_count;
    int64_t dump_cpu_ns;       /* CPU time of all dumps */
    int64_t lost_count;        /* times the kernel dropped messages to us (ENOBUFS) */
    int64_t refused_count;     /* sockets beyond socket_limit */
    int64_t inode_dropped_count;
    int64_t unanswered_count;  /* exact requests without an answer */
    int64_t socket_count;      /* known now */
    int64_t listener_count;
    int64_t unowned_count;     /* closed connections of a shared port that may be another's */
    int64_t closed_error;      /* why closed connections are not counted, 0 they are */
    int64_t is_own_namespace;  /* 1: the target's namespace is the caller's */
};

enum pk_socket_stage {
    PK_SOCKET_STAGE_NONE,
    PK_SOCKET_STAGE_THREAD,
    PK_SOCKET_STAGE_OPEN_NAMESPACE,
    PK_SOCKET_STAGE_ENTER_NAMESPACE,
    PK_SOCKET_STAGE_QUERY,
};

struct pk_socket_sampler;

/* Starts the thread and waits (at most 1 s) until it reads, or has failed. Returns 0 or errno;
 * ret_stage says what failed. */
int pk_socket_sampler_create(const struct pk_socket_config *config, struct pk_socket_sampler **ret,
                             enum pk_socket_stage *ret_stage);

/* The inodes of sockets that the service's processes hold now. */
void pk_socket_sampler_set_inodes(struct pk_socket_sampler *sampler, const int64_t *inodes,
                                  size_t count);

/* Changes the share of a core that it may cost, from the next poll on. */
void pk_socket_sampler_set_budget(struct pk_socket_sampler *sampler, double budget_ratio);

/* Hands over what was recorded since the last take. It stays valid until the next take, which the
 * caller precedes by pk_socket_batch_clear. */
struct pk_socket_batch *pk_socket_sampler_take(struct pk_socket_sampler *sampler);

void pk_socket_sampler_read_stats(struct pk_socket_sampler *sampler, struct pk_socket_stats *ret);

/* Ends the thread, which writes its open runs first. Waits at most wait_ns. Returns 0, or ETIMEDOUT
 * when the thread is stuck in the kernel; it is then left alone with its memory. */
int pk_socket_sampler_stop(struct pk_socket_sampler *sampler, int64_t wait_ns);

/* Stops if need be, and frees all, unless the thread is stuck. */
void pk_socket_sampler_destroy(struct pk_socket_sampler *sampler);

#endif
