/* The block code of pk_pack.h. */
#include "pk_pack.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { BLOCK = PK_PACK_BLOCK_COUNT, WORD_BYTES = 8 };

static size_t min_size(size_t one, size_t other)
{
    return one < other ? one : other;
}

static uint32_t find_width(const uint64_t *counts, size_t count)
{
    uint64_t all = 0;
    for (size_t i = 0; i < count; i++) {
        all |= counts[i];
    }
    return all == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(all);
}

/* What a block takes without its first byte. */
static size_t block_bytes(uint32_t width)
{
    return (size_t)width * BLOCK / 8;
}

size_t pk_pack_bytes(const uint64_t *counts, size_t count)
{
    size_t size_bytes = 0;
    for (size_t done = 0; done < count; done += BLOCK) {
        uint32_t width = find_width(counts + done, min_size(BLOCK, count - done));
        if (width > PK_PACK_WIDTH_MAX) {
            return SIZE_MAX;
        }
        size_bytes += 1 + block_bytes(width);
    }
    return size_bytes;
}

void pk_pack_encode(const uint64_t *counts, size_t count, uint8_t *ret)
{
    for (size_t done = 0; done < count; done += BLOCK) {
        size_t block_count = min_size(BLOCK, count - done);
        uint32_t width = find_width(counts + done, block_count);
        uint8_t packed[BLOCK * WORD_BYTES + WORD_BYTES] = {0};
        for (size_t i = 0; i < block_count; i++) {
            uint64_t word;
            uint8_t *at = packed + i * width / 8;
            memcpy(&word, at, sizeof(word));
            word |= counts[done + i] << i * width % 8;
            memcpy(at, &word, sizeof(word));
        }
        *ret = (uint8_t)width;
        memcpy(ret + 1, packed, block_bytes(width));
        ret += 1 + block_bytes(width);
    }
}

/* Reads a block behind which eight more bytes can be read. */
static inline void read_block(const uint8_t *at, uint32_t width, uint64_t *ret_counts,
                                  uint64_t *sum)
{
    uint64_t mask = (1ULL << width) - 1;
    uint64_t block_sum = 0;
    for (size_t i = 0, bit = 0; i < BLOCK; i++, bit += width) {
        uint64_t word;
        memcpy(&word, at + bit / 8, sizeof(word));
        ret_counts[i] = word >> bit % 8 & mask;
        block_sum += ret_counts[i];
    }
    *sum += block_sum;
}

/* A block near the end of the bytes, or of the counts: through room of its own. */
static bool read_last(const uint8_t *at, uint32_t width, size_t count, uint64_t *ret_counts,
                      uint64_t *sum)
{
    uint8_t packed[BLOCK * WORD_BYTES + WORD_BYTES] = {0};
    uint64_t counts[BLOCK];
    memcpy(packed, at, block_bytes(width));
    read_block(packed, width, counts, sum);
    memcpy(ret_counts, counts, count * sizeof(*counts));
    return count == BLOCK || find_width(counts + count, BLOCK - count) == 0;
}

int pk_pack_decode(const uint8_t *bytes, size_t size_bytes, size_t count, uint64_t *ret_counts,
                   uint64_t *ret_sum)
{
    uint64_t sum = 0;
    for (size_t done = 0; done < count; done += BLOCK) {
        uint32_t width = size_bytes > 0 ? bytes[0] : UINT8_MAX;
        size_t block_count = min_size(BLOCK, count - done);
        if (width > PK_PACK_WIDTH_MAX || size_bytes - 1 < block_bytes(width)) {
            return EBADMSG;
        }
        bool is_clean = true;
        if (block_count == BLOCK && size_bytes - 1 >= block_bytes(width) + WORD_BYTES) {
            read_block(bytes + 1, width, ret_counts + done, &sum);
        } else {
            is_clean = read_last(bytes + 1, width, block_count, ret_counts + done, &sum);
        }
        /* A block adds less than 2^60, so no sum passes 2^64 unseen. */
        if (!is_clean || sum > INT64_MAX) {
            return EBADMSG;
        }
        bytes += 1 + block_bytes(width);
        size_bytes -= 1 + block_bytes(width);
    }
    *ret_sum = sum;
    return size_bytes == 0 ? 0 : EBADMSG;
}
