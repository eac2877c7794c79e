/* Each module_*.c adds its types and functions to the one extension module.
 * Contract: returns 0, or -1 with a Python error set. */
#ifndef PK_MODULE_H
#define PK_MODULE_H
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "pk_nativestack.h"
#include "pk_pyname.h"
#include "pk_pystack.h"
#include "pk_ring.h"

int pk_module_add_threads(PyObject *module);
int pk_module_add_sockets(PyObject *module);
int pk_module_add_pystacks(PyObject *module);
int pk_module_add_profiler(PyObject *module);
int pk_module_add_dump(PyObject *module);
int pk_module_add_processes(PyObject *module);
int pk_module_add_histogram(PyObject *module);
int pk_module_add_stacktable(PyObject *module);
int pk_module_add_shared_histogram(PyObject *module);
int pk_module_add_shared_reader(PyObject *module);

/* Sets OSError of an errno value; NULL. */
PyObject *pk_module_fail(int error);

/* A tuple of `count` byte strings, each with room for so many integers, at `ret`. */
PyObject *pk_module_make_columns(Py_ssize_t count, size_t row_count, int64_t **ret);

/* The rows that wait in a ring, as such columns. */
PyObject *pk_module_take_rows(pk_ring *ring);

/* Reads a sequence of offsets; 0, or -1 with an error where it is none. */
int pk_module_to_layout(PyObject *offsets, pk_pylayout *ret);

/* Lists of what was met since `*told`, which is moved on; NULL with an error.
 * Functions as (name, file); stacks of Python frames as tuples of functions' numbers; objects as
 * (pid, kind, path, build-id); native stacks as tuples of (object, offset, flags), or packed: one
 * row a frame in the columns stack, depth, object, offset, flags. */
PyObject *pk_module_list_names(const pk_pynames *names, uint32_t *told);
PyObject *pk_module_list_pystacks(const pk_pystacks *stacks, uint32_t *told);
PyObject *pk_module_list_objects(const pk_nativestacks *stacks, uint32_t *told);
PyObject *pk_module_list_stacks(const pk_nativestacks *stacks, uint32_t *told);
PyObject *pk_module_pack_stacks(const pk_nativestacks *stacks, uint32_t *told);

#endif
