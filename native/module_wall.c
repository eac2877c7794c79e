/* What the thread sampler's type says of the stacks that it takes. */
#include "pk_module_wall.h"

PyObject *pk_module_wall_add_python(pk_wall *wall, PyObject *arguments, int *ret_error)
{
    int pid;
    unsigned long long runtime;
    PyObject *offsets;
    pk_pylayout layout;
    *ret_error = 0;
    if (!PyArg_ParseTuple(arguments, "iKO", &pid, &runtime, &offsets) ||
        pk_module_to_layout(offsets, &layout) != 0) {
        return NULL;
    }
    *ret_error = pk_wall_add_python(wall, pid, runtime, &layout);
    return Py_NewRef(Py_None);
}

PyObject *pk_module_wall_take(const pk_wall *wall, uint32_t told[4])
{
    /* Stacks before what they are made of: that was there before them. */
    PyObject *stacks = pk_module_pack_stacks(&wall->stacks, &told[1]);
    PyObject *pystacks =
        stacks == NULL ? NULL : pk_module_list_pystacks(&wall->python.stacks, &told[3]);
    PyObject *objects = pystacks == NULL ? NULL : pk_module_list_objects(&wall->stacks, &told[0]);
    PyObject *names = objects == NULL ? NULL : pk_module_list_names(&wall->python.names, &told[2]);
    if (names == NULL) {
        Py_XDECREF(stacks);
        Py_XDECREF(pystacks);
        Py_XDECREF(objects);
        return NULL;
    }
    return Py_BuildValue("(NNNN)", objects, stacks, names, pystacks);
}

PyObject *pk_module_wall_status(const pk_wall *wall)
{
    pk_wall_status status;
    pk_wall_get_status(wall, &status);
    return Py_BuildValue("{s:L,s:L,s:L,s:L,s:L,s:L}", "spent_ns", (long long)status.spent_ns,
                         "look_count", (long long)status.look_count, "passed_count",
                         (long long)status.passed_count, "moved_count",
                         (long long)status.moved_count, "failed_count",
                         (long long)status.failed_count, "full_count",
                         (long long)status.full_count);
}
