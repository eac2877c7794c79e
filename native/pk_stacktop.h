/* Which frames a table's counts go to. */
#ifndef PK_STACKTOP_H
#define PK_STACKTOP_H
#include "pk_stacktable.h"

typedef struct {
    uint64_t self;  /* counts of stacks whose innermost frame it is */
    uint64_t total; /* counts of stacks that have it, each stack once */
    uint32_t frame;
    uint32_t rank; /* of its texts */
} pk_stacktop;

/* At most `limit` frames, those with the most in themselves first, at *ret, to be freed with
 * free(). What has no frame counts to PK_FRAME_ROOT, so that all selfs sum up to the table's
 * total. ENOMEM. */
int pk_stacktop_list(const pk_stacktable *table, size_t limit, pk_stacktop **ret,
                     size_t *ret_count);

#endif
