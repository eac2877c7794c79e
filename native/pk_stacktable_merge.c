/* Stacks and counts of another table, by their ids. */
#include <errno.h>
#include <stdlib.h>

#include "pk_stacktable.h"

enum { AHEAD = 16 };

/* Frames of another table as ours, looked up when they are met first. */
typedef struct {
    pk_stacktable *table;
    const pk_stacktable *other;
    uint32_t *numbers; /* of our frames + 1, by the other's number; 0: not met yet */
    uint32_t *frames;  /* room for one stack */
} learner;

static int learn_frame(const learner *by, uint32_t frame)
{
    if (by->numbers[frame] != 0) {
        return 0;
    }
    const pk_framename *name = &by->other->names.names[frame];
    int error = pk_framenames_intern(&by->table->names, by->other->names.texts + name->at,
                                     name->name_bytes, name->file_bytes, &by->numbers[frame]);
    by->numbers[frame] = error == 0 ? by->numbers[frame] + 1 : 0;
    return error;
}

static int learn_stack(const learner *by, uint32_t stack)
{
    const pk_stack_entry *entry = &by->other->stacks[stack];
    const uint32_t *frames = pk_stacktable_frames(by->other, stack);
    for (uint32_t i = 0; i < entry->depth; i++) {
        int error = learn_frame(by, frames[i]);
        if (error != 0) {
            return error;
        }
        by->frames[i] = by->numbers[frames[i]] - 1;
    }
    uint32_t number;
    return pk_stacktable_define(by->table, entry->id, by->frames, entry->depth, &number);
}

static int learn_all(const learner *by)
{
    const pk_stacktable *other = by->other;
    pk_stacktable *table = by->table;
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < other->stack_count; i++) {
        if (i + AHEAD < other->stack_count) {
            uint64_t next = pk_scatter_id(table->scatter, other->stacks[i + AHEAD].id);
            __builtin_prefetch(&table->slots[next >> (64 - table->slot_bits)]);
        }
        const pk_stack_entry *entry = &other->stacks[i];
        uint32_t number;
        bool is_there = pk_stacktable_find(table, entry->id, &number);
        if (!entry->is_known) {
            error = pk_stacktable_admit(table, entry->id, &number);
        } else if (!is_there || !table->stacks[number].is_known) {
            error = learn_stack(by, i);
        } else if (table->stacks[number].depth != entry->depth) {
            error = EEXIST;
        }
    }
    return error;
}

int pk_stacktable_learn(pk_stacktable *table, const pk_stacktable *other)
{
    if (table == other) {
        return 0;
    }
    learner by = {
        .table = table,
        .other = other,
        .numbers = calloc(other->names.count, sizeof *by.numbers),
        .frames = malloc(PK_STACK_DEPTH_MAX * sizeof *by.frames),
    };
    int error = by.numbers == NULL || by.frames == NULL ? ENOMEM : learn_all(&by);
    free(by.numbers);
    free(by.frames);
    return error;
}

/* The other's ids with their counts, for pk_stacktable_add. */
static int add_counts(pk_stacktable *table, const pk_stacktable *other)
{
    uint32_t count = other->stack_count;
    uint64_t *counts = malloc((count + 1) * sizeof *counts);
    pk_stackid *ids = malloc((count + 1) * sizeof *ids);
    int error = counts == NULL || ids == NULL ? ENOMEM : 0;
    if (error == 0) {
        pk_stacktable_gather(other, counts);
        for (uint32_t i = 0; i < count; i++) {
            ids[i] = other->stacks[i].id;
        }
        error = pk_stacktable_add(table, (const char *)ids, (const char *)counts, count, true);
    }
    free(counts);
    free(ids);
    return error;
}

int pk_stacktable_merge(pk_stacktable *table, const pk_stacktable *other)
{
    if (other->total > PK_STACK_COUNT_MAX - table->total ||
        other->duration_ns > PK_STACK_COUNT_MAX - table->duration_ns) {
        return EOVERFLOW;
    }
    int error = pk_stacktable_learn(table, other);
    if (error == 0) {
        error = add_counts(table, other);
    }
    if (error == 0) {
        table->duration_ns += other->duration_ns;
    }
    return error;
}

static void *copy_array(const void *from, size_t size_bytes)
{
    void *made = malloc(size_bytes);
    return made == NULL ? NULL : memcpy(made, from, size_bytes);
}

int pk_stacktable_copy(const pk_stacktable *table, pk_stacktable *ret)
{
    *ret = *table;
    int error = pk_framenames_copy(&table->names, &ret->names);
    ret->slots = copy_array(table->slots, ((size_t)1 << table->slot_bits) * sizeof *ret->slots);
    ret->stacks = copy_array(table->stacks, table->stack_room * sizeof *ret->stacks);
    ret->frames = copy_array(table->frames, table->frame_room * sizeof *ret->frames);
    if (error != 0 || ret->slots == NULL || ret->stacks == NULL || ret->frames == NULL) {
        pk_stacktable_deinit(ret);
        return ENOMEM;
    }
    return 0;
}

bool pk_stacktable_equal(const pk_stacktable *table, const pk_stacktable *other)
{
    if (table->stack_count != other->stack_count || table->total != other->total ||
        table->duration_ns != other->duration_ns) {
        return false;
    }
    size_t slot_count = (size_t)1 << table->slot_bits;
    for (size_t i = 0; i < slot_count; i++) {
        const pk_stack_slot *slot = &table->slots[i];
        uint32_t number;
        if (slot->number == 0) {
            continue;
        }
        if (!pk_stacktable_find(other, slot->id, &number) ||
            other->stacks[number].is_known != table->stacks[slot->number - 1].is_known ||
            pk_stacktable_seen(other, number) != slot->count) {
            return false;
        }
    }
    return true;
}
