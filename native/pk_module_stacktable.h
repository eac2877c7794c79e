/* What the files of the stack table's Python face share.
 * Contract: a new reference, or NULL with a Python error set; 0, or -1 with one. */
#ifndef PK_MODULE_STACKTABLE_H
#define PK_MODULE_STACKTABLE_H
#include "pk_module.h"

#include "pk_stacktable.h"

typedef struct {
    PyObject_HEAD
    pk_stacktable table;
    bool is_busy; /* in use, maybe without the GIL */
} pk_stacktable_object;

/* Takes a table for oneself; -1 with RuntimeError where another thread has it. Nothing that may
 * run Python code stands between the two. */
int pk_module_stacktable_enter(pk_stacktable_object *self);
void pk_module_stacktable_leave(pk_stacktable_object *self);

/* Sets the exception of an errno value; NULL. */
PyObject *pk_module_stacktable_fail(int error);

/* An empty one of the type; NULL with an error. */
pk_stacktable_object *pk_module_stacktable_new(PyTypeObject *type);

/* -1 with TypeError where it is no table. */
int pk_module_stacktable_check(pk_stacktable_object *self, PyObject *other);

/* A frame as (name, file). */
PyObject *pk_module_frame(const pk_framenames *names, uint32_t number);

/* A view of bytes, whose reference it takes, as numbers of a format. */
PyObject *pk_module_view(PyObject *bytes, const char *format);

/* Methods, as in _native.pyi. */
PyObject *pk_module_stacktable_intern(PyObject *self, PyObject *frames);
PyObject *pk_module_stacktable_record(PyObject *self, PyObject *const *arguments,
                                      Py_ssize_t count);
PyObject *pk_module_stacktable_add(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *pk_module_stacktable_merge_in(PyObject *self, PyObject *other);
PyObject *pk_module_stacktable_merge_all(PyObject *type, PyObject *tables);
PyObject *pk_module_stacktable_to_bytes(PyObject *self, PyObject *unused);
PyObject *pk_module_stacktable_from_bytes(PyObject *type, PyObject *encoded);
PyObject *pk_module_stacktable_reduce(PyObject *self, PyObject *unused);
PyObject *pk_module_stacktable_compare(PyObject *left, PyObject *right, int operation);
PyObject *pk_module_stacktable_top(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *pk_module_stacktable_tree(PyObject *self, PyObject *unused);
PyObject *pk_module_stacktable_diff(PyObject *self, PyObject *arguments, PyObject *keywords);

int pk_module_add_stacktree(PyObject *module);

#endif
