#include "pk_socket_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static uint32_t home_slot(const struct pk_socket_table *table, uint64_t cookie)
{
    return (uint32_t)((cookie * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & table->slot_mask;
}

int pk_socket_table_init(struct pk_socket_table *table, uint32_t capacity, size_t inode_capacity)
{
    memset(table, 0, sizeof *table);
    uint32_t slot_count = 64;
    while (slot_count < 2 * capacity) {
        slot_count *= 2;
    }
    table->capacity = capacity;
    table->slot_mask = slot_count - 1;
    table->inode_capacity = inode_capacity;
    table->entries = calloc(capacity, sizeof *table->entries);
    table->slots = calloc(slot_count, sizeof *table->slots);
    table->connections.ids = calloc(capacity, sizeof *table->connections.ids);
    table->listeners.ids = calloc(PK_SOCKET_LISTENER_LIMIT, sizeof *table->listeners.ids);
    table->inodes = calloc(inode_capacity, sizeof *table->inodes);
    if (table->entries == NULL || table->slots == NULL || table->connections.ids == NULL ||
        table->listeners.ids == NULL || table->inodes == NULL) {
        pk_socket_table_deinit(table);
        return ENOMEM;
    }
    for (uint32_t id = 0; id < capacity; id++) {
        table->entries[id].next_free = id + 1;
    }
    return 0;
}

void pk_socket_table_deinit(struct pk_socket_table *table)
{
    free(table->entries);
    free(table->slots);
    free(table->connections.ids);
    free(table->listeners.ids);
    free(table->inodes);
    memset(table, 0, sizeof *table);
}

static int compare_inodes(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left;
    const int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

void pk_socket_table_set_inodes(struct pk_socket_table *table, const int64_t *inodes, size_t count)
{
    table->inode_count = count > table->inode_capacity ? table->inode_capacity : count;
    memcpy(table->inodes, inodes, table->inode_count * sizeof *inodes);
    qsort(table->inodes, table->inode_count, sizeof *table->inodes, compare_inodes);
}

struct pk_socket_entry *pk_socket_table_find(const struct pk_socket_table *table, uint64_t cookie)
{
    uint32_t slot = home_slot(table, cookie);
    while (table->slots[slot] != 0) {
        struct pk_socket_entry *entry = &table->entries[table->slots[slot] - 1];
        if (entry->fact.key.cookie == cookie) {
            return entry;
        }
        slot = (slot + 1) & table->slot_mask;
    }
    return NULL;
}

static bool is_wildcard(const struct pk_socket_key *key)
{
    static const uint8_t ZERO[16] = {0};
    return key->family == AF_INET ? memcmp(key->local + 12, ZERO, 4) == 0
                                                     : memcmp(key->local, ZERO, 16) == 0;
}

/* A child keeps the address family of the socket that accepted it: on a dual-stack listener also
 * those of IPv4 clients are AF_INET6, with v4-mapped addresses. */
static bool is_accepted_by(const struct pk_socket_key *listener, const struct pk_socket_key *child)
{
    return listener->local_port == child->local_port && listener->family == child->family &&
           (is_wildcard(listener) || memcmp(listener->local, child->local, 16) == 0);
}

void pk_socket_table_set_shared_ports(struct pk_socket_table *table, const uint16_t *ports,
                                      size_t count)
{
    table->shared_port_count = count > PK_SOCKET_LISTENER_LIMIT ? PK_SOCKET_LISTENER_LIMIT : count;
    memcpy(table->shared_ports, ports, table->shared_port_count * sizeof *ports);
}

bool pk_socket_table_is_shared(const struct pk_socket_table *table,
                               const struct pk_socket_fact *fact)
{
    for (size_t index = 0; index < table->shared_port_count; index++) {
        if (table->shared_ports[index] == fact->key.local_port) {
            return true;
        }
    }
    return false;
}

enum pk_socket_role pk_socket_table_role(const struct pk_socket_table *table,
                                         const struct pk_socket_fact *fact)
{
    const bool is_held = fact->inode != 0 &&
                         bsearch(&fact->inode, table->inodes, table->inode_count,
                                 sizeof *table->inodes, compare_inodes) != NULL;
    if (fact->state == PK_TCP_LISTEN) {
        return is_held ? PK_SOCKET_LISTENER : PK_SOCKET_NONE;
    }
    for (uint32_t position = 0; position < table->listeners.count; position++) {
        const uint32_t id = table->listeners.ids[position];
        if (is_accepted_by(&table->entries[id].fact.key, &fact->key)) {
            return is_held || !pk_socket_table_is_shared(table, fact) ? PK_SOCKET_ACCEPTED
                                                                      : PK_SOCKET_NONE;
        }
    }
    return is_held ? PK_SOCKET_OUTGOING : PK_SOCKET_NONE;
}

struct pk_socket_entry *pk_socket_table_add(struct pk_socket_table *table,
                                            const struct pk_socket_fact *fact,
                                            enum pk_socket_role role, int64_t now_ns)
{
    struct pk_socket_order *order =
        role == PK_SOCKET_LISTENER ? &table->listeners : &table->connections;
    if (table->free_id == table->capacity ||
        (role == PK_SOCKET_LISTENER && order->count == PK_SOCKET_LISTENER_LIMIT)) {
        table->refused_count += 1;
        return NULL;
    }
    const uint32_t id = table->free_id;
    struct pk_socket_entry *entry = &table->entries[id];
    table->free_id = entry->next_free;
    memset(entry, 0, sizeof *entry);
    entry->fact = *fact;
    entry->role = role;
    entry->index = table->next_index++;
    entry->first_seen_ns = now_ns;
    entry->order_position = order->count;
    order->ids[order->count++] = id;

    uint32_t slot = home_slot(table, fact->key.cookie);
    while (table->slots[slot] != 0) {
        slot = (slot + 1) & table->slot_mask;
    }
    table->slots[slot] = id + 1;
    return entry;
}

/* Empties a slot and moves later ones of its cluster up, so that no probe meets a hole. */
static void clear_slot(struct pk_socket_table *table, uint32_t hole)
{
    uint32_t slot = hole;
    for (;;) {
        slot = (slot + 1) & table->slot_mask;
        if (table->slots[slot] == 0) {
            break;
        }
        const struct pk_socket_entry *moved = &table->entries[table->slots[slot] - 1];
        const uint32_t home = home_slot(table, moved->fact.key.cookie);
        if (((slot - home) & table->slot_mask) >= ((slot - hole) & table->slot_mask)) {
            table->slots[hole] = table->slots[slot];
            hole = slot;
        }
    }
    table->slots[hole] = 0;
}

void pk_socket_table_remove(struct pk_socket_table *table, struct pk_socket_entry *entry)
{
    const uint32_t id = (uint32_t)(entry - table->entries);
    struct pk_socket_order *order =
        entry->role == PK_SOCKET_LISTENER ? &table->listeners : &table->connections;
    const uint32_t last_id = order->ids[order->count - 1];
    order->ids[entry->order_position] = last_id;
    table->entries[last_id].order_position = entry->order_position;
    order->count -= 1;

    uint32_t slot = home_slot(table, entry->fact.key.cookie);
    while (table->slots[slot] != id + 1) {
        slot = (slot + 1) & table->slot_mask;
    }
    clear_slot(table, slot);
    entry->next_free = table->free_id;
    table->free_id = id;
}

size_t pk_socket_table_ports(const struct pk_socket_table *table, uint16_t *ret, size_t limit)
{
    size_t count = 0;
    for (uint32_t position = 0; position < table->listeners.count && count < limit; position++) {
        const uint32_t id = table->listeners.ids[position];
        const uint16_t port = table->entries[id].fact.key.local_port;
        size_t known = 0;
        while (known < count && ret[known] != port) {
            known += 1;
        }
        if (known == count) {
            ret[count++] = port;
        }
    }
    return count;
}

void pk_socket_table_shuffle(struct pk_socket_table *table, uint64_t *state)
{
    uint32_t *ids = table->connections.ids;
    for (uint32_t left = table->connections.count; left > 1; left--) {
        *state ^= *state << 13; /* xorshift64 */
        *state ^= *state >> 7;
        *state ^= *state << 17;
        const uint32_t chosen = (uint32_t)(*state % left);
        const uint32_t id = ids[chosen];
        ids[chosen] = ids[left - 1];
        ids[left - 1] = id;
        table->entries[ids[left - 1]].order_position = left - 1;
        table->entries[ids[chosen]].order_position = chosen;
    }
}
