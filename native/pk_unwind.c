#include "pk_walk.h"

#include <string.h>

enum { CONTEXT_STACK_POINTER = 160 }; /* its offset in what the kernel leaves for a signal */

int pk_unwinder_init(pk_unwinder *unwinder, int proc)
{
    memset(unwinder, 0, sizeof *unwinder);
    int error = pk_blocks_init(&unwinder->blocks);
    if (error == 0) {
        error = pk_objects_init(&unwinder->objects, proc);
    }
    if (error == 0) {
        error = pk_rules_init(&unwinder->rules);
    }
    if (error != 0) {
        pk_unwinder_deinit(unwinder);
    }
    return error;
}

void pk_unwinder_deinit(pk_unwinder *unwinder)
{
    pk_rules_deinit(&unwinder->rules);
    pk_objects_deinit(&unwinder->objects);
    pk_blocks_deinit(&unwinder->blocks);
}

/* The rule at an address, or NULL; fills in what the frame says of the file. */
static const pk_rule *look_up(pk_walk *walk, uint64_t address, pk_frame *frame)
{
    pk_unwinder *unwinder = walk->unwinder;
    frame->file_offset = address;
    frame->object = 0;
    frame->serial = 0;
    pk_mapping *mapping = pk_maps_find(walk->maps, address);
    if (mapping == NULL) {
        return NULL;
    }
    const pk_object *object = pk_objects_find(&unwinder->objects, &unwinder->blocks,
                                              walk->snapshot->pid, mapping);
    if (object == NULL) {
        return NULL;
    }
    frame->file_offset = address - mapping->start + mapping->offset;
    frame->object = mapping->object;
    frame->serial = mapping->serial;
    if (unwinder->blocks.step_count - walk->first_step_count > PK_UNWIND_STEP_LIMIT) {
        return NULL;
    }
    const pk_rule *rule = pk_rules_find(&unwinder->rules, &object->elf, &unwinder->blocks,
                                        &object->source, frame->file_offset + mapping->bias);
    return rule->kind == PK_CFA_UNKNOWN ? NULL : rule;
}

static pk_step find_cfa(pk_walk *walk, const pk_rule *rule, uint64_t *ret)
{
    const pk_registers *registers = &walk->registers;
    if (!pk_walk_knows(walk, rule->from)) {
        return PK_STEP_NO_WAY;
    }
    uint64_t value = registers->values[rule->from];
    uint64_t offset = (uint64_t)(int64_t)rule->offset;
    if (rule->kind == PK_CFA_STUB) {
        bool has_pushed = (registers->values[PK_RIP] & 15) >= offset;
        *ret = value + 8 + (has_pushed ? 8 : 0);
        return PK_STEP_DONE;
    }
    *ret = value + offset;
    if (rule->kind == PK_CFA_MEMORY) {
        if (!pk_walk_read(walk, value + offset, ret)) {
            return PK_STEP_NO_MEMORY;
        }
        *ret += (uint64_t)(int64_t)rule->addend;
    }
    return PK_STEP_DONE;
}

/* A register of the caller. False: its memory is missing. */
static bool recover(pk_walk *walk, const pk_kept *kept, uint64_t cfa, unsigned number,
                    pk_registers *ret)
{
    uint64_t bit = 1U << number;
    uint64_t offset = (uint64_t)(int64_t)kept->words * 8;
    uint64_t place = cfa + offset;
    switch (kept->kind) {
    case PK_KEPT_SAME:
        return true;
    case PK_KEPT_AS_CFA:
        ret->values[number] = cfa + offset;
        ret->known |= (uint32_t)bit;
        return true;
    case PK_KEPT_IN_REGISTER:
        ret->values[number] = walk->registers.values[kept->from];
        ret->known &= ~(uint32_t)bit;
        ret->known |= pk_walk_knows(walk, kept->from) ? (uint32_t)bit : 0;
        return true;
    case PK_KEPT_AT_REGISTER:
        place = walk->registers.values[kept->from] + offset;
        if (!pk_walk_knows(walk, kept->from)) {
            ret->known &= ~(uint32_t)bit;
            return true;
        }
        break;
    case PK_KEPT_AT_CFA:
        break;
    default:
        ret->known &= ~(uint32_t)bit;
        return true;
    }
    if (place < walk->registers.values[PK_RSP] && number != PK_RIP) {
        return true; /* it has been given back already, which compilers do not note */
    }
    ret->known |= (uint32_t)bit;
    return pk_walk_read(walk, place, &ret->values[number]);
}

/* Which registers the caller finds as it left them. */
static const uint32_t SAVED_MASK = 1U << PK_RBX | 1U << PK_RBP | 0xFU << 12;

static pk_step step_by_rule(pk_walk *walk, const pk_rule *rule)
{
    static const uint8_t numbers[PK_SAVED_COUNT] = {PK_RBX, PK_RBP, 12, 13, 14, 15, PK_RIP};
    const pk_kept *of_return = &rule->kept[PK_SAVED_RETURN];
    uint64_t first = walk->registers.values[PK_RSP];
    if ((rule->flags & PK_RULE_SIGNAL) != 0 && rule->kind == PK_CFA_MEMORY &&
        rule->from == PK_RSP) {
        return pk_signal_step(walk, first + (uint64_t)(int64_t)rule->offset -
                                        CONTEXT_STACK_POINTER);
    }
    if (of_return->kind == PK_KEPT_NOWHERE) {
        return PK_STEP_ROOT;
    }
    uint64_t cfa = 0;
    pk_step step = find_cfa(walk, rule, &cfa);
    if (step != PK_STEP_DONE) {
        return step;
    }
    /* Only a frame that has already given its return address back may leave the stack as it is. */
    if (cfa % 8 != 0 || cfa < first || (cfa == first && !walk->is_exact) ||
        of_return->kind == PK_KEPT_SAME) {
        return PK_STEP_NO_WAY;
    }
    pk_registers caller = walk->registers;
    caller.known &= SAVED_MASK;
    for (size_t i = 0; i < PK_SAVED_COUNT; i++) {
        if (!recover(walk, &rule->kept[i], cfa, numbers[i], &caller)) {
            return PK_STEP_NO_MEMORY;
        }
    }
    if ((caller.known >> PK_RIP & 1) == 0) {
        return PK_STEP_NO_WAY;
    }
    caller.values[PK_RSP] = cfa;
    caller.known |= 1U << PK_RSP;
    walk->registers = caller;
    walk->is_exact = false;
    return PK_STEP_DONE;
}

static pk_step step(pk_walk *walk, const pk_rule *rule)
{
    pk_step done = PK_STEP_NO_WAY;
    if (rule != NULL) {
        done = step_by_rule(walk, rule);
        return done == PK_STEP_NO_WAY ? pk_guess_search(walk) : done;
    }
    if (pk_signal_is_return(walk)) {
        return pk_signal_step(walk, walk->registers.values[PK_RSP]);
    }
    return pk_guess_step(walk);
}

static pk_unwind_end to_end(pk_step step)
{
    switch (step) {
    case PK_STEP_ROOT:
        return PK_UNWIND_ROOT;
    case PK_STEP_NO_MEMORY:
        return PK_UNWIND_TRUNCATED;
    default:
        return PK_UNWIND_LOST;
    }
}

void pk_unwind(pk_unwinder *unwinder, pk_maps *maps, const pk_snapshot *snapshot, pk_stack *ret)
{
    pk_walk walk; /* its window is filled when it is read */
    walk.unwinder = unwinder;
    walk.maps = maps;
    walk.snapshot = snapshot;
    walk.registers = snapshot->registers;
    walk.is_exact = true;
    walk.flags = 0;
    walk.signal_count = walk.read_count = walk.searched_count = 0;
    walk.first_step_count = unwinder->blocks.step_count;
    walk.window_address = 0;
    walk.window_bytes = 0;
    ret->depth = 0;
    ret->flags = 0;
    ret->end = PK_UNWIND_TOO_DEEP;
    while (ret->depth < PK_UNWIND_DEPTH_LIMIT) {
        uint64_t pc = walk.registers.values[PK_RIP];
        pk_frame *frame = &ret->frames[ret->depth++];
        frame->pc = pc;
        frame->stack_pointer = walk.registers.values[PK_RSP];
        frame->flags = walk.flags;
        ret->flags |= walk.flags;
        /* A call may be the last instruction of its function. */
        const pk_rule *rule = look_up(&walk, walk.is_exact ? pc : pc - 1, frame);
        walk.flags = 0;
        pk_step done = step(&walk, rule);
        if (done == PK_STEP_DONE && walk.registers.values[PK_RIP] == 0) {
            done = PK_STEP_ROOT;
        } else if (done == PK_STEP_DONE && !walk.is_exact &&
                   !pk_walk_is_code(&walk, walk.registers.values[PK_RIP])) {
            done = PK_STEP_NO_WAY;
        }
        if (done != PK_STEP_DONE) {
            ret->end = to_end(done);
            return;
        }
    }
}
