#include "pk_proctable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ENTRY_COUNT = PK_PROCTABLE_SETS * PK_PROCTABLE_WAYS };
static const int64_t RETRY_NS = 1000LL * 1000 * 1000; /* after a read that failed */

int pk_proctable_init(pk_proctable *table, int proc, int64_t now_ns)
{
    *table = (pk_proctable){
        .proc = proc, .read_tokens = PK_PROCTABLE_READ_BURST, .refilled_ns = now_ns};
    table->entries = calloc(ENTRY_COUNT, sizeof *table->entries);
    return table->entries == NULL ? ENOMEM : 0;
}

static void drop(pk_proctable *table, pk_proctable_entry *entry)
{
    table->process_count -= entry->pid != 0;
    table->mapping_count -= entry->maps.capacity;
    pk_maps_deinit(&entry->maps);
    memset(entry, 0, sizeof *entry);
}

void pk_proctable_deinit(pk_proctable *table)
{
    for (size_t i = 0; table->entries != NULL && i < ENTRY_COUNT; i++) {
        drop(table, &table->entries[i]);
    }
    free(table->entries);
    free(table->wanted);
    table->entries = NULL;
    table->wanted = NULL;
}

static int compare(const void *first, const void *second)
{
    pid_t a = *(const pid_t *)first;
    pid_t b = *(const pid_t *)second;
    return (a > b) - (a < b);
}

pk_wanted *pk_wanted_new(const pid_t *pids, size_t count, bool is_all)
{
    count = count < PK_PROCTABLE_WANTED_LIMIT ? count : PK_PROCTABLE_WANTED_LIMIT;
    pk_wanted *wanted = malloc(sizeof *wanted + count * sizeof *pids);
    if (wanted != NULL) {
        wanted->is_all = is_all;
        wanted->count = count;
        if (count > 0) {
            memcpy(wanted->pids, pids, count * sizeof *pids);
            qsort(wanted->pids, count, sizeof *pids, compare);
        }
    }
    return wanted;
}

void pk_proctable_set_wanted(pk_proctable *table, pk_wanted *wanted)
{
    free(table->wanted);
    table->wanted = wanted;
}

static pk_proctable_entry *to_set(pk_proctable *table, pid_t pid)
{
    return table->entries + (size_t)((uint32_t)pid % PK_PROCTABLE_SETS) * PK_PROCTABLE_WAYS;
}

static pk_proctable_entry *find(pk_proctable *table, pid_t pid)
{
    pk_proctable_entry *set = to_set(table, pid);
    for (size_t i = 0; i < PK_PROCTABLE_WAYS; i++) {
        if (set[i].pid == pid) {
            return &set[i];
        }
    }
    return NULL;
}

static pk_proctable_entry *find_or_add(pk_proctable *table, pid_t pid)
{
    pk_proctable_entry *entry = find(table, pid);
    if (entry == NULL) {
        entry = to_set(table, pid);
        for (size_t i = 1; i < PK_PROCTABLE_WAYS; i++) {
            pk_proctable_entry *other = to_set(table, pid) + i;
            entry = other->used < entry->used ? other : entry;
        }
        table->evicted_count += entry->pid != 0;
        drop(table, entry);
        entry->pid = pid;
        table->process_count++;
    }
    entry->used = ++table->use_count;
    return entry;
}

bool pk_proctable_is_wanted(pk_proctable *table, pid_t pid)
{
    const pk_wanted *wanted = table->wanted;
    if (pid <= 0 || wanted == NULL) {
        return false;
    }
    if (wanted->is_all ||
        bsearch(&pid, wanted->pids, wanted->count, sizeof pid, compare) != NULL) {
        return true;
    }
    const pk_proctable_entry *entry = find(table, pid);
    return entry != NULL && entry->is_heir;
}

/* Those not met for longest go, until all that is kept fits; one alone always does. */
static void keep_within_limit(pk_proctable *table, const pk_proctable_entry *kept)
{
    while (table->mapping_count > PK_PROCTABLE_MAPPING_LIMIT) {
        pk_proctable_entry *oldest = NULL;
        for (size_t i = 0; i < ENTRY_COUNT; i++) {
            pk_proctable_entry *entry = &table->entries[i];
            if (entry->maps.capacity > 0 && entry != kept &&
                (oldest == NULL || entry->used < oldest->used)) {
                oldest = entry;
            }
        }
        if (oldest == NULL) {
            return;
        }
        table->evicted_count++;
        drop(table, oldest);
    }
}

static bool take_token(pk_proctable *table, int64_t now_ns)
{
    double more = (double)(now_ns - table->refilled_ns) * 1e-9 * PK_PROCTABLE_READS_PER_S;
    table->read_tokens += more > 0 ? more : 0;
    table->refilled_ns = now_ns;
    if (table->read_tokens > PK_PROCTABLE_READ_BURST) {
        table->read_tokens = PK_PROCTABLE_READ_BURST;
    }
    if (table->read_tokens < 1) {
        return false;
    }
    table->read_tokens -= 1;
    return true;
}

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void read_maps(pk_proctable *table, pk_proctable_entry *entry, int64_t now_ns)
{
    if (entry->tried_ns != 0 && now_ns - entry->tried_ns < RETRY_NS) {
        return;
    }
    if (!take_token(table, now_ns)) {
        return;
    }
    size_t capacity_before = entry->maps.capacity;
    int64_t dropped_before = entry->maps.dropped_count;
    entry->tried_ns = now_ns;
    entry->read_ns = clock_ns(); /* what is told of later than this is not in it, perhaps */
    table->read_count++;
    int error = pk_maps_read(&entry->maps, table->proc, entry->pid);
    table->refused_count += error != 0;
    table->dropped_mapping_count += entry->maps.dropped_count - dropped_before;
    table->mapping_count += entry->maps.capacity - capacity_before;
    entry->is_stale = false;
    entry->has_maps = entry->has_maps || entry->maps.count > 0;
    keep_within_limit(table, entry);
}

pk_maps *pk_proctable_find_maps(pk_proctable *table, pid_t pid, int64_t now_ns)
{
    pk_proctable_entry *entry = find_or_add(table, pid);
    if (!entry->has_maps || entry->is_stale) {
        read_maps(table, entry, now_ns);
    }
    return entry->has_maps ? &entry->maps : NULL;
}

void pk_proctable_add_mapping(pk_proctable *table, pid_t pid, const pk_mapping *mapping,
                              int64_t t_ns)
{
    pk_proctable_entry *entry = find(table, pid);
    if (entry == NULL || !entry->has_maps || t_ns < entry->read_ns) {
        return; /* they are read when they are needed, or have been since */
    }
    size_t capacity_before = entry->maps.capacity;
    table->dropped_mapping_count += pk_maps_add(&entry->maps, mapping);
    table->mapping_count += entry->maps.capacity - capacity_before;
    keep_within_limit(table, entry);
}

void pk_proctable_note_exec(pk_proctable *table, pid_t pid, int64_t t_ns)
{
    pk_proctable_entry *entry = find(table, pid);
    if (entry != NULL && t_ns >= entry->read_ns) {
        pk_maps_clear(&entry->maps);
        entry->has_maps = true; /* all of them are told from here on */
        entry->is_stale = false;
        entry->read_ns = t_ns;
    }
}

void pk_proctable_note_birth(pk_proctable *table, pid_t pid, pid_t parent, int64_t t_ns)
{
    if (pid <= 0 || parent <= 0 || pid == parent || !pk_proctable_is_wanted(table, parent)) {
        return;
    }
    pk_proctable_entry *child = find_or_add(table, pid);
    const pk_proctable_entry *from = find(table, parent);
    child->is_heir = true;
    if (from == NULL || !from->has_maps || t_ns < from->read_ns) {
        return; /* what the parent mapped then is not known */
    }
    size_t capacity_before = child->maps.capacity;
    table->dropped_mapping_count += pk_maps_copy(&child->maps, &from->maps);
    table->mapping_count += child->maps.capacity - capacity_before;
    child->has_maps = true;
    child->is_stale = from->is_stale;
    child->read_ns = t_ns;
    keep_within_limit(table, child);
}

void pk_proctable_note_death(pk_proctable *table, pid_t pid)
{
    pk_proctable_entry *entry = find(table, pid);
    if (pid > 0 && entry != NULL) {
        drop(table, entry);
    }
}

void pk_proctable_note_loss(pk_proctable *table)
{
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        table->entries[i].is_stale = table->entries[i].has_maps;
    }
}
