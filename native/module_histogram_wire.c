/* Python face of the histogram: bytes, and the sum of many. */
#include "pk_module_histogram.h"

#include <errno.h>
#include <stdlib.h>

PyObject *pk_module_histogram_to_bytes(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_histogram_object *self = (pk_histogram_object *)object;
    Py_ssize_t unit_bytes;
    const char *text = PyUnicode_AsUTF8AndSize(self->unit, &unit_bytes);
    if (text == NULL) {
        return NULL;
    }
    uint8_t *bytes;
    size_t size_bytes;
    pk_unit unit = {.text = text, .size_bytes = (size_t)unit_bytes};
    int error = pk_wire_encode(&self->histogram, unit, &bytes, &size_bytes);
    if (error != 0) {
        return pk_module_histogram_fail(error);
    }
    PyObject *made = PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size_bytes);
    free(bytes);
    return made;
}

/* Reads bytes into a histogram that is not initialised, and their unit as a str. */
static PyObject *decode(const pk_module_state *state, PyObject *encoded, pk_histogram *ret)
{
    Py_buffer view;
    pk_unit unit;
    if (PyObject_GetBuffer(encoded, &view, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    PyObject *text = NULL;
    int error = pk_wire_decode(view.buf, (size_t)view.len, state->mappings, ret, &unit);
    if (error != 0) {
        pk_module_histogram_fail(error);
    } else {
        text = PyUnicode_DecodeUTF8(unit.text, (Py_ssize_t)unit.size_bytes, "strict");
        if (text == NULL) {
            pk_histogram_deinit(ret);
        }
    }
    PyBuffer_Release(&view);
    return text;
}

PyObject *pk_module_histogram_from_bytes(PyObject *type, PyObject *encoded)
{
    PyObject *module = PyType_GetModule((PyTypeObject *)type);
    pk_histogram histogram;
    PyObject *unit =
        module == NULL ? NULL : decode(PyModule_GetState(module), encoded, &histogram);
    PyObject *made = unit == NULL ? NULL : PyObject_CallFunctionObjArgs(type, unit, NULL);
    Py_XDECREF(unit);
    if (made == NULL) {
        if (unit != NULL) {
            pk_histogram_deinit(&histogram);
        }
        return NULL;
    }
    ((pk_histogram_object *)made)->histogram = histogram; /* of an empty one, which owns nothing */
    return made;
}

/* Adds bytes to a sum. */
static int add_bytes(pk_histogram_object *sum, PyObject *encoded)
{
    pk_histogram histogram;
    PyObject *unit = decode(sum->state, encoded, &histogram);
    if (unit == NULL) {
        return -1;
    }
    int outcome = pk_module_histogram_check_unit(sum, unit);
    if (outcome == 0) {
        int error = pk_module_histogram_merge(sum, &histogram);
        if (error != 0) {
            pk_module_histogram_fail(error);
            outcome = -1;
        }
    }
    pk_histogram_deinit(&histogram);
    Py_DECREF(unit);
    return outcome;
}

/* Adds a Histogram or its bytes to a sum. */
static int add_one(pk_histogram_object *sum, PyObject *one)
{
    if (Py_TYPE(one) != Py_TYPE((PyObject *)sum)) {
        return add_bytes(sum, one);
    }
    PyObject *done = pk_module_histogram_merge_in((PyObject *)sum, one);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* The first of many begins the sum. */
static PyObject *begin_sum(PyObject *type, PyObject *first)
{
    if (Py_TYPE(first) == (PyTypeObject *)type) {
        return (PyObject *)pk_module_histogram_copy((pk_histogram_object *)first);
    }
    return pk_module_histogram_from_bytes(type, first);
}

PyObject *pk_module_histogram_merge_all(PyObject *type, PyObject *histograms)
{
    PyObject *iterator = PyObject_GetIter(histograms);
    if (iterator == NULL) {
        return NULL;
    }
    PyObject *sum = NULL;
    PyObject *one;
    bool is_whole = true;
    while (is_whole && (one = PyIter_Next(iterator)) != NULL) {
        if (sum == NULL) {
            sum = begin_sum(type, one);
            is_whole = sum != NULL;
        } else {
            is_whole = add_one((pk_histogram_object *)sum, one) == 0;
        }
        Py_DECREF(one);
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred()) {
        Py_XDECREF(sum);
        return NULL;
    }
    if (sum == NULL) {
        PyErr_SetString(PyExc_ValueError, "merge_all needs at least one Histogram");
    }
    return sum;
}
