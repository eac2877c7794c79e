/* Runs of counts as blocks of equal width: nearly as short as pk_bits.h makes small counts, and
 * read several times as fast, since where a count lies does not depend on the ones before.
 *
 * A block is a byte, the bits of each count, and 16 counts of so many bits from the least
 * significant bit of each byte on; the last one is filled up with zeros. */
#ifndef PK_PACK_H
#define PK_PACK_H
#include <stddef.h>
#include <stdint.h>

enum {
    PK_PACK_BLOCK_COUNT = 16,
    PK_PACK_WIDTH_MAX = 56, /* what eight bytes hold, wherever in a byte it begins */
};

/* How many bytes it takes; SIZE_MAX where a count is too wide. */
size_t pk_pack_bytes(const uint64_t *counts, size_t count);

/* Writes so many bytes. */
void pk_pack_encode(const uint64_t *counts, size_t count, uint8_t *ret);

/* Reads `count` counts and their sum from hostile bytes. 0, or EBADMSG where the bytes do not hold
 * exactly these, or their sum is above INT64_MAX. */
int pk_pack_decode(const uint8_t *bytes, size_t size_bytes, size_t count, uint64_t *ret_counts,
                   uint64_t *ret_sum);

#endif
