/* Runs of counts as bits: each as its difference from the mean of the two before, Rice coded.
 *
 * The parameter follows the sizes of the eight differences before, so nothing but codes is stored.
 * A code is a quotient in unary (zeros, then a one) and `parameter` bits; from QUOTIENT_LIMIT zeros
 * on it is 64 bits as they are. Bits come from the most significant of each byte on. */
#ifndef PK_BITS_H
#define PK_BITS_H
#include <stddef.h>
#include <stdint.h>

/* No encoded run is longer, nor any of less than a bit a count. */
size_t pk_bits_bound(size_t count);

/* Writes counts, each at most INT64_MAX, to room for pk_bits_bound; how many bytes were used. */
size_t pk_bits_encode(const uint64_t *counts, size_t count, uint8_t *ret);

/* Reads `count` counts and their sum from hostile bytes. 0, or EBADMSG where the bytes do not hold
 * exactly these, or their sum is above INT64_MAX. */
int pk_bits_decode(const uint8_t *bytes, size_t size_bytes, size_t count, uint64_t *ret_counts,
                   uint64_t *ret_sum);

#endif
