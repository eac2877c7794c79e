/* Python face of the stack table: sums, bytes, comparison, and the frames that counts go to. */
#include "pk_module_stacktable.h"

#include <errno.h>
#include <stdlib.h>

#include "pk_stacktop.h"
#include "pk_stackwire.h"

enum { TOP_LIMIT = 20 };

/* Takes two tables for oneself, which may be the same. */
static int enter_both(pk_stacktable_object *self, pk_stacktable_object *other)
{
    if (pk_module_stacktable_enter(self) != 0) {
        return -1;
    }
    if (other != self && pk_module_stacktable_enter(other) != 0) {
        pk_module_stacktable_leave(self);
        return -1;
    }
    return 0;
}

static void leave_both(pk_stacktable_object *self, pk_stacktable_object *other)
{
    pk_module_stacktable_leave(self);
    pk_module_stacktable_leave(other);
}

PyObject *pk_module_stacktable_merge_in(PyObject *object, PyObject *other_object)
{
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    if (pk_module_stacktable_check(self, other_object) != 0) {
        return NULL;
    }
    pk_stacktable_object *other = (pk_stacktable_object *)other_object;
    int error;
    if (enter_both(self, other) != 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = pk_stacktable_merge(&self->table, &other->table);
    Py_END_ALLOW_THREADS
    leave_both(self, other);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_stacktable_fail(error);
}

/* Whether all texts are UTF-8: as a whole, and none begins within a character. */
static int check_texts(const pk_framenames *names)
{
    PyObject *whole =
        PyUnicode_DecodeUTF8(names->texts, (Py_ssize_t)names->text_bytes, "strict");
    bool is_right = whole != NULL;
    Py_XDECREF(whole);
    for (uint32_t i = 0; is_right && i < names->count; i++) {
        const pk_framename *name = &names->names[i];
        const unsigned char *texts = (const unsigned char *)names->texts + name->at;
        bool is_inside = (name->name_bytes > 0 && (texts[0] & 0xc0) == 0x80) ||
                         (name->file_bytes > 0 && (texts[name->name_bytes] & 0xc0) == 0x80);
        is_right = !is_inside;
    }
    if (!is_right && !PyErr_Occurred()) {
        pk_module_stacktable_fail(EBADMSG);
    }
    return is_right ? 0 : -1;
}

/* Reads bytes into a table that is not initialised. */
static int decode(PyObject *encoded, pk_stacktable *ret)
{
    Py_buffer view;
    int error;
    if (PyObject_GetBuffer(encoded, &view, PyBUF_SIMPLE) != 0) {
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    error = pk_stackwire_decode(view.buf, (size_t)view.len, ret);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    if (error != 0) {
        pk_module_stacktable_fail(error);
        return -1;
    }
    if (check_texts(&ret->names) != 0) {
        pk_stacktable_deinit(ret);
        return -1;
    }
    return 0;
}

PyObject *pk_module_stacktable_from_bytes(PyObject *type, PyObject *encoded)
{
    pk_stacktable table;
    if (decode(encoded, &table) != 0) {
        return NULL;
    }
    pk_stacktable_object *made = pk_module_stacktable_new((PyTypeObject *)type);
    if (made == NULL) {
        pk_stacktable_deinit(&table);
        return NULL;
    }
    pk_stacktable_deinit(&made->table);
    made->table = table;
    return (PyObject *)made;
}

PyObject *pk_module_stacktable_to_bytes(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    uint8_t *bytes;
    size_t size_bytes;
    int error;
    if (pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = pk_stackwire_encode(&self->table, &bytes, &size_bytes);
    Py_END_ALLOW_THREADS
    pk_module_stacktable_leave(self);
    if (error != 0) {
        return pk_module_stacktable_fail(error);
    }
    PyObject *made = PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size_bytes);
    free(bytes);
    return made;
}

PyObject *pk_module_stacktable_reduce(PyObject *self, PyObject *unused)
{
    PyObject *bytes = pk_module_stacktable_to_bytes(self, unused);
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

/* Adds a StackTable or its bytes to a sum that nobody else knows. */
static int add_one(pk_stacktable_object *sum, PyObject *one)
{
    if (Py_TYPE(one) == Py_TYPE((PyObject *)sum)) {
        PyObject *done = pk_module_stacktable_merge_in((PyObject *)sum, one);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    pk_stacktable table;
    int error;
    if (decode(one, &table) != 0) {
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS
    error = pk_stacktable_merge(&sum->table, &table);
    pk_stacktable_deinit(&table);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        pk_module_stacktable_fail(error);
        return -1;
    }
    return 0;
}

PyObject *pk_module_stacktable_merge_all(PyObject *type, PyObject *tables)
{
    PyObject *iterator = PyObject_GetIter(tables);
    pk_stacktable_object *sum =
        iterator == NULL ? NULL : pk_module_stacktable_new((PyTypeObject *)type);
    PyObject *one;
    while (sum != NULL && (one = PyIter_Next(iterator)) != NULL) {
        if (add_one(sum, one) != 0) {
            Py_CLEAR(sum);
        }
        Py_DECREF(one);
    }
    Py_XDECREF(iterator);
    if (PyErr_Occurred()) {
        Py_CLEAR(sum);
    }
    return (PyObject *)sum;
}

PyObject *pk_module_stacktable_compare(PyObject *left, PyObject *right, int operation)
{
    if (Py_TYPE(left) != Py_TYPE(right) || (operation != Py_EQ && operation != Py_NE)) {
        return Py_NewRef(Py_NotImplemented);
    }
    pk_stacktable_object *one = (pk_stacktable_object *)left;
    pk_stacktable_object *other = (pk_stacktable_object *)right;
    if (enter_both(one, other) != 0) {
        return NULL;
    }
    bool is_equal = pk_stacktable_equal(&one->table, &other->table);
    leave_both(one, other);
    return PyBool_FromLong(is_equal == (operation == Py_EQ));
}

/* The frames that are listed, by name: what the table holds is not touched any more. */
static PyObject *make_top(const pk_framenames *names, const pk_stacktop *top, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        const pk_framename *name = &names->names[top[i].frame];
        const char *texts = pk_framenames_texts(names, top[i].frame);
        PyObject *one = Py_BuildValue("(s#s#KK)", texts, (Py_ssize_t)name->name_bytes,
                                      texts + name->name_bytes, (Py_ssize_t)name->file_bytes,
                                      (unsigned long long)top[i].self,
                                      (unsigned long long)top[i].total);
        if (one == NULL || PyList_SetItem(list, (Py_ssize_t)i, one) != 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

PyObject *pk_module_stacktable_top(PyObject *object, PyObject *const *arguments,
                                   Py_ssize_t count)
{
    pk_stacktable_object *self = (pk_stacktable_object *)object;
    pk_stacktop *top = NULL;
    size_t top_count = 0;
    int error;
    Py_ssize_t limit = count == 0 ? TOP_LIMIT : 0;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "top takes at most a limit");
        return NULL;
    }
    if (count == 1) {
        limit = PyNumber_AsSsize_t(arguments[0], PyExc_OverflowError);
    }
    if (limit < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "limit must not be negative");
        }
        return NULL;
    }
    if (pk_module_stacktable_enter(self) != 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = pk_stacktop_list(&self->table, (size_t)limit, &top, &top_count);
    Py_END_ALLOW_THREADS
    PyObject *list = error == 0 ? make_top(&self->table.names, top, top_count)
                                : pk_module_stacktable_fail(error);
    pk_module_stacktable_leave(self);
    free(top);
    return list;
}
