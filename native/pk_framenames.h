/* Texts of frames, each pair (name, file) once, numbered from 0 as they come.
 * Functions that can fail give 0 or an errno value, and have changed nothing where they fail. */
#ifndef PK_FRAMENAMES_H
#define PK_FRAMENAMES_H
#include "pk_stackid.h"

enum {
    PK_FRAME_TEXT_BYTES_MAX = 65535, /* of a name, and of a file */
    PK_FRAME_NAME_LIMIT = 1 << 26,
};

/* Frames of ours, which are there from the beginning; nobody's file is "". */
enum {
    PK_FRAME_ROOT,    /* "(all)": the root of a tree */
    PK_FRAME_UNKNOWN, /* "[unknown]": a stack of which only the id is known */
    PK_FRAME_OTHER,   /* "(other)": what was too little to be shown */
    PK_FRAME_CUT,     /* "[truncated]": outer frames of a stack that was too deep */
    PK_FRAME_OWN_COUNT,
};

typedef struct {
    pk_stackid id;
    uint64_t at;         /* in the texts */
    uint32_t name_bytes;
    uint32_t file_bytes; /* behind the name */
} pk_framename;

typedef struct {
    pk_framename *names;
    char *texts;
    uint32_t *slots; /* of a hash table: number + 1; NULL in an ordered copy */
    size_t text_bytes;
    size_t text_room;
    uint32_t count;
    uint32_t room;
    uint32_t slot_bits;
    pk_scatter scatter;
} pk_framenames;

/* Begins with the frames of ours. ENOMEM. */
int pk_framenames_init(pk_framenames *names);
void pk_framenames_deinit(pk_framenames *names);

/* The number of a frame, which is added where it is new. `texts` is the name, then the file.
 * EINVAL: too long; EOVERFLOW: too many; EEXIST: another one has its id; ENOMEM. */
int pk_framenames_intern(pk_framenames *names, const char *texts, size_t name_bytes,
                         size_t file_bytes, uint32_t *ret);

/* Makes `ret`, which is not initialised, a copy that cannot be interned in, or one that can.
 * ENOMEM. */
int pk_framenames_copy_texts(const pk_framenames *names, pk_framenames *ret);
int pk_framenames_copy(const pk_framenames *names, pk_framenames *ret);

/* The place of each frame by its texts, which hosts agree on; those of ours come first.
 * `ret` has room for `count`. ENOMEM. */
int pk_framenames_rank(const pk_framenames *names, uint32_t *ret);

/* Makes `ret`, which is not initialised, a copy in the order of these ranks. ENOMEM. */
int pk_framenames_copy_ranked(const pk_framenames *names, const uint32_t *ranks,
                              pk_framenames *ret);

static inline const char *pk_framenames_texts(const pk_framenames *names, uint32_t number)
{
    return names->texts + names->names[number].at;
}

#endif
