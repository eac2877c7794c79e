/* Python face of the stack table: its life, and what it holds. */
#include "pk_module_stacktable.h"

#include <errno.h>

#include "pk_module_histogram.h"

PyObject *pk_module_stacktable_fail(int error)
{
    switch (error) {
    case ENOMEM:
        return PyErr_NoMemory();
    case EOVERFLOW:
        PyErr_SetString(PyExc_OverflowError,
                        "a StackTable counts up to 2**63 - 1, and holds 2**28 stacks of 2**30 "
                        "frames in all");
        break;
    case EDOM:
        PyErr_SetString(PyExc_ValueError, "counts must not be negative");
        break;
    case EEXIST:
        PyErr_SetString(PyExc_ValueError, "two different stacks or frames have the same id");
        break;
    case EINVAL:
        PyErr_SetString(PyExc_ValueError, "a frame's name and file must be at most 65,535 bytes");
        break;
    case EBADMSG:
        PyErr_SetString(PyExc_ValueError, "these bytes are no StackTable");
        break;
    default:
        return pk_module_fail(error);
    }
    return NULL;
}

int pk_module_stacktable_enter(pk_stacktable_object *self)
{
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this StackTable");
        return -1;
    }
    self->is_busy = true;
    return 0;
}

void pk_module_stacktable_leave(pk_stacktable_object *self)
{
    self->is_busy = false;
}

int pk_module_stacktable_check(pk_stacktable_object *self, PyObject *other)
{
    if (Py_TYPE(other) != Py_TYPE((PyObject *)self)) {
        PyErr_SetString(PyExc_TypeError, "the other must be a StackTable");
        return -1;
    }
    return 0;
}

pk_stacktable_object *pk_module_stacktable_new(PyTypeObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    pk_stacktable_object *self = (pk_stacktable_object *)allocate(type, 0);
    if (self != NULL && pk_stacktable_init(&self->table) != 0) {
        Py_CLEAR(self);
        PyErr_NoMemory();
    }
    return self;
}

PyObject *pk_module_frame(const pk_framenames *names, uint32_t number)
{
    const pk_framename *name = &names->names[number];
    const char *texts = pk_framenames_texts(names, number);
    return Py_BuildValue("(s#s#)", texts, (Py_ssize_t)name->name_bytes,
                         texts + name->name_bytes, (Py_ssize_t)name->file_bytes);
}

PyObject *pk_module_view(PyObject *bytes, const char *format)
{
    PyObject *whole = bytes == NULL ? NULL : PyMemoryView_FromObject(bytes);
    PyObject *view = whole == NULL ? NULL : PyObject_CallMethod(whole, "cast", "s", format);
    Py_XDECREF(bytes);
    Py_XDECREF(whole);
    return view;
}

static int to_duration_ns(PyObject *value, uint64_t *ret)
{
    long long duration_ns = PyLong_AsLongLong(value);
    if (duration_ns == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (duration_ns < 0) {
        PyErr_SetString(PyExc_ValueError, "duration_ns must not be negative");
        return -1;
    }
    *ret = (uint64_t)duration_ns;
    return 0;
}

static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"duration_ns", NULL};
    PyObject *duration = NULL;
    uint64_t duration_ns = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|$O", names, &duration) ||
        (duration != NULL && to_duration_ns(duration, &duration_ns) != 0)) {
        return NULL;
    }
    pk_stacktable_object *self = pk_module_stacktable_new(type);
    if (self != NULL) {
        self->table.duration_ns = duration_ns;
    }
    return (PyObject *)self;
}

static void table_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    pk_stacktable_deinit(&((pk_stacktable_object *)object)->table);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* The frames of a stack, leaf first, whose numbers were copied; None where they are not known. */
static PyObject *make_frames(const pk_framenames *names, const uint32_t *frames, size_t depth)
{
    PyObject *made = PyTuple_New((Py_ssize_t)depth);
    for (size_t i = 0; made != NULL && i < depth; i++) {
        PyObject *frame = pk_module_frame(names, frames[depth - 1 - i]);
        if (frame == NULL || PyTuple_SetItem(made, (Py_ssize_t)i, frame) != 0) {
            Py_CLEAR(made);
        }
    }
    return made;
}

static PyObject *table_frames(PyObject *object, PyObject *number)
{
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    Py_ssize_t stack = PyNumber_AsSsize_t(number, PyExc_IndexError);
    if ((stack == -1 && PyErr_Occurred()) || pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    PyObject *made = NULL;
    if (stack < 0 || stack >= (Py_ssize_t)self->table.stack_count) {
        PyErr_SetString(PyExc_IndexError, "the StackTable has no stack of this number");
    } else if (!self->table.stacks[stack].is_known) {
        made = Py_NewRef(Py_None);
    } else {
        const uint32_t *frames = pk_stacktable_frames(&self->table, (uint32_t)stack);
        made = make_frames(&self->table.names, frames, self->table.stacks[stack].depth);
    }
    pk_module_stacktable_leave(self);
    return made;
}

static PyObject *table_ids(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    if (pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    uint32_t count = self->table.stack_count;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)count * PK_STACKID_BYTES);
    for (uint32_t i = 0; bytes != NULL && i < count; i++) {
        memcpy(PyBytes_AsString(bytes) + (size_t)i * PK_STACKID_BYTES, &self->table.stacks[i].id,
               PK_STACKID_BYTES);
    }
    pk_module_stacktable_leave(self);
    return bytes;
}

static PyObject *table_counts(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    if (pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    size_t size_bytes = self->table.stack_count * sizeof(uint64_t);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size_bytes);
    if (bytes != NULL) {
        pk_stacktable_gather(&self->table, (uint64_t *)(void *)PyBytes_AsString(bytes));
    }
    pk_module_stacktable_leave(self);
    return pk_module_view(bytes, "q");
}

static PyObject *get_total(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((pk_stacktable_object *)self)->table.total);
}

static PyObject *get_stack_count(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((pk_stacktable_object *)self)->table.stack_count);
}

static PyObject *get_unknown_total(PyObject *object, void *unused)
{
    (void)unused;
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    if (pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    uint64_t total = 0;
    for (uint32_t i = 0; i < self->table.stack_count; i++) {
        if (!self->table.stacks[i].is_known) {
            total += pk_stacktable_seen(&self->table, i);
        }
    }
    pk_module_stacktable_leave(self);
    return PyLong_FromUnsignedLongLong(total);
}

static PyObject *get_duration_ns(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((pk_stacktable_object *)self)->table.duration_ns);
}

static int set_duration_ns(PyObject *object, PyObject *value, void *unused)
{
    (void)unused;
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    uint64_t duration_ns;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "duration_ns cannot be deleted");
        return -1;
    }
    if (to_duration_ns(value, &duration_ns) != 0 || pk_module_stacktable_enter(self) != 0) {
        return -1;
    }
    self->table.duration_ns = duration_ns;
    pk_module_stacktable_leave(self);
    return 0;
}

static PyObject *table_repr(PyObject *object)
{
    const pk_stacktable *table = &((pk_stacktable_object *)object)->table;
    return PyUnicode_FromFormat("<StackTable stacks=%lu total=%llu duration_ns=%llu>",
                                (unsigned long)table->stack_count,
                                (unsigned long long)table->total,
                                (unsigned long long)table->duration_ns);
}

static PyGetSetDef table_getters[] = {
    {"duration_ns", get_duration_ns, set_duration_ns, NULL, NULL},
    {"stack_count", get_stack_count, NULL, NULL, NULL},
    {"total", get_total, NULL, NULL, NULL},
    {"unknown_total", get_unknown_total, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef table_methods[] = {
    {"intern", pk_module_stacktable_intern, METH_O,
     "intern($self, frames, /)\n--\n\nThe number of a stack, leaf first."},
    {"record", (PyCFunction)(void (*)(void))pk_module_stacktable_record, METH_FASTCALL,
     "record($self, frames, count=1, /)\n--\n\nCounts a stack, leaf first."},
    {"add", (PyCFunction)(void (*)(void))pk_module_stacktable_add, METH_FASTCALL,
     "add($self, ids, counts, /)\n--\n\nCounts stacks by their ids."},
    {"frames", table_frames, METH_O,
     "frames($self, number, /)\n--\n\nThe frames of a stack, leaf first."},
    {"ids", table_ids, METH_NOARGS,
     "ids($self, /)\n--\n\nThe stacks' ids, 16 bytes each."},
    {"counts", table_counts, METH_NOARGS,
     "counts($self, /)\n--\n\nHow often each stack was seen."},
    {"merge", pk_module_stacktable_merge_in, METH_O,
     "merge($self, other, /)\n--\n\nAdds what another one counted."},
    {"merge_all", pk_module_stacktable_merge_all, METH_O | METH_CLASS,
     "merge_all($type, tables, /)\n--\n\nThe sum of StackTables or bytes."},
    {"tree", pk_module_stacktable_tree, METH_NOARGS,
     "tree($self, /)\n--\n\nThe counts as a tree of frames."},
    {"diff", (PyCFunction)(void (*)(void))pk_module_stacktable_diff,
     METH_VARARGS | METH_KEYWORDS,
     "diff($self, earlier, /, by='time')\n--\n\nThe tree with an earlier one's counts beside."},
    {"top", (PyCFunction)(void (*)(void))pk_module_stacktable_top, METH_FASTCALL,
     "top($self, limit=20, /)\n--\n\nThe frames that the counts go to."},
    {"to_bytes", pk_module_stacktable_to_bytes, METH_NOARGS,
     "to_bytes($self, /)\n--\n\nThe table as bytes."},
    {"from_bytes", pk_module_stacktable_from_bytes, METH_O | METH_CLASS,
     "from_bytes($type, encoded, /)\n--\n\nThe table of such bytes."},
    {"__reduce__", pk_module_stacktable_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_new, (void *)table_new},
    {Py_tp_dealloc, (void *)table_dealloc},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_getters},
    {Py_tp_repr, (void *)table_repr},
    {Py_tp_richcompare, (void *)pk_module_stacktable_compare},
    {Py_tp_hash, (void *)PyObject_HashNotImplemented},
    {Py_tp_doc, "Counts of stacks, by what their frames are; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "perfkit._native.StackTable",
    .basicsize = sizeof(pk_stacktable_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = table_slots,
};

int pk_module_add_stacktable(PyObject *module)
{
    pk_module_state *state = PyModule_GetState(module);
    state->stacktable_type = PyType_FromModuleAndSpec(module, &table_spec, NULL);
    if (state->stacktable_type == NULL ||
        PyModule_AddObjectRef(module, "StackTable", state->stacktable_type) != 0) {
        return -1;
    }
    return pk_module_add_stacktree(module);
}
