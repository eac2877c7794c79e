/* What the files of the histogram's Python face share.
 * Contract: a new reference, or NULL with a Python error set; 0, or -1 with one. */
#ifndef PK_MODULE_HISTOGRAM_H
#define PK_MODULE_HISTOGRAM_H
#include "pk_module.h"

#include "pk_fill.h"
#include "pk_histogram.h"
#include "pk_wire.h"

enum { PK_POOL_COUNT = 4 };

/* The extension's state: its types, and what all histograms of an interpreter share. Under its
 * GIL. */
typedef struct pk_module_state {
    pk_bucketing mappings[PK_SCALE_MAX + 1];
    pk_scratch *pool[PK_POOL_COUNT]; /* those not in use; NULL: none */
    PyObject *histogram_type;
    PyObject *timer_type;
    PyObject *stacktable_type;
    PyObject *stacktree_type;
} pk_module_state;

typedef struct {
    PyObject_HEAD
    pk_histogram histogram;
    pk_module_state *state; /* lives as long as the type does */
    PyObject *unit;         /* str */
    double unit_ns;         /* 0 where it is no unit of time */
} pk_histogram_object;

/* What times are counted by: a Histogram, or a SharedHistogram. The owner has the unit. */
typedef struct {
    PyObject *owner;
    PyObject *unit;
    double unit_ns; /* 0 where it is no unit of time */
    PyObject *(*record)(PyObject *owner, double value);
} pk_timed;

PyObject *pk_module_timed_start(const pk_timed *timed);
PyObject *pk_module_timed_stop(const pk_timed *timed, PyObject *start);
PyObject *pk_module_timed_timer(const pk_timed *timed, pk_module_state *state);

/* The length of a unit of time, 0 of any other. */
double pk_module_unit_ns(PyObject *unit);

/* One with what was counted elsewhere, which is taken over, also where it fails. */
PyObject *pk_module_histogram_wrap(pk_module_state *state, pk_histogram *counted, PyObject *unit);

/* An empty one of the same settings as another. */
pk_histogram_object *pk_module_histogram_like(pk_histogram_object *model);

pk_histogram_object *pk_module_histogram_copy(pk_histogram_object *self);

/* Sets the exception of an errno value of pk_histogram.h or pk_wire.h; NULL. */
PyObject *pk_module_histogram_fail(int error);

/* ValueError where units differ. */
int pk_module_histogram_check_unit(const pk_histogram_object *self, PyObject *unit);

/* Adds to self, whose scale falls to the other's where that is lower. 0 or an errno value. */
int pk_module_histogram_merge(pk_histogram_object *self, const pk_histogram *other);

/* Methods, as in _native.pyi. */
PyObject *pk_module_histogram_record_many(PyObject *self, PyObject *const *arguments,
                                          Py_ssize_t count);
PyObject *pk_module_histogram_merge_in(PyObject *self, PyObject *other);
PyObject *pk_module_histogram_add(PyObject *left, PyObject *right);
PyObject *pk_module_histogram_subtract(PyObject *left, PyObject *right);
PyObject *pk_module_histogram_iadd(PyObject *self, PyObject *other);
PyObject *pk_module_histogram_downscale(PyObject *self, PyObject *scale);
PyObject *pk_module_histogram_compare(PyObject *left, PyObject *right, int operation);
PyObject *pk_module_histogram_quantile(PyObject *self, PyObject *quantile);
PyObject *pk_module_histogram_quantiles(PyObject *self, PyObject *quantiles);
PyObject *pk_module_histogram_cdf(PyObject *self, PyObject *value);
PyObject *pk_module_histogram_positive_buckets(PyObject *self, PyObject *unused);
PyObject *pk_module_histogram_negative_buckets(PyObject *self, PyObject *unused);
PyObject *pk_module_histogram_start(PyObject *self, PyObject *unused);
PyObject *pk_module_histogram_stop(PyObject *self, PyObject *start);
PyObject *pk_module_histogram_timer(PyObject *self, PyObject *unused);
PyObject *pk_module_histogram_to_bytes(PyObject *self, PyObject *unused);
PyObject *pk_module_histogram_from_bytes(PyObject *type, PyObject *bytes);
PyObject *pk_module_histogram_merge_all(PyObject *type, PyObject *histograms);
PyObject *pk_module_histogram_repr(PyObject *self);
extern PyGetSetDef pk_module_histogram_getters[];

/* Adds the type of timers; of the state: what it shares, and what it frees. */
int pk_module_add_timer(PyObject *module);
int pk_module_state_traverse(PyObject *module, visitproc visit, void *argument);
int pk_module_state_clear(PyObject *module);
void pk_module_state_free(void *module);

#endif
