#include "pk_framenames.h"

#include <errno.h>
#include <stdlib.h>

#include "pk_order.h"

enum { ROOM_MIN = 64, TEXT_ROOM_MIN = 4096, SLOT_BITS_MIN = 7, LENGTH_BYTES = 4 };

/* Up to 8 bytes as a word, little endian. */
static uint64_t load_word(const char *bytes, size_t size_bytes)
{
    uint64_t word = 0;
    memcpy(&word, bytes, size_bytes);
    return word;
}

/* The id of a frame: the length of its name stands before the texts, which are shifted by it. */
static pk_stackid hash_texts(const char *texts, size_t name_bytes, size_t text_bytes)
{
    pk_hashing state = pk_hashing_begin();
    size_t head_bytes = text_bytes < LENGTH_BYTES ? text_bytes : LENGTH_BYTES;
    uint64_t head = name_bytes | load_word(texts, head_bytes) << 32;
    if (head_bytes < LENGTH_BYTES) {
        return pk_hashing_end(state, head, LENGTH_BYTES + text_bytes);
    }
    pk_hashing_word(&state, head);
    size_t at = LENGTH_BYTES;
    for (; at + sizeof(uint64_t) <= text_bytes; at += sizeof(uint64_t)) {
        pk_hashing_word(&state, load_word(texts + at, sizeof(uint64_t)));
    }
    uint64_t last = load_word(texts + at, text_bytes - at);
    return pk_hashing_end(state, last, LENGTH_BYTES + text_bytes);
}

static size_t find_slot(const pk_framenames *names, pk_stackid id)
{
    size_t mask = ((size_t)1 << names->slot_bits) - 1;
    size_t slot = pk_scatter_id(names->scatter, id) >> (64 - names->slot_bits);
    while (names->slots[slot] != 0 && /* ends: half of the slots are unused */
           !pk_stackid_is(names->names[names->slots[slot] - 1].id, id)) {
        slot = (slot + 1) & mask;
    }
    return slot;
}

static int grow_slots(pk_framenames *names)
{
    uint32_t bits = names->slot_bits == 0 ? SLOT_BITS_MIN : names->slot_bits + 1;
    uint32_t *slots = calloc((size_t)1 << bits, sizeof *slots);
    if (slots == NULL) {
        return ENOMEM;
    }
    free(names->slots);
    names->slots = slots;
    names->slot_bits = bits;
    for (uint32_t i = 0; i < names->count; i++) {
        names->slots[find_slot(names, names->names[i].id)] = i + 1;
    }
    return 0;
}

/* Makes room for one more frame of so many bytes. */
static int reserve(pk_framenames *names, size_t text_bytes)
{
    if (names->count == names->room) {
        uint32_t room = names->room == 0 ? ROOM_MIN : 2 * names->room;
        pk_framename *grown = realloc(names->names, room * sizeof *grown);
        if (grown == NULL) {
            return ENOMEM;
        }
        names->names = grown;
        names->room = room;
    }
    if (names->text_bytes + text_bytes > names->text_room) {
        size_t room = 2 * names->text_room + text_bytes + TEXT_ROOM_MIN;
        char *grown = realloc(names->texts, room);
        if (grown == NULL) {
            return ENOMEM;
        }
        names->texts = grown;
        names->text_room = room;
    }
    bool is_full = names->slots == NULL || names->count >= (uint32_t)1 << (names->slot_bits - 1);
    return is_full ? grow_slots(names) : 0;
}

int pk_framenames_intern(pk_framenames *names, const char *texts, size_t name_bytes,
                         size_t file_bytes, uint32_t *ret)
{
    if (name_bytes > PK_FRAME_TEXT_BYTES_MAX || file_bytes > PK_FRAME_TEXT_BYTES_MAX) {
        return EINVAL;
    }
    size_t text_bytes = name_bytes + file_bytes;
    pk_stackid id = hash_texts(texts, name_bytes, text_bytes);
    if (names->count > 0) {
        uint32_t found = names->slots[find_slot(names, id)];
        if (found != 0) {
            const pk_framename *name = &names->names[found - 1];
            *ret = found - 1;
            bool is_same = name->name_bytes == name_bytes && name->file_bytes == file_bytes &&
                           memcmp(names->texts + name->at, texts, text_bytes) == 0;
            return is_same ? 0 : EEXIST;
        }
    }
    if (names->count >= PK_FRAME_NAME_LIMIT) {
        return EOVERFLOW;
    }
    int error = reserve(names, text_bytes);
    if (error != 0) {
        return error;
    }
    memcpy(names->texts + names->text_bytes, texts, text_bytes);
    names->names[names->count] = (pk_framename){.id = id,
                                                .at = names->text_bytes,
                                                .name_bytes = (uint32_t)name_bytes,
                                                .file_bytes = (uint32_t)file_bytes};
    names->text_bytes += text_bytes;
    names->slots[find_slot(names, id)] = names->count + 1;
    *ret = names->count++;
    return 0;
}

int pk_framenames_init(pk_framenames *names)
{
    static const char *const OWN[PK_FRAME_OWN_COUNT] = {"(all)", "[unknown]", "(other)",
                                                        "[truncated]"};
    *names = (pk_framenames){.scatter = pk_scatter_draw()};
    for (int i = 0; i < PK_FRAME_OWN_COUNT; i++) {
        uint32_t number;
        int error = pk_framenames_intern(names, OWN[i], strlen(OWN[i]), 0, &number);
        if (error != 0) {
            pk_framenames_deinit(names);
            return error;
        }
    }
    return 0;
}

void pk_framenames_deinit(pk_framenames *names)
{
    free(names->names);
    free(names->texts);
    free(names->slots);
    *names = (pk_framenames){0};
}

int pk_framenames_copy_texts(const pk_framenames *names, pk_framenames *ret)
{
    *ret = *names;
    ret->slots = NULL;
    ret->room = names->count;
    ret->text_room = names->text_bytes;
    ret->names = malloc(names->count * sizeof *ret->names);
    ret->texts = malloc(names->text_bytes);
    if (ret->names == NULL || ret->texts == NULL) {
        pk_framenames_deinit(ret);
        return ENOMEM;
    }
    memcpy(ret->names, names->names, names->count * sizeof *ret->names);
    memcpy(ret->texts, names->texts, names->text_bytes);
    return 0;
}

int pk_framenames_copy(const pk_framenames *names, pk_framenames *ret)
{
    if (pk_framenames_copy_texts(names, ret) != 0) {
        return ENOMEM;
    }
    size_t slot_bytes = ((size_t)1 << names->slot_bits) * sizeof *ret->slots;
    ret->slots = malloc(slot_bytes);
    if (ret->slots == NULL) {
        pk_framenames_deinit(ret);
        return ENOMEM;
    }
    memcpy(ret->slots, names->slots, slot_bytes);
    return 0;
}

/* Bytes of the name, an end that is below them, bytes of the file. */
static uint32_t take_symbol(const void *context, uint32_t item, uint32_t depth)
{
    const pk_framenames *names = context;
    const pk_framename *name = &names->names[item];
    const uint8_t *texts = (const uint8_t *)names->texts + name->at;
    if (depth < name->name_bytes) {
        return texts[depth] + 2U;
    }
    if (depth == name->name_bytes) {
        return 1;
    }
    return depth <= name->name_bytes + name->file_bytes ? texts[depth - 1] + 2U : 0;
}

int pk_framenames_rank(const pk_framenames *names, uint32_t *ret)
{
    uint32_t *order = malloc(names->count * sizeof *order);
    if (order == NULL) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < names->count; i++) {
        order[i] = i;
    }
    size_t first = PK_FRAME_OWN_COUNT;
    pk_order_sort(order + first, names->count - first, take_symbol, names);
    for (uint32_t i = 0; i < names->count; i++) {
        ret[order[i]] = i;
    }
    free(order);
    return 0;
}

int pk_framenames_copy_ranked(const pk_framenames *names, const uint32_t *ranks,
                              pk_framenames *ret)
{
    if (pk_framenames_copy_texts(names, ret) != 0) {
        return ENOMEM;
    }
    for (uint32_t i = 0; i < names->count; i++) {
        ret->names[ranks[i]] = names->names[i];
    }
    return 0;
}
