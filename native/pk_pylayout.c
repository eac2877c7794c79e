#include "pk_pylayout.h"

#include <errno.h>
#include <string.h>

static const int64_t STATE_OFFSET_LIMIT = 1 << 20; /* of the runtime's and the interpreter's */

/* The bytes up to the end of the last of these fields, or 0 where one lies too far out. */
static size_t span_of(const int64_t *offsets, int first, int last, size_t limit)
{
    int64_t end = 0;
    for (int i = first; i <= last; i++) {
        int64_t offset = i == PK_PY_CFRAME_CURRENT ? 0 : offsets[i];
        if (offset < 0 || offset > (int64_t)limit - 8) {
            return 0;
        }
        end = offset + 8 > end ? offset + 8 : end;
    }
    return (size_t)end;
}

int pk_pylayout_init(pk_pylayout *layout, const int64_t offsets[PK_PY_OFFSET_COUNT])
{
    for (int i = PK_PY_RUNTIME_INTERPRETERS; i <= PK_PY_INTERPRETER_THREADS; i++) {
        if (offsets[i] < 0 || offsets[i] > STATE_OFFSET_LIMIT) {
            return EINVAL;
        }
    }
    for (int i = PK_PY_INTERPRETER_COLLECTING; i <= PK_PY_LOCK_HOLDER; i++) {
        if (offsets[i] < -1 || offsets[i] > STATE_OFFSET_LIMIT) {
            return EINVAL;
        }
    }
    memcpy(layout->offsets, offsets, sizeof layout->offsets);
    layout->thread_bytes =
        span_of(offsets, PK_PY_THREAD_NEXT, PK_PY_THREAD_NATIVE_ID, PK_PY_THREAD_SPAN_BYTES);
    layout->frame_bytes =
        span_of(offsets, PK_PY_FRAME_CODE, PK_PY_FRAME_OWNER, PK_PY_FRAME_SPAN_BYTES);
    layout->code_bytes = span_of(offsets, PK_PY_CODE_FILE, PK_PY_CODE_LINE, PK_PY_CODE_SPAN_BYTES);
    layout->text_bytes =
        span_of(offsets, PK_PY_TEXT_LENGTH, PK_PY_TEXT_COMPACT_BYTES, PK_PY_TEXT_SPAN_BYTES);
    int64_t current = offsets[PK_PY_CFRAME_CURRENT];
    int64_t entry = offsets[PK_PY_FRAME_ENTRY];
    if (entry < -1 || entry >= (int64_t)layout->frame_bytes) {
        return EINVAL;
    }
    if (layout->thread_bytes == 0 || layout->frame_bytes == 0 || layout->code_bytes == 0 ||
        layout->text_bytes == 0 || current < -1 || current > PK_PY_FRAME_SPAN_BYTES) {
        return EINVAL;
    }
    return 0;
}
