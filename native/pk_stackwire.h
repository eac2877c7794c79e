/* A table of stacks as bytes: small, and safe to read from anyone.
 *
 * "PKS", version 1; then varints but where said otherwise: duration in ns; number of frames, and
 * for each the bytes of its name and of its file, and these texts (UTF-8); number of stacks whose
 * frames are known, and for each how many frames it shares with the one before, from the outermost
 * on, how many others it has, these as numbers of frames, and its count; number of other stacks,
 * and for each its id (16 bytes) and its count. Nothing depends on the order in which a table came
 * to be: frames and stacks are sorted by texts, ids by their bytes. Ids of known stacks are not
 * told: the reader works them out, so that nobody can give one stack's counts to another. */
#ifndef PK_STACKWIRE_H
#define PK_STACKWIRE_H
#include "pk_stacktable.h"

/* At *ret, to be freed with free(). ENOMEM. */
int pk_stackwire_encode(const pk_stacktable *table, uint8_t **ret, size_t *ret_bytes);

/* Makes `ret`, which is not initialised, of hostile bytes; that texts are UTF-8 is not checked.
 * Takes at most 256 times the bytes, and 1 MiB. EBADMSG where it is none, ENOMEM. */
int pk_stackwire_decode(const uint8_t *bytes, size_t size_bytes, pk_stacktable *ret);

#endif
