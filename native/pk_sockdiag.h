/* NETLINK_SOCK_DIAG messages: requests out of values, values out of replies. No I/O here.
 *
 * Replies are hostile input: every length is checked, and nothing is read beyond the buffer given.
 * Addresses are 16 bytes in network order; those of IPv4 sockets are held v4-mapped. Ports are in
 * host order. A counter that the kernel did not report is PK_SOCKET_MISSING. */
#ifndef PK_SOCKDIAG_H
#define PK_SOCKDIAG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PK_SOCKET_MISSING = -1,
    PK_SOCKDIAG_PORT_LIMIT = 64,
    PK_SOCKDIAG_GET_BYTES = 72,    /* one exact request */
    PK_SOCKDIAG_DUMP_BYTES = 2048, /* room for a dump request with PK_SOCKDIAG_PORT_LIMIT ports */
};

enum pk_tcp_state {
    PK_TCP_ESTABLISHED = 1,
    PK_TCP_TIME_WAIT = 6,
    PK_TCP_LISTEN = 10,
};

enum {
    /* ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING: all that
     * have an owner; TIME_WAIT, CLOSE and half-open requests have none. */
    PK_TCP_OWNED_STATES = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11,
    PK_TCP_CONNECTED_STATES = PK_TCP_OWNED_STATES & ~(1 << 10 | 1 << 2),
};

/* In the order of the columns of the table socket_runs. */
enum pk_socket_counter {
    PK_SOCKET_RECEIVE_QUEUE_BYTES,
    PK_SOCKET_SEND_QUEUE_BYTES,
    PK_SOCKET_LAST_SENT_MS,
    PK_SOCKET_LAST_RECEIVED_MS,
    PK_SOCKET_LAST_ACK_RECEIVED_MS,
    PK_SOCKET_BYTES_SENT,
    PK_SOCKET_BYTES_RECEIVED,
    PK_SOCKET_DATA_SEGMENTS_OUT,
    PK_SOCKET_DATA_SEGMENTS_IN,
    PK_SOCKET_RTT_US,
    PK_SOCKET_MIN_RTT_US,
    PK_SOCKET_RETRANSMITS,
    PK_SOCKET_OUT_OF_ORDER,
    PK_SOCKET_RWND_LIMITED_US,
    PK_SOCKET_SNDBUF_LIMITED_US,
    PK_SOCKET_BUSY_US,
    PK_SOCKET_UNACKED,
    PK_SOCKET_SEND_WINDOW_BYTES,
    PK_SOCKET_RCV_SPACE_BYTES,
    PK_SOCKET_DELIVERY_RATE,
    PK_SOCKET_COUNTER_COUNT,
};

/* What names a socket to the kernel; the cookie tells a reused 4-tuple apart. */
struct pk_socket_key {
    uint8_t family; /* AF_INET or AF_INET6 */
    uint8_t local[16];
    uint8_t peer[16];
    uint16_t local_port;
    uint16_t peer_port;
    uint32_t interface;
    uint64_t cookie;
};

struct pk_socket_fact {
    struct pk_socket_key key;
    uint8_t state;
    int64_t inode; /* 0: no process holds it (not accepted yet, or closed) */
    int64_t counters[PK_SOCKET_COUNTER_COUNT];
};

enum pk_reply_kind {
    PK_REPLY_FACT,
    PK_REPLY_DONE,
    PK_REPLY_ERROR,
    PK_REPLY_OTHER,
};

struct pk_reply {
    enum pk_reply_kind kind;
    uint32_t sequence;
    int error; /* errno value of PK_REPLY_ERROR and PK_REPLY_DONE, 0 none */
    struct pk_socket_fact fact;
};

struct pk_dump_query {
    uint32_t states;  /* bit mask of TCP states */
    bool with_counters;
    uint16_t ports[PK_SOCKDIAG_PORT_LIMIT]; /* local ports wanted; none: all */
    size_t port_count;
};

/* Writes the exact request for one socket; ret has PK_SOCKDIAG_GET_BYTES bytes. */
void pk_sockdiag_write_get(const struct pk_socket_key *key, uint32_t sequence, uint8_t *ret);

/* Writes a dump request for IPv4 and IPv6 in one walk; ret has PK_SOCKDIAG_DUMP_BYTES bytes.
 * Returns the bytes used. */
size_t pk_sockdiag_write_dump(const struct pk_dump_query *query, uint32_t sequence, uint8_t *ret);

/* Reads the message at the front of bytes. Returns the bytes to step over, 0 when what is left is
 * no whole message (stop then). */
size_t pk_sockdiag_read(const uint8_t *bytes, size_t size_bytes, struct pk_reply *ret);

/* Copies what both the kernel and this reader know of a tcp_info of size_bytes into counters. */
void pk_sockdiag_read_tcp_info(const uint8_t *bytes, size_t size_bytes, int64_t *counters);

#endif
