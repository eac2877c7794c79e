/* Counts of stacks: each distinct stack once with its frames, and how often it was seen.
 *
 * Stacks are known by their ids (pk_stackid.h) and numbered from 0 as they come. Of some only the
 * id is known; they count like others, and get their frames when these come. One caller at a time.
 * Functions that can fail give 0 or an errno value, and have changed no count where they fail. */
#ifndef PK_STACKTABLE_H
#define PK_STACKTABLE_H
#include "pk_framenames.h"

enum {
    PK_STACK_DEPTH_MAX = 16384,
    PK_STACK_LIMIT = 1 << 28,       /* stacks */
    PK_STACK_FRAME_LIMIT = 1 << 30, /* in all stacks; 4 GB */
};

/* The sum of all counts is at most this, and so is the duration; beyond it EOVERFLOW. */
static const uint64_t PK_STACK_COUNT_MAX = INT64_MAX;

/* A place of the hash table; two share a cache line, and counting touches nothing else. */
typedef struct {
    pk_stackid id;
    uint64_t count;
    uint32_t number; /* of the stack + 1; 0: unused */
} pk_stack_slot;

_Static_assert(sizeof(pk_stack_slot) == 32, "two slots fill a cache line");

typedef struct {
    pk_stackid id;
    uint64_t first; /* among the frames: outermost first */
    uint32_t depth;
    bool is_known; /* else its frame is PK_FRAME_UNKNOWN */
} pk_stack_entry;

typedef struct {
    pk_framenames names;
    pk_stack_slot *slots;
    pk_stack_entry *stacks;
    uint32_t *frames; /* of all stacks; the first one is PK_FRAME_UNKNOWN */
    uint64_t frame_count;
    uint64_t frame_room;
    uint32_t stack_count;
    uint32_t stack_room;
    uint32_t slot_bits;
    pk_scatter scatter;
    uint64_t total; /* the sum of all counts */
    uint64_t duration_ns;
} pk_stacktable;

/* Makes an empty one. ENOMEM. */
int pk_stacktable_init(pk_stacktable *table);
void pk_stacktable_deinit(pk_stacktable *table);

/* The number of a stack, outermost frame first, which is added with a count of 0 where it is new.
 * Frames are numbers of table->names, at most PK_STACK_DEPTH_MAX.
 * EEXIST: another stack has its id; EOVERFLOW, ENOMEM. */
int pk_stacktable_intern(pk_stacktable *table, const uint32_t *frames, size_t depth,
                         uint32_t *ret);

/* The same where the id is known to be right. */
int pk_stacktable_define(pk_stacktable *table, pk_stackid id, const uint32_t *frames,
                         size_t depth, uint32_t *ret);

/* The number of the stack of an id, which is added without frames where it is new.
 * EOVERFLOW, ENOMEM. */
int pk_stacktable_admit(pk_stacktable *table, pk_stackid id, uint32_t *ret);

/* Counts a stack of the table. EOVERFLOW. */
int pk_stacktable_count(pk_stacktable *table, uint32_t stack, uint64_t count);

/* Counts ids: `ids` are of 16 bytes each, `counts` of 8, neither aligned; another thread may write
 * them meanwhile. EDOM: one is negative, where they are signed; EOVERFLOW, ENOMEM. */
int pk_stacktable_add(pk_stacktable *table, const char *ids, const char *counts, size_t count,
                      bool is_signed);

/* The slot of an id, or the unused one where it belongs; until the next stack is added. */
pk_stack_slot *pk_stacktable_slot(const pk_stacktable *table, pk_stackid id);

/* Forgets the stacks from a number on, which have no frames and no counts. Without memory they
 * stay. */
void pk_stacktable_forget(pk_stacktable *table, uint32_t stack_count);

/* Writes how often each stack was seen, in order of their numbers. */
void pk_stacktable_gather(const pk_stacktable *table, uint64_t *ret);

/* How often a stack was seen. */
uint64_t pk_stacktable_seen(const pk_stacktable *table, uint32_t stack);

/* The number of the stack of an id; false where there is none. */
bool pk_stacktable_find(const pk_stacktable *table, pk_stackid id, uint32_t *ret);

/* Adds what the other one counted, its stacks and its duration. EEXIST, EOVERFLOW, ENOMEM. */
int pk_stacktable_merge(pk_stacktable *table, const pk_stacktable *other);

/* Adds the other's stacks, but no counts. EEXIST, EOVERFLOW, ENOMEM. */
int pk_stacktable_learn(pk_stacktable *table, const pk_stacktable *other);

/* Makes `ret`, which is not initialised, a copy. ENOMEM. */
int pk_stacktable_copy(const pk_stacktable *table, pk_stacktable *ret);

/* Whether durations, stacks and counts are the same. */
bool pk_stacktable_equal(const pk_stacktable *table, const pk_stacktable *other);

/* Brings numbers of stacks into the order of their frames' ranks, outermost first. */
void pk_stacktable_sort(const pk_stacktable *table, const uint32_t *ranks, uint32_t *stacks,
                        size_t count);

/* How many frames two stacks share from the outermost on. */
uint32_t pk_stacktable_shared(const pk_stacktable *table, uint32_t one, uint32_t other);

static inline const uint32_t *pk_stacktable_frames(const pk_stacktable *table, uint32_t stack)
{
    return table->frames + table->stacks[stack].first;
}

#endif
