/* Python face of the histogram: sums, differences and comparison. */
#include "pk_module_histogram.h"

static int check_type(pk_histogram_object *self, PyObject *other)
{
    if (Py_TYPE(other) != Py_TYPE((PyObject *)self)) {
        PyErr_SetString(PyExc_TypeError, "the other must be a Histogram");
        return -1;
    }
    return 0;
}

int pk_module_histogram_check_unit(const pk_histogram_object *self, PyObject *unit)
{
    int is_same = PyObject_RichCompareBool(self->unit, unit, Py_EQ);
    if (is_same == 0) {
        PyErr_Format(PyExc_ValueError, "the Histograms have different units, %R and %R",
                     self->unit, unit);
    }
    return is_same == 1 ? 0 : -1;
}

int pk_module_histogram_merge(pk_histogram_object *self, const pk_histogram *other)
{
    if (self->histogram.mapping->scale > other->mapping->scale) {
        pk_histogram_downscale(&self->histogram, other->mapping);
    }
    return pk_histogram_merge(&self->histogram, other);
}

/* Whether the two can be added: -1 with an error where they cannot. */
static int check_pair(pk_histogram_object *self, PyObject *other)
{
    if (check_type(self, other) != 0) {
        return -1;
    }
    return pk_module_histogram_check_unit(self, ((pk_histogram_object *)other)->unit);
}

PyObject *pk_module_histogram_merge_in(PyObject *object, PyObject *other)
{
    pk_histogram_object *self = (pk_histogram_object *)object;
    if (check_pair(self, other) != 0) {
        return NULL;
    }
    int error = pk_module_histogram_merge(self, &((pk_histogram_object *)other)->histogram);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_histogram_fail(error);
}

static int subtract(pk_histogram_object *self, const pk_histogram *other)
{
    if (self->histogram.mapping->scale > other->mapping->scale) {
        pk_histogram_downscale(&self->histogram, other->mapping);
    }
    return pk_histogram_subtract(&self->histogram, other);
}

/* A copy of the left one, to or from which the right one is added or taken. */
static PyObject *combine(PyObject *left, PyObject *right, bool is_sum)
{
    if (Py_TYPE(left) != Py_TYPE(right)) {
        return Py_NewRef(Py_NotImplemented);
    }
    pk_histogram_object *made = NULL;
    if (check_pair((pk_histogram_object *)left, right) == 0) {
        made = pk_module_histogram_copy((pk_histogram_object *)left);
    }
    if (made == NULL) {
        return NULL;
    }
    const pk_histogram *other = &((pk_histogram_object *)right)->histogram;
    int error = is_sum ? pk_module_histogram_merge(made, other) : subtract(made, other);
    if (error != 0) {
        Py_CLEAR(made);
        pk_module_histogram_fail(error);
    }
    return (PyObject *)made;
}

PyObject *pk_module_histogram_add(PyObject *left, PyObject *right)
{
    return combine(left, right, true);
}

PyObject *pk_module_histogram_subtract(PyObject *left, PyObject *right)
{
    return combine(left, right, false);
}

PyObject *pk_module_histogram_iadd(PyObject *self, PyObject *other)
{
    if (Py_TYPE(self) != Py_TYPE(other)) {
        return Py_NewRef(Py_NotImplemented);
    }
    PyObject *done = pk_module_histogram_merge_in(self, other);
    Py_XDECREF(done);
    return done == NULL ? NULL : Py_NewRef(self);
}

PyObject *pk_module_histogram_downscale(PyObject *object, PyObject *scale)
{
    pk_histogram_object *self = (pk_histogram_object *)object;
    long wanted = PyLong_AsLong(scale);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (wanted < 0 || wanted > (long)self->histogram.mapping->scale) {
        PyErr_Format(PyExc_ValueError, "scale must be 0 to %u, the one it has",
                     (unsigned)self->histogram.mapping->scale);
        return NULL;
    }
    pk_histogram_downscale(&self->histogram, &self->state->mappings[wanted]);
    return Py_NewRef(Py_None);
}

PyObject *pk_module_histogram_compare(PyObject *left, PyObject *right, int operation)
{
    if (Py_TYPE(left) != Py_TYPE(right) || (operation != Py_EQ && operation != Py_NE)) {
        return Py_NewRef(Py_NotImplemented);
    }
    const pk_histogram_object *one = (pk_histogram_object *)left;
    const pk_histogram_object *other = (pk_histogram_object *)right;
    int is_equal = PyObject_RichCompareBool(one->unit, other->unit, Py_EQ);
    if (is_equal < 0) {
        return NULL;
    }
    is_equal = is_equal && pk_histogram_equal(&one->histogram, &other->histogram);
    return PyBool_FromLong(is_equal == (operation == Py_EQ));
}
