/* Python face of the facts about whole processes. */
#include "pk_module.h"

#include <errno.h>
#include <stdlib.h>

#include "pk_process.h"

enum { LIMIT_LIMIT = 1 << 20 }; /* of descriptors */

static PyObject *process_cpu_ns(PyObject *module, PyObject *argument)
{
    (void)module;
    Py_buffer pids;
    if (PyObject_GetBuffer(argument, &pids, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    PyObject *packed = NULL;
    if (pids.len % (Py_ssize_t)sizeof(int64_t) != 0) {
        PyErr_SetString(PyExc_ValueError, "pids must be packed 64-bit integers");
    } else {
        packed = PyBytes_FromStringAndSize(NULL, pids.len);
    }
    if (packed != NULL) {
        size_t count = (size_t)pids.len / sizeof(int64_t);
        char *used = PyBytes_AsString(packed);
        Py_BEGIN_ALLOW_THREADS
        pk_process_list_cpu_ns(pids.buf, count, used);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&pids);
    return packed;
}

static PyObject *to_list(const pk_process_fd *found, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *link = PyUnicode_DecodeFSDefaultAndSize(found[i].link,
                                                          (Py_ssize_t)found[i].size_bytes);
        PyObject *pair = link == NULL ? NULL : Py_BuildValue("(iN)", (int)found[i].fd, link);
        if (pair == NULL || PyList_SetItem(list, (Py_ssize_t)i, pair) != 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *list_fds(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *proc_root;
    int pid;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(arguments, "sin", &proc_root, &pid, &limit)) {
        return NULL;
    }
    if (pid <= 0 || limit < 0 || limit > LIMIT_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "pid must be positive and limit 0 to 1048576");
        return NULL;
    }
    pk_process_fd *found = NULL;
    size_t count = 0;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_process_list_fds(proc_root, pid, (size_t)limit, &found, &count);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *list = to_list(found, count);
    free(found);
    return list;
}

static PyMethodDef functions[] = {
    {"process_cpu_ns", process_cpu_ns, METH_O, "CPU ns of each process, -1 where it is gone."},
    {"list_fds", list_fds, METH_VARARGS, "Open descriptors of a process and their targets."},
    {NULL, NULL, 0, NULL},
};

int pk_module_add_processes(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
