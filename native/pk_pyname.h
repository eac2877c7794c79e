/* Names of Python functions: the texts, each pair (name, file) once, and which code object of a
 * process bears which. Names come from another process: lengths are not believed, all is bounded.
 *
 * One thread writes. Functions below `count` never change, so that another may read them. */
#ifndef PK_PYNAME_H
#define PK_PYNAME_H
#include <stdatomic.h>
#include <sys/types.h>

#include "pk_pylayout.h"

enum {
    PK_PYNAME_LIMIT = 4096,           /* functions */
    PK_PYNAME_TEXT_LIMIT = 160,       /* characters of a name, and of the end of a path */
    PK_PYNAME_TEXT_BYTES = 4 * PK_PYNAME_TEXT_LIMIT,
    PK_PYNAME_ARENA_BYTES = 1 << 20,
    PK_PYCODE_LIMIT = 4096,           /* code objects of a process; a power of two */
};

typedef struct {
    uint32_t name_at; /* in the arena */
    uint16_t name_bytes;
    uint16_t file_bytes; /* behind the name */
    uint64_t hash;
} pk_pyname;

typedef struct {
    pk_pyname *names;
    char *arena;
    uint32_t *slots; /* of a hash table: index + 1 */
    uint32_t arena_used;
    _Atomic uint32_t count;
    int64_t dropped_count;
} pk_pynames;

/* One code object; an address may come to be used by another one, which other fields betray. */
typedef struct {
    uint64_t address; /* 0 = unused */
    uint64_t name;
    uint64_t file;
    uint32_t line;
    uint32_t function;
    int64_t checked_ns;
} pk_pycode;

typedef struct {
    pk_pycode *codes;
    size_t count;
} pk_pycodes;

int pk_pynames_init(pk_pynames *names);
void pk_pynames_deinit(pk_pynames *names);
int pk_pycodes_init(pk_pycodes *codes);
void pk_pycodes_deinit(pk_pycodes *codes);

/* The number of a function by its texts, the name before the file; it is added where it is new.
 * ENOSPC: the tables are full. */
int pk_pynames_intern(pk_pynames *names, const char *text, size_t name_bytes, size_t file_bytes,
                      uint32_t *ret);

/* The function that a code object of a process is. EBADMSG: it is none, or changed under the read.
 * ENOSPC: the tables are full. */
int pk_pycodes_find(pk_pycodes *codes, pk_pynames *names, const pk_pylayout *layout, pid_t pid,
                    uint64_t address, int64_t now_ns, uint32_t *ret);

#endif
