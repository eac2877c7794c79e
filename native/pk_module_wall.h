/* The part of the thread sampler's Python face that is about stacks.
 * Contract: a new reference, or NULL with a Python error set. */
#ifndef PK_MODULE_WALL_H
#define PK_MODULE_WALL_H
#include "pk_module.h"
#include "pk_wall.h"

/* *ret_error: an errno value, and no error is set. */
PyObject *pk_module_wall_add_python(pk_wall *wall, PyObject *arguments, int *ret_error);
PyObject *pk_module_wall_take(const pk_wall *wall, uint32_t told[4]);
PyObject *pk_module_wall_status(const pk_wall *wall);

#endif
