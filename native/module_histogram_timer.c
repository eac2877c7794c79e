/* Python face of the histogram: time, and the state that the extension's parts share. */
#include "pk_module_histogram.h"

#include <time.h>

typedef struct {
    PyObject_HEAD
    pk_timed timed;   /* with a reference to its owner */
    int64_t start_ns; /* NOT_STARTED outside of its with block */
} timer_object;

enum { NS_PER_S = 1000 * 1000 * 1000 };
static const int64_t NOT_STARTED = -1;

static int64_t read_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Whether its unit is one of time. */
static int check_time(const pk_timed *timed)
{
    if (timed->unit_ns > 0) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "time is counted in the units 'ns', 'us', 'ms' and 's', not %R",
                 timed->unit);
    return -1;
}

static PyObject *record_since(const pk_timed *timed, int64_t start_ns)
{
    int64_t elapsed_ns = read_clock_ns() - start_ns;
    if (elapsed_ns < 0) {
        PyErr_SetString(PyExc_ValueError, "that start lies in the future");
        return NULL;
    }
    return timed->record(timed->owner, (double)elapsed_ns / timed->unit_ns);
}

PyObject *pk_module_timed_start(const pk_timed *timed)
{
    return check_time(timed) != 0 ? NULL : PyLong_FromLongLong(read_clock_ns());
}

PyObject *pk_module_timed_stop(const pk_timed *timed, PyObject *start)
{
    if (check_time(timed) != 0) {
        return NULL;
    }
    long long start_ns = PyLong_AsLongLong(start);
    if (start_ns == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (start_ns < 0) {
        PyErr_SetString(PyExc_ValueError, "that is no start");
        return NULL;
    }
    return record_since(timed, start_ns);
}

PyObject *pk_module_timed_timer(const pk_timed *timed, pk_module_state *state)
{
    PyTypeObject *type = (PyTypeObject *)state->timer_type;
    if (check_time(timed) != 0) {
        return NULL;
    }
    if (type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "perfkit._native is being unloaded");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    timer_object *timer = (timer_object *)allocate(type, 0);
    if (timer != NULL) {
        timer->timed = *timed;
        Py_INCREF(timed->owner);
        timer->start_ns = NOT_STARTED;
    }
    return (PyObject *)timer;
}

static PyObject *record_time(PyObject *owner, double value)
{
    int error = pk_histogram_record(&((pk_histogram_object *)owner)->histogram, value);
    return error == 0 ? Py_NewRef(Py_None) : pk_module_histogram_fail(error);
}

static pk_timed timed_of(PyObject *object)
{
    const pk_histogram_object *self = (const pk_histogram_object *)object;
    return (pk_timed){object, self->unit, self->unit_ns, record_time};
}

PyObject *pk_module_histogram_start(PyObject *self, PyObject *unused)
{
    (void)unused;
    pk_timed timed = timed_of(self);
    return pk_module_timed_start(&timed);
}

PyObject *pk_module_histogram_stop(PyObject *self, PyObject *start)
{
    pk_timed timed = timed_of(self);
    return pk_module_timed_stop(&timed, start);
}

PyObject *pk_module_histogram_timer(PyObject *self, PyObject *unused)
{
    (void)unused;
    pk_timed timed = timed_of(self);
    return pk_module_timed_timer(&timed, ((pk_histogram_object *)self)->state);
}

static void timer_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((timer_object *)object)->timed.owner);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *timer_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    timer_object *self = (timer_object *)object;
    if (self->start_ns != NOT_STARTED) {
        PyErr_SetString(PyExc_RuntimeError, "this timer runs; each with block needs its own");
        return NULL;
    }
    self->start_ns = read_clock_ns();
    return Py_NewRef(object);
}

static PyObject *timer_exit(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    (void)arguments;
    (void)count;
    timer_object *self = (timer_object *)object;
    if (self->start_ns == NOT_STARTED) {
        PyErr_SetString(PyExc_RuntimeError, "this timer does not run");
        return NULL;
    }
    int64_t start_ns = self->start_ns;
    self->start_ns = NOT_STARTED;
    return record_since(&self->timed, start_ns);
}

static PyMethodDef timer_methods[] = {
    {"__enter__", timer_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))timer_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_dealloc, (void *)timer_dealloc},
    {Py_tp_methods, timer_methods},
    {Py_tp_doc, "Counts the time of a with block; made by Histogram.timer()."},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "perfkit._native.HistogramTimer",
    .basicsize = sizeof(timer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

int pk_module_add_timer(PyObject *module)
{
    pk_module_state *state = PyModule_GetState(module);
    state->timer_type = PyType_FromModuleAndSpec(module, &timer_spec, NULL);
    if (state->timer_type == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "HistogramTimer", state->timer_type);
}

int pk_module_state_traverse(PyObject *module, visitproc visit, void *arg)
{
    pk_module_state *state = PyModule_GetState(module);
    Py_VISIT(state->histogram_type);
    Py_VISIT(state->timer_type);
    Py_VISIT(state->stacktable_type);
    Py_VISIT(state->stacktree_type);
    return 0;
}

int pk_module_state_clear(PyObject *module)
{
    pk_module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->histogram_type);
    Py_CLEAR(state->timer_type);
    Py_CLEAR(state->stacktable_type);
    Py_CLEAR(state->stacktree_type);
    return 0;
}

void pk_module_state_free(void *module)
{
    pk_module_state *state = PyModule_GetState(module);
    pk_module_state_clear(module);
    for (int i = 0; i < PK_POOL_COUNT; i++) {
        pk_scratch_free(state->pool[i]);
    }
}
