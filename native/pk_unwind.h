/* Frames of a thread from its registers and a copy of its stack, by the call frame tables of the
 * files it runs, and where those say nothing by what the code looks like. Nothing is stopped here,
 * and nothing that was copied is believed: frames only go up the stack, and their number, reads and
 * searches are bounded. One thread uses an unwinder. */
#ifndef PK_UNWIND_H
#define PK_UNWIND_H
#include "pk_maps.h"
#include "pk_objects.h"
#include "pk_rules.h"

enum {
    PK_UNWIND_DEPTH_LIMIT = 1024,
    PK_UNWIND_SIGNAL_LIMIT = 8,       /* frames that the kernel made, in one stack */
    PK_UNWIND_READ_LIMIT = 64,        /* reads beyond the copy, for one stack */
    PK_UNWIND_WINDOW_BYTES = 8192,    /* of one of them */
    PK_UNWIND_SEARCH_WORDS = 1024,    /* looked at for one return address, */
    PK_UNWIND_SEARCHES_WORDS = 8192,  /* and for all of one stack */
    PK_UNWIND_STEP_LIMIT = 1 << 18,   /* entries and instructions of tables, for one stack */
};

/* How a frame was reached from the one below it; 0: by a rule, from the copy. */
enum {
    PK_FRAME_BY_POINTER = 1, /* by the chain of frame pointers, which leaves frames out */
    PK_FRAME_GUESSED = 2,    /* by a word that looks like a return address */
    PK_FRAME_LATE = 4,       /* with memory read after the copy was made */
    PK_FRAME_INTERRUPTED = 8, /* a signal came here: `pc` is no return address */
};

/* Why there is no further frame. */
typedef enum {
    PK_UNWIND_ROOT,      /* there is none: the stack is whole */
    PK_UNWIND_TRUNCATED, /* memory was missing */
    PK_UNWIND_LOST,      /* no rule, or one that leads nowhere */
    PK_UNWIND_TOO_DEEP,
} pk_unwind_end;

typedef struct {
    uint64_t values[PK_REGISTER_COUNT];
    uint32_t known; /* a bit for each; RSP and RIP must be */
} pk_registers;

typedef struct {
    pid_t pid; /* whose files are opened */
    pk_registers registers;
    const uint8_t *stack; /* a copy, from the address on */
    uint64_t stack_address;
    size_t stack_bytes;
    /* Reads more of its memory and says how many bytes came; NULL: there is no more. */
    size_t (*read)(void *context, uint64_t address, void *buffer, size_t size);
    void *context;
} pk_snapshot;

typedef struct {
    uint64_t pc;            /* a return address, or of the leaf and of interrupted frames exact */
    uint64_t stack_pointer; /* in this frame */
    /* Of the instruction that runs: for a return address that of the call before it. */
    uint64_t file_offset;
    uint32_t object; /* place among the objects; valid where the serial still is the object's */
    uint32_t serial; /* 0: no file, file_offset is the address */
    uint32_t flags;
} pk_frame;

typedef struct {
    pk_frame frames[PK_UNWIND_DEPTH_LIMIT]; /* leaf first */
    size_t depth;
    pk_unwind_end end;
    uint32_t flags; /* of all frames together */
} pk_stack;

typedef struct {
    pk_blocks blocks;
    pk_objects objects;
    pk_rules rules;
} pk_unwinder;

/* 0 or an errno value. `proc` is an open folder, which stays the caller's. */
int pk_unwinder_init(pk_unwinder *unwinder, int proc);
void pk_unwinder_deinit(pk_unwinder *unwinder);

/* Fills `ret`; `maps` are those of the process, of which it notes what files they are of. */
void pk_unwind(pk_unwinder *unwinder, pk_maps *maps, const pk_snapshot *snapshot, pk_stack *ret);

#endif
