/* How to go from a frame to its caller at one instruction: where the caller's stack pointer was
 * (the canonical frame address, CFA), and where its registers are kept. Registers are numbered as
 * DWARF numbers those of x86-64. */
#ifndef PK_RULE_H
#define PK_RULE_H
#include <stdint.h>

enum {
    PK_RAX = 0,
    PK_RBX = 3,
    PK_RBP = 6,
    PK_RSP = 7,
    PK_RIP = 16,
    PK_REGISTER_COUNT = 17,
};

/* Which registers a callee gives back as it got them, and the return address. */
enum {
    PK_SAVED_RBX,
    PK_SAVED_RBP,
    PK_SAVED_R12,
    PK_SAVED_R13,
    PK_SAVED_R14,
    PK_SAVED_R15,
    PK_SAVED_RETURN,
    PK_SAVED_COUNT,
};

enum {
    PK_CFA_UNKNOWN = 0, /* no rule: nothing is said, or nothing that is understood */
    PK_CFA_REGISTER,    /* register + offset */
    PK_CFA_MEMORY,      /* the word at register + offset, and addend */
    PK_CFA_STUB,        /* of the procedure linkage table: rsp + 8, and 8 more once RIP % 16 is
                           `offset` or above */
};

enum {
    PK_KEPT_SAME = 0,    /* in its register */
    PK_KEPT_AT_CFA,      /* at CFA + 8 * words */
    PK_KEPT_AT_REGISTER, /* at the value of a register + 8 * words */
    PK_KEPT_IN_REGISTER, /* in another register */
    PK_KEPT_AS_CFA,      /* it is CFA + 8 * words */
    PK_KEPT_NOWHERE,     /* lost; of the return address: there is no caller */
};

enum { PK_RULE_SIGNAL = 1 }; /* the frame is one that the kernel made */

typedef struct {
    int16_t words;
    uint8_t kind;
    uint8_t from; /* register */
} pk_kept;

typedef struct {
    int32_t offset;
    int16_t addend;
    uint8_t kind;
    uint8_t from; /* register */
    uint8_t flags;
    pk_kept kept[PK_SAVED_COUNT];
} pk_rule;

_Static_assert(sizeof(pk_rule) == 40, "a cache of rules shall stay small");

#endif
