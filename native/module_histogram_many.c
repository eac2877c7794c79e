/* Python face of the histogram: arrays, and many histograms at once. */
#include "pk_module_histogram.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ALONE_COUNT = 64,      /* up to which values are counted without a scratch */
    HELD_COUNT = 4096,     /* up to which letting go of the GIL costs more than it gives */
};

/* A buffer's numbers, one after the other. */
typedef struct {
    Py_buffer view;
    char *owned; /* a copy where the buffer has gaps; else NULL */
    const char *values;
    size_t count;
    pk_number number;
} number_array;

/* Reads a format of the struct module; false where these are no numbers that can be counted. */
static bool to_number(const char *format, Py_ssize_t item_bytes, pk_number *ret)
{
    if (format == NULL) {
        return false; /* plain bytes */
    }
    if (*format == '@' || *format == '=' || *format == '<') {
        format++;
    }
    if (format[0] == '\0' || format[1] != '\0' || (item_bytes != 4 && item_bytes != 8)) {
        return false;
    }
    bool is_long = item_bytes == 8;
    switch (*format) {
    case 'd':
        *ret = PK_FLOAT64;
        return is_long;
    case 'f':
        *ret = PK_FLOAT32;
        return !is_long;
    case 'i':
    case 'l':
    case 'q':
    case 'n':
        *ret = is_long ? PK_INT64 : PK_INT32;
        return true;
    case 'I':
    case 'L':
    case 'Q':
    case 'N':
        *ret = is_long ? PK_UINT64 : PK_UINT32;
        return true;
    default:
        return false;
    }
}

static void close_array(number_array *array)
{
    free(array->owned);
    PyBuffer_Release(&array->view);
}

static int open_array(PyObject *object, number_array *ret)
{
    *ret = (number_array){0};
    if (PyObject_GetBuffer(object, &ret->view, PyBUF_FULL_RO) != 0) {
        return -1;
    }
    Py_buffer *view = &ret->view;
    if (!to_number(view->format, view->itemsize, &ret->number)) {
        PyErr_Format(PyExc_TypeError,
                     "record_many counts float64, float32 and integers of 32 or 64 bits, in this "
                     "machine's byte order; format '%s' is none of these",
                     view->format == NULL ? "B" : view->format);
        PyBuffer_Release(view);
        return -1;
    }
    ret->count = (size_t)(view->len / view->itemsize);
    ret->values = view->buf;
    if (PyBuffer_IsContiguous(view, 'A') || ret->count == 0) {
        return 0; /* in whatever order: all are counted */
    }
    ret->owned = malloc((size_t)view->len);
    ret->values = ret->owned;
    if (ret->owned == NULL) {
        PyErr_NoMemory();
    }
    if (ret->owned == NULL || PyBuffer_ToContiguous(ret->owned, view, view->len, 'C') != 0) {
        close_array(ret);
        return -1;
    }
    return 0;
}

static pk_scratch *take_scratch(pk_module_state *state)
{
    for (int i = 0; i < PK_POOL_COUNT; i++) {
        if (state->pool[i] != NULL) {
            pk_scratch *scratch = state->pool[i];
            state->pool[i] = NULL;
            return scratch;
        }
    }
    pk_scratch *made = NULL;
    return pk_scratch_new(&made) == 0 ? made : NULL;
}

static void give_scratch(pk_module_state *state, pk_scratch *scratch)
{
    for (int i = 0; i < PK_POOL_COUNT; i++) {
        if (state->pool[i] == NULL) {
            state->pool[i] = scratch;
            return;
        }
    }
    pk_scratch_free(scratch);
}

/* Counts a part without touching the histogram but for its mapping, which another thread may
 * change meanwhile by a downscale: what was counted then goes there bucket by bucket. */
static int count_part(pk_histogram_object *self, pk_scratch *scratch, pk_kernel kernel,
                      const number_array *part)
{
    const pk_bucketing *mapping = self->histogram.mapping;
    if (part->count <= HELD_COUNT) {
        pk_fill(scratch, mapping, kernel, part->number, part->values, part->count);
    } else {
        Py_BEGIN_ALLOW_THREADS
        pk_fill(scratch, mapping, kernel, part->number, part->values, part->count);
        Py_END_ALLOW_THREADS
    }
    if (self->histogram.mapping == mapping) {
        return pk_fill_fold(scratch, &self->histogram);
    }
    pk_histogram counted;
    pk_histogram_init(&counted, mapping, self->histogram.low_exponent,
                      self->histogram.high_exponent);
    int error = pk_fill_fold(scratch, &counted);
    error = error == 0 ? pk_histogram_merge(&self->histogram, &counted) : error;
    pk_histogram_deinit(&counted);
    return error;
}

static int count_array(pk_histogram_object *self, pk_kernel kernel, const number_array *array)
{
    pk_scratch *scratch = take_scratch(self->state);
    if (scratch == NULL) {
        return ENOMEM;
    }
    int error = 0;
    size_t item_bytes = pk_number_bytes(array->number);
    for (size_t done = 0; error == 0 && done < array->count; done += PK_FILL_VALUE_LIMIT) {
        number_array part = *array;
        size_t left = array->count - done;
        part.values += done * item_bytes;
        part.count = left < PK_FILL_VALUE_LIMIT ? left : PK_FILL_VALUE_LIMIT;
        error = count_part(self, scratch, kernel, &part);
    }
    give_scratch(self->state, scratch);
    return error;
}

/* A few doubles, for which a scratch is not worth while. */
static int count_few(pk_histogram_object *self, const number_array *array)
{
    int error = 0;
    for (size_t i = 0; error == 0 && i < array->count; i++) {
        double value;
        memcpy(&value, array->values + i * sizeof(value), sizeof(value));
        error = pk_histogram_record(&self->histogram, value);
    }
    return error;
}

/* Counts the numbers of an iterable that is no buffer, one by one. */
static PyObject *count_items(pk_histogram_object *self, PyObject *values)
{
    PyObject *iterator = PyObject_GetIter(values);
    if (iterator == NULL) {
        return NULL;
    }
    PyObject *item;
    while ((item = PyIter_Next(iterator)) != NULL) {
        double value = PyFloat_AsDouble(item);
        Py_DECREF(item);
        if (value == -1.0 && PyErr_Occurred()) {
            break;
        }
        int error = pk_histogram_record(&self->histogram, value);
        if (error != 0) {
            pk_module_histogram_fail(error);
            break;
        }
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static int to_kernel(PyObject *name, pk_kernel *ret)
{
    bool has_vector = pk_fill_has_vector();
    *ret = has_vector ? PK_KERNEL_VECTOR : PK_KERNEL_SCALAR;
    if (name == Py_None) {
        return 0;
    }
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "scalar") == 0) {
        *ret = PK_KERNEL_SCALAR;
        return 0;
    }
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "avx512") == 0 &&
        has_vector) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, has_vector ? "kernel must be None, 'scalar' or 'avx512'"
                                                 : "kernel must be None or 'scalar' on this CPU");
    return -1;
}

PyObject *pk_module_histogram_record_many(PyObject *object, PyObject *const *arguments,
                                          Py_ssize_t count)
{
    pk_histogram_object *self = (pk_histogram_object *)object;
    number_array array;
    pk_kernel kernel;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "record_many takes values, and at most a kernel");
        return NULL;
    }
    PyObject *name = count == 2 ? arguments[1] : Py_None;
    if (to_kernel(name, &kernel) != 0) {
        return NULL;
    }
    if (!PyObject_CheckBuffer(arguments[0])) {
        return count_items(self, arguments[0]);
    }
    if (open_array(arguments[0], &array) != 0) {
        return NULL;
    }
    bool is_few = array.count <= ALONE_COUNT && array.number == PK_FLOAT64 && name == Py_None;
    int error = is_few ? count_few(self, &array) : count_array(self, kernel, &array);
    close_array(&array);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_histogram_fail(error);
}
