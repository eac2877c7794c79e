/* Ways up a stack where no rule tells one: code made while the program runs, code of compilers that
 * keep frame pointers instead of tables, hand-written functions; and signals. */
#include "pk_walk.h"

#include <stddef.h>
#include <string.h>
#include <ucontext.h>

enum {
    CONTEXT_REGISTERS = 40, /* offset of the registers in what the kernel leaves for a signal */
    CODE_BYTES = 9,
};

_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs) == CONTEXT_REGISTERS,
               "the kernel and the C library must have it alike");

static uint64_t stack_pointer(const pk_walk *walk)
{
    return walk->registers.values[PK_RSP];
}

static pk_step go(pk_walk *walk, uint64_t new_stack_pointer, uint64_t return_address)
{
    if (new_stack_pointer <= stack_pointer(walk)) {
        return PK_STEP_NO_WAY;
    }
    walk->registers.values[PK_RSP] = new_stack_pointer;
    walk->registers.values[PK_RIP] = return_address;
    walk->is_exact = false;
    return PK_STEP_DONE;
}

bool pk_signal_is_return(pk_walk *walk)
{
    static const uint8_t code[] = {0x48, 0xC7, 0xC0, 0x0F, 0, 0, 0, 0x0F, 0x05};
    uint8_t found[sizeof code];
    return pk_walk_read_code(walk, walk->registers.values[PK_RIP], found, sizeof found) ==
               sizeof found &&
           memcmp(found, code, sizeof code) == 0;
}

pk_step pk_signal_step(pk_walk *walk, uint64_t context)
{
    /* By the place where the kernel keeps it, which register by DWARF's numbers. */
    static const uint8_t order[PK_REGISTER_COUNT] = {
        [REG_R8] = 8,        [REG_R9] = 9,        [REG_R10] = 10,      [REG_R11] = 11,
        [REG_R12] = 12,      [REG_R13] = 13,      [REG_R14] = 14,      [REG_R15] = 15,
        [REG_RDI] = 5,       [REG_RSI] = 4,       [REG_RBP] = PK_RBP,  [REG_RBX] = PK_RBX,
        [REG_RDX] = 1,       [REG_RAX] = PK_RAX,  [REG_RCX] = 2,       [REG_RSP] = PK_RSP,
        [REG_RIP] = PK_RIP};
    pk_registers found;
    if (++walk->signal_count > PK_UNWIND_SIGNAL_LIMIT) {
        return PK_STEP_NO_WAY;
    }
    for (size_t i = 0; i < PK_REGISTER_COUNT; i++) {
        if (!pk_walk_read(walk, context + CONTEXT_REGISTERS + 8 * i, &found.values[order[i]])) {
            return PK_STEP_NO_MEMORY;
        }
    }
    found.known = (1U << PK_REGISTER_COUNT) - 1;
    walk->registers = found;
    walk->is_exact = true;
    walk->flags |= PK_FRAME_INTERRUPTED;
    return PK_STEP_DONE;
}

/* What the code is about to do: give its stack back and return. */
static pk_step step_by_epilogue(pk_walk *walk)
{
    static const uint8_t pop_frame_pointer[] = {0x5D, 0xC3};
    uint8_t code[CODE_BYTES] = {0};
    uint64_t first = stack_pointer(walk);
    uint64_t word;
    size_t size = pk_walk_read_code(walk, walk->registers.values[PK_RIP], code, sizeof code);
    if (size >= 2 && memcmp(code, pop_frame_pointer, sizeof pop_frame_pointer) == 0) {
        uint64_t frame_pointer;
        if (!pk_walk_read(walk, first, &frame_pointer) || !pk_walk_read(walk, first + 8, &word)) {
            return PK_STEP_NO_MEMORY;
        }
        if (!pk_walk_is_code(walk, word)) {
            return PK_STEP_NO_WAY;
        }
        walk->registers.values[PK_RBP] = frame_pointer;
        walk->registers.known |= 1U << PK_RBP;
        return go(walk, first + 16, word);
    }
    uint64_t given_back;
    if (size >= 1 && code[0] == 0xC3) { /* ret */
        given_back = 0;
    } else if (size >= 5 && memcmp(code, "\x48\x83\xC4", 3) == 0 && code[4] == 0xC3 &&
               code[3] < 0x80) { /* add $n, %rsp; ret */
        given_back = code[3];
    } else {
        return PK_STEP_NO_WAY;
    }
    if (!pk_walk_read(walk, first + given_back, &word)) {
        return PK_STEP_NO_MEMORY;
    }
    return pk_walk_is_code(walk, word) ? go(walk, first + given_back + 8, word) : PK_STEP_NO_WAY;
}

/* A function that has not yet made its frame: its return address lies on top, or below the frame
 * pointer that it has just pushed. */
static pk_step step_by_top(pk_walk *walk)
{
    uint64_t first = stack_pointer(walk);
    uint64_t words[2];
    if (!pk_walk_read(walk, first, &words[0])) {
        return PK_STEP_NO_MEMORY;
    }
    if (pk_walk_is_after_call(walk, words[0])) {
        walk->flags |= PK_FRAME_GUESSED;
        return go(walk, first + 8, words[0]);
    }
    if (pk_walk_knows(walk, PK_RBP) && words[0] == walk->registers.values[PK_RBP] &&
        pk_walk_read(walk, first + 8, &words[1]) && pk_walk_is_after_call(walk, words[1])) {
        walk->flags |= PK_FRAME_GUESSED;
        return go(walk, first + 16, words[1]);
    }
    return PK_STEP_NO_WAY;
}

static pk_step step_by_frame_pointer(pk_walk *walk)
{
    uint64_t frame_pointer = walk->registers.values[PK_RBP];
    uint64_t next;
    uint64_t return_address;
    if (!pk_walk_knows(walk, PK_RBP) || frame_pointer % 8 != 0 ||
        frame_pointer < stack_pointer(walk)) {
        return PK_STEP_NO_WAY;
    }
    if (!pk_walk_read(walk, frame_pointer, &next) ||
        !pk_walk_read(walk, frame_pointer + 8, &return_address)) {
        return PK_STEP_NO_WAY; /* it may be no frame pointer at all */
    }
    if ((next <= frame_pointer && next != 0) || !pk_walk_is_code(walk, return_address)) {
        return PK_STEP_NO_WAY;
    }
    pk_walk_forget(walk, true);
    walk->registers.values[PK_RBP] = next;
    walk->flags |= PK_FRAME_BY_POINTER;
    return go(walk, frame_pointer + 16, return_address);
}

pk_step pk_guess_search(pk_walk *walk)
{
    uint64_t first = stack_pointer(walk);
    uint64_t word;
    for (uint64_t i = 0; i < PK_UNWIND_SEARCH_WORDS; i++) {
        if (++walk->searched_count > PK_UNWIND_SEARCHES_WORDS) {
            return PK_STEP_NO_WAY;
        }
        if (!pk_walk_read(walk, first + 8 * i, &word)) {
            return PK_STEP_NO_MEMORY;
        }
        if (pk_walk_is_after_call(walk, word)) {
            pk_walk_forget(walk, false);
            walk->flags |= PK_FRAME_GUESSED;
            return go(walk, first + 8 * (i + 1), word);
        }
    }
    return PK_STEP_NO_WAY;
}

pk_step pk_guess_step(pk_walk *walk)
{
    if (pk_walk_knows(walk, PK_RBP) && walk->registers.values[PK_RBP] == 0 && !walk->is_exact) {
        return PK_STEP_ROOT; /* as programs without tables mark their first frame */
    }
    pk_step step = step_by_epilogue(walk);
    if (step == PK_STEP_NO_WAY && walk->is_exact) {
        step = step_by_top(walk);
    }
    if (step == PK_STEP_NO_WAY) {
        step = step_by_frame_pointer(walk);
    }
    return step == PK_STEP_NO_WAY ? pk_guess_search(walk) : step;
}
