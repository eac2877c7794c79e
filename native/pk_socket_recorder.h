/* What one poll does: finds the service's sockets, reads them, and writes rows. Used by the
 * sampler's thread only. The batch to write to changes between polls. */
#ifndef PK_SOCKET_RECORDER_H
#define PK_SOCKET_RECORDER_H
#include "pk_socket_pace.h"
#include "pk_socket_peers.h"
#include "pk_socket_query.h"
#include "pk_socket_sampler.h"
#include "pk_socket_table.h"

struct pk_socket_recorder {
    struct pk_socket_config config;
    struct pk_socket_query query;
    struct pk_socket_table table;
    struct pk_socket_peers peers;
    struct pk_socket_batch fresh; /* rows of the poll in progress */
    struct pk_socket_stats stats;
    struct pk_socket_pace pace;
    int64_t now_ns; /* t_ns of the poll in progress */
    int64_t next_dump_ns;
    int64_t next_accept_ns;
    bool has_inodes;           /* they were told before */
    int64_t restless_until_ns; /* the service has opened or closed sockets of late */
    int64_t prompt_until_ns;   /* its connections end of late, so notices are read promptly */
    uint32_t gone_count;
    bool is_counting;      /* the last listing told counters too, */
    bool has_counted;      /* or one before it; */
    uint32_t listed_count; /* the last one those of so many sockets */
    uint32_t cursor; /* next connection to read when not all can be */
    uint64_t random_state;
};

/* Returns 0 or ENOMEM. The query is opened apart, in the right namespace. */
int pk_socket_recorder_init(struct pk_socket_recorder *recorder,
                            const struct pk_socket_config *config);
void pk_socket_recorder_deinit(struct pk_socket_recorder *recorder);

/* New inodes of the service; a full dump follows soon when they changed. */
void pk_socket_recorder_set_inodes(struct pk_socket_recorder *recorder, const int64_t *inodes,
                                   size_t count);

/* Discovers and reads once. What it costs is booked by the caller, who sees all of it. */
void pk_socket_recorder_poll(struct pk_socket_recorder *recorder);

/* Reads what has ended since, between polls: notices do not tell when it was, only the ages of data
 * at that moment, so they are worth as much as they are fresh. */
void pk_socket_recorder_hear(struct pk_socket_recorder *recorder);

/* Writes every open run and every identity that was held back. */
void pk_socket_recorder_flush(struct pk_socket_recorder *recorder);

#endif
