#include "pk_socket_recorder.h"
#include "pk_socket_identity.h"
#include "pk_socket_notes.h"

#include <errno.h>
#include <string.h>

enum {
    CLOSED_LIMIT = 16384, /* closed sockets looked at in one poll */
    RESTLESS_INTERVALS = 3, /* so long a change keeps listings for when inodes were just read */
};

static const int64_t PROMPT_NS = 1000000000;
static const int64_t LAST_LISTING_NS_MAX = 100000000; /* the end of a window waits for it */
static const int64_t GONE_KEPT_NS = 2000000000; /* the kernel may tell of the end a little later */

int pk_socket_recorder_init(struct pk_socket_recorder *recorder,
                            const struct pk_socket_config *config)
{
    memset(recorder, 0, sizeof *recorder);
    recorder->config = *config;
    recorder->query.descriptor = -1;
    recorder->query.closed_descriptor = -1;
    recorder->random_state = (uint64_t)pk_clock_ns() | 1;
    pk_socket_pace_init(&recorder->pace, config->poll_interval_ns, config->get_limit,
                        config->budget_ratio);
    recorder->stats.interval_ns = config->poll_interval_ns;
    int error = pk_socket_table_init(&recorder->table, config->socket_limit, config->inode_limit);
    if (error == 0) {
        pk_socket_table_set_shared_ports(&recorder->table, config->shared_ports,
                                         config->shared_port_count);
        error = pk_socket_batch_init(&recorder->fresh, config->row_limit);
    }
    if (error == 0) {
        error = pk_socket_peers_init(&recorder->peers);
    }
    if (error != 0) {
        pk_socket_batch_deinit(&recorder->fresh);
        pk_socket_table_deinit(&recorder->table);
    }
    return error;
}

void pk_socket_recorder_deinit(struct pk_socket_recorder *recorder)
{
    pk_socket_query_deinit(&recorder->query);
    pk_socket_table_deinit(&recorder->table);
    pk_socket_peers_deinit(&recorder->peers);
    pk_socket_batch_deinit(&recorder->fresh);
}

void pk_socket_recorder_set_inodes(struct pk_socket_recorder *recorder, const int64_t *inodes,
                                   size_t count)
{
    pk_socket_table_set_inodes(&recorder->table, inodes, count);
    const int64_t now_ns = pk_clock_ns();
    if (recorder->has_inodes) {
        recorder->restless_until_ns =
            now_ns + RESTLESS_INTERVALS * recorder->config.dump_interval_ns;
    }
    recorder->has_inodes = true;
    if (now_ns >= recorder->pace.listing_due_ns) {
        recorder->next_dump_ns = 0; /* what is held for a moment only is found now or never */
    }
    if (recorder->table.listeners.count == 0) {
        /* Nothing is recognised before the first listeners are. */
        recorder->pace.listing_due_ns = 0;
    }
}

/* Connections that were seen before their listener was known as the service's. */
static void claim_accepted(struct pk_socket_recorder *recorder)
{
    struct pk_socket_table *table = &recorder->table;
    for (uint32_t position = 0; position < table->connections.count; position++) {
        struct pk_socket_entry *entry = &table->entries[table->connections.ids[position]];
        if (entry->role == PK_SOCKET_OUTGOING &&
            pk_socket_table_role(table, &entry->fact) == PK_SOCKET_ACCEPTED) {
            entry->role = PK_SOCKET_ACCEPTED;
            pk_socket_tell_identity(recorder, entry);
        }
    }
}

/* Where polls read a sample only, a listing is the one look at all sockets at the same time. */
static bool is_sampling(const struct pk_socket_recorder *recorder)
{
    return recorder->table.connections.count - recorder->gone_count > recorder->pace.read_limit;
}

static void visit_found(void *context, const struct pk_socket_fact *fact)
{
    struct pk_socket_recorder *recorder = context;
    struct pk_socket_entry *entry = pk_socket_table_find(&recorder->table, fact->key.cookie);
    if (entry == NULL) {
        const enum pk_socket_role role = pk_socket_table_role(&recorder->table, fact);
        if (role == PK_SOCKET_NONE) {
            return;
        }
        entry = pk_socket_table_add(&recorder->table, fact, role, pk_clock_ns());
        if (entry == NULL) {
            return;
        }
        if (role == PK_SOCKET_LISTENER) {
            claim_accepted(recorder);
        } else if (role == PK_SOCKET_OUTGOING) {
            pk_socket_peers_note(&recorder->peers, &fact->key);
        }
    }
    if (recorder->is_counting && entry->gone_ns == 0) {
        pk_socket_note_fact(recorder, entry, fact);
        recorder->listed_count += 1;
    } else {
        pk_socket_note_inode(recorder, entry, fact->inode);
    }
}

/* A connection that was known, or the service's by where it came in or leads. */
static void tell_closed(struct pk_socket_recorder *recorder, const struct pk_socket_fact *fact,
                        enum pk_socket_role role, int64_t *row)
{
    if (role != PK_SOCKET_ACCEPTED && role != PK_SOCKET_OUTGOING) {
        return;
    }
    memcpy(row + PK_CLOSED_COUNTERS, fact->counters + PK_SOCKET_LAST_SENT_MS,
           (PK_SOCKET_COUNTER_COUNT - PK_SOCKET_LAST_SENT_MS) * sizeof *row);
    pk_socket_rows_append(&recorder->fresh.closed, row);
    recorder->prompt_until_ns = row[PK_IDENTITY_FIRST_SEEN_NS] + PROMPT_NS;
}

static enum pk_socket_role role_of_closed(struct pk_socket_recorder *recorder,
                                          const struct pk_socket_fact *fact)
{
    const enum pk_socket_role role = pk_socket_table_role(&recorder->table, fact);
    if (role != PK_SOCKET_NONE) {
        return role;
    }
    recorder->stats.unowned_count += pk_socket_table_is_shared(&recorder->table, fact);
    if (pk_socket_peers_has(&recorder->peers, &fact->key)) {
        return PK_SOCKET_OUTGOING;
    }
    pk_socket_peers_keep(&recorder->peers, fact, pk_clock_ns());
    return PK_SOCKET_NONE;
}

static void visit_closed(void *context, const struct pk_socket_fact *fact)
{
    struct pk_socket_recorder *recorder = context;
    struct pk_socket_entry *entry = pk_socket_table_find(&recorder->table, fact->key.cookie);
    enum pk_socket_role role = PK_SOCKET_NONE;
    int64_t row[PK_CLOSED_COLUMN_COUNT] = {
        [PK_IDENTITY_INDEX] = PK_SOCKET_MISSING,
        [PK_IDENTITY_INODE] = PK_SOCKET_MISSING,
        [PK_IDENTITY_FIRST_SEEN_NS] = pk_clock_ns(),
    };
    if (entry != NULL) {
        role = entry->role;
        row[PK_IDENTITY_INDEX] = entry->index;
        row[PK_IDENTITY_INODE] = entry->fact.inode != 0 ? entry->fact.inode : PK_SOCKET_MISSING;
        /* A dying socket has lost some of its addresses in some states; ours has all. */
        pk_socket_write_identity(row, &entry->fact.key, role);
        pk_socket_forget(recorder, entry);
    } else if (fact->key.peer_port != 0) { /* 0: somebody else's listener */
        role = role_of_closed(recorder, fact);
        pk_socket_write_identity(row, &fact->key, role);
    }
    tell_closed(recorder, fact, role, row);
}

static void visit_stranger(void *context, const struct pk_socket_stranger *stranger)
{
    int64_t row[PK_CLOSED_COLUMN_COUNT] = {
        [PK_IDENTITY_INDEX] = PK_SOCKET_MISSING,
        [PK_IDENTITY_INODE] = PK_SOCKET_MISSING,
        [PK_IDENTITY_FIRST_SEEN_NS] = stranger->closed_ns,
    };
    pk_socket_write_identity(row, &stranger->fact.key, PK_SOCKET_OUTGOING);
    tell_closed(context, &stranger->fact, PK_SOCKET_OUTGOING, row);
}

static void observe(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry,
                    const struct pk_socket_answer *answer)
{
    if (answer->error == EAGAIN) {
        recorder->stats.unanswered_count += 1;
        return;
    }
    if (answer->error != 0 || answer->fact.state == PK_TCP_TIME_WAIT ||
        answer->fact.key.cookie != entry->fact.key.cookie) {
        pk_socket_mark_gone(recorder, entry);
        return;
    }
    pk_socket_note_fact(recorder, entry, &answer->fact);
}

static bool is_restless(const struct pk_socket_recorder *recorder, int64_t now_ns)
{
    return now_ns < recorder->restless_until_ns;
}

static void dump(struct pk_socket_recorder *recorder, struct pk_dump_query *wanted)
{
    const int64_t start_ns = pk_clock_ns();
    const int64_t cpu_start_ns = pk_thread_cpu_ns();
    recorder->is_counting = wanted->with_counters = is_sampling(recorder);
    recorder->listed_count = 0;
    const int error = pk_socket_query_dump(&recorder->query, wanted, visit_found, recorder);
    pk_socket_peers_recall(&recorder->peers, visit_stranger, recorder);
    const int64_t cpu_ns = pk_thread_cpu_ns() - cpu_start_ns;
    recorder->stats.dump_count += 1;
    recorder->stats.dump_error_count += error != 0;
    recorder->stats.dump_cpu_ns += cpu_ns;
    if (wanted->port_count == 0) {
        recorder->stats.full_dump_count += 1;
        /* Where sockets come and go a listing is worth most just after the inodes were read. */
        const int64_t intervals = is_restless(recorder, start_ns) ? RESTLESS_INTERVALS : 1;
        recorder->next_dump_ns = start_ns + intervals * recorder->config.dump_interval_ns;
    }
    recorder->next_accept_ns = start_ns + recorder->config.accept_interval_ns;
    recorder->has_counted |= recorder->is_counting;
    if (recorder->listed_count > 0) {
        pk_socket_tell_poll(recorder, recorder->listed_count, 0); /* the poll's row has it */
    }
    pk_socket_pace_account_listing(&recorder->pace, start_ns, cpu_ns,
                                   recorder->config.accept_interval_ns);
}

static void drop_gone(struct pk_socket_recorder *recorder)
{
    struct pk_socket_table *table = &recorder->table;
    for (uint32_t position = 0; recorder->gone_count > 0 && position < table->connections.count;) {
        struct pk_socket_entry *entry = &table->entries[table->connections.ids[position]];
        if (entry->gone_ns != 0 && recorder->now_ns - entry->gone_ns > GONE_KEPT_NS) {
            pk_socket_forget(recorder, entry); /* the last one takes its place */
        } else {
            position += 1;
        }
    }
}

static void list_all(struct pk_socket_recorder *recorder)
{
    dump(recorder, &(struct pk_dump_query){.states = PK_TCP_OWNED_STATES});
}

static void discover(struct pk_socket_recorder *recorder)
{
    const int64_t now_ns = pk_clock_ns();
    if (now_ns < recorder->pace.listing_due_ns) {
        return;
    }
    if (now_ns >= recorder->next_dump_ns) {
        drop_gone(recorder);
        list_all(recorder);
        if (is_sampling(recorder) && !recorder->has_counted) {
            list_all(recorder); /* now that it is known to be needed, with counters */
        }
    } else if (now_ns >= recorder->next_accept_ns && recorder->table.listeners.count > 0 &&
               (!is_restless(recorder, now_ns) || pk_socket_pace_has_saved(&recorder->pace))) {
        struct pk_dump_query wanted = {.states = PK_TCP_CONNECTED_STATES};
        wanted.port_count =
            pk_socket_table_ports(&recorder->table, wanted.ports, PK_SOCKDIAG_PORT_LIMIT);
        dump(recorder, &wanted);
    }
}

/* Reads entries in batches. Returns how many were asked for. */
static uint32_t read_entries(struct pk_socket_recorder *recorder, struct pk_socket_entry **entries,
                             uint32_t count)
{
    const struct pk_socket_key *keys[PK_SOCKET_QUERY_BATCH];
    struct pk_socket_answer answers[PK_SOCKET_QUERY_BATCH];
    for (uint32_t index = 0; index < count; index++) {
        keys[index] = &entries[index]->fact.key;
    }
    if (count > 0 && pk_socket_query_get(&recorder->query, keys, count, answers) == 0) {
        for (uint32_t index = 0; index < count; index++) {
            observe(recorder, entries[index], &answers[index]);
        }
    }
    return count;
}

/* Reads up to limit sockets of an order from position first on, stepping over gone ones. Listeners
 * leave the order while it is read, so it is walked from its end. */
static uint32_t read_order(struct pk_socket_recorder *recorder, const struct pk_socket_order *order,
                           uint32_t first, uint32_t last)
{
    struct pk_socket_entry *entries[PK_SOCKET_QUERY_BATCH];
    uint32_t count = 0;
    uint32_t read_count = 0;
    for (uint32_t position = last; position > first; position--) {
        struct pk_socket_entry *entry = &recorder->table.entries[order->ids[position - 1]];
        if (entry->gone_ns == 0) {
            entries[count++] = entry;
        }
        if (count == PK_SOCKET_QUERY_BATCH) {
            read_count += read_entries(recorder, entries, count);
            count = 0;
        }
    }
    return read_count + read_entries(recorder, entries, count);
}

/* All connections when they are few; else the next read_limit of a random order, which is made anew
 * when it has been read through. */
static uint32_t read_connections(struct pk_socket_recorder *recorder)
{
    const uint32_t total = recorder->table.connections.count;
    const uint32_t limit = recorder->pace.read_limit;
    if (total - recorder->gone_count <= limit) {
        recorder->cursor = 0;
        return read_order(recorder, &recorder->table.connections, 0, total);
    }
    if (recorder->cursor == 0 || recorder->cursor >= total) {
        pk_socket_table_shuffle(&recorder->table, &recorder->random_state);
        recorder->cursor = 0;
    }
    const uint32_t end = total - recorder->cursor > limit ? recorder->cursor + limit : total;
    const uint32_t read_count =
        read_order(recorder, &recorder->table.connections, recorder->cursor, end);
    recorder->cursor = end;
    return read_count;
}

void pk_socket_recorder_hear(struct pk_socket_recorder *recorder)
{
    recorder->now_ns = pk_clock_ns();
    pk_socket_query_drain_closed(&recorder->query, CLOSED_LIMIT, visit_closed, recorder);
}

void pk_socket_recorder_poll(struct pk_socket_recorder *recorder)
{
    const struct pk_socket_table *table = &recorder->table;
    const int64_t cpu_start_ns = pk_thread_cpu_ns();
    recorder->now_ns = pk_clock_ns();
    pk_socket_query_drain_closed(&recorder->query, CLOSED_LIMIT, visit_closed, recorder);
    discover(recorder);

    recorder->now_ns = pk_clock_ns();
    uint32_t polled = read_order(recorder, &table->listeners, 0, table->listeners.count);
    polled += read_connections(recorder);
    pk_socket_tell_poll(recorder, polled, pk_thread_cpu_ns() - cpu_start_ns);

    recorder->stats.last_poll_ns = recorder->now_ns;
    recorder->stats.poll_count += 1;
    recorder->stats.polled_count = polled;
    recorder->stats.lost_count = recorder->query.lost_count;
    recorder->stats.refused_count = table->refused_count;
    recorder->stats.socket_count = pk_socket_known_count(recorder);
    recorder->stats.listener_count = table->listeners.count;
    recorder->stats.closed_error = recorder->query.closed_error;
}

void pk_socket_recorder_flush(struct pk_socket_recorder *recorder)
{
    recorder->now_ns = pk_clock_ns();
    pk_socket_query_drain_closed(&recorder->query, CLOSED_LIMIT, visit_closed, recorder);
    if (is_sampling(recorder) && recorder->pace.listing_cost_ns < LAST_LISTING_NS_MAX) {
        list_all(recorder); /* what came since the first listing that counted */
    }
    while (recorder->table.connections.count > 0) {
        pk_socket_forget(recorder, &recorder->table.entries[recorder->table.connections.ids[0]]);
    }
    while (recorder->table.listeners.count > 0) {
        pk_socket_forget(recorder, &recorder->table.entries[recorder->table.listeners.ids[0]]);
    }
}
