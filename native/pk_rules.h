/* Rules that were worked out before, by file and address: of a fixed size, a new rule takes the
 * place of an old one. One thread uses it. */
#ifndef PK_RULES_H
#define PK_RULES_H
#include "pk_cfi.h"

enum { PK_RULES_LIMIT = 1 << 15 }; /* a power of two; 2 MB */

typedef struct {
    uint64_t address;
    uint32_t serial; /* of the source; 0 = unused */
    pk_rule rule;
    uint8_t unused[8];
} pk_rules_entry;

_Static_assert(sizeof(pk_rules_entry) == 64, "an entry lies in one line of a cache");

typedef struct {
    pk_rules_entry *entries;
    int64_t miss_count;     /* rules that were worked out */
    int64_t replaced_count; /* rules that others took the place of */
} pk_rules;

int pk_rules_init(pk_rules *rules);
void pk_rules_deinit(pk_rules *rules);

/* The rule at an address of a file, worked out if need be; valid until the next call. */
const pk_rule *pk_rules_find(pk_rules *rules, const pk_elf *elf, pk_blocks *blocks,
                             const pk_source *source, uint64_t address);

#endif
