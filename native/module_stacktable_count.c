/* Python face of the stack table: stacks and counts that come in. */
#include "pk_module_stacktable.h"

#include <errno.h>
#include <stdlib.h>

enum {
    TEXT_ROOM_BYTES = 1024,
    HELD_COUNT = 4096, /* up to which letting go of the GIL costs more than it gives */
};

/* A stack's frames by number, outermost first. */
typedef struct {
    uint32_t *frames; /* owned */
    size_t depth;
} numbered_stack;

static int intern_texts(pk_framenames *names, const char *const texts[2], const size_t sizes[2],
                        uint32_t *ret)
{
    char room[TEXT_ROOM_BYTES];
    if (sizes[0] > PK_FRAME_TEXT_BYTES_MAX || sizes[1] > PK_FRAME_TEXT_BYTES_MAX) {
        return EINVAL;
    }
    size_t size_bytes = sizes[0] + sizes[1];
    char *joined = size_bytes <= sizeof room ? room : malloc(size_bytes);
    if (joined == NULL) {
        return ENOMEM;
    }
    memcpy(joined, texts[0], sizes[0]);
    memcpy(joined + sizes[0], texts[1], sizes[1]);
    int error = pk_framenames_intern(names, joined, sizes[0], sizes[1], ret);
    if (joined != room) {
        free(joined);
    }
    return error;
}

/* The number of a frame, which has to be a tuple of two str; -1 with an error where it is none. */
static int intern_frame(pk_framenames *names, PyObject *frame, uint32_t *ret)
{
    const char *texts[2];
    size_t sizes[2];
    for (int i = 0; i < 2; i++) {
        bool is_pair = PyTuple_Check(frame) && PyTuple_Size(frame) == 2;
        PyObject *text = is_pair ? PyTuple_GetItem(frame, i) : NULL;
        Py_ssize_t size_bytes;
        if (text == NULL || !PyUnicode_Check(text)) {
            PyErr_SetString(PyExc_TypeError, "a frame must be a tuple (name, file) of two str");
            return -1;
        }
        texts[i] = PyUnicode_AsUTF8AndSize(text, &size_bytes);
        if (texts[i] == NULL) {
            return -1;
        }
        sizes[i] = (size_t)size_bytes;
    }
    int error = intern_texts(names, texts, sizes, ret);
    if (error != 0) {
        pk_module_stacktable_fail(error);
        return -1;
    }
    return 0;
}

/* Numbers the frames of a list, which are leaf first; of too many the outer ones are cut. */
static int number_frames(pk_framenames *names, PyObject *list, numbered_stack *ret)
{
    size_t count = (size_t)PyList_Size(list);
    bool is_cut = count > PK_STACK_DEPTH_MAX;
    size_t told = is_cut ? PK_STACK_DEPTH_MAX - 1 : count;
    ret->depth = told + (is_cut ? 1 : 0);
    ret->frames = malloc((ret->depth + 1) * sizeof *ret->frames);
    if (ret->frames == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ret->frames[0] = PK_FRAME_CUT; /* unless it is overwritten */
    for (size_t i = 0; i < told; i++) {
        PyObject *frame = PyList_GetItem(list, (Py_ssize_t)i);
        if (intern_frame(names, frame, &ret->frames[ret->depth - 1 - i]) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Interns and counts the stack of a list of our own: no Python code runs. */
static int take_list(pk_stacktable *table, PyObject *list, uint64_t count, uint32_t *ret)
{
    numbered_stack stack = {NULL, 0};
    int outcome = number_frames(&table->names, list, &stack);
    if (outcome == 0) {
        int error = pk_stacktable_intern(table, stack.frames, stack.depth, ret);
        error = error == 0 ? pk_stacktable_count(table, *ret, count) : error;
        if (error != 0) {
            pk_module_stacktable_fail(error);
            outcome = -1;
        }
    }
    free(stack.frames);
    return outcome;
}

static int take_stack(pk_stacktable_object *self, PyObject *frames, uint64_t count,
                      uint32_t *ret)
{
    PyObject *list = PySequence_List(frames);
    if (list == NULL) {
        return -1;
    }
    int outcome = pk_module_stacktable_enter(self);
    if (outcome == 0) {
        outcome = take_list(&self->table, list, count, ret);
        pk_module_stacktable_leave(self);
    }
    Py_DECREF(list);
    return outcome;
}

PyObject *pk_module_stacktable_intern(PyObject *self, PyObject *frames)
{
    uint32_t stack;
    int outcome = take_stack((pk_stacktable_object *)self, frames, 0, &stack);
    return outcome == 0 ? PyLong_FromUnsignedLong(stack) : NULL;
}

PyObject *pk_module_stacktable_record(PyObject *self, PyObject *const *arguments,
                                      Py_ssize_t count)
{
    long long seen = 1;
    uint32_t stack;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "record takes frames, and at most a count");
        return NULL;
    }
    if (count == 2) {
        seen = PyLong_AsLongLong(arguments[1]);
    }
    if (seen == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (seen < 0) {
        return pk_module_stacktable_fail(EDOM);
    }
    int outcome =
        take_stack((pk_stacktable_object *)self, arguments[0], (uint64_t)seen, &stack);
    return outcome == 0 ? Py_NewRef(Py_None) : NULL;
}

/* Whether a format of the struct module is an integer of 64 bits in this machine's order. */
static bool is_count_format(const Py_buffer *view, bool *is_signed)
{
    const char *format = view->format == NULL ? "B" : view->format;
    if (*format == '@' || *format == '=' || *format == '<') {
        format++;
    }
    if (format[0] == '\0' || format[1] != '\0' || view->itemsize != sizeof(uint64_t)) {
        return false;
    }
    *is_signed = *format == 'q' || *format == 'l' || *format == 'n';
    return *is_signed || *format == 'Q' || *format == 'L' || *format == 'N';
}

static PyObject *add_views(pk_stacktable_object *self, const Py_buffer *ids,
                           const Py_buffer *counts)
{
    bool is_signed;
    if (!is_count_format(counts, &is_signed)) {
        PyErr_SetString(PyExc_TypeError, "counts must be integers of 64 bits, in this machine's "
                                         "byte order");
        return NULL;
    }
    size_t count = (size_t)counts->len / sizeof(uint64_t);
    if ((size_t)ids->len != count * PK_STACKID_BYTES) {
        PyErr_SetString(PyExc_ValueError, "ids must have 16 bytes for each count");
        return NULL;
    }
    if (pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    int error;
    if (count <= HELD_COUNT) {
        error = pk_stacktable_add(&self->table, ids->buf, counts->buf, count, is_signed);
    } else {
        Py_BEGIN_ALLOW_THREADS
        error = pk_stacktable_add(&self->table, ids->buf, counts->buf, count, is_signed);
        Py_END_ALLOW_THREADS
    }
    pk_module_stacktable_leave(self);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_stacktable_fail(error);
}

PyObject *pk_module_stacktable_add(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer ids;
    Py_buffer counts;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "add takes ids and counts");
        return NULL;
    }
    if (PyObject_GetBuffer(arguments[0], &ids, PyBUF_C_CONTIGUOUS) != 0) {
        return NULL;
    }
    PyObject *done = NULL;
    if (PyObject_GetBuffer(arguments[1], &counts, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) == 0) {
        done = add_views((pk_stacktable_object *)self, &ids, &counts);
        PyBuffer_Release(&counts);
    }
    PyBuffer_Release(&ids);
    return done;
}
