/* Walks the frames of one Python thread, which may run meanwhile: the frames of the last walk are
 * read again at one go, links are followed through what came, and only new frames cost a read. */
#ifndef PK_PYWALK_H
#define PK_PYWALK_H
#include "pk_pylayout.h"
#include "pk_pystack.h"
#include "pk_remote.h"

/* What the next walk of the same thread begins with. */
typedef struct {
    uint64_t cframe;
    uint64_t frames[PK_PYSTACK_DEPTH_LIMIT];
    size_t frame_count;
} pk_pywalk;

typedef struct {
    uint64_t codes[PK_PYSTACK_DEPTH_LIMIT]; /* innermost first */
    bool entries[PK_PYSTACK_DEPTH_LIMIT];   /* C called it: its caller is of another run */
    size_t depth;
    bool is_cut; /* deeper than the limit: the outer frames are missing */
} pk_pyframes;

/* `thread` is the address of the thread state. EAGAIN: the thread moved so that no consistent stack
 * was seen; other errors as in pk_remote.h. A stack of depth 0: no Python code is being run. */
int pk_pywalk_read(pk_pywalk *walk, const pk_pylayout *layout, pid_t pid, uint64_t thread,
                   pk_pyframes *ret);

#endif
