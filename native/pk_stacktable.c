#include "pk_stacktable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_COUNT = 4 * PK_STACKTABLE_STACK_LIMIT };

int pk_stacktable_init(pk_stacktable *table)
{
    memset(table, 0, sizeof *table);
    table->objects = calloc(PK_STACKTABLE_OBJECT_LIMIT, sizeof *table->objects);
    table->texts = malloc(PK_STACKTABLE_TEXT_BYTES);
    table->frames = calloc(PK_STACKTABLE_FRAME_LIMIT, sizeof *table->frames);
    table->stacks = calloc(PK_STACKTABLE_STACK_LIMIT, sizeof *table->stacks);
    table->slots = calloc(SLOT_COUNT, sizeof *table->slots);
    if (table->objects == NULL || table->texts == NULL || table->frames == NULL ||
        table->stacks == NULL || table->slots == NULL) {
        pk_stacktable_deinit(table);
        return ENOMEM;
    }
    return 0;
}

void pk_stacktable_deinit(pk_stacktable *table)
{
    free(table->objects);
    free(table->texts);
    free(table->frames);
    free(table->stacks);
    free(table->slots);
    memset(table, 0, sizeof *table);
}

static int add_object(pk_stacktable *table, const pk_table_object *made, const char *path,
                      uint32_t *ret)
{
    uint32_t count = atomic_load_explicit(&table->object_count, memory_order_relaxed);
    size_t size = strlen(path);
    if (count >= PK_STACKTABLE_OBJECT_LIMIT ||
        size > PK_STACKTABLE_TEXT_BYTES - table->text_used) {
        return ENOSPC;
    }
    pk_table_object *object = &table->objects[count];
    *object = *made;
    object->path_at = table->text_used;
    object->path_bytes = (uint32_t)size;
    memcpy(table->texts + table->text_used, path, size);
    table->text_used += (uint32_t)size;
    atomic_store_explicit(&table->object_count, count + 1, memory_order_release);
    *ret = count;
    return 0;
}

/* What a frame lies in. A file that is opened again after it was closed is another object. */
static int find_object(pk_stacktable *table, const pk_objects *objects, int32_t pid,
                       const pk_frame *frame, uint32_t *ret)
{
    const pk_object *file = frame->serial == 0 ? NULL : &objects->objects[frame->object];
    bool is_file = file != NULL && file->source.serial == frame->serial;
    uint64_t key = is_file ? frame->serial : 1ULL << 32 | (uint32_t)pid;
    uint32_t count = atomic_load_explicit(&table->object_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) { /* frames of one object often follow each other */
        uint32_t place = (table->last_object + i) % count;
        if (table->objects[place].key == key) {
            table->last_object = *ret = place;
            return 0;
        }
    }
    pk_table_object made = {.key = key, .kind = PK_OBJECT_ANONYMOUS, .pid = pid};
    if (!is_file) {
        return add_object(table, &made, "", ret);
    }
    made.kind = file->source.image != NULL ? PK_OBJECT_VDSO : PK_OBJECT_FILE;
    made.build_id_bytes = file->elf.build_id_bytes;
    memcpy(made.build_id, file->elf.build_id, sizeof made.build_id);
    return add_object(table, &made, file->path, ret);
}

/* FNV-1a, by words. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 1099511628211ULL;
    return hash ^ hash >> 29;
}

static bool is_same(const pk_stacktable *table, const pk_table_stack *known, uint64_t hash,
                    const pk_table_frame *frames, size_t depth)
{
    if (known->hash != hash || known->depth != depth) {
        return false;
    }
    for (size_t i = 0; i < depth; i++) {
        const pk_table_frame *frame = &table->frames[known->first + i];
        if (frame->offset != frames[i].offset || frame->object != frames[i].object ||
            frame->flags != frames[i].flags) {
            return false;
        }
    }
    return true;
}

static int add_stack(pk_stacktable *table, uint64_t hash, const pk_table_frame *frames,
                     size_t depth, uint32_t *ret)
{
    size_t slot = hash % SLOT_COUNT;
    while (table->slots[slot] != 0) { /* ends: three quarters of the slots are unused */
        uint32_t number = table->slots[slot] - 1;
        if (is_same(table, &table->stacks[number], hash, frames, depth)) {
            *ret = number;
            return 0;
        }
        slot = (slot + 1) % SLOT_COUNT;
    }
    uint32_t count = atomic_load_explicit(&table->stack_count, memory_order_relaxed);
    if (count >= PK_STACKTABLE_STACK_LIMIT ||
        depth > PK_STACKTABLE_FRAME_LIMIT - table->frame_used) {
        return ENOSPC;
    }
    table->stacks[count] = (pk_table_stack){hash, table->frame_used, (uint32_t)depth};
    memcpy(table->frames + table->frame_used, frames, depth * sizeof *frames);
    table->frame_used += (uint32_t)depth;
    table->slots[slot] = count + 1;
    atomic_store_explicit(&table->stack_count, count + 1, memory_order_release);
    *ret = count;
    return 0;
}

int pk_stacktable_intern(pk_stacktable *table, const pk_objects *objects, int32_t pid,
                         const pk_stack *stack, uint32_t *ret)
{
    pk_table_frame frames[PK_STACKTABLE_DEPTH_LIMIT];
    size_t depth =
        stack->depth < PK_STACKTABLE_DEPTH_LIMIT ? stack->depth : PK_STACKTABLE_DEPTH_LIMIT;
    uint64_t hash = 14695981039346656037ULL;
    int error = 0;
    for (size_t i = 0; error == 0 && i < depth; i++) {
        const pk_frame *frame = &stack->frames[i];
        frames[i].offset = frame->file_offset;
        frames[i].flags = frame->flags;
        error = find_object(table, objects, pid, frame, &frames[i].object);
        hash = mix(mix(hash, frames[i].offset), (uint64_t)frames[i].flags << 32 | frames[i].object);
    }
    if (error == 0) {
        error = add_stack(table, hash, frames, depth, ret);
    }
    table->refused_count += error != 0;
    return error;
}
