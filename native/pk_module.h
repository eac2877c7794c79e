/* Each module_*.c adds its types and functions to the one extension module.
 * Contract: returns 0, or -1 with a Python error set. */
#ifndef PK_MODULE_H
#define PK_MODULE_H
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

int pk_module_add_threads(PyObject *module);
int pk_module_add_sockets(PyObject *module);
int pk_module_add_pystacks(PyObject *module);
int pk_module_add_profiler(PyObject *module);

#endif
