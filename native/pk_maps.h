/* The executable mappings of one process, sorted: from /proc/PID/maps, or one by one as the kernel
 * reports new ones. What else a process maps matters to nobody here.
 * Functions return 0 or an errno value unless they say otherwise. One thread uses it. */
#ifndef PK_MAPS_H
#define PK_MAPS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    PK_MAPPING_LIMIT = 8192,
    PK_MAPS_TEXT_BYTES_MAX = 16 << 20,
    PK_MAPS_LINE_BYTES_MAX = 8192,
};

enum { PK_MAPPING_ANONYMOUS, PK_MAPPING_FILE, PK_MAPPING_VDSO };

/* What is known of the file behind a mapping. */
enum { PK_MAPPING_UNSEEN, PK_MAPPING_OPEN, PK_MAPPING_UNREADABLE };

typedef struct {
    uint64_t start;
    uint64_t end;
    uint64_t offset; /* in the file */
    uint64_t device; /* major << 32 | minor */
    uint64_t inode;
    uint64_t bias;   /* file offset + bias = address in the file's own tables; once open */
    uint32_t object; /* its place among the objects; once open */
    uint32_t serial; /* of the object's source; once open */
    uint8_t kind;
    uint8_t state;
} pk_mapping;

typedef struct {
    pk_mapping *mappings;
    size_t count;
    size_t capacity;
    size_t last; /* where the last search ended */
    int64_t dropped_count;
} pk_maps;

void pk_maps_init(pk_maps *maps);
void pk_maps_deinit(pk_maps *maps);

/* Forgets all mappings: the process has executed another program. */
void pk_maps_clear(pk_maps *maps);

/* Makes `maps` those of another process, of which it was born. Returns how many were dropped. */
int pk_maps_copy(pk_maps *maps, const pk_maps *from);

/* Adds a mapping, which takes the place of whatever was there. Returns how many were dropped. */
int pk_maps_add(pk_maps *maps, const pk_mapping *mapping);

/* The mapping that holds an address, or NULL; valid until the next change. */
pk_mapping *pk_maps_find(pk_maps *maps, uint64_t address);

/* Parses one line of /proc/PID/maps. EBADMSG: not understood. *ret_path, *ret_path_bytes: in the
 * line; *ret_executable: whether code lies there. */
int pk_maps_parse_line(const char *line, size_t size, pk_mapping *ret, const char **ret_path,
                       size_t *ret_path_bytes, bool *ret_executable);

/* Calls for each line of an open maps file; stops where `visit` gives false. */
int pk_maps_visit(int descriptor, bool (*visit)(void *context, const char *line, size_t size),
                  void *context);

/* Reads all mappings of a process anew; `proc` is an open folder. */
int pk_maps_read(pk_maps *maps, int proc, pid_t pid);

#endif
