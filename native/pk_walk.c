#include "pk_walk.h"

#include <string.h>

enum { CALL_BYTES_MAX = 7 };

bool pk_walk_knows(const pk_walk *walk, unsigned number)
{
    return (walk->registers.known >> number & 1) != 0;
}

static bool is_user_address(uint64_t address)
{
    return address >= 4096 && address < (1ULL << 47) - 4096;
}

bool pk_walk_read(pk_walk *walk, uint64_t address, uint64_t *ret)
{
    const pk_snapshot *from = walk->snapshot;
    uint64_t place = address - from->stack_address;
    if (from->stack_bytes >= 8 && place <= from->stack_bytes - 8) {
        memcpy(ret, from->stack + place, 8);
        return true;
    }
    place = address - walk->window_address;
    if (walk->window_bytes < 8 || place > walk->window_bytes - 8) {
        if (from->read == NULL || walk->read_count >= PK_UNWIND_READ_LIMIT ||
            !is_user_address(address)) {
            return false;
        }
        walk->read_count++;
        walk->window_address = address;
        walk->window_bytes =
            from->read(from->context, address, walk->window, sizeof walk->window);
        place = 0;
        if (walk->window_bytes < 8 || walk->window_bytes > sizeof walk->window) {
            walk->window_bytes = 0;
            return false;
        }
    }
    walk->flags |= PK_FRAME_LATE;
    memcpy(ret, walk->window + place, 8);
    return true;
}

size_t pk_walk_read_code(pk_walk *walk, uint64_t address, uint8_t *buffer, size_t size)
{
    const pk_snapshot *from = walk->snapshot;
    pk_mapping *mapping = pk_maps_find(walk->maps, address);
    if (mapping == NULL) {
        return 0;
    }
    const pk_object *object = pk_objects_find(&walk->unwinder->objects, &walk->unwinder->blocks,
                                              from->pid, mapping);
    if (object != NULL) {
        return pk_blocks_read(&walk->unwinder->blocks, &object->source,
                              address - mapping->start + mapping->offset, buffer, size);
    }
    if (from->read == NULL || walk->read_count >= PK_UNWIND_READ_LIMIT) {
        return 0;
    }
    walk->read_count++;
    size_t count = from->read(from->context, address, buffer, size);
    return count <= size ? count : 0;
}

bool pk_walk_is_code(pk_walk *walk, uint64_t return_address)
{
    return return_address != 0 && pk_maps_find(walk->maps, return_address - 1) != NULL;
}

/* How long an indirect call (FF /2) is, by its second byte and the one behind it. */
static size_t measure_indirect_call(uint8_t mode, uint8_t base)
{
    unsigned kind = mode >> 6;
    bool has_base_byte = kind != 3 && (mode & 7) == 4;
    size_t size = 2 + has_base_byte;
    if (kind == 1) {
        size += 1;
    } else if (kind == 2 || (kind == 0 && (mode & 7) == 5) ||
               (kind == 0 && has_base_byte && (base & 7) == 5)) {
        size += 4;
    }
    return size;
}

bool pk_walk_is_after_call(pk_walk *walk, uint64_t return_address)
{
    uint8_t before[CALL_BYTES_MAX];
    if (!pk_walk_is_code(walk, return_address) || return_address < 4096 ||
        pk_walk_read_code(walk, return_address - sizeof before, before, sizeof before) !=
            sizeof before) {
        return false;
    }
    if (before[2] == 0xE8) { /* call, with 4 bytes of distance */
        return true;
    }
    for (size_t size = 2; size <= CALL_BYTES_MAX; size++) {
        const uint8_t *at = before + sizeof before - size;
        if (at[0] == 0xFF && (at[1] >> 3 & 7) == 2 &&
            measure_indirect_call(at[1], size > 2 ? at[2] : 0) == size) {
            return true;
        }
    }
    return false;
}

void pk_walk_forget(pk_walk *walk, bool keeps_frame_pointer)
{
    walk->registers.known &= 1U << PK_RSP | 1U << PK_RIP | (keeps_frame_pointer ? 1U << PK_RBP : 0);
}
