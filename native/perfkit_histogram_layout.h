/* What the file of a shared histogram holds: written by perfkit_histogram.h, and read from outside.
 *
 * A header, then shards of equal size, each a head and its buckets; little-endian, the numbers at
 * multiples of their size. Shard 0 is everybody's and is added to atomically, each other one has
 * one writer at a time. Counts only grow, also when a shard passes to another writer. The header is
 * fixed before the file is sealed; from then on its size is, too, so mapping it is safe. */
#ifndef PERFKIT_HISTOGRAM_LAYOUT_H
#define PERFKIT_HISTOGRAM_LAYOUT_H
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__linux__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || __SIZEOF_POINTER__ != 8
#error "shared histograms need 64-bit little-endian Linux"
#endif

/* The name of the memfd: links in /proc/PID/fd begin with "/memfd:perfkit-histogram". */
#define PERFKIT_FILE_NAME "perfkit-histogram"
#define PERFKIT_MAGIC "PKSHIST\n"

enum {
    PERFKIT_BYTE_ORDER = 0x01020304,
    PERFKIT_LAYOUT_VERSION = 1,
    PERFKIT_SEALS = 1 | 2 | 4, /* F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW */
    PERFKIT_SCALE = 6,         /* 2^6 buckets an octave */
    PERFKIT_SLOT_SHIFT = 52 - PERFKIT_SCALE,
    PERFKIT_EXPONENT_BIAS = 1023,
    PERFKIT_EXPONENT_MIN = -1022, /* so that one compare tells plain numbers from all others */
    PERFKIT_EXPONENT_MAX = 1023,
    PERFKIT_OCTAVES_MAX = 128,
    PERFKIT_SHARDS_MAX = 1024, /* without the common one */
    PERFKIT_SHARD_ALIGN = 128, /* what processors fetch together */
    PERFKIT_SUM_COUNT = 4,     /* a power of two */
    PERFKIT_NAME_BYTES = 64,   /* these with the 0 at the end */
    PERFKIT_UNIT_BYTES = 64,
    PERFKIT_LABELS_BYTES = 768,
    PERFKIT_LABELS_MAX = 16,
};

/* What is counted apart from buckets. */
enum {
    PERFKIT_ZERO,
    PERFKIT_UNDER,    /* positive, below the range */
    PERFKIT_OVER,     /* finite, above the range */
    PERFKIT_NEGATIVE, /* finite and negative, whatever magnitude */
    PERFKIT_POSITIVE_INFINITY,
    PERFKIT_NEGATIVE_INFINITY,
    PERFKIT_NAN,
    PERFKIT_SUBNORMAL, /* counted as under or negative, too */
    PERFKIT_APART_COUNT,
};

typedef struct {
    char magic[8];
    uint32_t byte_order;
    uint16_t version;
    uint16_t header_bytes;
    uint64_t file_bytes;
    uint64_t generation; /* 0 or odd: not ready; set last; another file has another one */
    uint64_t checksum;   /* of the header, with this and the generation as 0 */
    uint64_t pid_namespace;
    int32_t low_exponent; /* values in (2^low, 2^high] have buckets */
    int32_t high_exponent;
    uint32_t scale;
    uint32_t slot_count; /* buckets of a shard: (high - low) << scale */
    uint32_t shard_count; /* without the common one */
    uint32_t shard_bytes;
    uint32_t creator_pid;
    uint32_t reserved[13];
    char name[PERFKIT_NAME_BYTES];
    char unit[PERFKIT_UNIT_BYTES];
    char labels[PERFKIT_LABELS_BYTES]; /* "key=value" strings, each with its 0; an empty one ends */
} perfkit_file_header;

static_assert(sizeof(perfkit_file_header) == 1024, "the layout is fixed");

/* What comes before a shard's buckets. Sums, min and max may lack the record that is being made.
 * Buckets that lie side by side have different sums, since additions to one wait for each other. */
typedef struct {
    uint64_t owner; /* 0: never claimed, 1: given back; else perfkit_histogram_owner.h */
    uint64_t apart[PERFKIT_APART_COUNT];
    uint64_t reserved;
    volatile double sums[PERFKIT_SUM_COUNT]; /* of what is finite, as min and max; added up */
    volatile double min;                     /* +inf where nothing was counted */
    volatile double max;                     /* -inf likewise */
} perfkit_shard_head;

static_assert(sizeof(perfkit_shard_head) == 128, "the layout is fixed");

static inline uint32_t perfkit_shard_bytes(uint32_t slot_count)
{
    uint32_t used_bytes = (uint32_t)sizeof(perfkit_shard_head) + slot_count * 8;
    return (used_bytes + PERFKIT_SHARD_ALIGN - 1) / PERFKIT_SHARD_ALIGN * PERFKIT_SHARD_ALIGN;
}

static inline uint64_t perfkit_file_bytes(uint32_t shard_bytes, uint32_t shard_count)
{
    return sizeof(perfkit_file_header) + (uint64_t)shard_bytes * (shard_count + 1);
}

/* FNV-1a, 64 bits. */
static inline uint64_t perfkit_header_checksum(const perfkit_file_header *header)
{
    perfkit_file_header copy = *header;
    unsigned char bytes[sizeof(copy)];
    uint64_t checksum = 0xcbf29ce484222325ULL;
    copy.generation = 0;
    copy.checksum = 0;
    memcpy(bytes, &copy, sizeof(copy));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        checksum = (checksum ^ bytes[i]) * 0x100000001b3ULL;
    }
    return checksum;
}

static inline bool perfkit_is_letter(char one)
{
    return (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || one == '_';
}

static inline bool perfkit_is_digit(char one)
{
    return one >= '0' && one <= '9';
}

/* The bytes of the UTF-8 character at `text`; 0 where it is none, or a control character. */
static inline size_t perfkit_character_bytes(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t count = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0x80) {
        return at[0] >= 0x20 && at[0] != 0x7f ? 1 : 0;
    }
    if (at[0] < 0xc2 || at[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < count; i++) {
        if ((at[i] & 0xc0) != 0x80) { /* also at the end of the text */
            return 0;
        }
    }
    bool is_long = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool is_surrogate = at[0] == 0xed && at[1] > 0x9f;
    bool is_beyond = at[0] == 0xf4 && at[1] > 0x8f;
    return is_long || is_surrogate || is_beyond ? 0 : count;
}

/* Whether it is UTF-8 without control characters, of less than `limit` bytes. */
static inline bool perfkit_is_text(const char *text, size_t limit)
{
    size_t at = 0;
    while (at < limit && text[at] != 0) {
        size_t step = perfkit_character_bytes(text + at);
        if (step == 0) {
            return false;
        }
        at += step;
    }
    return at < limit;
}

/* A letter or _, then letters, digits, _ . : and -. */
static inline bool perfkit_is_name(const char *name)
{
    size_t at = 1;
    if (!perfkit_is_letter(name[0])) {
        return false;
    }
    while (at < PERFKIT_NAME_BYTES && name[at] != 0) {
        char one = name[at];
        if (!perfkit_is_letter(one) && !perfkit_is_digit(one) && one != '.' && one != ':' &&
            one != '-') {
            return false;
        }
        at++;
    }
    return at < PERFKIT_NAME_BYTES;
}

/* The bytes of a label's key, which is a letter or _, then letters, digits and _, before a '=';
 * 0 where it has none. */
static inline size_t perfkit_key_bytes(const char *label)
{
    size_t at = 1;
    if (!perfkit_is_letter(label[0])) {
        return 0;
    }
    while (at < PERFKIT_LABELS_BYTES &&
           (perfkit_is_letter(label[at]) || perfkit_is_digit(label[at]))) {
        at++;
    }
    return at < PERFKIT_LABELS_BYTES && label[at] == '=' ? at : 0;
}

/* What is wrong with labels as they lie in a header, whose last byte is 0; NULL: nothing. */
static inline const char *perfkit_labels_fault(const char *labels)
{
    const char *known[PERFKIT_LABELS_MAX];
    size_t known_count = 0;
    size_t at = 0;
    while (at < PERFKIT_LABELS_BYTES && labels[at] != 0) {
        const char *label = labels + at;
        size_t key_bytes = perfkit_key_bytes(label);
        if (key_bytes == 0 || !perfkit_is_text(label, PERFKIT_LABELS_BYTES)) {
            return "labels must be KEY=VALUE, of UTF-8 without control characters, KEY of ASCII "
                   "letters, digits and _";
        }
        if (known_count == PERFKIT_LABELS_MAX) {
            return "there are more than 16 labels";
        }
        for (size_t i = 0; i < known_count; i++) {
            if (strncmp(known[i], label, key_bytes + 1) == 0) {
                return "two labels have the same key";
            }
        }
        known[known_count++] = label;
        at += strlen(label) + 1;
    }
    return NULL;
}

/* The range that times of a unit have, and other values: 43 octaves from 1 ns on, or from 1. */
static inline int32_t perfkit_unit_low_exponent(const char *unit)
{
    if (strcmp(unit, "us") == 0) {
        return -11;
    }
    if (strcmp(unit, "ms") == 0) {
        return -21;
    }
    return strcmp(unit, "s") == 0 ? -31 : -1;
}

#endif
