#include "pk_stacktable.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "pk_order.h"

enum {
    SLOT_BITS_MIN = 7,
    ROOM_MIN = 64,
    SPARE_BITS = 2, /* a quarter of the slots is used at most: most ids are met at once */
    LARGE_PAGE_BYTES = 1 << 21,
    LARGE_BYTES_MIN = 2 * LARGE_PAGE_BYTES,
};

pk_stack_slot *pk_stacktable_slot(const pk_stacktable *table, pk_stackid id)
{
    size_t mask = ((size_t)1 << table->slot_bits) - 1;
    size_t place = pk_scatter_id(table->scatter, id) >> (64 - table->slot_bits);
    for (;;) { /* ends: most slots are unused */
        pk_stack_slot *slot = &table->slots[place];
        if (slot->number == 0 || pk_stackid_is(slot->id, id)) {
            return slot;
        }
        place = (place + 1) & mask;
    }
}

/* Slots for so many bits. Large pages spare misses of the TLB, where the kernel gives them. */
static pk_stack_slot *allocate_slots(uint32_t bits)
{
    size_t size_bytes = sizeof(pk_stack_slot) << bits;
    if (size_bytes < LARGE_BYTES_MIN) {
        return calloc(1, size_bytes);
    }
    pk_stack_slot *slots = aligned_alloc(LARGE_PAGE_BYTES, size_bytes);
    if (slots != NULL) {
        madvise(slots, size_bytes, MADV_HUGEPAGE);
        memset(slots, 0, size_bytes);
    }
    return slots;
}

static int grow_slots(pk_stacktable *table)
{
    size_t old_count = table->slots == NULL ? 0 : (size_t)1 << table->slot_bits;
    pk_stack_slot *old = table->slots;
    uint32_t bits = old == NULL ? SLOT_BITS_MIN : table->slot_bits + 1;
    pk_stack_slot *slots = allocate_slots(bits);
    if (slots == NULL) {
        return ENOMEM;
    }
    table->slots = slots;
    table->slot_bits = bits;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].number != 0) {
            *pk_stacktable_slot(table, old[i].id) = old[i];
        }
    }
    free(old);
    return 0;
}

/* Makes room for one more stack. */
static int reserve_stack(pk_stacktable *table)
{
    if (table->stack_count >= PK_STACK_LIMIT) {
        return EOVERFLOW;
    }
    if (table->stack_count == table->stack_room) {
        uint32_t room = table->stack_room == 0 ? ROOM_MIN : 2 * table->stack_room;
        pk_stack_entry *grown = realloc(table->stacks, room * sizeof *grown);
        if (grown == NULL) {
            return ENOMEM;
        }
        table->stacks = grown;
        table->stack_room = room;
    }
    if (table->slots == NULL) {
        return grow_slots(table);
    }
    bool is_full = table->stack_count >= (uint32_t)1 << (table->slot_bits - SPARE_BITS);
    return is_full ? grow_slots(table) : 0;
}

static int reserve_frames(pk_stacktable *table, size_t depth)
{
    uint64_t needed = table->frame_count + depth;
    if (needed > PK_STACK_FRAME_LIMIT) {
        return EOVERFLOW;
    }
    if (needed <= table->frame_room) {
        return 0;
    }
    uint64_t room = 2 * table->frame_room + depth + ROOM_MIN;
    uint32_t *grown = realloc(table->frames, room * sizeof *grown);
    if (grown == NULL) {
        return ENOMEM;
    }
    table->frames = grown;
    table->frame_room = room;
    return 0;
}

/* Adds a stack of which only the id is known; `slot` becomes its slot. */
static int add_id(pk_stacktable *table, pk_stackid id, pk_stack_slot **slot)
{
    int error = reserve_stack(table);
    if (error != 0) {
        return error;
    }
    table->stacks[table->stack_count] = (pk_stack_entry){.id = id, .first = 0, .depth = 1};
    *slot = pk_stacktable_slot(table, id);
    **slot = (pk_stack_slot){.id = id, .number = ++table->stack_count};
    return 0;
}

int pk_stacktable_init(pk_stacktable *table)
{
    *table = (pk_stacktable){.scatter = pk_scatter_draw()};
    int error = pk_framenames_init(&table->names);
    if (error == 0) {
        error = reserve_stack(table);
    }
    if (error == 0) {
        error = reserve_frames(table, 1);
    }
    if (error != 0) {
        pk_stacktable_deinit(table);
        return error;
    }
    table->frames[table->frame_count++] = PK_FRAME_UNKNOWN;
    return 0;
}

void pk_stacktable_deinit(pk_stacktable *table)
{
    pk_framenames_deinit(&table->names);
    free(table->slots);
    free(table->stacks);
    free(table->frames);
    *table = (pk_stacktable){0};
}

int pk_stacktable_define(pk_stacktable *table, pk_stackid id, const uint32_t *frames,
                         size_t depth, uint32_t *ret)
{
    pk_stack_slot *slot = pk_stacktable_slot(table, id);
    if (slot->number != 0 && table->stacks[slot->number - 1].is_known) {
        const pk_stack_entry *known = &table->stacks[slot->number - 1];
        bool is_same = known->depth == depth && memcmp(table->frames + known->first, frames,
                                                       depth * sizeof *frames) == 0;
        *ret = slot->number - 1;
        return is_same ? 0 : EEXIST;
    }
    int error = reserve_frames(table, depth);
    if (error == 0 && slot->number == 0) {
        error = add_id(table, id, &slot);
    }
    if (error != 0) {
        return error;
    }
    pk_stack_entry *entry = &table->stacks[slot->number - 1];
    entry->first = table->frame_count;
    entry->depth = (uint32_t)depth;
    entry->is_known = true;
    if (depth > 0) {
        memcpy(table->frames + table->frame_count, frames, depth * sizeof *frames);
    }
    table->frame_count += depth;
    *ret = slot->number - 1;
    return 0;
}

int pk_stacktable_intern(pk_stacktable *table, const uint32_t *frames, size_t depth,
                         uint32_t *ret)
{
    pk_hashing state = pk_hashing_begin();
    for (size_t i = 0; i < depth; i++) {
        pk_hashing_frame(&state, table->names.names[frames[i]].id);
    }
    return pk_stacktable_define(table, pk_hashing_stack(&state, depth), frames, depth, ret);
}

int pk_stacktable_admit(pk_stacktable *table, pk_stackid id, uint32_t *ret)
{
    pk_stack_slot *slot = pk_stacktable_slot(table, id);
    int error = slot->number == 0 ? add_id(table, id, &slot) : 0;
    *ret = slot->number - 1;
    return error;
}

int pk_stacktable_count(pk_stacktable *table, uint32_t stack, uint64_t count)
{
    if (count > PK_STACK_COUNT_MAX - table->total) {
        return EOVERFLOW;
    }
    pk_stacktable_slot(table, table->stacks[stack].id)->count += count;
    table->total += count;
    return 0;
}

void pk_stacktable_forget(pk_stacktable *table, uint32_t stack_count)
{
    pk_stack_slot *old = table->slots;
    size_t slot_count = (size_t)1 << table->slot_bits;
    pk_stack_slot *slots = allocate_slots(table->slot_bits);
    if (slots == NULL) {
        return;
    }
    table->slots = slots;
    table->stack_count = stack_count;
    for (size_t i = 0; i < slot_count; i++) {
        if (old[i].number != 0 && old[i].number <= stack_count) {
            *pk_stacktable_slot(table, old[i].id) = old[i];
        }
    }
    free(old);
}

void pk_stacktable_gather(const pk_stacktable *table, uint64_t *ret)
{
    size_t slot_count = (size_t)1 << table->slot_bits;
    for (size_t i = 0; i < slot_count; i++) {
        const pk_stack_slot *slot = &table->slots[i];
        if (slot->number != 0) {
            ret[slot->number - 1] = slot->count;
        }
    }
}

uint64_t pk_stacktable_seen(const pk_stacktable *table, uint32_t stack)
{
    return pk_stacktable_slot(table, table->stacks[stack].id)->count;
}

bool pk_stacktable_find(const pk_stacktable *table, pk_stackid id, uint32_t *ret)
{
    const pk_stack_slot *slot = pk_stacktable_slot(table, id);
    *ret = slot->number - 1;
    return slot->number != 0;
}

typedef struct {
    const pk_stacktable *table;
    const uint32_t *ranks;
} ranked_stacks;

static uint32_t take_symbol(const void *context, uint32_t item, uint32_t depth)
{
    const ranked_stacks *of = context;
    const pk_stack_entry *stack = &of->table->stacks[item];
    return depth < stack->depth ? of->ranks[of->table->frames[stack->first + depth]] + 1 : 0;
}

void pk_stacktable_sort(const pk_stacktable *table, const uint32_t *ranks, uint32_t *stacks,
                        size_t count)
{
    const ranked_stacks ranked = {table, ranks};
    pk_order_sort(stacks, count, take_symbol, &ranked);
}

uint32_t pk_stacktable_shared(const pk_stacktable *table, uint32_t one, uint32_t other)
{
    const uint32_t *frames = pk_stacktable_frames(table, one);
    const uint32_t *other_frames = pk_stacktable_frames(table, other);
    uint32_t depth = table->stacks[one].depth;
    uint32_t other_depth = table->stacks[other].depth;
    uint32_t least = depth < other_depth ? depth : other_depth;
    uint32_t shared = 0;
    while (shared < least && frames[shared] == other_frames[shared]) {
        shared++;
    }
    return shared;
}
