/* What the two Python faces of shared histograms, of who writes and of who reads, have in common.
 * Contract: a new reference, or NULL with a Python error set. */
#ifndef PK_MODULE_SHARED_H
#define PK_MODULE_SHARED_H
#include "pk_module_histogram.h"
#include "pk_shared.h"

/* OSError of an errno value, or ValueError of what is wrong with the file; `path` is a str. */
PyObject *pk_module_shared_fail(int error, const char *why, PyObject *path);

/* A Histogram of what is counted; the file stays mapped meanwhile. */
PyObject *pk_module_shared_snapshot(pk_module_state *state, const pk_shared *shared,
                                    PyObject *path);

/* Labels of a header as a dict. */
PyObject *pk_module_shared_labels(const perfkit_file_header *header);

#endif
