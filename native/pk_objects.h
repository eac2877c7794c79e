/* The files whose code processes run, each opened once however many map it, with what unwinding
 * needs of it. The one not used for longest makes room for a new one.
 * A path that a process maps is its own claim: only regular files are opened, links are resolved in
 * the process's own root, and a file counts only if it is the one that is mapped.
 * Functions return 0 or an errno value. One thread uses it. */
#ifndef PK_OBJECTS_H
#define PK_OBJECTS_H
#include "pk_elf.h"
#include "pk_maps.h"

enum {
    PK_OBJECT_LIMIT = 512,
    PK_OBJECT_PATH_BYTES_MAX = 4096,
};

typedef struct {
    uint64_t device;
    uint64_t inode;
    int64_t changed_ns; /* when the file was last changed, as it was opened */
    uint64_t used;      /* the higher, the later */
    char *path;         /* as the process sees it; never NULL while the serial is not 0 */
    pk_source source;   /* serial 0: unused */
    pk_elf elf;
} pk_object;

typedef struct {
    pk_object *objects;
    int proc; /* folder, not owned */
    uint32_t last_serial;
    uint64_t use_count;
    int64_t refused_count; /* files that could not be opened or read */
    int64_t evicted_count;
} pk_objects;

int pk_objects_init(pk_objects *objects, int proc);
void pk_objects_deinit(pk_objects *objects);

/* Opens what a mapping of a process is of, or finds it open, and notes it in the mapping; notes as
 * well that it cannot be. NULL: there is none. */
const pk_object *pk_objects_find(pk_objects *objects, pk_blocks *blocks, pid_t pid,
                                 pk_mapping *mapping);

/* Makes an object of an open file or an image, for `pk_mapping.object`. Owns the descriptor, also
 * where it fails. */
int pk_objects_add(pk_objects *objects, pk_blocks *blocks, const pk_source *source,
                   const pk_mapping *mapping, const char *path, uint32_t *ret);

#endif
