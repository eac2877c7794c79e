#include "pk_nativestack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_COUNT = 4 * PK_NATIVE_STACK_LIMIT };

static int add_object(pk_nativestacks *stacks, const pk_native_object *object, const char *path,
                      uint32_t *ret)
{
    uint32_t count = atomic_load_explicit(&stacks->object_count, memory_order_relaxed);
    if (count >= PK_NATIVE_OBJECT_LIMIT) {
        return ENOSPC;
    }
    stacks->objects[count] = *object;
    stacks->objects[count].path = strdup(path);
    if (stacks->objects[count].path == NULL) {
        return ENOMEM;
    }
    atomic_store_explicit(&stacks->object_count, count + 1, memory_order_release);
    *ret = count;
    return 0;
}

int pk_nativestacks_init(pk_nativestacks *stacks)
{
    memset(stacks, 0, sizeof *stacks);
    stacks->stacks = calloc(PK_NATIVE_STACK_LIMIT, sizeof *stacks->stacks);
    stacks->frames = malloc(PK_NATIVE_FRAME_LIMIT * sizeof *stacks->frames);
    stacks->slots = calloc(SLOT_COUNT, sizeof *stacks->slots);
    stacks->objects = calloc(PK_NATIVE_OBJECT_LIMIT, sizeof *stacks->objects);
    const pk_native_object kernel = {.kind = PK_NATIVE_KERNEL};
    uint32_t number;
    if (stacks->stacks == NULL || stacks->frames == NULL || stacks->slots == NULL ||
        stacks->objects == NULL || add_object(stacks, &kernel, "[kernel]", &number) != 0) {
        pk_nativestacks_deinit(stacks);
        return ENOMEM;
    }
    return 0;
}

void pk_nativestacks_deinit(pk_nativestacks *stacks)
{
    for (size_t i = 0; stacks->objects != NULL && i < PK_NATIVE_OBJECT_LIMIT; i++) {
        free(stacks->objects[i].path);
    }
    free(stacks->stacks);
    free(stacks->frames);
    free(stacks->slots);
    free(stacks->objects);
    stacks->stacks = NULL;
    stacks->frames = NULL;
    stacks->slots = NULL;
    stacks->objects = NULL;
}

static uint64_t hash_frames(const pk_native_frame *frames, size_t depth)
{
    uint64_t hash = 14695981039346656037ULL ^ depth;
    for (size_t i = 0; i < depth; i++) {
        hash = (hash ^ frames[i].offset) * 1099511628211ULL;
        hash = (hash ^ ((uint64_t)frames[i].object << 32 | frames[i].flags)) * 1099511628211ULL;
        hash ^= hash >> 29;
    }
    return hash;
}

int pk_nativestacks_intern(pk_nativestacks *stacks, const pk_native_frame *frames, size_t depth,
                           uint32_t *ret)
{
    uint64_t hash = hash_frames(frames, depth);
    uint32_t count = atomic_load_explicit(&stacks->stack_count, memory_order_relaxed);
    size_t slot = hash % SLOT_COUNT;
    while (stacks->slots[slot] != 0) { /* ends: three quarters of the slots are unused */
        uint32_t index = stacks->slots[slot] - 1;
        const pk_native_stack *found = &stacks->stacks[index];
        if (found->hash == hash && found->depth == depth &&
            memcmp(stacks->frames + found->first, frames, depth * sizeof *frames) == 0) {
            *ret = index;
            return 0;
        }
        slot = (slot + 1) % SLOT_COUNT;
    }
    if (count >= PK_NATIVE_STACK_LIMIT || depth > PK_NATIVE_FRAME_LIMIT - stacks->frame_count) {
        return ENOSPC;
    }
    memcpy(stacks->frames + stacks->frame_count, frames, depth * sizeof *frames);
    stacks->stacks[count] = (pk_native_stack){hash, stacks->frame_count, (uint32_t)depth};
    stacks->frame_count += (uint32_t)depth;
    stacks->slots[slot] = count + 1;
    atomic_store_explicit(&stacks->stack_count, count + 1, memory_order_release);
    *ret = count;
    return 0;
}

/* The number of an object that is what another one is, wherever it was opened. */
static bool find_same(const pk_nativestacks *stacks, const pk_native_object *wanted, uint32_t *ret)
{
    uint32_t count = atomic_load_explicit(&stacks->object_count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        const pk_native_object *object = &stacks->objects[i];
        if (object->kind == wanted->kind && object->device == wanted->device &&
            object->inode == wanted->inode && object->changed_ns == wanted->changed_ns &&
            (wanted->kind != PK_NATIVE_ANONYMOUS || object->pid == wanted->pid)) {
            *ret = i;
            return true;
        }
    }
    return false;
}

static int find_file(pk_nativestacks *stacks, const pk_objects *objects, uint32_t place,
                     pid_t pid, uint32_t *ret)
{
    const pk_object *object = &objects->objects[place];
    pk_native_known *known = &stacks->known[place];
    if (known->serial == object->source.serial) {
        *ret = known->number;
        return 0;
    }
    pk_native_object wanted = {
        .kind = (uint8_t)(object->source.descriptor < 0 ? PK_NATIVE_VDSO : PK_NATIVE_FILE),
        .pid = pid,
        .device = object->device,
        .inode = object->inode,
        .changed_ns = object->changed_ns,
        .build_id_bytes = object->elf.build_id_bytes,
    };
    memcpy(wanted.build_id, object->elf.build_id, sizeof wanted.build_id);
    int error = 0;
    if (!find_same(stacks, &wanted, ret)) {
        error = add_object(stacks, &wanted, object->path, ret);
    }
    if (error == 0) {
        *known = (pk_native_known){object->source.serial, *ret};
    }
    return error;
}

static int find_anonymous(pk_nativestacks *stacks, pid_t pid, uint32_t *ret)
{
    const pk_native_object wanted = {.kind = PK_NATIVE_ANONYMOUS, .pid = pid};
    return find_same(stacks, &wanted, ret) ? 0 : add_object(stacks, &wanted, "", ret);
}

int pk_nativestacks_write(pk_nativestacks *stacks, const pk_objects *objects, pid_t pid,
                          const pk_stack *stack, pk_native_frame *ret)
{
    int error = 0;
    for (size_t i = 0; error == 0 && i < stack->depth; i++) {
        const pk_frame *frame = &stack->frames[i];
        ret[i] = (pk_native_frame){.offset = frame->file_offset, .flags = frame->flags};
        const bool is_open = frame->serial != 0 &&
                             objects->objects[frame->object].source.serial == frame->serial;
        error = is_open ? find_file(stacks, objects, frame->object, pid, &ret[i].object)
                        : find_anonymous(stacks, pid, &ret[i].object);
    }
    return error;
}
