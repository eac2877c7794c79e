/* Expressions of call frame tables, as far as compilers and assembly write them. */
#ifndef PK_EXPRESSION_H
#define PK_EXPRESSION_H
#include "pk_blocks.h"
#include "pk_rule.h"

/* Kind: one of PK_CFA_*, and what belongs to it. */
typedef struct {
    uint8_t kind;
    uint64_t from; /* register */
    int64_t offset;
    int64_t addend;
} pk_expression;

/* Takes the size and the operations, and moves the cursor behind them. */
void pk_expression_take(pk_expression *expression, pk_cursor *at);

#endif
