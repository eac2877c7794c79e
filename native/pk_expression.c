#include "pk_expression.h"

#include <string.h>

/* Operations, by DWARF's numbers. */
enum {
    EXPRESSION_BYTES_MAX = 24,
    OP_DEREF = 0x06,
    OP_CONST_1 = 0x08,
    OP_AND = 0x1A,
    OP_PLUS = 0x22,
    OP_PLUS_CONST = 0x23,
    OP_SHIFT_LEFT = 0x24,
    OP_GREATER_EQUAL = 0x2A,
    OP_LITERAL_0 = 0x30,
    OP_LITERAL_31 = 0x4F,
    OP_REGISTER_0 = 0x70,
    OP_REGISTER_16 = 0x80,
};

static bool is_literal(uint8_t operation, uint8_t *ret)
{
    *ret = (uint8_t)(operation - OP_LITERAL_0);
    return operation >= OP_LITERAL_0 && operation <= OP_LITERAL_31;
}

/* What stubs of the procedure linkage table have:
 * rsp + 8 + (((rip & 15) >= limit) << 3). */
static bool is_stub(const uint8_t *bytes, size_t size, uint8_t *ret_limit)
{
    static const uint8_t head[] = {OP_REGISTER_0 + PK_RSP, 8, OP_REGISTER_16, 0,
                                   OP_LITERAL_0 + 15, OP_AND};
    static const uint8_t tail[] = {OP_GREATER_EQUAL, OP_LITERAL_0 + 3, OP_SHIFT_LEFT, OP_PLUS};
    size_t at = sizeof head;
    if (size <= at + 1 + sizeof tail - 1 || memcmp(bytes, head, sizeof head) != 0) {
        return false;
    }
    if (is_literal(bytes[at], ret_limit)) {
        at += 1;
    } else if (bytes[at] == OP_CONST_1) {
        *ret_limit = bytes[at + 1];
        at += 2;
    } else {
        return false;
    }
    return size - at == sizeof tail && memcmp(bytes + at, tail, sizeof tail) == 0;
}

/* register + offset, perhaps what lies there, perhaps a constant added to that. */
static bool parse_sum(pk_expression *found, pk_cursor *at)
{
    uint8_t first = pk_cursor_take_byte(at);
    found->kind = PK_CFA_REGISTER;
    found->from = (uint64_t)(first - OP_REGISTER_0);
    found->offset = pk_cursor_take_sleb(at);
    while (!pk_cursor_is_at_end(at)) {
        uint8_t operation = pk_cursor_take_byte(at);
        uint8_t literal;
        if (found->addend != 0) {
            return false;
        }
        if (operation == OP_DEREF && found->kind == PK_CFA_REGISTER) {
            found->kind = PK_CFA_MEMORY;
        } else if (operation == OP_PLUS_CONST) {
            found->addend = (int64_t)pk_cursor_take_uleb(at);
        } else if (is_literal(operation, &literal) && pk_cursor_take_byte(at) == OP_PLUS) {
            found->addend = literal;
        } else {
            return false;
        }
    }
    return !at->has_failed && first >= OP_REGISTER_0 && first <= OP_REGISTER_16 &&
           found->addend >= 0 && found->addend <= INT16_MAX && found->offset >= INT32_MIN &&
           found->offset <= INT32_MAX;
}

void pk_expression_take(pk_expression *expression, pk_cursor *at)
{
    *expression = (pk_expression){.kind = PK_CFA_UNKNOWN};
    uint64_t size = pk_cursor_take_uleb(at);
    pk_cursor inside = *at;
    pk_cursor_skip(at, size);
    if (at->has_failed || size > EXPRESSION_BYTES_MAX) {
        return;
    }
    inside.end = inside.position + size;
    uint8_t bytes[EXPRESSION_BYTES_MAX];
    uint8_t limit;
    pk_cursor copy = inside;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = pk_cursor_take_byte(&copy);
    }
    if (is_stub(bytes, size, &limit)) {
        *expression = (pk_expression){PK_CFA_STUB, PK_RSP, limit, 0};
        return;
    }
    pk_expression found = {.kind = PK_CFA_UNKNOWN};
    if (!parse_sum(&found, &inside)) {
        return;
    }
    if (found.kind == PK_CFA_REGISTER) {
        found.offset += found.addend;
        found.addend = 0;
    }
    *expression = found;
}
