/* Python face of the histogram: what it says of the values. */
#include "pk_module_histogram.h"

#include <math.h>

#include "pk_quantile.h"

static const pk_histogram *of(PyObject *self)
{
    return &((pk_histogram_object *)self)->histogram;
}

static uint64_t count_finite(const pk_histogram *histogram)
{
    return histogram->count - histogram->infinite_counts[PK_POSITIVE] -
           histogram->infinite_counts[PK_NEGATIVE];
}

/* A number from 0 to 1; -1 with an error where it is none. */
static double to_quantile(PyObject *quantile)
{
    double wanted = PyFloat_AsDouble(quantile);
    if (wanted == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (!(wanted >= 0 && wanted <= 1)) {
        PyErr_SetString(PyExc_ValueError, "a quantile must be between 0 and 1");
        return -1;
    }
    return wanted;
}

PyObject *pk_module_histogram_quantile(PyObject *self, PyObject *quantile)
{
    double wanted = to_quantile(quantile);
    return wanted < 0 ? NULL : PyFloat_FromDouble(pk_quantile(of(self), wanted));
}

PyObject *pk_module_histogram_quantiles(PyObject *self, PyObject *quantiles)
{
    /* A list of our own: asking a number for its value may run code that changes theirs. */
    PyObject *values = PySequence_List(quantiles);
    for (Py_ssize_t i = 0; values != NULL && i < PyList_Size(values); i++) {
        PyObject *value = pk_module_histogram_quantile(self, PyList_GetItem(values, i));
        if (value == NULL || PyList_SetItem(values, i, value) != 0) {
            Py_CLEAR(values);
        }
    }
    return values;
}

PyObject *pk_module_histogram_cdf(PyObject *self, PyObject *value)
{
    double wanted = PyFloat_AsDouble(value);
    if (wanted == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (isnan(wanted)) {
        PyErr_SetString(PyExc_ValueError, "cdf needs a number; NaN is none");
        return NULL;
    }
    return PyFloat_FromDouble(pk_quantile_share(of(self), wanted));
}

static PyObject *list_buckets(const pk_histogram *histogram, pk_sign sign)
{
    const pk_buckets *buckets = &histogram->buckets[sign];
    uint32_t first;
    uint32_t last;
    if (!pk_histogram_find_used(histogram, sign, &first, &last)) {
        return Py_BuildValue("(iN)", 0, PyList_New(0));
    }
    Py_ssize_t count = (Py_ssize_t)(last - first + 1);
    PyObject *counts = PyList_New(count);
    for (Py_ssize_t i = 0; counts != NULL && i < count; i++) {
        PyObject *one = PyLong_FromUnsignedLongLong(pk_buckets_at(buckets, first + (uint32_t)i));
        if (one == NULL || PyList_SetItem(counts, i, one) != 0) {
            Py_CLEAR(counts);
        }
    }
    int index = (int)first - (PK_EXPONENT_BIAS << histogram->mapping->scale);
    return counts == NULL ? NULL : Py_BuildValue("(iN)", index, counts);
}

PyObject *pk_module_histogram_positive_buckets(PyObject *self, PyObject *unused)
{
    (void)unused;
    return list_buckets(of(self), PK_POSITIVE);
}

PyObject *pk_module_histogram_negative_buckets(PyObject *self, PyObject *unused)
{
    (void)unused;
    return list_buckets(of(self), PK_NEGATIVE);
}

/* The counts by themselves; a getter's closure is the place of one in pk_histogram. */
static PyObject *get_count(PyObject *self, void *place)
{
    uint64_t count;
    memcpy(&count, (const char *)of(self) + (size_t)place, sizeof(count));
    return PyLong_FromUnsignedLongLong(count);
}

static PyObject *get_over_count(PyObject *self, void *unused)
{
    (void)unused;
    const uint64_t *counts = of(self)->over_counts;
    return PyLong_FromUnsignedLongLong(counts[PK_POSITIVE] + counts[PK_NEGATIVE]);
}

static PyObject *get_negative_count(PyObject *self, void *unused)
{
    (void)unused;
    const pk_buckets *buckets = &of(self)->buckets[PK_NEGATIVE];
    uint64_t count = of(self)->over_counts[PK_NEGATIVE];
    for (uint32_t i = 0; i < buckets->length; i++) {
        count += buckets->counts[i];
    }
    return PyLong_FromUnsignedLongLong(count);
}

static PyObject *get_sum(PyObject *self, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble(of(self)->sum);
}

static PyObject *get_mean(PyObject *self, void *unused)
{
    (void)unused;
    uint64_t count = count_finite(of(self));
    return PyFloat_FromDouble(count == 0 ? NAN : of(self)->sum / (double)count);
}

static PyObject *get_min(PyObject *self, void *unused)
{
    (void)unused;
    const pk_histogram *histogram = of(self);
    if (histogram->count == 0) {
        return Py_NewRef(Py_None);
    }
    return PyFloat_FromDouble(histogram->infinite_counts[PK_NEGATIVE] > 0 ? -INFINITY
                                                                         : histogram->min);
}

static PyObject *get_max(PyObject *self, void *unused)
{
    (void)unused;
    const pk_histogram *histogram = of(self);
    if (histogram->count == 0) {
        return Py_NewRef(Py_None);
    }
    return PyFloat_FromDouble(histogram->infinite_counts[PK_POSITIVE] > 0 ? INFINITY
                                                                         : histogram->max);
}

static PyObject *get_scale(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(of(self)->mapping->scale);
}

static PyObject *get_relative_error(PyObject *self, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble(pk_quantile_error(of(self)->mapping));
}

static PyObject *get_unit(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((pk_histogram_object *)self)->unit);
}

PyObject *pk_module_histogram_repr(PyObject *self)
{
    const pk_histogram *histogram = of(self);
    PyObject *unit = ((pk_histogram_object *)self)->unit;
    PyObject *count = PyLong_FromUnsignedLongLong(histogram->count);
    PyObject *median = PyFloat_FromDouble(pk_quantile(histogram, 0.5));
    PyObject *high = PyFloat_FromDouble(pk_quantile(histogram, 0.99));
    PyObject *text = NULL;
    if (count != NULL && median != NULL && high != NULL) {
        text = PyUnicode_FromFormat("<Histogram unit=%R scale=%u count=%S p50=%S p99=%S>", unit,
                                    (unsigned)histogram->mapping->scale, count, median, high);
    }
    Py_XDECREF(count);
    Py_XDECREF(median);
    Py_XDECREF(high);
    return text;
}

PyGetSetDef pk_module_histogram_getters[] = {
    {"count", get_count, NULL, NULL, (void *)offsetof(pk_histogram, count)},
    {"zero_count", get_count, NULL, NULL, (void *)offsetof(pk_histogram, zero_count)},
    {"nan_count", get_count, NULL, NULL, (void *)offsetof(pk_histogram, nan_count)},
    {"subnormal_count", get_count, NULL, NULL, (void *)offsetof(pk_histogram, subnormal_count)},
    {"under_count", get_count, NULL, NULL, (void *)offsetof(pk_histogram, under_count)},
    {"over_count", get_over_count, NULL, NULL, NULL},
    {"negative_count", get_negative_count, NULL, NULL, NULL},
    {"positive_infinity_count", get_count, NULL, NULL,
     (void *)offsetof(pk_histogram, infinite_counts[PK_POSITIVE])},
    {"negative_infinity_count", get_count, NULL, NULL,
     (void *)offsetof(pk_histogram, infinite_counts[PK_NEGATIVE])},
    {"sum", get_sum, NULL, NULL, NULL},
    {"mean", get_mean, NULL, NULL, NULL},
    {"min", get_min, NULL, NULL, NULL},
    {"max", get_max, NULL, NULL, NULL},
    {"scale", get_scale, NULL, NULL, NULL},
    {"relative_error", get_relative_error, NULL, NULL, NULL},
    {"unit", get_unit, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
