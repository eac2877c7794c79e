/* Python face of one look at all threads of a process. */
#include "pk_module.h"

#include <errno.h>
#include <string.h>

#include "pk_dump.h"

enum { THREAD_LIMIT_LIMIT = 1 << 16 };

static PyObject *to_call(const pk_syscall *call)
{
    const int64_t *given = call->arguments;
    return Py_BuildValue("(L(LLLLLL)LL)", (long long)call->number, (long long)given[0],
                         (long long)given[1], (long long)given[2], (long long)given[3],
                         (long long)given[4], (long long)given[5],
                         (long long)call->stack_pointer, (long long)call->program_counter);
}

static PyObject *to_wait(const pk_wait *wait)
{
    PyObject *members = PyTuple_New(wait->member_count);
    for (int i = 0; members != NULL && i < wait->member_count; i++) {
        const pk_wait_member *member = &wait->members[i];
        PyObject *one = Py_BuildValue("(LLL)", (long long)member->fd, (long long)member->events,
                                      (long long)member->inode);
        if (one == NULL || PyTuple_SetItem(members, i, one) != 0) {
            Py_CLEAR(members);
        }
    }
    if (members == NULL) {
        return NULL;
    }
    return Py_BuildValue("(LLN)", (long long)wait->fd_inode, (long long)wait->futex_owner,
                         members);
}

static PyObject *to_thread(const pk_dump_row *row)
{
    PyObject *call = to_call(&row->call);
    PyObject *wait = call == NULL ? NULL : to_wait(&row->wait);
    if (wait == NULL) {
        Py_XDECREF(call);
        return NULL;
    }
    const char *name = row->stat.name;
    return Py_BuildValue("(iy#LNNiiiiiii)", (int)row->tid, name,
                         (Py_ssize_t)strnlen(name, PK_NAME_BYTES),
                         (long long)row->stat.state_letter, call, wait, (int)row->stack,
                         (int)row->end, row->stack_error, (int)row->python_stack,
                         row->frames_error, (int)row->is_exact, (int)row->is_still);
}

static PyObject *list_threads(const pk_dump *dump)
{
    PyObject *list = PyList_New((Py_ssize_t)dump->row_count);
    for (size_t i = 0; list != NULL && i < dump->row_count; i++) {
        PyObject *thread = to_thread(&dump->rows[i]);
        if (thread == NULL || PyList_SetItem(list, (Py_ssize_t)i, thread) != 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *to_dump(const pk_dump *dump)
{
    uint32_t told[4] = {0};
    PyObject *parts[5] = {
        list_threads(dump),
        pk_module_list_objects(&dump->stacks, &told[0]),
        pk_module_list_stacks(&dump->stacks, &told[1]),
        pk_module_list_names(&dump->python.names, &told[2]),
        pk_module_list_pystacks(&dump->python.stacks, &told[3]),
    };
    bool is_whole = true;
    for (int i = 0; i < 5; i++) {
        is_whole = is_whole && parts[i] != NULL;
    }
    if (!is_whole) {
        for (int i = 0; i < 5; i++) {
            Py_XDECREF(parts[i]);
        }
        return NULL;
    }
    return Py_BuildValue("(NNNNNLLL)", parts[0], parts[1], parts[2], parts[3], parts[4],
                         (long long)(dump->end_ns - dump->begin_ns),
                         (long long)dump->over_limit_count, (long long)dump->gone_count);
}

static PyObject *dump_threads(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *proc_root;
    int pid;
    unsigned long long runtime;
    PyObject *offsets;
    Py_ssize_t thread_limit;
    pk_pylayout layout;
    if (!PyArg_ParseTuple(arguments, "siKOn", &proc_root, &pid, &runtime, &offsets,
                          &thread_limit)) {
        return NULL;
    }
    bool has_python = offsets != Py_None;
    if (has_python && pk_module_to_layout(offsets, &layout) != 0) {
        return NULL;
    }
    if (pid <= 0 || thread_limit < 1 || thread_limit > THREAD_LIMIT_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "pid must be positive and thread_limit 1 to 65536");
        return NULL;
    }
    pk_dump dump;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_dump_take(&dump, proc_root, pid, runtime, has_python ? &layout : NULL,
                         (size_t)thread_limit);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *told = to_dump(&dump);
    pk_dump_deinit(&dump);
    return told;
}

static PyMethodDef functions[] = {
    {"dump_threads", dump_threads, METH_VARARGS, "One look at all threads of a process."},
    {NULL, NULL, 0, NULL},
};

int pk_module_add_dump(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
