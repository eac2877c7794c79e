/* What writer and reader of pk_stackwire.h agree on. */
#ifndef PK_STACKSHARE_H
#define PK_STACKSHARE_H
#include <stdint.h>

static const uint8_t PK_STACKWIRE_MAGIC[4] = {'P', 'K', 'S', 1};

/* A stack may share so many frames, and so many more for each that it tells: a few bytes cannot
 * stand for much memory. */
enum { PK_SHARE_STEP = 16 };

/* How many of the frames that it could share a stack of this depth may. */
static inline uint32_t pk_share_limit(uint32_t depth, uint32_t shared)
{
    /* The most s with s <= STEP (depth - s + 1). */
    uint64_t most = (uint64_t)PK_SHARE_STEP * (depth + 1UL) / (PK_SHARE_STEP + 1);
    return shared < most ? shared : (uint32_t)most;
}

#endif
