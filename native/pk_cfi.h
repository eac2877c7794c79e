/* Looks one instruction up in the call frame tables (.eh_frame) of a file, and runs its program up
 * to there. Nothing is prepared or kept. The tables are hostile: each step is bounded. */
#ifndef PK_CFI_H
#define PK_CFI_H
#include "pk_elf.h"
#include "pk_rule.h"

enum {
    PK_CFI_STEP_LIMIT = 1 << 16,  /* instructions of one program */
    PK_CFI_SCAN_LIMIT = 1 << 14,  /* entries, where there is no sorted table */
    PK_CFI_REMEMBER_LIMIT = 16,
};

/* Parts of the tables that belong to one function. */
typedef struct {
    uint64_t start; /* address of its code */
    uint64_t size_bytes;
    uint64_t code_align;
    int64_t data_align;
    uint64_t return_register;
    uint64_t common_offset; /* of the instructions that it shares with others, in the file */
    uint64_t common_bytes;
    uint64_t program_offset; /* of its own instructions */
    uint64_t program_bytes;
    bool is_signal;
} pk_fde;

/* 0 or an errno value. ENOENT: no function's tables hold the address. EBADMSG: damaged, or of a
 * kind that is not understood. */
int pk_fde_find(pk_fde *fde, const pk_elf *elf, pk_blocks *blocks, const pk_source *source,
                uint64_t address);

/* The rule at an address; its kind stays PK_CFA_UNKNOWN where there is none. Errors as above. */
int pk_cfi_find(pk_rule *rule, const pk_elf *elf, pk_blocks *blocks, const pk_source *source,
                uint64_t address);

#endif
