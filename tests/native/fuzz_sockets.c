/* Feeds damaged netlink datagrams to the parser and random life to the table, under the sanitizers.
 * Arguments: seed, rounds. Prints "ok" and counts; any fault aborts. */
#include "pk_sockdiag.h"
#include "pk_socket_address.h"
#include "pk_socket_batch.h"
#include "pk_socket_peers.h"
#include "pk_socket_table.h"

#include <assert.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;

static uint32_t draw(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16) % limit;
}

static size_t write_valid(uint8_t *ret)
{
    const uint32_t info_bytes = draw(300);
    const struct rtattr attribute = {
        .rta_len = (uint16_t)(sizeof attribute + info_bytes),
        .rta_type = (uint16_t)(draw(3) == 0 ? draw(40) : INET_DIAG_INFO),
    };
    const size_t total = sizeof(struct nlmsghdr) + sizeof(struct inet_diag_msg) + sizeof attribute +
                         RTA_ALIGN(info_bytes);
    for (size_t index = 0; index < total; index++) {
        ret[index] = (uint8_t)draw(256);
    }
    const struct nlmsghdr header = {.nlmsg_len = (uint32_t)total,
                                    .nlmsg_type = (uint16_t)(draw(8) == 0 ? draw(25) : 20)};
    memcpy(ret, &header, sizeof header);
    ret[sizeof header] = draw(2) == 0 ? 2 : 10;
    memcpy(ret + sizeof header + sizeof(struct inet_diag_msg), &attribute, sizeof attribute);
    return total;
}

static size_t parse(const uint8_t *bytes, size_t size_bytes)
{
    uint8_t *exact = malloc(size_bytes == 0 ? 1 : size_bytes); /* so that any overrun is seen */
    memcpy(exact, bytes, size_bytes);
    size_t facts = 0;
    for (size_t position = 0; position < size_bytes;) {
        struct pk_reply reply;
        const size_t step = pk_sockdiag_read(exact + position, size_bytes - position, &reply);
        assert(step <= size_bytes - position);
        if (step == 0) {
            break;
        }
        if (reply.kind == PK_REPLY_FACT) {
            uint8_t request[PK_SOCKDIAG_GET_BYTES];
            pk_sockdiag_write_get(&reply.fact.key, 1, request);
            facts += 1;
        }
        position += step;
    }
    free(exact);
    return facts;
}

static size_t fuzz_parser(uint32_t rounds)
{
    size_t facts = 0;
    uint8_t bytes[4096];
    for (uint32_t round = 0; round < rounds; round++) {
        size_t size_bytes = write_valid(bytes);
        size_bytes += draw(2) == 0 ? write_valid(bytes + size_bytes) : 0;
        const uint32_t damage = draw(6);
        for (uint32_t count = 0; count < damage; count++) {
            bytes[draw(draw(2) == 0 ? 100 : (uint32_t)size_bytes)] = (uint8_t)draw(256);
        }
        facts += parse(bytes, draw(3) == 0 ? draw((uint32_t)size_bytes + 1) : size_bytes);
    }
    return facts;
}

static void fuzz_requests(uint32_t rounds)
{
    for (uint32_t round = 0; round < rounds; round++) {
        uint8_t request[PK_SOCKDIAG_DUMP_BYTES];
        struct pk_dump_query query = {.port_count = draw(PK_SOCKDIAG_PORT_LIMIT + 8)};
        const size_t used = pk_sockdiag_write_dump(&query, round, request);
        assert(used <= sizeof request);
        char text[PK_SOCKET_ADDRESS_BYTES];
        pk_socket_address_write((int64_t)state, (int64_t)(state * 7), draw(65536), text);
        assert(strlen(text) < sizeof text);
    }
}

/* The table against a plain list of the cookies that should be in it. */
static size_t fuzz_table(uint32_t rounds)
{
    enum { CAPACITY = 300, SPACE = 600 };
    struct pk_socket_table table;
    uint8_t known[SPACE] = {0};
    size_t refused = 0;
    assert(pk_socket_table_init(&table, CAPACITY, 16) == 0);
    for (uint32_t round = 0; round < rounds; round++) {
        const uint32_t number = draw(SPACE);
        const uint64_t cookie = number;
        struct pk_socket_entry *entry = pk_socket_table_find(&table, cookie);
        assert((entry != NULL) == (known[number] != 0));
        if (entry != NULL && draw(2) == 0) {
            pk_socket_table_remove(&table, entry);
            known[number] = 0;
        } else if (entry == NULL) {
            struct pk_socket_fact fact = {.key = {.family = 2, .cookie = cookie}};
            fact.key.local_port = (uint16_t)draw(20);
            const enum pk_socket_role role =
                draw(4) == 0 ? PK_SOCKET_LISTENER : PK_SOCKET_OUTGOING;
            known[number] = pk_socket_table_add(&table, &fact, role, 1) != NULL;
            refused += known[number] == 0;
        }
        if (draw(50) == 0) {
            pk_socket_table_shuffle(&table, &state);
        }
        uint16_t ports[8];
        assert(pk_socket_table_ports(&table, ports, 8) <= 8);
    }
    size_t left = 0;
    for (uint32_t number = 0; number < SPACE; number++) {
        assert((pk_socket_table_find(&table, number) != NULL) == (known[number] != 0));
        left += known[number];
    }
    assert(left == table.connections.count + table.listeners.count);
    assert((int64_t)refused == table.refused_count);
    for (uint32_t position = 0; position < table.connections.count; position++) {
        assert(table.entries[table.connections.ids[position]].order_position == position);
    }
    pk_socket_table_deinit(&table);
    return refused;
}

static void count_stranger(void *context, const struct pk_socket_stranger *stranger)
{
    assert(stranger->closed_ns != 0);
    *(size_t *)context += 1;
}

/* Strangers to noted peers come back once, and never more than are kept. */
static void fuzz_peers(uint32_t rounds)
{
    struct pk_socket_peers peers;
    assert(pk_socket_peers_init(&peers) == 0);
    size_t recalled = 0;
    size_t kept = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        struct pk_socket_fact fact = {.key = {.family = 2, .peer_port = (uint16_t)draw(200)}};
        fact.key.peer[15] = (uint8_t)draw(3);
        if (draw(40) == 0) {
            pk_socket_peers_note(&peers, &fact.key);
            assert(pk_socket_peers_has(&peers, &fact.key) ||
                   peers.peer_count == PK_SOCKET_PEER_LIMIT);
        } else if (draw(100) == 0) {
            pk_socket_peers_recall(&peers, count_stranger, &recalled);
            const size_t before = recalled;
            pk_socket_peers_recall(&peers, count_stranger, &recalled);
            assert(recalled == before);
        } else if (!pk_socket_peers_has(&peers, &fact.key)) {
            pk_socket_peers_keep(&peers, &fact, round + 1);
            kept += 1;
        }
        assert(recalled <= kept);
    }
    pk_socket_peers_deinit(&peers);
}

static void fuzz_rows(uint32_t rounds)
{
    struct pk_socket_rows from;
    struct pk_socket_rows to;
    assert(pk_socket_rows_init(&from, 2, 7) == 0 && pk_socket_rows_init(&to, 2, 13) == 0);
    int64_t appended = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        pk_socket_rows_append(&from, (const int64_t[]){round, -(int64_t)round});
        appended += 1;
        if (draw(5) == 0) {
            pk_socket_rows_move(&from, &to);
        }
        if (draw(15) == 0) {
            assert((int64_t)(to.row_count + from.row_count) + to.dropped_count +
                       from.dropped_count == appended);
            appended = (int64_t)from.row_count + from.dropped_count;
            pk_socket_rows_clear(&to);
        }
    }
    pk_socket_rows_deinit(&from);
    pk_socket_rows_deinit(&to);
}

int main(int count, char **arguments)
{
    assert(count == 3);
    state = strtoull(arguments[1], NULL, 10) * 2 + 1;
    const uint32_t rounds = (uint32_t)strtoul(arguments[2], NULL, 10);
    const size_t facts = fuzz_parser(rounds);
    fuzz_requests(rounds / 10);
    const size_t refused = fuzz_table(rounds);
    fuzz_rows(rounds);
    fuzz_peers(rounds);
    assert(facts > 0 && refused > 0);
    printf("ok %zu facts, %zu refused\n", facts, refused);
    return 0;
}
