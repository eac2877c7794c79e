/* One walk up a stack: what pk_unwind and pk_guess share. */
#ifndef PK_WALK_H
#define PK_WALK_H
#include "pk_unwind.h"

typedef struct {
    pk_unwinder *unwinder;
    pk_maps *maps;
    const pk_snapshot *snapshot;
    pk_registers registers; /* of the frame that the walk is at */
    bool is_exact;          /* RIP is that of an instruction that runs, no return address */
    uint32_t flags;         /* of the frame that the walk goes to */
    int signal_count;
    int read_count;
    int searched_count; /* words of the stack */
    int64_t first_step_count; /* of tables, when the walk began */
    uint64_t window_address;
    size_t window_bytes;
    uint8_t window[PK_UNWIND_WINDOW_BYTES];
} pk_walk;

/* How a step went. */
typedef enum {
    PK_STEP_DONE,
    PK_STEP_ROOT,
    PK_STEP_NO_MEMORY,
    PK_STEP_NO_WAY,
} pk_step;

bool pk_walk_knows(const pk_walk *walk, unsigned number);

/* A word of the stack, from the copy or by a late read. */
bool pk_walk_read(pk_walk *walk, uint64_t address, uint64_t *ret);

/* Bytes of code, from its file or by a late read; returns how many came. */
size_t pk_walk_read_code(pk_walk *walk, uint64_t address, uint8_t *buffer, size_t size);

/* Whether code lies just before an address, and whether that is a call. */
bool pk_walk_is_code(pk_walk *walk, uint64_t return_address);
bool pk_walk_is_after_call(pk_walk *walk, uint64_t return_address);

/* Registers that a frame of an unknown kind may have changed. */
void pk_walk_forget(pk_walk *walk, bool keeps_frame_pointer);

/* A step where no rule tells the way. */
pk_step pk_guess_step(pk_walk *walk);

/* A step to what looks like the next return address, where all else failed. */
pk_step pk_guess_search(pk_walk *walk);

/* Whether a signal handler returns to this code, and a step to what the signal interrupted: the
 * kernel left all registers at `context`. */
bool pk_signal_is_return(pk_walk *walk);
pk_step pk_signal_step(pk_walk *walk, uint64_t context);

#endif
