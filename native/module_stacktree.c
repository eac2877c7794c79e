/* Python face of trees of stacks. */
#include "pk_module_stacktable.h"

#include <errno.h>
#include <stdlib.h>

#include "pk_module_histogram.h"
#include "pk_stacktree.h"

typedef struct {
    PyObject_HEAD
    pk_stacktree tree; /* nobody changes it: may be read without the GIL */
} tree_object;

static tree_object *allocate_tree(PyObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    return (tree_object *)allocate((PyTypeObject *)type, 0);
}

static void tree_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    pk_stacktree_deinit(&((tree_object *)object)->tree);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* A tree of the type that belongs to a table. */
static tree_object *begin_tree(pk_stacktable_object *table)
{
    PyObject *module = PyType_GetModule(Py_TYPE((PyObject *)table));
    pk_module_state *state = module == NULL ? NULL : PyModule_GetState(module);
    return state == NULL ? NULL : allocate_tree(state->stacktree_type);
}

static PyObject *end_tree(tree_object *made, int error)
{
    if (error != 0) {
        Py_CLEAR(made);
        pk_module_stacktable_fail(error);
    }
    return (PyObject *)made;
}

PyObject *pk_module_stacktable_tree(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    tree_object *made = begin_tree(self);
    int error;
    if (made == NULL || pk_module_stacktable_enter(self) != 0) {
        Py_XDECREF((PyObject *)made);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = pk_stacktree_build(&self->table, &made->tree);
    Py_END_ALLOW_THREADS
    pk_module_stacktable_leave(self);
    return end_tree(made, error);
}

/* Whether counts are told by time; -1 with an error where they cannot be. */
static int to_by_time(const char *by, const pk_stacktable_object *later,
                      const pk_stacktable_object *earlier)
{
    bool is_by_time = strcmp(by, "time") == 0;
    if (!is_by_time && strcmp(by, "total") != 0) {
        PyErr_SetString(PyExc_ValueError, "by must be 'time' or 'total'");
        return -1;
    }
    if (is_by_time && (later->table.duration_ns == 0 || earlier->table.duration_ns == 0)) {
        PyErr_SetString(PyExc_ValueError, "both StackTables need a duration_ns to be compared by "
                                          "time; by='total' compares shares");
        return -1;
    }
    return is_by_time;
}

static int compare_tables(pk_stacktable_object *later, pk_stacktable_object *earlier,
                          bool is_by_time, pk_stacktree *ret)
{
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_stacktree_compare(&later->table, &earlier->table, is_by_time, ret);
    Py_END_ALLOW_THREADS
    return error;
}

PyObject *pk_module_stacktable_diff(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "by", NULL};
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    PyObject *other;
    const char *by = "time";
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O|s", names, &other, &by) ||
        pk_module_stacktable_check(self, other) != 0) {
        return NULL;
    }
    pk_stacktable_object *earlier = (pk_stacktable_object *)other;
    int is_by_time = to_by_time(by, self, earlier);
    tree_object *made = is_by_time < 0 ? NULL : begin_tree(self);
    int outcome = made == NULL ? -1 : pk_module_stacktable_enter(self);
    if (outcome == 0 && earlier != self && pk_module_stacktable_enter(earlier) != 0) {
        pk_module_stacktable_leave(self);
        outcome = -1;
    }
    if (outcome != 0) {
        Py_XDECREF((PyObject *)made);
        return NULL;
    }
    int error = compare_tables(self, earlier, is_by_time == 1, &made->tree);
    pk_module_stacktable_leave(self);
    pk_module_stacktable_leave(earlier);
    return end_tree(made, error);
}

/* Columns of 64 bits. */
static PyObject *view_numbers(const uint32_t *numbers, uint32_t count, bool is_root_none)
{
    PyObject *bytes =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * sizeof(int64_t)));
    if (bytes != NULL) {
        int64_t *column = (int64_t *)(void *)PyBytes_AsString(bytes);
        for (uint32_t i = 0; i < count; i++) {
            column[i] = numbers[i];
        }
        column[0] = is_root_none ? -1 : column[0];
    }
    return pk_module_view(bytes, "q");
}

static PyObject *view_counts(const uint64_t *counts, uint32_t count)
{
    Py_ssize_t size_bytes = (Py_ssize_t)(count * sizeof *counts);
    return pk_module_view(PyBytes_FromStringAndSize((const char *)counts, size_bytes), "q");
}

static PyObject *view_changes(const pk_stacktree *tree)
{
    Py_ssize_t size_bytes = (Py_ssize_t)(tree->node_count * sizeof(double));
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size_bytes);
    if (bytes != NULL) {
        double *column = (double *)(void *)PyBytes_AsString(bytes);
        for (uint32_t i = 0; i < tree->node_count; i++) {
            column[i] = pk_stacktree_change(tree, i);
        }
    }
    return pk_module_view(bytes, "d");
}

/* Takes the column's reference. */
static int put_column(PyObject *columns, const char *name, PyObject *column)
{
    int outcome = column == NULL ? -1 : PyDict_SetItemString(columns, name, column);
    Py_XDECREF(column);
    return outcome;
}

static int put_columns(PyObject *columns, const pk_stacktree *tree)
{
    uint32_t count = tree->node_count;
    if (put_column(columns, "parent", view_numbers(tree->parents, count, true)) != 0 ||
        put_column(columns, "frame", view_numbers(tree->frames, count, false)) != 0 ||
        put_column(columns, "self", view_counts(tree->selfs[0], count)) != 0 ||
        put_column(columns, "total", view_counts(tree->totals[0], count)) != 0) {
        return -1;
    }
    if (tree->side_count == 1) {
        return 0;
    }
    if (put_column(columns, "earlier_self", view_counts(tree->selfs[1], count)) != 0 ||
        put_column(columns, "earlier_total", view_counts(tree->totals[1], count)) != 0) {
        return -1;
    }
    return put_column(columns, "change", view_changes(tree));
}

static PyObject *tree_columns(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *columns = PyDict_New();
    if (columns != NULL && put_columns(columns, &((tree_object *)self)->tree) != 0) {
        Py_CLEAR(columns);
    }
    return columns;
}

static PyObject *tree_frames(PyObject *self, PyObject *unused)
{
    (void)unused;
    const pk_framenames *names = &((tree_object *)self)->tree.names;
    PyObject *list = PyList_New((Py_ssize_t)names->count);
    for (uint32_t i = 0; list != NULL && i < names->count; i++) {
        PyObject *frame = pk_module_frame(names, i);
        if (frame == NULL || PyList_SetItem(list, (Py_ssize_t)i, frame) != 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *tree_prune(PyObject *object, PyObject *ratio)
{
    double ratio_min = PyFloat_AsDouble(ratio);
    if (ratio_min == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    if (!(ratio_min >= 0 && ratio_min <= 1)) {
        PyErr_SetString(PyExc_ValueError, "ratio_min must be between 0 and 1");
        return NULL;
    }
    const pk_stacktree *tree = &((tree_object *)object)->tree;
    tree_object *made = allocate_tree((PyObject *)Py_TYPE(object));
    int error = 0;
    if (made != NULL) {
        Py_BEGIN_ALLOW_THREADS
        error = pk_stacktree_prune(tree, ratio_min, &made->tree);
        Py_END_ALLOW_THREADS
    }
    return end_tree(made, error);
}

static PyObject *tree_fold(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pk_stacktree *tree = &((tree_object *)object)->tree;
    char *text;
    size_t size_bytes;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_stacktree_fold(tree, &text, &size_bytes);
    Py_END_ALLOW_THREADS
    if (error == EOVERFLOW) {
        PyErr_SetString(PyExc_OverflowError, "the folded stacks are more than 1 GiB, or counts "
                                             "beyond 2**63 - 1: prune the tree first");
        return NULL;
    }
    if (error != 0) {
        return pk_module_stacktable_fail(error);
    }
    PyObject *folded = PyUnicode_DecodeUTF8(text, (Py_ssize_t)size_bytes, "strict");
    free(text);
    return folded;
}

static PyObject *get_node_count(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((tree_object *)self)->tree.node_count);
}

static PyObject *tree_repr(PyObject *self)
{
    const pk_stacktree *tree = &((tree_object *)self)->tree;
    return PyUnicode_FromFormat("<StackTree nodes=%lu total=%llu>",
                                (unsigned long)tree->node_count,
                                (unsigned long long)tree->totals[0][0]);
}

static PyGetSetDef tree_getters[] = {
    {"node_count", get_node_count, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef tree_methods[] = {
    {"columns", tree_columns, METH_NOARGS,
     "columns($self, /)\n--\n\nThe nodes as columns of numbers."},
    {"frames", tree_frames, METH_NOARGS,
     "frames($self, /)\n--\n\nThe frames that nodes refer to."},
    {"prune", tree_prune, METH_O,
     "prune($self, ratio_min, /)\n--\n\nThe tree without nodes of little weight."},
    {"fold", tree_fold, METH_NOARGS,
     "fold($self, /)\n--\n\nThe tree as folded stacks."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tree_slots[] = {
    {Py_tp_dealloc, (void *)tree_dealloc},
    {Py_tp_methods, tree_methods},
    {Py_tp_getset, tree_getters},
    {Py_tp_repr, (void *)tree_repr},
    {Py_tp_doc, "Counts of stacks as a tree of frames; made by StackTable.tree and diff."},
    {0, NULL},
};

static PyType_Spec tree_spec = {
    .name = "perfkit._native.StackTree",
    .basicsize = sizeof(tree_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tree_slots,
};

int pk_module_add_stacktree(PyObject *module)
{
    pk_module_state *state = PyModule_GetState(module);
    state->stacktree_type = PyType_FromModuleAndSpec(module, &tree_spec, NULL);
    if (state->stacktree_type == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "StackTree", state->stacktree_type);
}
