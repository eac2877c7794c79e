/* The conversation with the kernel's socket diagnosis. One thread uses a query at a time; it may
 * block in a system call, so no lock may be held across any call here. */
#ifndef PK_SOCKET_QUERY_H
#define PK_SOCKET_QUERY_H
#include "pk_sockdiag.h"

#include <sys/socket.h>

#include <linux/netlink.h>

enum {
    PK_SOCKET_QUERY_BATCH = 32,
    PK_SOCKET_QUERY_REPLY_BYTES = 1024, /* one exact reply is about 400 bytes */
    PK_SOCKET_QUERY_BUFFER_BYTES = 32768,
};

_Static_assert(PK_SOCKET_QUERY_BATCH * PK_SOCKET_QUERY_REPLY_BYTES <= PK_SOCKET_QUERY_BUFFER_BYTES,
               "the answers of a batch fit the buffer");

struct pk_socket_query {
    int descriptor;        /* requests and dumps, -1 none */
    int closed_descriptor; /* multicast of destroyed TCP sockets, -1 refused */
    int closed_error;      /* why it was refused, 0 if it was not */
    uint32_t sequence;
    int64_t lost_count; /* times the kernel dropped messages to us */
    uint8_t buffer[PK_SOCKET_QUERY_BUFFER_BYTES]; /* one datagram of a dump, or a batch's answers */
    size_t sizes_bytes[PK_SOCKET_QUERY_BATCH];
    struct sockaddr_nl senders[PK_SOCKET_QUERY_BATCH];
    uint8_t requests[PK_SOCKET_QUERY_BATCH * PK_SOCKDIAG_GET_BYTES];
};

struct pk_socket_answer {
    int error; /* 0 fact holds; ENOENT, ESTALE: the socket is gone; EAGAIN: no answer came */
    struct pk_socket_fact fact;
};

typedef void (*pk_socket_visit)(void *context, const struct pk_socket_fact *fact);

/* Opens the sockets in the calling thread's network namespace. Returns 0 or errno; a refused
 * multicast group is no error, see closed_error. */
int pk_socket_query_init(struct pk_socket_query *query);
void pk_socket_query_deinit(struct pk_socket_query *query);

/* Asks for count <= PK_SOCKET_QUERY_BATCH sockets; ret has count answers. Returns 0 or errno. */
int pk_socket_query_get(struct pk_socket_query *query, const struct pk_socket_key *const *keys,
                        size_t count, struct pk_socket_answer *ret);

/* Lists sockets, at most row_limit of them and within limit_ns. Returns 0, or errno (ETIMEDOUT,
 * E2BIG: what was visited is a part only). */
int pk_socket_query_dump(struct pk_socket_query *query, const struct pk_dump_query *wanted,
                         pk_socket_visit visit, void *context);

/* Visits the sockets destroyed since the last call, at most message_limit. Never blocks. */
void pk_socket_query_drain_closed(struct pk_socket_query *query, size_t message_limit,
                                  pk_socket_visit visit, void *context);

int64_t pk_clock_ns(void);     /* CLOCK_MONOTONIC */
int64_t pk_thread_cpu_ns(void); /* CPU time of the calling thread */

#endif
