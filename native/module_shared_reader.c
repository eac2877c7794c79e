/* Python face of the reader of shared histograms. */
#include "pk_module_shared.h"

#include <errno.h>

typedef struct {
    PyObject_HEAD
    pk_shared shared; /* base: NULL where nothing is mapped */
    pk_module_state *state;
    PyObject *path; /* str */
} reader_object;

PyObject *pk_module_shared_fail(int error, const char *why, PyObject *path)
{
    if (error == EBADMSG) {
        return PyErr_Format(PyExc_ValueError, "%U: %s", path, why);
    }
    errno = error;
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
}

PyObject *pk_module_shared_snapshot(pk_module_state *state, const pk_shared *shared,
                                    PyObject *path)
{
    pk_histogram counted;
    const char *why = NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_shared_read(shared, &state->mappings[PERFKIT_SCALE], &counted, &why);
    Py_END_ALLOW_THREADS
    if (error == ENOMEM) {
        return PyErr_NoMemory();
    }
    if (error != 0) {
        return pk_module_shared_fail(error, why, path);
    }
    PyObject *unit = PyUnicode_FromString(shared->header.unit);
    if (unit == NULL) {
        pk_histogram_deinit(&counted);
        return NULL;
    }
    PyObject *made = pk_module_histogram_wrap(state, &counted, unit);
    Py_DECREF(unit);
    return made;
}

PyObject *pk_module_shared_labels(const perfkit_file_header *header)
{
    PyObject *labels = PyDict_New();
    const char *label = header->labels;
    while (labels != NULL && *label != 0) {
        size_t key_bytes = perfkit_key_bytes(label);
        PyObject *key = PyUnicode_FromStringAndSize(label, (Py_ssize_t)key_bytes);
        PyObject *value = PyUnicode_FromString(label + key_bytes + 1);
        if (key == NULL || value == NULL || PyDict_SetItem(labels, key, value) != 0) {
            Py_CLEAR(labels);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
        label += strlen(label) + 1;
    }
    return labels;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", NULL};
    PyObject *path;
    PyObject *encoded;
    PyObject *module = PyType_GetModule(type);
    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(arguments, keywords, "U", names, &path) ||
        !PyUnicode_FSConverter(path, &encoded)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    reader_object *self = (reader_object *)allocate(type, 0);
    if (self != NULL) {
        const char *name = PyBytes_AsString(encoded);
        const char *why = NULL;
        pk_shared opened = {.base = NULL};
        int error;
        self->state = PyModule_GetState(module);
        self->path = Py_NewRef(path);
        Py_BEGIN_ALLOW_THREADS
        error = pk_shared_open(name, &opened, &why);
        Py_END_ALLOW_THREADS
        if (error == 0) {
            self->shared = opened;
        } else {
            pk_module_shared_fail(error, why, path);
            Py_CLEAR(self);
        }
    }
    Py_DECREF(encoded);
    return (PyObject *)self;
}

static void reader_dealloc(PyObject *object)
{
    reader_object *self = (reader_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->shared.base != NULL) {
        pk_shared_close(&self->shared);
    }
    Py_XDECREF(self->path);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static const perfkit_file_header *header_of(PyObject *self)
{
    return &((reader_object *)self)->shared.header;
}

static PyObject *reader_snapshot(PyObject *object, PyObject *unused)
{
    (void)unused;
    reader_object *self = (reader_object *)object;
    return pk_module_shared_snapshot(self->state, &self->shared, self->path);
}

static PyObject *get_path(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((reader_object *)self)->path);
}

static PyObject *get_name(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(header_of(self)->name);
}

static PyObject *get_unit(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(header_of(self)->unit);
}

static PyObject *get_labels(PyObject *self, void *unused)
{
    (void)unused;
    return pk_module_shared_labels(header_of(self));
}

static PyObject *get_inode(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((reader_object *)self)->shared.inode);
}

static PyObject *get_generation(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(header_of(self)->generation);
}

static PyObject *get_creator_pid(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(header_of(self)->creator_pid);
}

static PyGetSetDef reader_getters[] = {
    {"path", get_path, NULL, NULL, NULL},
    {"name", get_name, NULL, NULL, NULL},
    {"unit", get_unit, NULL, NULL, NULL},
    {"labels", get_labels, NULL, NULL, NULL},
    {"inode", get_inode, NULL, NULL, NULL},
    {"generation", get_generation, NULL, NULL, NULL},
    {"creator_pid", get_creator_pid, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef reader_methods[] = {
    {"snapshot", reader_snapshot, METH_NOARGS,
     "snapshot($self, /)\n--\n\nA Histogram of what is counted by now."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, (void *)reader_new},
    {Py_tp_dealloc, (void *)reader_dealloc},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getters},
    {Py_tp_doc, "Reads a shared histogram of any process; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "perfkit._native.SharedHistogramReader",
    .basicsize = sizeof(reader_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

int pk_module_add_shared_reader(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    int outcome =
        type == NULL ? -1 : PyModule_AddObjectRef(module, "SharedHistogramReader", type);
    Py_XDECREF(type);
    return outcome;
}
