#include "pk_pystack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_COUNT = 4 * PK_PYSTACK_LIMIT };

int pk_pystacks_init(pk_pystacks *stacks)
{
    *stacks = (pk_pystacks){.arena_used = 0};
    stacks->stacks = calloc(PK_PYSTACK_LIMIT, sizeof *stacks->stacks);
    stacks->arena = malloc(PK_PYSTACK_ARENA_LIMIT * sizeof *stacks->arena);
    stacks->slots = calloc(SLOT_COUNT, sizeof *stacks->slots);
    if (stacks->stacks == NULL || stacks->arena == NULL || stacks->slots == NULL) {
        pk_pystacks_deinit(stacks);
        return ENOMEM;
    }
    return 0;
}

void pk_pystacks_deinit(pk_pystacks *stacks)
{
    free(stacks->stacks);
    free(stacks->arena);
    free(stacks->slots);
    stacks->stacks = NULL;
    stacks->arena = NULL;
    stacks->slots = NULL;
}

int pk_pystacks_intern(pk_pystacks *stacks, const uint32_t *functions, size_t depth, uint32_t *ret)
{
    uint64_t hash = 14695981039346656037ULL ^ depth;
    for (size_t i = 0; i < depth; i++) {
        hash = (hash ^ functions[i]) * 1099511628211ULL;
        hash ^= hash >> 29;
    }
    uint32_t count = atomic_load_explicit(&stacks->count, memory_order_relaxed);
    size_t slot = hash % SLOT_COUNT;
    while (stacks->slots[slot] != 0) { /* ends: three quarters of the slots are unused */
        uint32_t index = stacks->slots[slot] - 1;
        const pk_pystack *found = &stacks->stacks[index];
        if (found->hash == hash && found->depth == depth &&
            memcmp(stacks->arena + found->first, functions, depth * sizeof *functions) == 0) {
            *ret = index;
            return 0;
        }
        slot = (slot + 1) % SLOT_COUNT;
    }
    if (count >= PK_PYSTACK_LIMIT || depth > PK_PYSTACK_ARENA_LIMIT - stacks->arena_used) {
        return ENOSPC;
    }
    memcpy(stacks->arena + stacks->arena_used, functions, depth * sizeof *functions);
    stacks->stacks[count] = (pk_pystack){hash, stacks->arena_used, (uint32_t)depth};
    stacks->arena_used += (uint32_t)depth;
    stacks->slots[slot] = count + 1;
    atomic_store_explicit(&stacks->count, count + 1, memory_order_release);
    *ret = count;
    return 0;
}
