#include "pk_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int pk_rules_init(pk_rules *rules)
{
    const size_t size_bytes = PK_RULES_LIMIT * sizeof *rules->entries;
    *rules = (pk_rules){.entries = aligned_alloc(size_bytes, size_bytes)};
    if (rules->entries == NULL) {
        return ENOMEM;
    }
    /* They are met in no order: as one huge page they cost one look-up of an address each. */
    (void)madvise(rules->entries, size_bytes, MADV_HUGEPAGE);
    memset(rules->entries, 0, size_bytes);
    return 0;
}

void pk_rules_deinit(pk_rules *rules)
{
    free(rules->entries);
    rules->entries = NULL;
}

const pk_rule *pk_rules_find(pk_rules *rules, const pk_elf *elf, pk_blocks *blocks,
                             const pk_source *source, uint64_t address)
{
    uint64_t hash = (address ^ (uint64_t)source->serial << 44) * 0x9E3779B97F4A7C15ULL;
    pk_rules_entry *entry = &rules->entries[(hash >> 40) & (PK_RULES_LIMIT - 1)];
    if (entry->address != address || entry->serial != source->serial) {
        rules->miss_count++;
        rules->replaced_count += entry->serial != 0;
        entry->address = address;
        entry->serial = source->serial;
        /* That there is no rule is kept as well. */
        (void)pk_cfi_find(&entry->rule, elf, blocks, source, address);
    }
    return &entry->rule;
}
