#include "pk_socket_query.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    DUMP_ROW_LIMIT = 2000000,
    CLOSED_BUFFER_BYTES = 8 << 20,
    ATTEMPT_LIMIT = 4,
};

static const int64_t DUMP_LIMIT_NS = 2000000000;

static int64_t read_clock_ns(clockid_t clock)
{
    struct timespec now = {0};
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t pk_clock_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

int64_t pk_thread_cpu_ns(void)
{
    return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int open_diagnosis(uint32_t groups, int *ret)
{
    const int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (descriptor < 0) {
        return errno;
    }
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    const struct timeval timeout = {.tv_usec = 200000};
    if (bind(descriptor, (const struct sockaddr *)&address, sizeof address) != 0 ||
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) != 0) {
        const int error = errno;
        close(descriptor);
        return error;
    }
    *ret = descriptor;
    return 0;
}

int pk_socket_query_init(struct pk_socket_query *query)
{
    memset(query, 0, sizeof *query);
    query->descriptor = -1;
    query->closed_descriptor = -1;
    const int error = open_diagnosis(0, &query->descriptor);
    if (error != 0) {
        return error;
    }
    const uint32_t groups =
        1u << (SKNLGRP_INET_TCP_DESTROY - 1) | 1u << (SKNLGRP_INET6_TCP_DESTROY - 1);
    query->closed_error = open_diagnosis(groups, &query->closed_descriptor);
    if (query->closed_error == 0) {
        const int size_bytes = CLOSED_BUFFER_BYTES;
        /* Beyond the host's limit needs CAP_NET_ADMIN; without it the usual buffer has to do. */
        (void)setsockopt(query->closed_descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size_bytes,
                         sizeof size_bytes);
    }
    return 0;
}

void pk_socket_query_deinit(struct pk_socket_query *query)
{
    if (query->descriptor >= 0) {
        close(query->descriptor);
    }
    if (query->closed_descriptor >= 0) {
        close(query->closed_descriptor);
    }
    query->descriptor = -1;
    query->closed_descriptor = -1;
}

/* A new socket forgets a dump that was left in the middle and late answers. */
static int reopen(struct pk_socket_query *query)
{
    close(query->descriptor);
    query->descriptor = -1;
    return open_diagnosis(0, &query->descriptor);
}

/* Receives one datagram from the kernel (port 0), not from some process. Returns its size, 0 when
 * it is to be ignored, -1 with errno. */
static ssize_t receive(struct pk_socket_query *query, int descriptor, int flags)
{
    struct sockaddr_nl sender = {0};
    struct iovec part = {.iov_base = query->buffer, .iov_len = sizeof query->buffer};
    struct msghdr message = {
        .msg_name = &sender, .msg_namelen = sizeof sender, .msg_iov = &part, .msg_iovlen = 1};
    ssize_t size_bytes;
    do {
        size_bytes = recvmsg(descriptor, &message, flags);
    } while (size_bytes < 0 && errno == EINTR);
    if (size_bytes < 0) {
        query->lost_count += errno == ENOBUFS;
        return -1;
    }
    return sender.nl_pid == 0 ? size_bytes : 0;
}

static int send_all(int descriptor, const uint8_t *bytes, size_t size_bytes)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ssize_t sent;
    do {
        sent = sendto(descriptor, bytes, size_bytes, 0, (const struct sockaddr *)&kernel,
                      sizeof kernel);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

/* Receives what is there, at most a batch, each into its slot of the buffer. Returns how many. */
static int receive_many(struct pk_socket_query *query)
{
    struct mmsghdr messages[PK_SOCKET_QUERY_BATCH];
    struct iovec parts[PK_SOCKET_QUERY_BATCH];
    memset(messages, 0, sizeof messages);
    for (size_t place = 0; place < PK_SOCKET_QUERY_BATCH; place++) {
        parts[place].iov_base = query->buffer + place * PK_SOCKET_QUERY_REPLY_BYTES;
        parts[place].iov_len = PK_SOCKET_QUERY_REPLY_BYTES;
        messages[place].msg_hdr.msg_iov = &parts[place];
        messages[place].msg_hdr.msg_iovlen = 1;
        messages[place].msg_hdr.msg_name = &query->senders[place];
        messages[place].msg_hdr.msg_namelen = sizeof query->senders[place];
    }
    const int count =
        recvmmsg(query->descriptor, messages, PK_SOCKET_QUERY_BATCH, MSG_DONTWAIT, NULL);
    query->lost_count += count < 0 && errno == ENOBUFS;
    for (int place = 0; place < count; place++) {
        query->sizes_bytes[place] = query->senders[place].nl_pid == 0 ? messages[place].msg_len : 0;
    }
    return count;
}

/* Reads the datagram in a slot. Returns 1 if it answers one of the count requests, else 0. */
static size_t read_answer(struct pk_socket_query *query, int place, uint32_t first_sequence,
                          size_t count, struct pk_socket_answer *ret)
{
    struct pk_reply reply;
    const uint8_t *bytes = query->buffer + (size_t)place * PK_SOCKET_QUERY_REPLY_BYTES;
    if (pk_sockdiag_read(bytes, query->sizes_bytes[place], &reply) == 0) {
        return 0;
    }
    const uint32_t index = reply.sequence - first_sequence;
    if (index >= count) {
        return 0;
    }
    if (reply.kind == PK_REPLY_FACT) {
        ret[index].error = 0;
        ret[index].fact = reply.fact;
    } else if (reply.kind == PK_REPLY_ERROR) {
        ret[index].error = reply.error != 0 ? reply.error : EPROTO;
    }
    return 1;
}

int pk_socket_query_get(struct pk_socket_query *query, const struct pk_socket_key *const *keys,
                        size_t count, struct pk_socket_answer *ret)
{
    const uint32_t first_sequence = query->sequence + 1;
    query->sequence += (uint32_t)count;
    for (size_t index = 0; index < count; index++) {
        ret[index].error = EAGAIN;
        pk_sockdiag_write_get(keys[index], first_sequence + (uint32_t)index,
                              query->requests + index * PK_SOCKDIAG_GET_BYTES);
    }
    const int error = send_all(query->descriptor, query->requests, count * PK_SOCKDIAG_GET_BYTES);
    if (error != 0) {
        return error;
    }
    /* The kernel answers within the send, one datagram a request, so nothing has to be waited for.
     * Answers left over from an earlier request are stepped over. */
    size_t answer_count = 0;
    for (int attempt = 0; attempt < ATTEMPT_LIMIT && answer_count < count; attempt++) {
        const int datagram_count = receive_many(query);
        if (datagram_count <= 0) {
            break;
        }
        for (int place = 0; place < datagram_count; place++) {
            answer_count += read_answer(query, place, first_sequence, count, ret);
        }
    }
    return 0;
}

/* Visits one datagram of a dump. Returns 0 go on, -1 done, else errno. */
static int visit_datagram(struct pk_socket_query *query, size_t size_bytes, size_t *row_count,
                          pk_socket_visit visit, void *context)
{
    size_t position = 0;
    struct pk_reply reply;
    while (position < size_bytes) {
        const size_t step =
            pk_sockdiag_read(query->buffer + position, size_bytes - position, &reply);
        if (step == 0) {
            break;
        }
        position += step;
        if (reply.sequence != query->sequence) {
            continue;
        }
        if (reply.kind == PK_REPLY_DONE || reply.kind == PK_REPLY_ERROR) {
            return reply.error != 0 ? reply.error : -1;
        }
        if (reply.kind == PK_REPLY_FACT) {
            visit(context, &reply.fact);
            *row_count += 1;
        }
    }
    return 0;
}

int pk_socket_query_dump(struct pk_socket_query *query, const struct pk_dump_query *wanted,
                         pk_socket_visit visit, void *context)
{
    uint8_t request[PK_SOCKDIAG_DUMP_BYTES];
    query->sequence += 1;
    const size_t request_bytes = pk_sockdiag_write_dump(wanted, query->sequence, request);
    int error = send_all(query->descriptor, request, request_bytes);
    const int64_t deadline_ns = pk_clock_ns() + DUMP_LIMIT_NS;
    size_t row_count = 0;
    while (error == 0) {
        const ssize_t size_bytes = receive(query, query->descriptor, 0);
        if (size_bytes < 0) {
            error = errno;
        } else {
            error = visit_datagram(query, (size_t)size_bytes, &row_count, visit, context);
        }
        if (error == 0 && row_count > DUMP_ROW_LIMIT) {
            error = E2BIG;
        } else if (error == 0 && pk_clock_ns() > deadline_ns) {
            error = ETIMEDOUT;
        }
    }
    if (error == -1) {
        return 0;
    }
    const int reopen_error = reopen(query);
    return reopen_error != 0 ? reopen_error : error;
}

void pk_socket_query_drain_closed(struct pk_socket_query *query, size_t message_limit,
                                  pk_socket_visit visit, void *context)
{
    if (query->closed_descriptor < 0) {
        return;
    }
    for (size_t count = 0; count < message_limit; count++) {
        const ssize_t size_bytes = receive(query, query->closed_descriptor, MSG_DONTWAIT);
        if (size_bytes < 0 && errno == ENOBUFS) {
            continue;
        }
        if (size_bytes < 0) {
            return;
        }
        struct pk_reply reply;
        if (pk_sockdiag_read(query->buffer, (size_t)size_bytes, &reply) != 0 &&
            reply.kind == PK_REPLY_FACT) {
            visit(context, &reply.fact);
        }
    }
}
