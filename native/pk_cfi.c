#include "pk_cfi.h"
#include "pk_expression.h"

#include <errno.h>
#include <string.h>

/* The instructions of call frame tables, by DWARF's numbers. */
enum {
    CFA_ADVANCE = 0x40, /* with 6 bits of operand */
    CFA_OFFSET = 0x80,
    CFA_RESTORE = 0xC0,
    CFA_NOP = 0x00,
    CFA_ADVANCE_1 = 0x02,
    CFA_ADVANCE_2 = 0x03,
    CFA_ADVANCE_4 = 0x04,
    CFA_OFFSET_EXTENDED = 0x05,
    CFA_RESTORE_EXTENDED = 0x06,
    CFA_UNDEFINED = 0x07,
    CFA_SAME = 0x08,
    CFA_REGISTER = 0x09,
    CFA_REMEMBER = 0x0A,
    CFA_RECALL = 0x0B,
    CFA_DEFINE = 0x0C,
    CFA_DEFINE_REGISTER = 0x0D,
    CFA_DEFINE_OFFSET = 0x0E,
    CFA_DEFINE_EXPRESSION = 0x0F,
    CFA_EXPRESSION = 0x10,
    CFA_OFFSET_SIGNED = 0x11,
    CFA_DEFINE_SIGNED = 0x12,
    CFA_DEFINE_OFFSET_SIGNED = 0x13,
    CFA_VALUE_OFFSET = 0x14,
    CFA_VALUE_OFFSET_SIGNED = 0x15,
    CFA_VALUE_EXPRESSION = 0x16,
    CFA_ARGUMENTS_SIZE = 0x2E,
    CFA_OFFSET_NEGATIVE = 0x2F,
};

typedef struct {
    const pk_fde *fde;
    uint64_t address;
    uint64_t location;
    pk_rule rule;
    pk_rule initial; /* after the common instructions */
    pk_rule remembered[PK_CFI_REMEMBER_LIMIT];
    size_t remembered_count;
    bool is_damaged;
} machine;

/* A slot of the rule, or NULL for a register that nobody needs. */
static pk_kept *to_kept(machine *on, uint64_t number)
{
    if (number == on->fde->return_register) {
        return &on->rule.kept[PK_SAVED_RETURN];
    }
    switch (number) {
    case PK_RBX:
        return &on->rule.kept[PK_SAVED_RBX];
    case PK_RBP:
        return &on->rule.kept[PK_SAVED_RBP];
    case 12:
    case 13:
    case 14:
    case 15:
        return &on->rule.kept[PK_SAVED_R12 + (int)number - 12];
    default:
        return NULL;
    }
}

static void keep(machine *on, uint64_t number, uint8_t kind, uint8_t from, int64_t offset)
{
    pk_kept *kept = to_kept(on, number);
    if (kept == NULL) {
        return;
    }
    if (offset % 8 != 0 || offset / 8 < INT16_MIN || offset / 8 > INT16_MAX) {
        *kept = (pk_kept){0, PK_KEPT_NOWHERE, 0};
        return;
    }
    *kept = (pk_kept){(int16_t)(offset / 8), kind, from};
}

/* Wraps as the hostile number wishes; what is out of range is found out later. */
static int64_t scale(const machine *on, uint64_t factor)
{
    return (int64_t)(factor * (uint64_t)on->fde->data_align);
}

static void define(machine *on, uint8_t kind, uint64_t number, int64_t offset, int64_t addend)
{
    pk_rule *rule = &on->rule;
    bool is_known = number < PK_REGISTER_COUNT && offset >= INT32_MIN && offset <= INT32_MAX &&
                    addend >= INT16_MIN && addend <= INT16_MAX;
    rule->kind = is_known ? kind : PK_CFA_UNKNOWN;
    rule->from = is_known ? (uint8_t)number : 0;
    rule->offset = is_known ? (int32_t)offset : 0;
    rule->addend = is_known ? (int16_t)addend : 0;
}

static void define_by_expression(machine *on, pk_cursor *at)
{
    pk_expression found;
    pk_expression_take(&found, at);
    define(on, found.kind, found.from, found.offset, found.addend);
}

static void keep_by_expression(machine *on, pk_cursor *at, bool is_place)
{
    uint64_t number = pk_cursor_take_uleb(at);
    pk_expression found;
    pk_expression_take(&found, at);
    bool is_known = is_place && found.kind == PK_CFA_REGISTER;
    keep(on, number, is_known ? PK_KEPT_AT_REGISTER : PK_KEPT_NOWHERE,
         is_known ? (uint8_t)found.from : 0, is_known ? found.offset : 0);
}

static void restore(machine *on, uint64_t number)
{
    pk_kept *kept = to_kept(on, number);
    if (kept != NULL) {
        *kept = on->initial.kept[kept - on->rule.kept];
    }
}

static void remember(machine *on)
{
    if (on->remembered_count >= PK_CFI_REMEMBER_LIMIT) {
        on->is_damaged = true;
        return;
    }
    on->remembered[on->remembered_count++] = on->rule;
}

static void recall(machine *on)
{
    if (on->remembered_count == 0) {
        on->is_damaged = true;
        return;
    }
    on->rule = on->remembered[--on->remembered_count];
}

static void run_definition(machine *on, pk_cursor *at, uint8_t code)
{
    pk_rule *rule = &on->rule;
    uint64_t number = rule->from;
    int64_t offset = rule->offset;
    if (code == CFA_DEFINE || code == CFA_DEFINE_SIGNED || code == CFA_DEFINE_REGISTER) {
        number = pk_cursor_take_uleb(at);
    }
    if (code == CFA_DEFINE || code == CFA_DEFINE_OFFSET) {
        offset = (int64_t)pk_cursor_take_uleb(at);
    } else if (code != CFA_DEFINE_REGISTER) {
        offset = scale(on, (uint64_t)pk_cursor_take_sleb(at));
    }
    define(on, PK_CFA_REGISTER, number, offset, 0);
}

static void run_keeping(machine *on, pk_cursor *at, uint8_t code)
{
    uint64_t number = pk_cursor_take_uleb(at);
    switch (code) {
    case CFA_OFFSET_EXTENDED:
        keep(on, number, PK_KEPT_AT_CFA, 0, scale(on, pk_cursor_take_uleb(at)));
        break;
    case CFA_OFFSET_SIGNED:
        keep(on, number, PK_KEPT_AT_CFA, 0, scale(on, (uint64_t)pk_cursor_take_sleb(at)));
        break;
    case CFA_OFFSET_NEGATIVE:
        keep(on, number, PK_KEPT_AT_CFA, 0, scale(on, 0 - pk_cursor_take_uleb(at)));
        break;
    case CFA_VALUE_OFFSET:
        keep(on, number, PK_KEPT_AS_CFA, 0, scale(on, pk_cursor_take_uleb(at)));
        break;
    case CFA_VALUE_OFFSET_SIGNED:
        keep(on, number, PK_KEPT_AS_CFA, 0, scale(on, (uint64_t)pk_cursor_take_sleb(at)));
        break;
    case CFA_RESTORE_EXTENDED:
        restore(on, number);
        break;
    case CFA_UNDEFINED:
        keep(on, number, PK_KEPT_NOWHERE, 0, 0);
        break;
    case CFA_SAME:
        keep(on, number, PK_KEPT_SAME, 0, 0);
        break;
    default: { /* CFA_REGISTER */
        uint64_t from = pk_cursor_take_uleb(at);
        bool is_known = from < PK_REGISTER_COUNT;
        keep(on, number, is_known ? PK_KEPT_IN_REGISTER : PK_KEPT_NOWHERE,
             is_known ? (uint8_t)from : 0, 0);
    }
    }
}

static void run_extended(machine *on, pk_cursor *at, uint8_t code)
{
    size_t byte_count = (size_t)1 << ((code - CFA_ADVANCE_1) & 3); /* of what it advances */
    switch (code) {
    case CFA_NOP:
        break;
    case CFA_ADVANCE_1:
    case CFA_ADVANCE_2:
    case CFA_ADVANCE_4:
        on->location += pk_cursor_take(at, byte_count) * on->fde->code_align;
        break;
    case CFA_REMEMBER:
        remember(on);
        break;
    case CFA_RECALL:
        recall(on);
        break;
    case CFA_DEFINE:
    case CFA_DEFINE_REGISTER:
    case CFA_DEFINE_OFFSET:
    case CFA_DEFINE_SIGNED:
    case CFA_DEFINE_OFFSET_SIGNED:
        run_definition(on, at, code);
        break;
    case CFA_DEFINE_EXPRESSION:
        define_by_expression(on, at);
        break;
    case CFA_EXPRESSION:
    case CFA_VALUE_EXPRESSION:
        keep_by_expression(on, at, code == CFA_EXPRESSION);
        break;
    case CFA_ARGUMENTS_SIZE:
        pk_cursor_take_uleb(at);
        break;
    case CFA_OFFSET_EXTENDED:
    case CFA_RESTORE_EXTENDED:
    case CFA_UNDEFINED:
    case CFA_SAME:
    case CFA_REGISTER:
    case CFA_OFFSET_SIGNED:
    case CFA_VALUE_OFFSET:
    case CFA_VALUE_OFFSET_SIGNED:
    case CFA_OFFSET_NEGATIVE:
        run_keeping(on, at, code);
        break;
    default: /* also DW_CFA_set_loc, which nobody writes on x86-64 */
        on->is_damaged = true;
    }
}

/* Runs instructions until one of them goes beyond the address. */
static bool run(machine *on, pk_blocks *blocks, const pk_source *source, uint64_t start,
                uint64_t size_bytes)
{
    pk_cursor at;
    pk_cursor_init(&at, blocks, source, start, size_bytes);
    for (int step = 0; !pk_cursor_is_at_end(&at); step++) {
        uint8_t code = pk_cursor_take_byte(&at);
        uint8_t operand = code & 0x3F;
        if ((code & 0xC0) == CFA_ADVANCE) {
            on->location += operand * on->fde->code_align;
        } else if ((code & 0xC0) == CFA_OFFSET) {
            keep(on, operand, PK_KEPT_AT_CFA, 0, scale(on, pk_cursor_take_uleb(&at)));
        } else if ((code & 0xC0) == CFA_RESTORE) {
            restore(on, operand);
        } else {
            run_extended(on, &at, code);
        }
        blocks->step_count++;
        if (on->is_damaged || step >= PK_CFI_STEP_LIMIT) {
            return false;
        }
        if (on->location > on->address) {
            break;
        }
    }
    return !at.has_failed;
}

int pk_cfi_find(pk_rule *rule, const pk_elf *elf, pk_blocks *blocks, const pk_source *source,
                uint64_t address)
{
    pk_fde fde;
    memset(rule, 0, sizeof *rule);
    int error = pk_fde_find(&fde, elf, blocks, source, address);
    if (error != 0) {
        return error;
    }
    machine on;
    on.fde = &fde;
    on.address = address;
    on.location = fde.start;
    on.remembered_count = 0;
    on.is_damaged = false;
    memset(&on.rule, 0, sizeof on.rule);
    memset(&on.initial, 0, sizeof on.initial);
    if (!run(&on, blocks, source, fde.common_offset, fde.common_bytes)) {
        return EBADMSG;
    }
    on.location = fde.start;
    on.initial = on.rule;
    if (!run(&on, blocks, source, fde.program_offset, fde.program_bytes)) {
        return EBADMSG;
    }
    on.rule.flags = fde.is_signal ? PK_RULE_SIGNAL : 0;
    *rule = on.rule;
    return 0;
}
