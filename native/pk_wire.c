/* Histograms to bytes and back. */
#include "pk_wire.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "pk_bits.h"
#include "pk_pack.h"

enum {
    VERSION = 1,
    HAS_RANGE = 1,
    HAS_EXTREMES = 2,
    HAS_OTHERS = 4,
    HAS_POSITIVE = 8, /* shifted by the sign */
    HAS_NEGATIVE = 16,
    FLAGS_KNOWN = 31,
    OTHER_COUNT = 8,
    VARINT_BYTES_MAX = 10,
    CODED_AS_BITS = 0,
    PACKED = 1,
    HEADER_BYTES_MAX = 6 + 1 + PK_UNIT_BYTES_MAX + 4 + 24 + OTHER_COUNT * VARINT_BYTES_MAX,
};
static const uint8_t MAGIC[4] = {'P', 'K', 'H', VERSION};

/* The counts that have no bucket, in the order in which they are written. */
static void list_others(pk_histogram *histogram, uint64_t *ret[OTHER_COUNT])
{
    ret[0] = &histogram->zero_count;
    ret[1] = &histogram->under_count;
    ret[2] = &histogram->over_counts[PK_POSITIVE];
    ret[3] = &histogram->over_counts[PK_NEGATIVE];
    ret[4] = &histogram->infinite_counts[PK_POSITIVE];
    ret[5] = &histogram->infinite_counts[PK_NEGATIVE];
    ret[6] = &histogram->nan_count;
    ret[7] = &histogram->subnormal_count;
}

static uint8_t *write_varint(uint8_t *at, uint64_t number)
{
    for (; number >= 128; number >>= 7) {
        *at++ = (uint8_t)(number | 128);
    }
    *at++ = (uint8_t)number;
    return at;
}

static uint8_t *write_bytes(uint8_t *at, const void *bytes, size_t size_bytes)
{
    memcpy(at, bytes, size_bytes);
    return at + size_bytes;
}

static uint8_t *write_extremes(uint8_t *at, const pk_histogram *histogram)
{
    at = write_bytes(at, &histogram->sum, sizeof(double));
    at = write_bytes(at, &histogram->min, sizeof(double));
    return write_bytes(at, &histogram->max, sizeof(double));
}

static uint8_t find_flags(const pk_histogram *histogram)
{
    pk_histogram seen = *histogram;
    uint64_t *others[OTHER_COUNT];
    uint32_t first;
    uint32_t last;
    uint8_t flags = 0;
    list_others(&seen, others);
    for (int i = 0; i < OTHER_COUNT; i++) {
        flags |= *others[i] != 0 ? HAS_OTHERS : 0;
    }
    if (histogram->low_exponent != PK_EXPONENT_MIN || histogram->high_exponent != PK_EXPONENT_MAX) {
        flags |= HAS_RANGE;
    }
    flags |= histogram->min <= histogram->max ? HAS_EXTREMES : 0;
    for (int sign = 0; sign < PK_SIGN_COUNT; sign++) {
        bool is_used = pk_histogram_find_used(histogram, sign, &first, &last);
        flags |= is_used ? (uint8_t)(HAS_POSITIVE << sign) : 0;
    }
    return flags;
}

static uint8_t *write_header(uint8_t *at, const pk_histogram *histogram, pk_unit unit,
                             uint8_t flags)
{
    pk_histogram seen = *histogram;
    uint64_t *others[OTHER_COUNT];
    int16_t range[2] = {(int16_t)histogram->low_exponent, (int16_t)histogram->high_exponent};
    list_others(&seen, others);
    at = write_bytes(at, MAGIC, sizeof(MAGIC));
    *at++ = (uint8_t)histogram->mapping->scale;
    *at++ = flags;
    *at++ = (uint8_t)unit.size_bytes;
    at = write_bytes(at, unit.text, unit.size_bytes);
    if ((flags & HAS_RANGE) != 0) {
        at = write_bytes(at, range, sizeof(range));
    }
    if ((flags & HAS_EXTREMES) != 0) {
        at = write_extremes(at, histogram);
    }
    for (int i = 0; (flags & HAS_OTHERS) != 0 && i < OTHER_COUNT; i++) {
        at = write_varint(at, *others[i]);
    }
    return at;
}

/* Writes a run of counts. Packed ones are read much faster, which is worth a fourth more bytes. */
static size_t write_counts(uint8_t *at, const uint64_t *counts, size_t length)
{
    size_t code_bytes = pk_bits_encode(counts, length, at + 1);
    size_t packed_bytes = pk_pack_bytes(counts, length);
    *at = CODED_AS_BITS;
    if (packed_bytes <= code_bytes + code_bytes / 4 + PK_PACK_BLOCK_COUNT) {
        *at = PACKED;
        pk_pack_encode(counts, length, at + 1);
        code_bytes = packed_bytes;
    }
    return 1 + code_bytes;
}

/* The bytes of a run lie behind their number, whose length they decide: they are moved up to it. */
static uint8_t *write_side(uint8_t *at, const pk_histogram *histogram, pk_sign sign)
{
    const pk_buckets *buckets = &histogram->buckets[sign];
    uint32_t first;
    uint32_t last;
    if (!pk_histogram_find_used(histogram, sign, &first, &last)) {
        return at;
    }
    uint32_t length = last - first + 1;
    at = write_varint(at, first);
    at = write_varint(at, length);
    uint8_t *room = at + VARINT_BYTES_MAX;
    size_t code_bytes =
        write_counts(room, buckets->counts + (first - buckets->first_slot), length);
    at = write_varint(at, code_bytes);
    memmove(at, room, code_bytes);
    return at + code_bytes;
}

int pk_wire_encode(const pk_histogram *histogram, pk_unit unit, uint8_t **ret,
                   size_t *ret_size_bytes)
{
    size_t bound = HEADER_BYTES_MAX;
    for (int sign = 0; sign < PK_SIGN_COUNT; sign++) {
        size_t code_bytes = pk_bits_bound(histogram->buckets[sign].length);
        bound += code_bytes + code_bytes / 4 + PK_PACK_BLOCK_COUNT + 5 * VARINT_BYTES_MAX;
    }
    uint8_t *bytes = malloc(bound);
    if (bytes == NULL) {
        return ENOMEM;
    }
    uint8_t *at = write_header(bytes, histogram, unit, find_flags(histogram));
    at = write_side(at, histogram, PK_POSITIVE);
    at = write_side(at, histogram, PK_NEGATIVE);
    *ret = bytes;
    *ret_size_bytes = (size_t)(at - bytes);
    return 0;
}

/* What is left to read; once something was amiss, nothing is. */
typedef struct {
    const uint8_t *at;
    size_t left_bytes;
    bool is_bad;
} reader;

static const uint8_t *read_bytes(reader *from, size_t size_bytes)
{
    if (from->is_bad || size_bytes > from->left_bytes) {
        from->is_bad = true;
        return NULL;
    }
    const uint8_t *bytes = from->at;
    from->at += size_bytes;
    from->left_bytes -= size_bytes;
    return bytes;
}

static void read_into(reader *from, void *ret, size_t size_bytes)
{
    const uint8_t *bytes = read_bytes(from, size_bytes);
    if (bytes != NULL) {
        memcpy(ret, bytes, size_bytes);
    }
}

/* A number of at most `limit`; 0 where it is none. */
static uint64_t read_varint(reader *from, uint64_t limit)
{
    uint64_t number = 0;
    for (uint32_t shift = 0; shift < 63; shift += 7) {
        const uint8_t *byte = read_bytes(from, 1);
        if (byte == NULL) {
            return 0;
        }
        number |= (uint64_t)(*byte & 127) << shift;
        if (*byte < 128) {
            from->is_bad |= number > limit;
            return from->is_bad ? 0 : number;
        }
    }
    from->is_bad = true;
    return 0;
}

static void read_others(reader *from, pk_histogram *ret)
{
    uint64_t *others[OTHER_COUNT];
    list_others(ret, others);
    for (int i = 0; i < OTHER_COUNT; i++) {
        *others[i] = read_varint(from, PK_COUNT_LIMIT);
    }
}

static int read_counts(const uint8_t *code, size_t code_bytes, size_t length,
                       uint64_t *ret_counts, uint64_t *ret_sum)
{
    switch (code[0]) {
    case CODED_AS_BITS:
        return pk_bits_decode(code + 1, code_bytes - 1, length, ret_counts, ret_sum);
    case PACKED:
        return pk_pack_decode(code + 1, code_bytes - 1, length, ret_counts, ret_sum);
    default:
        return EBADMSG;
    }
}

static int read_side(reader *from, pk_sign sign, pk_histogram *ret, uint64_t *ret_sum)
{
    uint64_t first = read_varint(from, UINT32_MAX);
    uint64_t length = read_varint(from, UINT32_MAX);
    uint64_t code_bytes = read_varint(from, from->left_bytes);
    const uint8_t *code = read_bytes(from, code_bytes);
    bool is_within = first >= pk_histogram_range_first(ret) && length > 0 &&
                     first + length <= pk_histogram_range_end(ret);
    /* No 16 counts take less than a byte, so memory is bounded by what was sent. */
    if (code == NULL || !is_within || code_bytes == 0 ||
        length > PK_PACK_BLOCK_COUNT * code_bytes) {
        return EBADMSG;
    }
    int error = pk_histogram_reserve(ret, sign, (uint32_t)first, (uint32_t)(first + length - 1));
    if (error != 0) {
        return error;
    }
    return read_counts(code, code_bytes, length, ret->buckets[sign].counts, ret_sum);
}

/* Adds up what was read; false where it does not fit together. */
static bool settle(pk_histogram *ret, const uint64_t sums[PK_SIGN_COUNT], bool has_extremes)
{
    const uint64_t parts[] = {
        sums[PK_POSITIVE],          sums[PK_NEGATIVE],
        ret->zero_count,            ret->under_count,
        ret->over_counts[0],        ret->over_counts[1],
        ret->infinite_counts[0],    ret->infinite_counts[1],
        ret->nan_count,
    };
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        sum += parts[i]; /* each is at most the limit, so this does not wrap */
        if (sum > PK_COUNT_LIMIT) {
            return false;
        }
    }
    ret->count = sum - ret->nan_count;
    uint64_t finite_count =
        ret->count - ret->infinite_counts[PK_POSITIVE] - ret->infinite_counts[PK_NEGATIVE];
    bool is_ordered = isfinite(ret->min) && isfinite(ret->max) && ret->min <= ret->max;
    return has_extremes == (finite_count > 0) && (!has_extremes || is_ordered) &&
           ret->subnormal_count <= finite_count;
}

static bool read_range(reader *from, int16_t range[2])
{
    read_into(from, range, 2 * sizeof(range[0]));
    return range[0] >= PK_EXPONENT_MIN && range[1] <= PK_EXPONENT_MAX && range[0] < range[1];
}

/* Reads what lies before the buckets. */
static int read_header(reader *from, const pk_bucketing *mappings, pk_histogram *ret,
                       pk_unit *ret_unit, uint8_t *ret_flags)
{
    uint8_t head[7] = {0};
    int16_t range[2] = {PK_EXPONENT_MIN, PK_EXPONENT_MAX};
    read_into(from, head, sizeof(head));
    uint8_t scale = head[4];
    *ret_flags = head[5];
    ret_unit->size_bytes = head[6];
    ret_unit->text = (const char *)read_bytes(from, ret_unit->size_bytes);
    if (from->is_bad || memcmp(head, MAGIC, sizeof(MAGIC)) != 0 || scale > PK_SCALE_MAX ||
        (*ret_flags & ~FLAGS_KNOWN) != 0 || ret_unit->size_bytes > PK_UNIT_BYTES_MAX) {
        return EBADMSG;
    }
    if ((*ret_flags & HAS_RANGE) != 0 && !read_range(from, range)) {
        return EBADMSG;
    }
    pk_histogram_init(ret, &mappings[scale], range[0], range[1]);
    if ((*ret_flags & HAS_EXTREMES) != 0) {
        read_into(from, &ret->sum, sizeof(double));
        read_into(from, &ret->min, sizeof(double));
        read_into(from, &ret->max, sizeof(double));
    }
    if ((*ret_flags & HAS_OTHERS) != 0) {
        read_others(from, ret);
    }
    return from->is_bad ? EBADMSG : 0;
}

int pk_wire_decode(const uint8_t *bytes, size_t size_bytes, const pk_bucketing *mappings,
                   pk_histogram *ret, pk_unit *ret_unit)
{
    reader from = {.at = bytes, .left_bytes = size_bytes};
    uint64_t sums[PK_SIGN_COUNT] = {0, 0};
    uint8_t flags = 0;
    int error = read_header(&from, mappings, ret, ret_unit, &flags);
    if (error != 0) {
        return error;
    }
    for (int sign = 0; error == 0 && sign < PK_SIGN_COUNT; sign++) {
        if ((flags & HAS_POSITIVE << sign) != 0) {
            error = read_side(&from, sign, ret, &sums[sign]);
        }
    }
    if (error == 0 && (from.left_bytes > 0 || !settle(ret, sums, (flags & HAS_EXTREMES) != 0))) {
        error = EBADMSG;
    }
    if (error != 0) {
        pk_histogram_deinit(ret);
    }
    return error;
}
