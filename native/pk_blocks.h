/* Bytes of other people's files, read block by block into memory of a fixed size. A file may change
 * or shrink at any time: nothing is mapped, and what comes is never believed.
 * One thread uses it. */
#ifndef PK_BLOCKS_H
#define PK_BLOCKS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PK_BLOCK_BYTES = 4096,
    PK_BLOCK_LIMIT = 1024, /* a power of two */
    PK_CURSOR_WINDOW_BYTES = 128,
};

/* A file, or an image in our own memory. */
typedef struct {
    int descriptor; /* -1 = the image */
    uint32_t serial; /* never that of another source; 0 = none, not kept in blocks */
    uint64_t size_bytes;
    const uint8_t *image;
} pk_source;

typedef struct {
    uint64_t index; /* of the block in its source */
    uint32_t serial;
    uint32_t size_bytes;
} pk_block;

typedef struct {
    pk_block *blocks;
    uint8_t *bytes;
    int64_t read_count; /* how many blocks were read */
    int64_t step_count; /* how many entries and instructions of tables were looked at */
} pk_blocks;

int pk_blocks_init(pk_blocks *blocks);
void pk_blocks_deinit(pk_blocks *blocks);

/* Copies what there is of a range; returns how many bytes came. */
size_t pk_blocks_read(pk_blocks *blocks, const pk_source *source, uint64_t offset, void *buffer,
                      size_t size);

/* Reads numbers one behind the other from a range of a source. Behind the end they are 0, and
 * has_failed is set and stays. */
typedef struct {
    pk_blocks *blocks;
    const pk_source *source;
    uint64_t position;
    uint64_t end;
    uint64_t window_start;
    size_t window_bytes;
    bool has_failed;
    uint8_t window[PK_CURSOR_WINDOW_BYTES];
} pk_cursor;

void pk_cursor_init(pk_cursor *cursor, pk_blocks *blocks, const pk_source *source, uint64_t start,
                    uint64_t size_bytes);
uint8_t pk_cursor_take_byte(pk_cursor *cursor);
/* Little-endian, 1 to 8 bytes. */
uint64_t pk_cursor_take(pk_cursor *cursor, size_t byte_count);
int64_t pk_cursor_take_signed(pk_cursor *cursor, size_t byte_count);
/* LEB128; bits above 64 are lost. */
uint64_t pk_cursor_take_uleb(pk_cursor *cursor);
int64_t pk_cursor_take_sleb(pk_cursor *cursor);
void pk_cursor_skip(pk_cursor *cursor, uint64_t byte_count);
bool pk_cursor_is_at_end(const pk_cursor *cursor);

#endif
