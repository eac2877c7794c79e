/* Entries of .eh_frame: which one belongs to an address, and what its head says. */
#include "pk_cfi.h"

#include <errno.h>
#include <string.h>

enum {
    INDEX_ROW_BYTES = 8,
    ENTRY_HEAD_BYTES = 4,
    ENTRY_BYTES_MAX = 1 << 20,
    AUGMENTATION_LIMIT = 8,
    ENCODING_FORMAT = 0x0F, /* of a pointer */
    ENCODING_RELATION = 0x70,
    ENCODING_TO_ITSELF = 0x10,
    ENCODING_OMITTED = 0xFF,
};

/* What a common entry (CIE) says for all that refer to it. */
typedef struct {
    uint64_t offset; /* UINT64_MAX: none was read yet */
    pk_fde fde;      /* as far as it is told there */
    uint8_t pointer_encoding;
    bool has_augmentation;
} common;

/* Where a lookup happens, and the common entry it met last: most entries share one. */
typedef struct {
    const pk_elf *elf;
    pk_blocks *blocks;
    const pk_source *source;
    common *last;
} tables;

static uint64_t to_address(tables from, uint64_t offset)
{
    return offset - from.elf->frames_offset + from.elf->frames_address;
}

static uint64_t take_pointer(tables from, pk_cursor *at, uint8_t encoding, bool is_size)
{
    static const uint8_t sizes[16] = {
        [0] = 8, [2] = 2, [3] = 4, [4] = 8, [10] = 2, [11] = 4, [12] = 8}; /* by format */
    uint64_t place = to_address(from, at->position);
    size_t size = sizes[encoding & ENCODING_FORMAT];
    uint8_t relation = encoding & ENCODING_RELATION;
    if (size == 0 || (relation != 0 && relation != ENCODING_TO_ITSELF) || (encoding & 0x80) != 0) {
        at->has_failed = true;
        return 0;
    }
    bool is_signed = (encoding & 0x08) != 0 && !is_size;
    uint64_t value =
        is_signed ? (uint64_t)pk_cursor_take_signed(at, size) : pk_cursor_take(at, size);
    return relation == ENCODING_TO_ITSELF && !is_size ? value + place : value;
}

static bool take_augmentation(tables from, pk_cursor *at, const char *letters, common *ret)
{
    ret->pointer_encoding = 0;
    ret->has_augmentation = letters[0] == 'z';
    if (letters[0] == '\0') {
        return true;
    }
    if (letters[0] != 'z') {
        return false;
    }
    uint64_t size = pk_cursor_take_uleb(at);
    if (size > at->end - at->position) {
        return false;
    }
    uint64_t end = at->position + size;
    for (const char *letter = letters + 1; *letter != '\0'; letter++) {
        if (*letter == 'R') {
            ret->pointer_encoding = pk_cursor_take_byte(at);
        } else if (*letter == 'L') {
            pk_cursor_take_byte(at);
        } else if (*letter == 'S') {
            ret->fde.is_signal = true;
        } else if (*letter == 'P') {
            uint8_t encoding = pk_cursor_take_byte(at);
            if (encoding != ENCODING_OMITTED) {
                take_pointer(from, at, encoding & ENCODING_FORMAT, true);
            }
        } else {
            return false;
        }
    }
    if (at->has_failed || at->position > end) {
        return false;
    }
    pk_cursor_skip(at, end - at->position);
    return !at->has_failed;
}

/* Bounds of the entry at an offset: 0 where the table ends. */
static uint64_t take_length(pk_cursor *at)
{
    uint64_t length = pk_cursor_take(at, 4);
    if (length == UINT32_MAX) {
        length = pk_cursor_take(at, 8);
    }
    return at->has_failed || length > at->end - at->position ? 0 : length;
}

static bool read_common(tables from, uint64_t offset)
{
    const pk_elf *elf = from.elf;
    common *ret = from.last;
    pk_fde *fde = &ret->fde;
    if (ret->offset == offset) {
        return true;
    }
    memset(ret, 0, sizeof *ret);
    ret->offset = UINT64_MAX;
    pk_cursor at;
    pk_cursor_init(&at, from.blocks, from.source, offset,
                   elf->frames_offset + elf->frames_bytes - offset);
    uint64_t length = take_length(&at);
    if (length == 0 || length > ENTRY_BYTES_MAX) {
        return false;
    }
    at.end = at.position + length;
    uint64_t identity = pk_cursor_take(&at, 4);
    uint8_t version = pk_cursor_take_byte(&at);
    char letters[AUGMENTATION_LIMIT + 1] = {0};
    for (size_t i = 0; i < sizeof letters; i++) {
        letters[i] = (char)pk_cursor_take_byte(&at);
        if (letters[i] == '\0') {
            break;
        }
    }
    if (identity != 0 || (version != 1 && version != 3) || letters[AUGMENTATION_LIMIT] != '\0') {
        return false;
    }
    fde->code_align = pk_cursor_take_uleb(&at);
    fde->data_align = pk_cursor_take_sleb(&at);
    fde->return_register = version == 1 ? pk_cursor_take_byte(&at) : pk_cursor_take_uleb(&at);
    if (!take_augmentation(from, &at, letters, ret) || at.has_failed) {
        return false;
    }
    fde->common_offset = at.position;
    fde->common_bytes = at.end - at.position;
    ret->offset = offset;
    return true;
}

/* Reads the entry at a cursor, which is moved behind it. ENOENT: it is a common one, or of another
 * address. ERANGE: the table ends here. */
static int read_entry(tables from, pk_cursor *at, uint64_t address, pk_fde *fde)
{
    uint64_t length = take_length(at);
    from.blocks->step_count++;
    if (length < 4) {
        return ERANGE;
    }
    uint64_t behind = at->position + length;
    pk_cursor entry = *at;
    entry.end = behind;
    pk_cursor_skip(at, length);
    uint64_t place = entry.position;
    uint64_t distance = pk_cursor_take(&entry, 4); /* back from here to the common entry */
    if (distance == 0) {
        return ENOENT;
    }
    if (length > ENTRY_BYTES_MAX || distance > place - from.elf->frames_offset) {
        return EBADMSG;
    }
    if (!read_common(from, place - distance)) {
        return EBADMSG;
    }
    *fde = from.last->fde;
    fde->start = take_pointer(from, &entry, from.last->pointer_encoding, false);
    fde->size_bytes = take_pointer(from, &entry, from.last->pointer_encoding, true);
    if (entry.has_failed) {
        return EBADMSG;
    }
    if (address < fde->start || address - fde->start >= fde->size_bytes) {
        return ENOENT;
    }
    if (from.last->has_augmentation) {
        pk_cursor_skip(&entry, pk_cursor_take_uleb(&entry));
    }
    fde->program_offset = entry.position;
    fde->program_bytes = behind - entry.position;
    return entry.has_failed ? EBADMSG : 0;
}

/* The last row that begins at or below the address, both counted from the table's base. */
static bool search_index(tables from, uint64_t address, uint64_t *ret_offset)
{
    const pk_elf *elf = from.elf;
    int64_t wanted = (int64_t)(address - elf->index_base);
    uint64_t low = 0;
    uint64_t high = elf->index_count;
    int32_t row[2] = {0, 0};
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int32_t start;
        if (pk_blocks_read(from.blocks, from.source, elf->index_offset + middle * INDEX_ROW_BYTES,
                           &start, sizeof start) != sizeof start) {
            return false;
        }
        if (start <= wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0 || pk_blocks_read(from.blocks, from.source,
                                   elf->index_offset + (low - 1) * INDEX_ROW_BYTES, row,
                                   sizeof row) != sizeof row) {
        return false;
    }
    uint64_t place = elf->index_base + (uint64_t)(int64_t)row[1];
    if (place < elf->frames_address || place - elf->frames_address >= elf->frames_bytes) {
        return false;
    }
    *ret_offset = place - elf->frames_address + elf->frames_offset;
    return true;
}

int pk_fde_find(pk_fde *fde, const pk_elf *elf, pk_blocks *blocks, const pk_source *source,
                uint64_t address)
{
    common last = {.offset = UINT64_MAX};
    tables from = {elf, blocks, source, &last};
    if (elf->frames_bytes == 0) {
        return ENOENT;
    }
    uint64_t end = elf->frames_offset + elf->frames_bytes;
    uint64_t start = elf->frames_offset;
    if (elf->index_count != 0 && !search_index(from, address, &start)) {
        return ENOENT;
    }
    pk_cursor at;
    pk_cursor_init(&at, blocks, source, start, end - start);
    if (elf->index_count != 0) {
        int error = read_entry(from, &at, address, fde);
        return error == ERANGE ? EBADMSG : error;
    }
    for (int i = 0; i < PK_CFI_SCAN_LIMIT; i++) {
        int error = read_entry(from, &at, address, fde);
        if (error == 0) {
            return 0;
        }
        if (error == ERANGE) {
            return ENOENT;
        }
    }
    return EBADMSG;
}
