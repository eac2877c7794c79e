/* Native stacks, each once, and the objects that their frames lie in; leaf first.
 *
 * Memory is fixed at creation; what finds no room is refused and counted. One thread writes. What
 * lies below `object_count` and `stack_count` never changes, so that another may read it. */
#ifndef PK_STACKTABLE_H
#define PK_STACKTABLE_H
#include <stdatomic.h>

#include "pk_unwind.h"

enum {
    PK_STACKTABLE_STACK_LIMIT = 8192,
    PK_STACKTABLE_DEPTH_LIMIT = 256,       /* of one stack; frames beyond are left out */
    PK_STACKTABLE_FRAME_LIMIT = 1 << 17,   /* of all stacks */
    PK_STACKTABLE_OBJECT_LIMIT = 1024,
    PK_STACKTABLE_TEXT_BYTES = 1 << 18,    /* of all paths */
};

typedef enum {
    PK_OBJECT_FILE,
    PK_OBJECT_VDSO,
    PK_OBJECT_KERNEL,
    PK_OBJECT_ANONYMOUS, /* whatever code of a process lies in no file that could be opened */
} pk_object_kind;

typedef struct {
    uint64_t key;
    pk_object_kind kind;
    int32_t pid; /* a process that maps it */
    uint32_t path_at; /* in the texts */
    uint32_t path_bytes;
    uint8_t build_id[PK_BUILD_ID_BYTES];
    size_t build_id_bytes;
} pk_table_object;

typedef struct {
    uint64_t offset; /* in the file; the address where the object is none */
    uint32_t object;
    uint32_t flags; /* PK_FRAME_* */
} pk_table_frame;

typedef struct {
    uint64_t hash;
    uint32_t first; /* in the frames */
    uint32_t depth;
} pk_table_stack;

typedef struct {
    pk_table_object *objects;
    char *texts;
    pk_table_frame *frames;
    pk_table_stack *stacks;
    uint32_t *slots; /* of a hash table: stack + 1 */
    uint32_t text_used;
    uint32_t frame_used;
    uint32_t last_object; /* where the last search ended */
    int64_t refused_count; /* stacks that found no room */
    _Atomic uint32_t object_count;
    _Atomic uint32_t stack_count;
} pk_stacktable;

/* 0 or ENOMEM. */
int pk_stacktable_init(pk_stacktable *table);
void pk_stacktable_deinit(pk_stacktable *table);

/* The number of a process's stack, which is added where it is new. ENOSPC: no room. */
int pk_stacktable_intern(pk_stacktable *table, const pk_objects *objects, int32_t pid,
                         const pk_stack *stack, uint32_t *ret);

#endif
