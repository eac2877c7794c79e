/* Sorts things that are sequences of symbols, stacks or texts, without recursion.
 * Where sequences share their beginnings it looks at each symbol of them about once. */
#ifndef PK_ORDER_H
#define PK_ORDER_H
#include <stddef.h>
#include <stdint.h>

/* The symbol of an item at a depth; 0 at its end. It is not asked for beyond. */
typedef uint32_t (*pk_symbol)(const void *context, uint32_t item, uint32_t depth);

/* Brings items into ascending order; of equal ones none is first. At most 2^32 - 1 items. */
void pk_order_sort(uint32_t *items, size_t count, pk_symbol symbol, const void *context);

#endif
