/* Stacks of functions, each once; innermost first. One thread writes; stacks below `count` never
 * change, so that another may read them. */
#ifndef PK_PYSTACK_H
#define PK_PYSTACK_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PK_PYSTACK_LIMIT = 4096,
    PK_PYSTACK_DEPTH_LIMIT = 96,
    PK_PYSTACK_ARENA_LIMIT = 1 << 17, /* functions in all stacks */
};

typedef struct {
    uint64_t hash;
    uint32_t first; /* in the arena */
    uint32_t depth;
} pk_pystack;

typedef struct {
    pk_pystack *stacks;
    uint32_t *arena;
    uint32_t *slots; /* of a hash table: index + 1 */
    uint32_t arena_used;
    _Atomic uint32_t count;
} pk_pystacks;

int pk_pystacks_init(pk_pystacks *stacks);
void pk_pystacks_deinit(pk_pystacks *stacks);

/* The number of a stack, which is added where it is new. ENOSPC: no room. */
int pk_pystacks_intern(pk_pystacks *stacks, const uint32_t *functions, size_t depth, uint32_t *ret);

#endif
