/* Tables of stacks from bytes that anyone may have made. */
#include <errno.h>
#include <stdlib.h>

#include "pk_stackshare.h"
#include "pk_stackwire.h"

enum {
    FRAME_BYTES_MIN = 2, /* of a frame's two lengths */
    STACK_BYTES_MIN = 3, /* of what it shares, what it tells, and its count */
    OTHER_BYTES_MIN = PK_STACKID_BYTES + 1,
};

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

/* A number up to a limit, which has to fit 63 bits; else it is bad, and 0. */
static uint64_t read_varint(reader *from, uint64_t limit)
{
    uint64_t number = 0;
    for (int shift = 0; shift < 63; shift += 7) {
        const uint8_t *byte = read_bytes(from, 1);
        if (byte == NULL) {
            return 0;
        }
        number |= (uint64_t)(*byte & 127) << shift;
        if (*byte < 128 && number <= limit) {
            return number;
        }
        if (*byte < 128) {
            break;
        }
    }
    from->is_bad = true;
    return 0;
}

/* How many of something there are that takes so many bytes each at least. */
static uint32_t read_length(reader *from, size_t bytes_min)
{
    uint64_t limit = from->left_bytes / bytes_min;
    return (uint32_t)read_varint(from, limit < UINT32_MAX ? limit : UINT32_MAX);
}

/* What is known while stacks are read. */
typedef struct {
    pk_stacktable *table;
    uint32_t *numbers; /* the table's, of the frames in the bytes */
    uint32_t number_count;
    uint32_t depth;     /* of the last stack */
    uint32_t *frames;   /* of the last stack, with room for the deepest */
    pk_hashing *states; /* before each of its frames, and behind the last */
} decoder;

static int read_frame(reader *from, pk_framenames *names, uint32_t *ret)
{
    size_t name_bytes = read_varint(from, PK_FRAME_TEXT_BYTES_MAX);
    size_t file_bytes = read_varint(from, PK_FRAME_TEXT_BYTES_MAX);
    const uint8_t *texts = read_bytes(from, name_bytes + file_bytes);
    if (texts == NULL) {
        return EBADMSG;
    }
    return pk_framenames_intern(names, (const char *)texts, name_bytes, file_bytes, ret);
}

static int read_frames(reader *from, decoder *by)
{
    by->number_count = read_length(from, FRAME_BYTES_MIN);
    by->numbers = malloc((by->number_count + 1UL) * sizeof *by->numbers);
    if (by->numbers == NULL) {
        return ENOMEM;
    }
    int error = 0;
    for (uint32_t i = 0; error == 0 && i < by->number_count; i++) {
        error = read_frame(from, &by->table->names, &by->numbers[i]);
    }
    return error;
}

/* Reads a stack's frames behind those that it shares with the last one. */
static int read_stack(reader *from, decoder *by)
{
    uint32_t shared = (uint32_t)read_varint(from, by->depth);
    uint32_t told = (uint32_t)read_varint(from, PK_STACK_DEPTH_MAX - shared);
    uint32_t depth = shared + told;
    if (from->is_bad || pk_share_limit(depth, shared) != shared) {
        return EBADMSG;
    }
    for (uint32_t i = shared; i < depth; i++) {
        uint64_t number = read_varint(from, by->number_count);
        if (from->is_bad || number == by->number_count) {
            return EBADMSG;
        }
        by->frames[i] = by->numbers[number];
        by->states[i + 1] = by->states[i];
        pk_hashing_frame(&by->states[i + 1], by->table->names.names[by->frames[i]].id);
    }
    by->depth = depth;
    return 0;
}

static int read_known(reader *from, decoder *by)
{
    uint32_t count = read_length(from, STACK_BYTES_MIN);
    for (uint32_t i = 0; i < count; i++) {
        int error = read_stack(from, by);
        uint64_t seen = read_varint(from, PK_STACK_COUNT_MAX - by->table->total);
        if (error != 0 || from->is_bad) {
            return error != 0 ? error : EBADMSG;
        }
        pk_stackid id = pk_hashing_stack(&by->states[by->depth], by->depth);
        uint32_t number;
        error = pk_stacktable_define(by->table, id, by->frames, by->depth, &number);
        if (error == 0) {
            error = pk_stacktable_count(by->table, number, seen);
        }
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

static int read_unknown(reader *from, decoder *by)
{
    uint32_t count = read_length(from, OTHER_BYTES_MIN);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *bytes = read_bytes(from, PK_STACKID_BYTES);
        uint64_t seen = read_varint(from, PK_STACK_COUNT_MAX - by->table->total);
        if (from->is_bad || seen == 0) {
            return EBADMSG;
        }
        pk_stackid id;
        uint32_t number;
        memcpy(&id, bytes, sizeof id);
        int error = pk_stacktable_admit(by->table, id, &number);
        if (error == 0) {
            error = pk_stacktable_count(by->table, number, seen);
        }
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

static int decode(reader *from, decoder *by)
{
    const uint8_t *magic = read_bytes(from, sizeof PK_STACKWIRE_MAGIC);
    if (magic == NULL || memcmp(magic, PK_STACKWIRE_MAGIC, sizeof PK_STACKWIRE_MAGIC) != 0) {
        return EBADMSG;
    }
    by->table->duration_ns = read_varint(from, PK_STACK_COUNT_MAX);
    int error = read_frames(from, by);
    if (error == 0) {
        error = read_known(from, by);
    }
    if (error == 0) {
        error = read_unknown(from, by);
    }
    return error == 0 && (from->is_bad || from->left_bytes > 0) ? EBADMSG : error;
}

int pk_stackwire_decode(const uint8_t *bytes, size_t size_bytes, pk_stacktable *ret)
{
    reader from = {.at = bytes, .left_bytes = size_bytes};
    int error = pk_stacktable_init(ret);
    if (error != 0) {
        return error;
    }
    decoder by = {
        .table = ret,
        .frames = malloc(PK_STACK_DEPTH_MAX * sizeof *by.frames),
        .states = malloc((PK_STACK_DEPTH_MAX + 1) * sizeof *by.states),
    };
    error = ENOMEM;
    if (by.frames != NULL && by.states != NULL) {
        by.states[0] = pk_hashing_begin();
        error = decode(&from, &by);
    }
    free(by.numbers);
    free(by.frames);
    free(by.states);
    if (error != 0) {
        pk_stacktable_deinit(ret);
    }
    return error == ENOMEM || error == 0 ? error : EBADMSG;
}
