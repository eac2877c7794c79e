/* What several types of the extension hand over: names, stacks and objects, those not told yet. */
#include "pk_module.h"

#include <errno.h>

enum {
    COLUMN_LIMIT = 32,
    FRAME_COLUMN_COUNT = 5,
};

PyObject *pk_module_fail(int error)
{
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *pk_module_make_columns(Py_ssize_t count, size_t row_count, int64_t **ret)
{
    PyObject *packed = PyTuple_New(count);
    for (Py_ssize_t i = 0; packed != NULL && i < count; i++) {
        Py_ssize_t size = (Py_ssize_t)(row_count * sizeof **ret);
        PyObject *column = PyBytes_FromStringAndSize(NULL, size);
        if (column == NULL || PyTuple_SetItem(packed, i, column) != 0) {
            Py_CLEAR(packed);
            break;
        }
        ret[i] = (int64_t *)(void *)PyBytes_AsString(column);
    }
    return packed;
}

PyObject *pk_module_take_rows(pk_ring *ring)
{
    int64_t *columns[COLUMN_LIMIT];
    if (ring->column_count > COLUMN_LIMIT) {
        return pk_module_fail(E2BIG);
    }
    size_t row_count = pk_ring_count(ring);
    PyObject *packed =
        pk_module_make_columns((Py_ssize_t)ring->column_count, row_count, columns);
    if (packed != NULL) {
        pk_ring_take(ring, row_count, columns);
    }
    return packed;
}

/* Reads the sequence of offsets; -1 with an error where it is none. */
int pk_module_to_layout(PyObject *offsets, pk_pylayout *ret)
{
    int64_t values[PK_PY_OFFSET_COUNT];
    PyObject *list = PySequence_List(offsets);
    if (list == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_Size(list);
    for (Py_ssize_t i = 0; i < count && i < PK_PY_OFFSET_COUNT; i++) {
        values[i] = PyLong_AsLongLong(PyList_GetItem(list, i));
    }
    Py_DECREF(list);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (count != PK_PY_OFFSET_COUNT || pk_pylayout_init(ret, values) != 0) {
        PyErr_SetString(PyExc_ValueError, "offsets are not those of a CPython");
        return -1;
    }
    return 0;
}

PyObject *pk_module_list_names(const pk_pynames *names, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&names->count, memory_order_acquire);
    PyObject *list = PyList_New(0);
    for (uint32_t i = *told; list != NULL && i < count; i++) {
        const pk_pyname *name = &names->names[i];
        const char *text = names->arena + name->name_at;
        PyObject *pair = Py_BuildValue("(y#y#)", text, (Py_ssize_t)name->name_bytes,
                                       text + name->name_bytes, (Py_ssize_t)name->file_bytes);
        if (pair == NULL || PyList_Append(list, pair) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(pair);
    }
    *told = list == NULL ? *told : count;
    return list;
}

PyObject *pk_module_list_pystacks(const pk_pystacks *stacks, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&stacks->count, memory_order_acquire);
    PyObject *list = PyList_New(0);
    for (uint32_t i = *told; list != NULL && i < count; i++) {
        const pk_pystack *stack = &stacks->stacks[i];
        PyObject *frames = PyTuple_New((Py_ssize_t)stack->depth);
        for (uint32_t depth = 0; frames != NULL && depth < stack->depth; depth++) {
            PyObject *number = PyLong_FromUnsignedLong(stacks->arena[stack->first + depth]);
            if (number == NULL || PyTuple_SetItem(frames, (Py_ssize_t)depth, number) != 0) {
                Py_CLEAR(frames);
            }
        }
        if (frames == NULL || PyList_Append(list, frames) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(frames);
    }
    *told = list == NULL ? *told : count;
    return list;
}

static PyObject *to_object(const pk_native_object *object)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * PK_BUILD_ID_BYTES];
    for (size_t i = 0; i < object->build_id_bytes; i++) {
        text[2 * i] = digits[object->build_id[i] >> 4];
        text[2 * i + 1] = digits[object->build_id[i] & 15];
    }
    return Py_BuildValue("(iiys#)", (int)object->pid, (int)object->kind, object->path, text,
                         (Py_ssize_t)(2 * object->build_id_bytes));
}

PyObject *pk_module_list_objects(const pk_nativestacks *stacks, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&stacks->object_count, memory_order_acquire);
    PyObject *list = PyList_New(0);
    for (uint32_t i = *told; list != NULL && i < count; i++) {
        PyObject *object = to_object(&stacks->objects[i]);
        if (object == NULL || PyList_Append(list, object) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(object);
    }
    *told = list == NULL ? *told : count;
    return list;
}

PyObject *pk_module_list_stacks(const pk_nativestacks *stacks, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&stacks->stack_count, memory_order_acquire);
    PyObject *list = PyList_New(0);
    for (uint32_t i = *told; list != NULL && i < count; i++) {
        const pk_native_stack *stack = &stacks->stacks[i];
        PyObject *frames = PyTuple_New((Py_ssize_t)stack->depth);
        for (uint32_t depth = 0; frames != NULL && depth < stack->depth; depth++) {
            const pk_native_frame *frame = &stacks->frames[stack->first + depth];
            PyObject *one = Py_BuildValue("(ILI)", (unsigned)frame->object,
                                          (long long)frame->offset, (unsigned)frame->flags);
            if (one == NULL || PyTuple_SetItem(frames, (Py_ssize_t)depth, one) != 0) {
                Py_CLEAR(frames);
            }
        }
        if (frames == NULL || PyList_Append(list, frames) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(frames);
    }
    *told = list == NULL ? *told : count;
    return list;
}

PyObject *pk_module_pack_stacks(const pk_nativestacks *stacks, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&stacks->stack_count, memory_order_acquire);
    size_t row_count = 0;
    for (uint32_t i = *told; i < count; i++) {
        row_count += stacks->stacks[i].depth;
    }
    int64_t *columns[FRAME_COLUMN_COUNT];
    PyObject *packed = pk_module_make_columns(FRAME_COLUMN_COUNT, row_count, columns);
    size_t row = 0;
    for (uint32_t i = *told; packed != NULL && i < count; i++) {
        const pk_native_stack *stack = &stacks->stacks[i];
        for (uint32_t depth = 0; depth < stack->depth; depth++, row++) {
            const pk_native_frame *frame = &stacks->frames[stack->first + depth];
            columns[0][row] = i;
            columns[1][row] = depth;
            columns[2][row] = frame->object;
            columns[3][row] = (int64_t)frame->offset;
            columns[4][row] = frame->flags;
        }
    }
    *told = packed == NULL ? *told : count;
    return packed;
}
