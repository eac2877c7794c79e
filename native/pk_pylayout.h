/* Where CPython keeps what is wanted, as offsets in bytes; they differ between its versions. */
#ifndef PK_PYLAYOUT_H
#define PK_PYLAYOUT_H
#include <stddef.h>
#include <stdint.h>

enum {
    PK_PY_RUNTIME_INTERPRETERS, /* _PyRuntime: the first interpreter */
    PK_PY_INTERPRETER_NEXT,
    PK_PY_INTERPRETER_THREADS, /* the first thread state */
    PK_PY_THREAD_NEXT,
    PK_PY_THREAD_INTERPRETER,
    PK_PY_THREAD_FRAME,   /* the innermost frame; or, before 3.13, where it is told */
    PK_PY_CFRAME_CURRENT, /* in what THREAD_FRAME points to then; -1 where it is the frame */
    PK_PY_THREAD_NATIVE_ID,
    PK_PY_FRAME_CODE,
    PK_PY_FRAME_PREVIOUS,
    PK_PY_FRAME_OWNER,
    PK_PY_CODE_FILE,
    PK_PY_CODE_NAME, /* the qualified one */
    PK_PY_CODE_LINE,
    PK_PY_TEXT_LENGTH,
    PK_PY_TEXT_STATE,
    PK_PY_TEXT_ASCII_BYTES,   /* behind so many bytes ASCII text lies, */
    PK_PY_TEXT_COMPACT_BYTES, /* and any other text behind so many */
    PK_PY_FRAME_ENTRY, /* whether C called it; -1 where a shim lies above such a frame instead */
    PK_PY_INTERPRETER_COLLECTING, /* whether it collects garbage, an int; -1 = not known where */
    PK_PY_RUNTIME_LOCK,           /* the interpreter's lock; -1 where the next one tells */
    PK_PY_INTERPRETER_LOCK,       /* what points to it */
    PK_PY_LOCK_HOLDER,            /* in it: the thread state that had it last */
    PK_PY_OFFSET_COUNT,
};

enum {
    PK_PY_THREAD_SPAN_BYTES = 2048, /* parts of an object that are read at once */
    PK_PY_FRAME_SPAN_BYTES = 128,
    PK_PY_CODE_SPAN_BYTES = 512,
    PK_PY_TEXT_SPAN_BYTES = 128,
    PK_PY_FRAME_SHIM_OWNER = 3, /* such frames and those above it are none of Python code */
};

typedef struct {
    int64_t offsets[PK_PY_OFFSET_COUNT];
    size_t thread_bytes; /* what holds all fields that are wanted of each object */
    size_t frame_bytes;
    size_t code_bytes;
    size_t text_bytes;
} pk_pylayout;

/* Checks the offsets and adds the sizes. EINVAL: one of them cannot be. */
int pk_pylayout_init(pk_pylayout *layout, const int64_t offsets[PK_PY_OFFSET_COUNT]);

#endif
