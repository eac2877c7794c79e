/* Stacks of native frames, each once, leaf first, and the files (objects) that they lie in. One
 * thread writes; what is below a `count` never changes, so that another may read it. */
#ifndef PK_NATIVESTACK_H
#define PK_NATIVESTACK_H
#include <stdatomic.h>

#include "pk_unwind.h"

enum {
    PK_NATIVE_STACK_LIMIT = 1 << 14,
    PK_NATIVE_FRAME_LIMIT = 1 << 19, /* in all stacks; 8 MB */
    PK_NATIVE_OBJECT_LIMIT = 1 << 12,
};

enum {
    PK_NATIVE_FILE,
    PK_NATIVE_VDSO,
    PK_NATIVE_KERNEL,    /* one, number 0 */
    PK_NATIVE_ANONYMOUS, /* one for each process: code in no file, or in none that can be read */
};

typedef struct {
    uint64_t offset;
    uint32_t object;
    uint32_t flags;
} pk_native_frame;

_Static_assert(sizeof(pk_native_frame) == 16, "frames are compared byte by byte");

typedef struct {
    uint64_t hash;
    uint32_t first; /* among the frames */
    uint32_t depth;
} pk_native_stack;

typedef struct {
    uint8_t kind;
    pid_t pid; /* that maps it; 0 of the kernel */
    uint64_t device;
    uint64_t inode;
    int64_t changed_ns;
    char *path; /* "" = none */
    uint8_t build_id[PK_BUILD_ID_BYTES];
    size_t build_id_bytes;
} pk_native_object;

/* The number that an open file was given. */
typedef struct {
    uint32_t serial;
    uint32_t number;
} pk_native_known;

typedef struct {
    pk_native_stack *stacks;
    pk_native_frame *frames;
    uint32_t *slots; /* of a hash table: index + 1 */
    pk_native_object *objects;
    pk_native_known known[PK_OBJECT_LIMIT];
    uint32_t frame_count;
    _Atomic uint32_t stack_count;
    _Atomic uint32_t object_count;
} pk_nativestacks;

int pk_nativestacks_init(pk_nativestacks *stacks);
void pk_nativestacks_deinit(pk_nativestacks *stacks);

/* The number of a stack, which is added where it is new. ENOSPC: no room. */
int pk_nativestacks_intern(pk_nativestacks *stacks, const pk_native_frame *frames, size_t depth,
                           uint32_t *ret);

/* Writes the frames that were unwound of a process, their objects numbered; `ret` has room for
 * `stack->depth`. ENOSPC: no room for an object. */
int pk_nativestacks_write(pk_nativestacks *stacks, const pk_objects *objects, pid_t pid,
                          const pk_stack *stack, pk_native_frame *ret);

#endif
