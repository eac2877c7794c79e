#include "pk_blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEB_BYTES_MAX = 16 };

int pk_blocks_init(pk_blocks *blocks)
{
    *blocks = (pk_blocks){.read_count = 0};
    blocks->blocks = calloc(PK_BLOCK_LIMIT, sizeof *blocks->blocks);
    blocks->bytes = malloc((size_t)PK_BLOCK_LIMIT * PK_BLOCK_BYTES);
    if (blocks->blocks == NULL || blocks->bytes == NULL) {
        pk_blocks_deinit(blocks);
        return ENOMEM;
    }
    return 0;
}

void pk_blocks_deinit(pk_blocks *blocks)
{
    free(blocks->blocks);
    free(blocks->bytes);
    blocks->blocks = NULL;
    blocks->bytes = NULL;
}

static size_t read_file(int descriptor, uint64_t offset, uint8_t *buffer, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t count = pread(descriptor, buffer + done, size - done, (off_t)(offset + done));
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            break;
        }
        done += (size_t)count;
    }
    return done;
}

/* The block that holds an offset, read if it is not the one kept in its place. */
static const pk_block *find_block(pk_blocks *blocks, const pk_source *source, uint64_t index,
                                  const uint8_t **ret)
{
    uint64_t hash = (index + source->serial * 0x9E3779B9ULL) * 0x9E3779B97F4A7C15ULL;
    size_t slot = (size_t)(hash >> 40) & (PK_BLOCK_LIMIT - 1);
    pk_block *block = &blocks->blocks[slot];
    uint8_t *bytes = blocks->bytes + slot * PK_BLOCK_BYTES;
    if (block->serial != source->serial || block->index != index || block->serial == 0) {
        size_t size = read_file(source->descriptor, index * PK_BLOCK_BYTES, bytes, PK_BLOCK_BYTES);
        *block = (pk_block){index, source->serial, (uint32_t)size};
        blocks->read_count++;
    }
    *ret = bytes;
    return block;
}

size_t pk_blocks_read(pk_blocks *blocks, const pk_source *source, uint64_t offset, void *buffer,
                      size_t size)
{
    if (offset >= source->size_bytes || offset > INT64_MAX - PK_BLOCK_BYTES) {
        return 0;
    }
    if (size > source->size_bytes - offset) {
        size = (size_t)(source->size_bytes - offset);
    }
    if (source->descriptor < 0) {
        memcpy(buffer, source->image + offset, size);
        return size;
    }
    size_t done = 0;
    while (done < size) {
        const uint8_t *bytes;
        uint64_t at = offset + done;
        const pk_block *block = find_block(blocks, source, at / PK_BLOCK_BYTES, &bytes);
        size_t skip = (size_t)(at % PK_BLOCK_BYTES);
        if (skip >= block->size_bytes) {
            break;
        }
        size_t piece = block->size_bytes - skip;
        piece = piece < size - done ? piece : size - done;
        memcpy((uint8_t *)buffer + done, bytes + skip, piece);
        done += piece;
    }
    return done;
}

void pk_cursor_init(pk_cursor *cursor, pk_blocks *blocks, const pk_source *source, uint64_t start,
                    uint64_t size_bytes)
{
    cursor->blocks = blocks;
    cursor->source = source;
    cursor->position = start;
    cursor->end = start + size_bytes;
    cursor->window_start = 0;
    cursor->window_bytes = 0;
    cursor->has_failed = cursor->end < start;
    if (cursor->has_failed) {
        cursor->end = start;
    }
}

static bool fill(pk_cursor *cursor)
{
    if (cursor->has_failed || cursor->position >= cursor->end) {
        cursor->has_failed = true;
        return false;
    }
    uint64_t size = cursor->end - cursor->position;
    size = size < PK_CURSOR_WINDOW_BYTES ? size : PK_CURSOR_WINDOW_BYTES;
    cursor->window_start = cursor->position;
    cursor->window_bytes = pk_blocks_read(cursor->blocks, cursor->source, cursor->position,
                                          cursor->window, (size_t)size);
    cursor->has_failed = cursor->window_bytes == 0;
    return !cursor->has_failed;
}

uint8_t pk_cursor_take_byte(pk_cursor *cursor)
{
    uint64_t place = cursor->position - cursor->window_start;
    if (place >= cursor->window_bytes) {
        if (!fill(cursor)) {
            return 0;
        }
        place = 0;
    }
    cursor->position++;
    return cursor->window[place];
}

uint64_t pk_cursor_take(pk_cursor *cursor, size_t byte_count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < byte_count; i++) {
        value |= (uint64_t)pk_cursor_take_byte(cursor) << (8 * i);
    }
    return cursor->has_failed ? 0 : value;
}

int64_t pk_cursor_take_signed(pk_cursor *cursor, size_t byte_count)
{
    uint64_t value = pk_cursor_take(cursor, byte_count);
    if (byte_count < 8 && (value >> (8 * byte_count - 1) & 1) != 0) {
        value |= UINT64_MAX << (8 * byte_count);
    }
    return (int64_t)value;
}

uint64_t pk_cursor_take_uleb(pk_cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < LEB_BYTES_MAX; i++) {
        uint8_t byte = pk_cursor_take_byte(cursor);
        if (i < 10) {
            value |= (uint64_t)(byte & 0x7F) << (7 * i);
        }
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    cursor->has_failed = true;
    return 0;
}

int64_t pk_cursor_take_sleb(pk_cursor *cursor)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < LEB_BYTES_MAX; i++) {
        uint8_t byte = pk_cursor_take_byte(cursor);
        if (i < 10) {
            value |= (uint64_t)(byte & 0x7F) << (7 * i);
        }
        if ((byte & 0x80) == 0) {
            if (i < 9 && (byte & 0x40) != 0) {
                value |= UINT64_MAX << (7 * (i + 1));
            }
            return (int64_t)value;
        }
    }
    cursor->has_failed = true;
    return 0;
}

void pk_cursor_skip(pk_cursor *cursor, uint64_t byte_count)
{
    if (byte_count > cursor->end - cursor->position) {
        cursor->has_failed = true;
        return;
    }
    cursor->position += byte_count;
}

bool pk_cursor_is_at_end(const pk_cursor *cursor)
{
    return cursor->has_failed || cursor->position >= cursor->end;
}
