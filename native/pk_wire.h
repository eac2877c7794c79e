/* A histogram as bytes: small, and safe to read from anyone.
 *
 * "PKH", version 1; scale; flags; unit (a length of one byte, UTF-8); then what the flags say, in
 * this order: exponents of the range (two signed 16-bit numbers); sum, min and max (doubles);
 * counts of what has no bucket (eight varints); positive, then negative buckets (varints of the
 * first slot, the number of counts, the number of bytes; these bytes, the first of which says
 * whether pk_bits.h, 0, or pk_pack.h, 1, has the others). Little endian. */
#ifndef PK_WIRE_H
#define PK_WIRE_H
#include "pk_histogram.h"

enum { PK_UNIT_BYTES_MAX = 63 };

typedef struct {
    const char *text; /* not terminated */
    size_t size_bytes;
} pk_unit;

/* At *ret, to be freed with free(). ENOMEM. */
int pk_wire_encode(const pk_histogram *histogram, pk_unit unit, uint8_t **ret,
                   size_t *ret_size_bytes);

/* Reads hostile bytes; `mappings` are those of the scales from 0 on. The unit lies in the bytes,
 * and nothing of it was checked. Takes at most 4 MiB for each sign, and 128 times the bytes.
 * EBADMSG where it is none, ENOMEM. */
int pk_wire_decode(const uint8_t *bytes, size_t size_bytes, const pk_bucketing *mappings,
                   pk_histogram *ret, pk_unit *ret_unit);

#endif
