/* What several types of the extension hand over: names, stacks and objects, those not told yet. */
#include "pk_module.h"

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

static PyObject *to_object(const pk_stacktable *table, const pk_table_object *object)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * PK_BUILD_ID_BYTES];
    for (size_t i = 0; i < object->build_id_bytes; i++) {
        text[2 * i] = digits[object->build_id[i] >> 4];
        text[2 * i + 1] = digits[object->build_id[i] & 15];
    }
    return Py_BuildValue("(iiy#s#)", (int)object->pid, (int)object->kind,
                         table->texts + object->path_at, (Py_ssize_t)object->path_bytes, text,
                         (Py_ssize_t)(2 * object->build_id_bytes));
}

PyObject *pk_module_list_objects(const pk_stacktable *table, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&table->object_count, memory_order_acquire);
    PyObject *list = PyList_New(0);
    for (uint32_t i = *told; list != NULL && i < count; i++) {
        PyObject *object = to_object(table, &table->objects[i]);
        if (object == NULL || PyList_Append(list, object) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(object);
    }
    *told = list == NULL ? *told : count;
    return list;
}

PyObject *pk_module_list_stacks(const pk_stacktable *table, uint32_t *told)
{
    uint32_t count = atomic_load_explicit(&table->stack_count, memory_order_acquire);
    PyObject *list = PyList_New(0);
    for (uint32_t i = *told; list != NULL && i < count; i++) {
        const pk_table_stack *stack = &table->stacks[i];
        PyObject *frames = PyTuple_New((Py_ssize_t)stack->depth);
        for (uint32_t depth = 0; frames != NULL && depth < stack->depth; depth++) {
            const pk_table_frame *frame = &table->frames[stack->first + depth];
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
