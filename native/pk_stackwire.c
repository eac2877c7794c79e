/* Tables of stacks to bytes. */
#include "pk_stackwire.h"

#include <errno.h>
#include <stdlib.h>

#include "pk_order.h"
#include "pk_stackshare.h"

enum { VARINT_BYTES_MAX = 10, ROOM_MIN = 4096 };

typedef struct {
    uint8_t *bytes;
    size_t size_bytes;
    size_t room;
    bool is_short; /* memory ran out */
} writer;

/* Room for so many bytes more; NULL where there is none. */
static uint8_t *make_room(writer *to, size_t more)
{
    if (to->is_short) {
        return NULL;
    }
    if (to->size_bytes + more > to->room) {
        size_t room = 2 * to->room + more + ROOM_MIN;
        uint8_t *grown = realloc(to->bytes, room);
        if (grown == NULL) {
            to->is_short = true;
            return NULL;
        }
        to->bytes = grown;
        to->room = room;
    }
    return to->bytes + to->size_bytes;
}

static void write_bytes(writer *to, const void *bytes, size_t size_bytes)
{
    uint8_t *at = make_room(to, size_bytes);
    if (at != NULL && size_bytes > 0) {
        memcpy(at, bytes, size_bytes);
        to->size_bytes += size_bytes;
    }
}

static void write_varint(writer *to, uint64_t number)
{
    uint8_t *at = make_room(to, VARINT_BYTES_MAX);
    if (at == NULL) {
        return;
    }
    for (; number >= 128; number >>= 7) {
        *at++ = (uint8_t)(number | 128);
    }
    *at++ = (uint8_t)number;
    to->size_bytes = (size_t)(at - to->bytes);
}

/* What is written of a table. */
typedef struct {
    const pk_stacktable *table;
    uint64_t *counts;   /* by stack */
    uint32_t *ranks;    /* of frames */
    uint32_t *by_rank;  /* frames */
    uint32_t *written;  /* numbers of frames in the bytes + 1, by frame; 0: in no stack */
    uint32_t *known;    /* stacks, sorted */
    uint32_t *unknown;  /* those with counts, sorted by id */
    uint32_t known_count;
    uint32_t unknown_count;
} outline;

static void free_outline(outline *of)
{
    free(of->counts);
    free(of->ranks);
    free(of->by_rank);
    free(of->written);
    free(of->known);
    free(of->unknown);
}

static int allocate_outline(outline *of)
{
    size_t stack_count = of->table->stack_count + 1UL;
    size_t frame_count = of->table->names.count;
    of->counts = calloc(stack_count, sizeof *of->counts);
    of->known = malloc(stack_count * sizeof *of->known);
    of->unknown = malloc(stack_count * sizeof *of->unknown);
    of->ranks = malloc(frame_count * sizeof *of->ranks);
    of->by_rank = malloc(frame_count * sizeof *of->by_rank);
    of->written = calloc(frame_count, sizeof *of->written);
    bool is_whole = of->counts != NULL && of->known != NULL && of->unknown != NULL &&
                    of->ranks != NULL && of->by_rank != NULL && of->written != NULL;
    return is_whole ? 0 : ENOMEM;
}

static uint32_t take_id_byte(const void *context, uint32_t item, uint32_t depth)
{
    const pk_stacktable *table = context;
    uint8_t bytes[PK_STACKID_BYTES];
    memcpy(bytes, &table->stacks[item].id, sizeof bytes);
    return depth < PK_STACKID_BYTES ? bytes[depth] + 1U : 0;
}

/* Sorts stacks, and numbers the frames that are in any. */
static int make_outline(const pk_stacktable *table, outline *ret)
{
    *ret = (outline){.table = table};
    if (allocate_outline(ret) != 0 || pk_framenames_rank(&table->names, ret->ranks) != 0) {
        return ENOMEM;
    }
    pk_stacktable_gather(table, ret->counts);
    for (uint32_t i = 0; i < table->names.count; i++) {
        ret->by_rank[ret->ranks[i]] = i;
    }
    for (uint32_t i = 0; i < table->stack_count; i++) {
        const uint32_t *frames = pk_stacktable_frames(table, i);
        if (table->stacks[i].is_known) {
            ret->known[ret->known_count++] = i;
        } else if (ret->counts[i] > 0) {
            ret->unknown[ret->unknown_count++] = i;
        }
        for (uint32_t k = 0; table->stacks[i].is_known && k < table->stacks[i].depth; k++) {
            ret->written[frames[k]] = 1;
        }
    }
    pk_stacktable_sort(table, ret->ranks, ret->known, ret->known_count);
    pk_order_sort(ret->unknown, ret->unknown_count, take_id_byte, table);
    return 0;
}

/* Writes the frames in order of their texts, and numbers them by it. */
static void write_frames(writer *to, outline *of)
{
    const pk_framenames *names = &of->table->names;
    uint32_t count = 0;
    for (uint32_t rank = 0; rank < names->count; rank++) {
        uint32_t *written = &of->written[of->by_rank[rank]];
        *written = *written == 0 ? 0 : ++count;
    }
    write_varint(to, count);
    for (uint32_t rank = 0; rank < names->count; rank++) {
        const pk_framename *name = &names->names[of->by_rank[rank]];
        if (of->written[of->by_rank[rank]] != 0) {
            write_varint(to, name->name_bytes);
            write_varint(to, name->file_bytes);
            write_bytes(to, names->texts + name->at, name->name_bytes + name->file_bytes);
        }
    }
}

static void write_known(writer *to, const outline *of)
{
    const pk_stacktable *table = of->table;
    write_varint(to, of->known_count);
    for (uint32_t i = 0; i < of->known_count; i++) {
        uint32_t stack = of->known[i];
        const uint32_t *frames = pk_stacktable_frames(table, stack);
        uint32_t depth = table->stacks[stack].depth;
        uint32_t shared = i == 0 ? 0 : pk_stacktable_shared(table, of->known[i - 1], stack);
        uint32_t told = depth - pk_share_limit(depth, shared);
        write_varint(to, depth - told);
        write_varint(to, told);
        for (uint32_t k = depth - told; k < depth; k++) {
            write_varint(to, of->written[frames[k]] - 1);
        }
        write_varint(to, of->counts[stack]);
    }
}

static void write_unknown(writer *to, const outline *of)
{
    write_varint(to, of->unknown_count);
    for (uint32_t i = 0; i < of->unknown_count; i++) {
        uint32_t stack = of->unknown[i];
        write_bytes(to, &of->table->stacks[stack].id, PK_STACKID_BYTES);
        write_varint(to, of->counts[stack]);
    }
}

int pk_stackwire_encode(const pk_stacktable *table, uint8_t **ret, size_t *ret_bytes)
{
    outline of;
    writer to = {0};
    int error = make_outline(table, &of);
    if (error == 0) {
        write_bytes(&to, PK_STACKWIRE_MAGIC, sizeof PK_STACKWIRE_MAGIC);
        write_varint(&to, table->duration_ns);
        write_frames(&to, &of);
        write_known(&to, &of);
        write_unknown(&to, &of);
        error = to.is_short ? ENOMEM : 0;
    }
    free_outline(&of);
    if (error != 0) {
        free(to.bytes);
        return error;
    }
    *ret = to.bytes;
    *ret_bytes = to.size_bytes;
    return 0;
}
