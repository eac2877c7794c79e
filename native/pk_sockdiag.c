#include "pk_sockdiag.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>

_Static_assert(sizeof(struct nlmsghdr) + sizeof(struct inet_diag_req_v2) == PK_SOCKDIAG_GET_BYTES,
               "an exact request has a fixed size");

/* Where struct tcp_info holds each counter. The struct only ever grows at its end, so offsets serve
 * every kernel and every version of the headers; fields before bytes_received date from Linux 2.4,
 * min_rtt and data_segs from 4.6, busy_time 4.9, bytes_sent 4.19, rcv_ooopack 5.4, snd_wnd 5.5. */
static const struct {
    uint16_t offset;
    uint8_t size_bytes;
    uint8_t counter;
} TCP_INFO_FIELDS[] = {
    {24, 4, PK_SOCKET_UNACKED},
    {44, 4, PK_SOCKET_LAST_SENT_MS},
    {52, 4, PK_SOCKET_LAST_RECEIVED_MS},
    {56, 4, PK_SOCKET_LAST_ACK_RECEIVED_MS},
    {68, 4, PK_SOCKET_RTT_US},
    {96, 4, PK_SOCKET_RCV_SPACE_BYTES},
    {100, 4, PK_SOCKET_RETRANSMITS},
    {128, 8, PK_SOCKET_BYTES_RECEIVED},
    {148, 4, PK_SOCKET_MIN_RTT_US},
    {152, 4, PK_SOCKET_DATA_SEGMENTS_IN},
    {156, 4, PK_SOCKET_DATA_SEGMENTS_OUT},
    {160, 8, PK_SOCKET_DELIVERY_RATE},
    {168, 8, PK_SOCKET_BUSY_US},
    {176, 8, PK_SOCKET_RWND_LIMITED_US},
    {184, 8, PK_SOCKET_SNDBUF_LIMITED_US},
    {200, 8, PK_SOCKET_BYTES_SENT},
    {224, 4, PK_SOCKET_OUT_OF_ORDER},
    {228, 4, PK_SOCKET_SEND_WINDOW_BYTES},
};

static const uint8_t V4_MAPPED[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void write_header(uint8_t *ret, size_t size_bytes, uint16_t type, uint32_t sequence)
{
    const bool is_dump = type == TCPDIAG_GETSOCK;
    const struct nlmsghdr header = {
        .nlmsg_len = (uint32_t)size_bytes,
        .nlmsg_type = type,
        .nlmsg_flags = (uint16_t)(is_dump ? NLM_F_REQUEST | NLM_F_DUMP : NLM_F_REQUEST),
        .nlmsg_seq = sequence,
    };
    memcpy(ret, &header, sizeof header);
}

void pk_sockdiag_write_get(const struct pk_socket_key *key, uint32_t sequence, uint8_t *ret)
{
    struct inet_diag_req_v2 request = {
        .sdiag_family = key->family,
        .sdiag_protocol = IPPROTO_TCP,
        .idiag_ext = 1 << (INET_DIAG_INFO - 1),
        .idiag_states = UINT32_MAX,
        .id = {
            .idiag_sport = htons(key->local_port),
            .idiag_dport = htons(key->peer_port),
            .idiag_if = key->interface,
            .idiag_cookie = {(uint32_t)key->cookie, (uint32_t)(key->cookie >> 32)},
        },
    };
    const bool is_v4 = key->family == AF_INET;
    memcpy(request.id.idiag_src, is_v4 ? key->local + 12 : key->local, is_v4 ? 4 : 16);
    memcpy(request.id.idiag_dst, is_v4 ? key->peer + 12 : key->peer, is_v4 ? 4 : 16);
    write_header(ret, PK_SOCKDIAG_GET_BYTES, SOCK_DIAG_BY_FAMILY, sequence);
    memcpy(ret + sizeof(struct nlmsghdr), &request, sizeof request);
}

/* Kernel bytecode "local port is one of": per port [S_GE][port][S_LE][port] and, but for the last,
 * a jump to the end. A failed test jumps to the next port's block, the last one's beyond the end,
 * which rejects. (S_EQ would be shorter, and is newer.) */
static size_t write_port_filter(const uint16_t *ports, size_t port_count, uint8_t *ret)
{
    enum { TEST_BYTES = 16, JUMP_BYTES = 4, BLOCK_BYTES = TEST_BYTES + JUMP_BYTES };
    const size_t total = port_count * BLOCK_BYTES - JUMP_BYTES;
    for (size_t index = 0; index < port_count; index++) {
        uint8_t *block = ret + index * BLOCK_BYTES;
        const size_t jump_at = index * BLOCK_BYTES + TEST_BYTES;
        const struct inet_diag_bc_op operations[5] = {
            {INET_DIAG_BC_S_GE, 8, BLOCK_BYTES},
            {0, 0, ports[index]},
            {INET_DIAG_BC_S_LE, 8, BLOCK_BYTES - 8},
            {0, 0, ports[index]},
            {INET_DIAG_BC_JMP, JUMP_BYTES, (uint16_t)(total - jump_at)},
        };
        const bool is_last = index + 1 == port_count;
        memcpy(block, operations, is_last ? TEST_BYTES : BLOCK_BYTES);
    }
    return total;
}

size_t pk_sockdiag_write_dump(const struct pk_dump_query *query, uint32_t sequence, uint8_t *ret)
{
    /* The older request (type TCPDIAG_GETSOCK) is the only one that lists both families in one
     * walk over the kernel's hash table; the walk is what a dump costs. */
    const struct inet_diag_req request = {
        .idiag_family = AF_INET,
        .idiag_ext = query->with_counters ? 1 << (INET_DIAG_INFO - 1) : 0,
        .idiag_states = query->states,
    };
    size_t used = sizeof(struct nlmsghdr);
    memcpy(ret + used, &request, sizeof request);
    used += NLMSG_ALIGN(sizeof request);
    const size_t port_count =
        query->port_count > PK_SOCKDIAG_PORT_LIMIT ? PK_SOCKDIAG_PORT_LIMIT : query->port_count;
    if (port_count > 0) {
        const size_t filter_bytes =
            write_port_filter(query->ports, port_count, ret + used + sizeof(struct rtattr));
        const struct rtattr attribute = {
            .rta_len = (uint16_t)(sizeof(struct rtattr) + filter_bytes),
            .rta_type = INET_DIAG_REQ_BYTECODE,
        };
        memcpy(ret + used, &attribute, sizeof attribute);
        used += sizeof attribute + filter_bytes;
    }
    write_header(ret, used, TCPDIAG_GETSOCK, sequence);
    return used;
}

static int64_t read_unsigned(const uint8_t *bytes, size_t size_bytes)
{
    if (size_bytes == 4) {
        uint32_t value;
        memcpy(&value, bytes, sizeof value);
        return (int64_t)value;
    }
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value > INT64_MAX ? INT64_MAX : (int64_t)value;
}

void pk_sockdiag_read_tcp_info(const uint8_t *bytes, size_t size_bytes, int64_t *counters)
{
    for (size_t index = 0; index < sizeof TCP_INFO_FIELDS / sizeof *TCP_INFO_FIELDS; index++) {
        const size_t end =
            (size_t)TCP_INFO_FIELDS[index].offset + TCP_INFO_FIELDS[index].size_bytes;
        if (end <= size_bytes) {
            counters[TCP_INFO_FIELDS[index].counter] = read_unsigned(
                bytes + TCP_INFO_FIELDS[index].offset, TCP_INFO_FIELDS[index].size_bytes);
        }
    }
    if (counters[PK_SOCKET_MIN_RTT_US] == (int64_t)UINT32_MAX) { /* the kernel's "none yet" */
        counters[PK_SOCKET_MIN_RTT_US] = PK_SOCKET_MISSING;
    }
}

static void read_address(uint8_t family, const void *words, uint8_t *ret)
{
    if (family == AF_INET) {
        memcpy(ret, V4_MAPPED, sizeof V4_MAPPED);
        memcpy(ret + 12, words, 4);
    } else {
        memcpy(ret, words, 16);
    }
}

static bool read_fact(const uint8_t *bytes, size_t size_bytes, struct pk_socket_fact *ret)
{
    struct inet_diag_msg message;
    if (size_bytes < sizeof message) {
        return false;
    }
    memcpy(&message, bytes, sizeof message);
    if (message.idiag_family != AF_INET && message.idiag_family != AF_INET6) {
        return false;
    }
    memset(ret, 0, sizeof *ret);
    ret->key.family = message.idiag_family;
    read_address(message.idiag_family, message.id.idiag_src, ret->key.local);
    read_address(message.idiag_family, message.id.idiag_dst, ret->key.peer);
    ret->key.local_port = ntohs(message.id.idiag_sport);
    ret->key.peer_port = ntohs(message.id.idiag_dport);
    ret->key.interface = message.id.idiag_if;
    ret->key.cookie =
        (uint64_t)message.id.idiag_cookie[1] << 32 | (uint64_t)message.id.idiag_cookie[0];
    ret->state = message.idiag_state;
    ret->inode = (int64_t)message.idiag_inode;
    for (size_t index = 0; index < PK_SOCKET_COUNTER_COUNT; index++) {
        ret->counters[index] = PK_SOCKET_MISSING;
    }
    ret->counters[PK_SOCKET_RECEIVE_QUEUE_BYTES] = (int64_t)message.idiag_rqueue;
    ret->counters[PK_SOCKET_SEND_QUEUE_BYTES] = (int64_t)message.idiag_wqueue;

    size_t position = NLMSG_ALIGN(sizeof message);
    while (position + sizeof(struct rtattr) <= size_bytes) {
        struct rtattr attribute;
        memcpy(&attribute, bytes + position, sizeof attribute);
        if (attribute.rta_len < sizeof attribute || attribute.rta_len > size_bytes - position) {
            break;
        }
        if (attribute.rta_type == INET_DIAG_INFO) {
            pk_sockdiag_read_tcp_info(bytes + position + sizeof attribute,
                                      attribute.rta_len - sizeof attribute, ret->counters);
        }
        position += RTA_ALIGN((size_t)attribute.rta_len);
    }
    return true;
}

static int read_error(const uint8_t *bytes, size_t size_bytes)
{
    int32_t value = 0;
    if (size_bytes >= sizeof value) {
        memcpy(&value, bytes, sizeof value);
    }
    return value < 0 && value > -4096 ? -value : 0;
}

size_t pk_sockdiag_read(const uint8_t *bytes, size_t size_bytes, struct pk_reply *ret)
{
    struct nlmsghdr header;
    if (size_bytes < sizeof header) {
        return 0;
    }
    memcpy(&header, bytes, sizeof header);
    if (header.nlmsg_len < sizeof header || header.nlmsg_len > size_bytes) {
        return 0;
    }
    const uint8_t *payload = bytes + sizeof header;
    const size_t payload_bytes = header.nlmsg_len - sizeof header;
    ret->kind = PK_REPLY_OTHER;
    ret->sequence = header.nlmsg_seq;
    ret->error = 0;
    if (header.nlmsg_type == NLMSG_DONE) {
        ret->kind = PK_REPLY_DONE;
        ret->error = read_error(payload, payload_bytes);
    } else if (header.nlmsg_type == NLMSG_ERROR) {
        ret->kind = PK_REPLY_ERROR;
        ret->error = read_error(payload, payload_bytes);
    } else if (header.nlmsg_type == SOCK_DIAG_BY_FAMILY || header.nlmsg_type == TCPDIAG_GETSOCK) {
        ret->kind = read_fact(payload, payload_bytes, &ret->fact) ? PK_REPLY_FACT : PK_REPLY_OTHER;
    }
    const size_t step = NLMSG_ALIGN((size_t)header.nlmsg_len);
    return step > size_bytes ? size_bytes : step;
}
