#include "pk_socket_notes.h"

#include "pk_socket_identity.h"

#include <string.h>

void pk_socket_tell_identity(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry)
{
    int64_t row[PK_IDENTITY_COLUMN_COUNT];
    row[PK_IDENTITY_INDEX] = entry->index;
    row[PK_IDENTITY_INODE] = entry->fact.inode;
    row[PK_IDENTITY_FIRST_SEEN_NS] = entry->first_seen_ns;
    pk_socket_write_identity(row, &entry->fact.key, entry->role);
    pk_socket_rows_append(&recorder->fresh.identities, row);
    entry->is_told = true;
}

void pk_socket_note_inode(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry,
                          int64_t inode)
{
    if (inode != 0 && (entry->fact.inode != inode || !entry->is_told)) {
        entry->fact.inode = inode;
        pk_socket_tell_identity(recorder, entry);
    }
}

static void end_run(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry)
{
    if (entry->tick_count == 0) {
        return;
    }
    int64_t row[PK_RUN_COLUMN_COUNT] = {entry->index, entry->run_start_ns, entry->run_end_ns,
                                        entry->tick_count, entry->fact.state};
    memcpy(row + PK_RUN_COUNTERS, entry->fact.counters, sizeof entry->fact.counters);
    pk_socket_rows_append(&recorder->fresh.runs, row);
    entry->tick_count = 0;
}

void pk_socket_note_fact(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry,
                         const struct pk_socket_fact *fact)
{
    pk_socket_note_inode(recorder, entry, fact->inode);
    if (entry->tick_count == 0 || !pk_socket_is_same_run(&entry->fact, fact)) {
        end_run(recorder, entry);
        const int64_t inode = entry->fact.inode;
        entry->fact = *fact;
        entry->fact.inode = inode;
        entry->run_start_ns = recorder->now_ns;
    }
    entry->run_end_ns = recorder->now_ns;
    entry->tick_count += 1;
}

void pk_socket_mark_gone(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry)
{
    end_run(recorder, entry);
    if (entry->role == PK_SOCKET_LISTENER) {
        pk_socket_forget(recorder, entry);
    } else if (entry->gone_ns == 0) {
        entry->gone_ns = recorder->now_ns;
        recorder->gone_count += 1;
    }
}

void pk_socket_forget(struct pk_socket_recorder *recorder, struct pk_socket_entry *entry)
{
    end_run(recorder, entry);
    if (!entry->is_told) {
        pk_socket_tell_identity(recorder, entry);
    }
    recorder->gone_count -= entry->gone_ns != 0;
    pk_socket_table_remove(&recorder->table, entry);
}

uint32_t pk_socket_known_count(const struct pk_socket_recorder *recorder)
{
    const struct pk_socket_table *table = &recorder->table;
    return table->listeners.count + table->connections.count - recorder->gone_count;
}

void pk_socket_tell_poll(struct pk_socket_recorder *recorder, uint32_t polled_count,
                         int64_t cpu_ns)
{
    const int64_t row[PK_POLL_COLUMN_COUNT] = {recorder->now_ns, pk_socket_known_count(recorder),
                                               polled_count, cpu_ns};
    pk_socket_rows_append(&recorder->fresh.polls, row);
}
