/* Python face of the histogram: its life, and what is recorded, added and compared. */
#include "pk_module_histogram.h"

#include <errno.h>

enum { DEFAULT_SCALE = 6 };

PyObject *pk_module_histogram_fail(int error)
{
    switch (error) {
    case ENOMEM:
        return PyErr_NoMemory();
    case EOVERFLOW:
        PyErr_SetString(PyExc_OverflowError, "a Histogram counts at most 2**63 - 1 values");
        break;
    case EINVAL:
        PyErr_SetString(PyExc_ValueError, "the Histograms have different ranges");
        break;
    case EDOM:
        PyErr_SetString(PyExc_ValueError,
                        "the other Histogram counted values that this one did not: it is no "
                        "earlier state of it");
        break;
    case EBADMSG:
        PyErr_SetString(PyExc_ValueError, "these bytes are no Histogram");
        break;
    default:
        return pk_module_fail(error);
    }
    return NULL;
}

static pk_histogram_object *allocate(PyTypeObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return (pk_histogram_object *)allocate(type, 0);
}

pk_histogram_object *pk_module_histogram_like(pk_histogram_object *model)
{
    pk_histogram_object *made = allocate(Py_TYPE((PyObject *)model));
    if (made != NULL) {
        const pk_histogram *from = &model->histogram;
        pk_histogram_init(&made->histogram, from->mapping, from->low_exponent,
                          from->high_exponent);
        made->state = model->state;
        made->unit = Py_NewRef(model->unit);
        made->unit_ns = model->unit_ns;
    }
    return made;
}

pk_histogram_object *pk_module_histogram_copy(pk_histogram_object *self)
{
    pk_histogram_object *made = pk_module_histogram_like(self);
    int error = made == NULL ? 0 : pk_histogram_copy(&self->histogram, &made->histogram);
    if (error != 0) {
        Py_CLEAR(made);
        pk_module_histogram_fail(error);
    }
    return made;
}

double pk_module_unit_ns(PyObject *unit)
{
    static const struct {
        const char *name;
        double unit_ns;
    } KNOWN[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
    for (size_t i = 0; i < sizeof(KNOWN) / sizeof(KNOWN[0]); i++) {
        if (PyUnicode_CompareWithASCIIString(unit, KNOWN[i].name) == 0) {
            return KNOWN[i].unit_ns;
        }
    }
    return 0;
}

static int set_unit(pk_histogram_object *self, PyObject *unit)
{
    Py_ssize_t size_bytes;
    if (PyUnicode_AsUTF8AndSize(unit, &size_bytes) == NULL) {
        return -1;
    }
    if (size_bytes > PK_UNIT_BYTES_MAX) {
        PyErr_SetString(PyExc_ValueError, "unit must be at most 63 bytes of UTF-8");
        return -1;
    }
    self->unit = Py_NewRef(unit);
    self->unit_ns = pk_module_unit_ns(unit);
    return 0;
}

PyObject *pk_module_histogram_wrap(pk_module_state *state, pk_histogram *counted, PyObject *unit)
{
    pk_histogram_object *made = NULL;
    if (state->histogram_type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "perfkit._native is being unloaded");
    } else {
        made = allocate((PyTypeObject *)state->histogram_type);
    }
    if (made == NULL) {
        pk_histogram_deinit(counted);
        return NULL;
    }
    made->histogram = *counted;
    made->state = state;
    if (set_unit(made, unit) != 0) {
        Py_CLEAR(made);
    }
    return (PyObject *)made;
}

/* The least e with value <= 2^e. */
static int to_exponent(PyObject *value, int *ret)
{
    uint64_t bits = pk_to_bits(PyFloat_AsDouble(value));
    if (PyErr_Occurred()) {
        return -1;
    }
    if (!pk_is_plain(bits)) {
        PyErr_SetString(PyExc_ValueError,
                        "min_value and max_value must be positive, finite and not subnormal");
        return -1;
    }
    bool is_power = (bits & (PK_LEAST_NORMAL_BITS - 1)) == 0;
    *ret = (int)(bits >> PK_MANTISSA_BITS) - PK_EXPONENT_BIAS + (is_power ? 0 : 1);
    return 0;
}

/* The range that holds both ends: (2^low, 2^high]. */
static int find_range(PyObject *min_value, PyObject *max_value, int ret[2])
{
    ret[0] = PK_EXPONENT_MIN;
    ret[1] = PK_EXPONENT_MAX;
    if (min_value != Py_None) {
        if (to_exponent(min_value, &ret[0]) != 0) {
            return -1;
        }
        ret[0]--;
    }
    if (max_value != Py_None && to_exponent(max_value, &ret[1]) != 0) {
        return -1;
    }
    if (ret[0] >= ret[1]) {
        PyErr_SetString(PyExc_ValueError, "min_value must be below max_value");
        return -1;
    }
    return 0;
}

static PyObject *histogram_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"unit", "scale", "min_value", "max_value", NULL};
    PyObject *unit = NULL;
    PyObject *min_value = Py_None;
    PyObject *max_value = Py_None;
    int scale = DEFAULT_SCALE;
    int range[2];
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|U$iOO", names, &unit, &scale,
                                     &min_value, &max_value) ||
        find_range(min_value, max_value, range) != 0) {
        return NULL;
    }
    if (scale < 0 || scale > PK_SCALE_MAX) {
        PyErr_SetString(PyExc_ValueError, "scale must be 0 to 8");
        return NULL;
    }
    PyObject *module = PyType_GetModule(type);
    pk_histogram_object *self = module == NULL ? NULL : allocate(type);
    PyObject *own_unit = unit == NULL ? PyUnicode_FromString("ns") : Py_NewRef(unit);
    if (self != NULL && own_unit != NULL) {
        self->state = PyModule_GetState(module);
        pk_histogram_init(&self->histogram, &self->state->mappings[scale], range[0], range[1]);
    }
    if (self == NULL || own_unit == NULL || set_unit(self, own_unit) != 0) {
        Py_CLEAR(self);
    }
    Py_XDECREF(own_unit);
    return (PyObject *)self;
}

static void histogram_dealloc(PyObject *object)
{
    pk_histogram_object *self = (pk_histogram_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    pk_histogram_deinit(&self->histogram);
    Py_XDECREF(self->unit);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *histogram_record(PyObject *self, PyObject *value)
{
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    int error = pk_histogram_record(&((pk_histogram_object *)self)->histogram, number);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_histogram_fail(error);
}

static PyObject *histogram_record_n(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "record_n takes a value and a count");
        return NULL;
    }
    double value = PyFloat_AsDouble(arguments[0]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    long long times = PyLong_AsLongLong(arguments[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (times < 0) {
        PyErr_SetString(PyExc_ValueError, "count must not be negative");
        return NULL;
    }
    int error =
        pk_histogram_add(&((pk_histogram_object *)self)->histogram, value, (uint64_t)times);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_histogram_fail(error);
}

static PyObject *histogram_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return (PyObject *)pk_module_histogram_copy((pk_histogram_object *)self);
}

static PyObject *histogram_reduce(PyObject *self, PyObject *unused)
{
    PyObject *bytes = pk_module_histogram_to_bytes(self, unused);
    PyObject *reader = NULL;
    if (bytes != NULL) {
        reader = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "from_bytes");
    }
    if (reader == NULL) {
        Py_XDECREF(bytes);
        return NULL;
    }
    return Py_BuildValue("N(N)", reader, bytes);
}

static PyMethodDef histogram_methods[] = {
    {"record", histogram_record, METH_O,
     "record($self, value, /)\n--\n\nCounts a number."},
    {"record_n", (PyCFunction)(void (*)(void))histogram_record_n, METH_FASTCALL,
     "record_n($self, value, count, /)\n--\n\nCounts a number so many times."},
    {"record_many", (PyCFunction)(void (*)(void))pk_module_histogram_record_many, METH_FASTCALL,
     "record_many($self, values, kernel=None, /)\n--\n\nCounts all numbers of a buffer."},
    {"start", pk_module_histogram_start, METH_NOARGS,
     "start($self, /)\n--\n\nThe moment, to be given to stop."},
    {"stop", pk_module_histogram_stop, METH_O,
     "stop($self, start, /)\n--\n\nCounts the time since a start."},
    {"timer", pk_module_histogram_timer, METH_NOARGS,
     "timer($self, /)\n--\n\nCounts the time of a with block."},
    {"quantile", pk_module_histogram_quantile, METH_O,
     "quantile($self, quantile, /)\n--\n\nThe value of a quantile, 0 to 1."},
    {"quantiles", pk_module_histogram_quantiles, METH_O,
     "quantiles($self, quantiles, /)\n--\n\nThe values of quantiles, 0 to 1."},
    {"cdf", pk_module_histogram_cdf, METH_O,
     "cdf($self, value, /)\n--\n\nThe share of at most that value."},
    {"positive_buckets", pk_module_histogram_positive_buckets, METH_NOARGS,
     "positive_buckets($self, /)\n--\n\nIndex of the first count, and counts."},
    {"negative_buckets", pk_module_histogram_negative_buckets, METH_NOARGS,
     "negative_buckets($self, /)\n--\n\nThe same of negative numbers."},
    {"merge", pk_module_histogram_merge_in, METH_O,
     "merge($self, other, /)\n--\n\nAdds what another one counted."},
    {"merge_all", pk_module_histogram_merge_all, METH_O | METH_CLASS,
     "merge_all($type, histograms, /)\n--\n\nThe sum of Histograms or bytes."},
    {"downscale", pk_module_histogram_downscale, METH_O,
     "downscale($self, scale, /)\n--\n\nGoes to wider buckets."},
    {"copy", histogram_copy, METH_NOARGS,
     "copy($self, /)\n--\n\nA copy."},
    {"to_bytes", pk_module_histogram_to_bytes, METH_NOARGS,
     "to_bytes($self, /)\n--\n\nThe histogram as bytes."},
    {"from_bytes", pk_module_histogram_from_bytes, METH_O | METH_CLASS,
     "from_bytes($type, encoded, /)\n--\n\nThe histogram of such bytes."},
    {"__copy__", histogram_copy, METH_NOARGS, NULL},
    {"__deepcopy__", histogram_copy, METH_O, NULL},
    {"__reduce__", histogram_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot histogram_slots[] = {
    {Py_tp_new, (void *)histogram_new},
    {Py_tp_dealloc, (void *)histogram_dealloc},
    {Py_tp_methods, histogram_methods},
    {Py_tp_getset, pk_module_histogram_getters},
    {Py_tp_repr, (void *)pk_module_histogram_repr},
    {Py_tp_richcompare, (void *)pk_module_histogram_compare},
    {Py_tp_hash, (void *)PyObject_HashNotImplemented},
    {Py_nb_add, (void *)pk_module_histogram_add},
    {Py_nb_subtract, (void *)pk_module_histogram_subtract},
    {Py_nb_inplace_add, (void *)pk_module_histogram_iadd},
    {Py_tp_doc, "Counts of numbers in base-2 exponential buckets; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec histogram_spec = {
    .name = "perfkit._native.Histogram",
    .basicsize = sizeof(pk_histogram_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = histogram_slots,
};

int pk_module_add_histogram(PyObject *module)
{
    pk_module_state *state = PyModule_GetState(module);
    for (uint32_t scale = 0; scale <= PK_SCALE_MAX; scale++) {
        pk_bucketing_init(scale, &state->mappings[scale]);
    }
    state->histogram_type = PyType_FromModuleAndSpec(module, &histogram_spec, NULL);
    if (state->histogram_type == NULL ||
        PyModule_AddObjectRef(module, "Histogram", state->histogram_type) != 0) {
        return -1;
    }
    return pk_module_add_timer(module);
}
