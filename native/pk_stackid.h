/* What a stack is known by, wherever it was seen: a hash of 128 bits of its frames' texts.
 *
 * SipHash-2-4 with 128 bits (Aumasson, Bernstein, 2012) under the key 0. A frame's id is that of
 * the length of its name (32 bits, little endian), the name and the file; a stack's is that of its
 * frames' ids, outermost first. No secret is in it, since hosts have to agree; hash tables beside
 * it multiply ids by numbers of their own, so that chosen ids do not meet in one place. */
#ifndef PK_STACKID_H
#define PK_STACKID_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint64_t low; /* the first 8 bytes */
    uint64_t high;
} pk_stackid;

enum { PK_STACKID_BYTES = 16 };
_Static_assert(sizeof(pk_stackid) == PK_STACKID_BYTES, "ids are columns of 16 bytes");

/* A hash under way. */
typedef struct {
    uint64_t v0, v1, v2, v3;
} pk_hashing;

static inline uint64_t pk_rotate(uint64_t word, int count)
{
    return word << count | word >> (64 - count);
}

static inline void pk_hashing_round(pk_hashing *state)
{
    state->v0 += state->v1;
    state->v2 += state->v3;
    state->v1 = pk_rotate(state->v1, 13) ^ state->v0;
    state->v3 = pk_rotate(state->v3, 16) ^ state->v2;
    state->v0 = pk_rotate(state->v0, 32);
    state->v2 += state->v1;
    state->v0 += state->v3;
    state->v1 = pk_rotate(state->v1, 17) ^ state->v2;
    state->v3 = pk_rotate(state->v3, 21) ^ state->v0;
    state->v2 = pk_rotate(state->v2, 32);
}

static inline pk_hashing pk_hashing_begin(void)
{
    return (pk_hashing){0x736f6d6570736575, 0x646f72616e646f6d ^ 0xee, 0x6c7967656e657261,
                        0x7465646279746573};
}

static inline void pk_hashing_word(pk_hashing *state, uint64_t word)
{
    state->v3 ^= word;
    pk_hashing_round(state);
    pk_hashing_round(state);
    state->v0 ^= word;
}

static inline uint64_t pk_hashing_fold(pk_hashing *state)
{
    for (int i = 0; i < 4; i++) {
        pk_hashing_round(state);
    }
    return state->v0 ^ state->v1 ^ state->v2 ^ state->v3;
}

/* The hash of what has been taken in, and of the up to seven bytes in `last`. */
static inline pk_stackid pk_hashing_end(pk_hashing state, uint64_t last, uint64_t size_bytes)
{
    pk_hashing_word(&state, last | size_bytes << 56);
    state.v2 ^= 0xee;
    uint64_t low = pk_hashing_fold(&state);
    state.v1 ^= 0xdd;
    return (pk_stackid){low, pk_hashing_fold(&state)};
}

/* Takes in one frame of a stack. */
static inline void pk_hashing_frame(pk_hashing *state, pk_stackid frame)
{
    pk_hashing_word(state, frame.low);
    pk_hashing_word(state, frame.high);
}

/* The id of a stack all of whose frames were taken in. */
static inline pk_stackid pk_hashing_stack(const pk_hashing *state, size_t depth)
{
    return pk_hashing_end(*state, 0, (uint64_t)depth * PK_STACKID_BYTES);
}

static inline bool pk_stackid_is(pk_stackid one, pk_stackid other)
{
    return ((one.low ^ other.low) | (one.high ^ other.high)) == 0; /* one branch */
}

/* Numbers by which a hash table multiplies ids: two drawn by chance, odd. */
typedef struct {
    uint64_t of_low;
    uint64_t of_high;
} pk_scatter;

pk_scatter pk_scatter_draw(void);

/* Its upper bits are the place in a table. */
static inline uint64_t pk_scatter_id(pk_scatter scatter, pk_stackid id)
{
    return id.low * scatter.of_low + id.high * scatter.of_high;
}

#endif
