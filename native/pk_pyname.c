#include "pk_pyname.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pk_remote.h"

enum {
    SLOT_COUNT = 4 * PK_PYNAME_LIMIT,
    PROBE_LIMIT = 64,
    /* CPython 3.11 to 3.13, the state of a str: interned in 2 bits, kind in 3, compact, ascii. */
    KIND_SHIFT = 2,
};
static const int64_t CHECK_NS = 500 * 1000 * 1000;

int pk_pynames_init(pk_pynames *names)
{
    *names = (pk_pynames){.dropped_count = 0};
    names->names = calloc(PK_PYNAME_LIMIT, sizeof *names->names);
    names->arena = malloc(PK_PYNAME_ARENA_BYTES);
    names->slots = calloc(SLOT_COUNT, sizeof *names->slots);
    if (names->names == NULL || names->arena == NULL || names->slots == NULL) {
        pk_pynames_deinit(names);
        return ENOMEM;
    }
    return 0;
}

void pk_pynames_deinit(pk_pynames *names)
{
    free(names->names);
    free(names->arena);
    free(names->slots);
    names->names = NULL;
    names->arena = NULL;
    names->slots = NULL;
}

int pk_pycodes_init(pk_pycodes *codes)
{
    codes->count = 0;
    codes->codes = calloc(PK_PYCODE_LIMIT, sizeof *codes->codes);
    return codes->codes == NULL ? ENOMEM : 0;
}

void pk_pycodes_deinit(pk_pycodes *codes)
{
    free(codes->codes);
    codes->codes = NULL;
}

/* FNV-1a. */
static uint64_t hash_bytes(uint64_t hash, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * 1099511628211ULL;
    }
    return hash;
}

static size_t put_utf8(uint32_t letter, char *ret)
{
    if (letter < 0x80) {
        ret[0] = (char)letter;
        return 1;
    }
    if (letter < 0x800) {
        ret[0] = (char)(0xc0 | letter >> 6);
        ret[1] = (char)(0x80 | (letter & 0x3f));
        return 2;
    }
    if (letter > 0x10ffff || (letter >= 0xd800 && letter < 0xe000)) {
        ret[0] = '?';
        return 1;
    }
    if (letter < 0x10000) {
        ret[0] = (char)(0xe0 | letter >> 12);
        ret[1] = (char)(0x80 | (letter >> 6 & 0x3f));
        ret[2] = (char)(0x80 | (letter & 0x3f));
        return 3;
    }
    ret[0] = (char)(0xf0 | letter >> 18);
    ret[1] = (char)(0x80 | (letter >> 12 & 0x3f));
    ret[2] = (char)(0x80 | (letter >> 6 & 0x3f));
    ret[3] = (char)(0x80 | (letter & 0x3f));
    return 4;
}

/* Reads a str object as UTF-8: its first characters, or, for paths, its last ones. */
static int read_text(const pk_pylayout *layout, pid_t pid, uint64_t address, bool wants_end,
                     char ret[PK_PYNAME_TEXT_BYTES], size_t *ret_size)
{
    const int64_t *offsets = layout->offsets;
    char head[PK_PY_TEXT_SPAN_BYTES];
    if (!pk_remote_is_address(address, layout->text_bytes)) {
        return EBADMSG;
    }
    int error = pk_remote_read(pid, address, head, layout->text_bytes);
    if (error != 0) {
        return error;
    }
    uint64_t length = pk_remote_word(head, (size_t)offsets[PK_PY_TEXT_LENGTH]);
    uint32_t state = (uint32_t)pk_remote_word(head, (size_t)offsets[PK_PY_TEXT_STATE]);
    uint32_t width = state >> KIND_SHIFT & 7;
    bool is_compact = (state >> (KIND_SHIFT + 3) & 1) != 0;
    bool is_ascii = (state >> (KIND_SHIFT + 4) & 1) != 0;
    if (!is_compact || (width != 1 && width != 2 && width != 4) || length > 1 << 20) {
        return EBADMSG;
    }
    size_t count = length < PK_PYNAME_TEXT_LIMIT ? (size_t)length : PK_PYNAME_TEXT_LIMIT;
    size_t first = wants_end ? (size_t)length - count : 0;
    int head_field = is_ascii ? PK_PY_TEXT_ASCII_BYTES : PK_PY_TEXT_COMPACT_BYTES;
    uint64_t place = address + first * width + (uint64_t)offsets[head_field];
    unsigned char raw[PK_PYNAME_TEXT_BYTES];
    error = count == 0 ? 0 : pk_remote_read(pid, place, raw, count * width);
    if (error != 0) {
        return error;
    }
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t letter = 0;
        memcpy(&letter, raw + i * width, width); /* little-endian */
        size += put_utf8(letter, ret + size);
    }
    *ret_size = size;
    return 0;
}

int pk_pynames_intern(pk_pynames *names, const char *text, size_t name_bytes, size_t file_bytes,
                      uint32_t *ret)
{
    size_t size = name_bytes + file_bytes;
    uint64_t hash = hash_bytes(14695981039346656037ULL ^ name_bytes, text, size);
    uint32_t count = atomic_load_explicit(&names->count, memory_order_relaxed);
    size_t slot = hash % SLOT_COUNT;
    while (names->slots[slot] != 0) { /* ends: three quarters of the slots are unused */
        uint32_t index = names->slots[slot] - 1;
        const pk_pyname *found = &names->names[index];
        if (found->hash == hash && found->name_bytes == name_bytes &&
            found->file_bytes == file_bytes &&
            memcmp(names->arena + found->name_at, text, size) == 0) {
            *ret = index;
            return 0;
        }
        slot = (slot + 1) % SLOT_COUNT;
    }
    if (count >= PK_PYNAME_LIMIT || size > PK_PYNAME_ARENA_BYTES - names->arena_used) {
        names->dropped_count++;
        return ENOSPC;
    }
    memcpy(names->arena + names->arena_used, text, size);
    names->names[count] = (pk_pyname){
        names->arena_used, (uint16_t)name_bytes, (uint16_t)file_bytes, hash,
    };
    names->arena_used += (uint32_t)size;
    names->slots[slot] = count + 1;
    atomic_store_explicit(&names->count, count + 1, memory_order_release);
    *ret = count;
    return 0;
}

/* Reads the texts of a code object whose fields are known. */
static int read_names(pk_pynames *names, const pk_pylayout *layout, pid_t pid, pk_pycode *code)
{
    char text[2 * PK_PYNAME_TEXT_BYTES];
    size_t name_bytes = 0;
    size_t file_bytes = 0;
    int error = read_text(layout, pid, code->name, false, text, &name_bytes);
    if (error == 0) {
        error = read_text(layout, pid, code->file, true, text + name_bytes, &file_bytes);
    }
    return error != 0 ? error
                      : pk_pynames_intern(names, text, name_bytes, file_bytes, &code->function);
}

static int read_code(const pk_pylayout *layout, pid_t pid, uint64_t address, pk_pycode *ret)
{
    char raw[PK_PY_CODE_SPAN_BYTES];
    if (!pk_remote_is_address(address, layout->code_bytes)) {
        return EBADMSG;
    }
    int error = pk_remote_read(pid, address, raw, layout->code_bytes);
    if (error != 0) {
        return error;
    }
    ret->address = address;
    ret->name = pk_remote_word(raw, (size_t)layout->offsets[PK_PY_CODE_NAME]);
    ret->file = pk_remote_word(raw, (size_t)layout->offsets[PK_PY_CODE_FILE]);
    ret->line = (uint32_t)pk_remote_word(raw, (size_t)layout->offsets[PK_PY_CODE_LINE]);
    return 0;
}

/* The place of an address in the table, or of what has to make room for it. */
static pk_pycode *place_of(pk_pycodes *codes, uint64_t address)
{
    uint64_t hash = (address >> 4) * 0x9e3779b97f4a7c15ULL;
    size_t first = (size_t)(hash >> 32) % PK_PYCODE_LIMIT;
    for (size_t i = 0; i < PROBE_LIMIT; i++) {
        pk_pycode *code = &codes->codes[(first + i) % PK_PYCODE_LIMIT];
        if (code->address == address || code->address == 0) {
            return code;
        }
    }
    return &codes->codes[first];
}

int pk_pycodes_find(pk_pycodes *codes, pk_pynames *names, const pk_pylayout *layout, pid_t pid,
                    uint64_t address, int64_t now_ns, uint32_t *ret)
{
    pk_pycode *known = place_of(codes, address);
    bool is_known = known->address == address;
    if (is_known && now_ns - known->checked_ns < CHECK_NS) {
        *ret = known->function;
        return 0;
    }
    pk_pycode now;
    int error = read_code(layout, pid, address, &now);
    if (error != 0) {
        return error;
    }
    if (is_known && now.name == known->name && now.file == known->file &&
        now.line == known->line) {
        now.function = known->function;
    } else {
        error = read_names(names, layout, pid, &now);
        if (error != 0) {
            return error;
        }
    }
    now.checked_ns = now_ns;
    *known = now;
    *ret = now.function;
    return 0;
}
