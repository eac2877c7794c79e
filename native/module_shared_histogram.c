/* Python face of a shared histogram: what a server writes. Its one shard is the process's, whose
 * threads take turns by the GIL. */
#include "pk_module_shared.h"

#include <errno.h>

#include "perfkit_histogram.h"

typedef struct {
    PyObject_HEAD
    perfkit_shard shard;
    perfkit_histogram *histogram; /* owned; NULL where it could not be made */
    pk_module_state *state;
    PyObject *unit; /* str */
    double unit_ns; /* 0 where it is no unit of time */
} shared_object;

/* "key=value" of a pair; NULL with an error. */
static PyObject *join_label(PyObject *pair)
{
    bool is_pair = PyTuple_Check(pair) && PyTuple_Size(pair) == 2;
    PyObject *key = is_pair ? PyTuple_GetItem(pair, 0) : NULL;
    PyObject *value = is_pair ? PyTuple_GetItem(pair, 1) : NULL;
    if (!is_pair || !PyUnicode_Check(key) || !PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "labels must be str, and so must their values");
        return NULL;
    }
    PyObject *label = PyUnicode_FromFormat("%U=%U", key, value);
    Py_ssize_t size_bytes;
    const char *text = label == NULL ? NULL : PyUnicode_AsUTF8AndSize(label, &size_bytes);
    if (text == NULL) {
        Py_XDECREF(label);
        return NULL;
    }
    /* A '=' in the key would end it there, a 0 the label. */
    bool is_whole = strlen(text) == (size_t)size_bytes &&
                    perfkit_key_bytes(text) == (size_t)PyUnicode_GetLength(key);
    if (!is_whole) {
        PyErr_Format(PyExc_ValueError,
                     "labels must be ASCII letters, digits and _, with values without control "
                     "characters, not %R", label);
        Py_CLEAR(label);
    }
    return label;
}

/* Labels of a mapping as a list of str, whose texts are at `texts`, up to a NULL. */
static PyObject *join_labels(PyObject *labels, const char *texts[PERFKIT_LABELS_MAX + 1])
{
    texts[0] = NULL;
    if (labels == Py_None) {
        return PyList_New(0);
    }
    PyObject *joined = PyMapping_Check(labels) ? PyMapping_Items(labels) : NULL;
    if (joined == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "labels must be a mapping");
        }
        return NULL;
    }
    Py_ssize_t count = PyList_Size(joined);
    if (count > PERFKIT_LABELS_MAX) {
        PyErr_SetString(PyExc_ValueError, "labels must be at most 16");
        Py_CLEAR(joined);
    }
    for (Py_ssize_t i = 0; joined != NULL && i < count; i++) {
        PyObject *label = join_label(PyList_GetItem(joined, i));
        if (label == NULL || PyList_SetItem(joined, i, label) != 0) {
            Py_CLEAR(joined);
            break;
        }
        texts[i] = PyUnicode_AsUTF8AndSize(label, NULL);
        texts[i + 1] = NULL;
    }
    return joined;
}

/* Both ends of the range, or none. */
static int read_range(PyObject *min_value, PyObject *max_value, perfkit_histogram_options *ret)
{
    if ((min_value == Py_None) != (max_value == Py_None)) {
        PyErr_SetString(PyExc_ValueError, "min_value and max_value must be given together");
        return -1;
    }
    if (min_value == Py_None) {
        return 0;
    }
    ret->min_value = PyFloat_AsDouble(min_value);
    ret->max_value = PyErr_Occurred() ? 0 : PyFloat_AsDouble(max_value);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (ret->min_value == 0) {
        PyErr_SetString(PyExc_ValueError, "min_value must be positive");
        return -1;
    }
    return 0;
}

/* Makes the file; 0, or -1 with an error. */
static int open_histogram(shared_object *self, const perfkit_histogram_options *options)
{
    const char *fault = perfkit_histogram_fault(options);
    if (fault != NULL) {
        PyErr_SetString(PyExc_ValueError, fault);
        return -1;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = perfkit_histogram_open(options, &self->histogram);
    if (error == 0) {
        perfkit_histogram_claim(self->histogram, true, &self->shard);
    }
    Py_END_ALLOW_THREADS
    if (error != 0) {
        pk_module_fail(error);
        return -1;
    }
    self->unit = PyUnicode_FromString(self->histogram->header.unit);
    self->unit_ns = self->unit == NULL ? 0 : pk_module_unit_ns(self->unit);
    return self->unit == NULL ? -1 : 0;
}

static PyObject *shared_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"name",      "unit",      "labels",
                            "min_value", "max_value", "shard_count", NULL};
    const char *texts[PERFKIT_LABELS_MAX + 1];
    perfkit_histogram_options options = {.unit = "ns", .labels = texts};
    PyObject *labels = Py_None;
    PyObject *min_value = Py_None;
    PyObject *max_value = Py_None;
    int shard_count = PERFKIT_SHARDS_DEFAULT;
    PyObject *module = PyType_GetModule(type);
    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(arguments, keywords, "s|s$OOOi", names, &options.name,
                                     &options.unit, &labels, &min_value, &max_value,
                                     &shard_count) ||
        read_range(min_value, max_value, &options) != 0) {
        return NULL;
    }
    if (shard_count < 1 || shard_count > PERFKIT_SHARDS_MAX) {
        PyErr_SetString(PyExc_ValueError, "shard_count must be 1 to 1024");
        return NULL;
    }
    options.shard_count = (uint32_t)shard_count;
    PyObject *joined = join_labels(labels, texts);
    if (joined == NULL) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    shared_object *self = (shared_object *)allocate(type, 0);
    if (self != NULL) {
        self->state = PyModule_GetState(module);
        if (open_histogram(self, &options) != 0) {
            Py_CLEAR(self);
        }
    }
    Py_DECREF(joined);
    return (PyObject *)self;
}

static void shared_dealloc(PyObject *object)
{
    shared_object *self = (shared_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->histogram != NULL) {
        perfkit_shard_release(&self->shard);
        perfkit_histogram_close(self->histogram);
    }
    Py_XDECREF(self->unit);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *shared_record(PyObject *self, PyObject *value)
{
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    perfkit_shard_record(&((shared_object *)self)->shard, number);
    return Py_NewRef(Py_None);
}

static PyObject *record_time(PyObject *owner, double value)
{
    perfkit_shard_record(&((shared_object *)owner)->shard, value);
    return Py_NewRef(Py_None);
}

static pk_timed timed_of(PyObject *object)
{
    const shared_object *self = (const shared_object *)object;
    return (pk_timed){object, self->unit, self->unit_ns, record_time};
}

static PyObject *shared_start(PyObject *self, PyObject *unused)
{
    (void)unused;
    pk_timed timed = timed_of(self);
    return pk_module_timed_start(&timed);
}

static PyObject *shared_stop(PyObject *self, PyObject *start)
{
    pk_timed timed = timed_of(self);
    return pk_module_timed_stop(&timed, start);
}

static PyObject *shared_timer(PyObject *self, PyObject *unused)
{
    (void)unused;
    pk_timed timed = timed_of(self);
    return pk_module_timed_timer(&timed, ((shared_object *)self)->state);
}

static PyObject *shared_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(((shared_object *)self)->histogram->descriptor);
}

static PyObject *shared_snapshot(PyObject *object, PyObject *unused)
{
    (void)unused;
    shared_object *self = (shared_object *)object;
    const perfkit_histogram *histogram = self->histogram;
    const char *why = NULL;
    pk_shared shared;
    PyObject *name = PyUnicode_FromString(histogram->header.name);
    if (name == NULL) {
        return NULL;
    }
    int error = pk_shared_view(histogram->base, histogram->size_bytes, &shared, &why);
    PyObject *made = error != 0 ? pk_module_shared_fail(error, why, name)
                                : pk_module_shared_snapshot(self->state, &shared, name);
    Py_DECREF(name);
    return made;
}

static PyObject *get_name(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((shared_object *)self)->histogram->header.name);
}

static PyObject *get_unit(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((shared_object *)self)->unit);
}

static PyObject *get_labels(PyObject *self, void *unused)
{
    (void)unused;
    return pk_module_shared_labels(&((shared_object *)self)->histogram->header);
}

static PyGetSetDef shared_getters[] = {
    {"name", get_name, NULL, NULL, NULL},
    {"unit", get_unit, NULL, NULL, NULL},
    {"labels", get_labels, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef shared_methods[] = {
    {"record", shared_record, METH_O,
     "record($self, value, /)\n--\n\nCounts a number."},
    {"start", shared_start, METH_NOARGS,
     "start($self, /)\n--\n\nThe moment, to be given to stop."},
    {"stop", shared_stop, METH_O,
     "stop($self, start, /)\n--\n\nCounts the time since a start."},
    {"timer", shared_timer, METH_NOARGS,
     "timer($self, /)\n--\n\nCounts the time of a with block."},
    {"snapshot", shared_snapshot, METH_NOARGS,
     "snapshot($self, /)\n--\n\nA Histogram of what all its processes counted."},
    {"fileno", shared_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\nThe descriptor of its file."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shared_slots[] = {
    {Py_tp_new, (void *)shared_new},
    {Py_tp_dealloc, (void *)shared_dealloc},
    {Py_tp_methods, shared_methods},
    {Py_tp_getset, shared_getters},
    {Py_tp_doc, "A histogram that others can read; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec shared_spec = {
    .name = "perfkit._native.SharedHistogram",
    .basicsize = sizeof(shared_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shared_slots,
};

int pk_module_add_shared_histogram(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &shared_spec, NULL);
    int outcome = type == NULL ? -1 : PyModule_AddObjectRef(module, "SharedHistogram", type);
    Py_XDECREF(type);
    return outcome;
}
