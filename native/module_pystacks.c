/* Python face of the sampler of Python stacks. */
#include "pk_module.h"


#include "pk_pysampler.h"

enum {
    DEFAULT_INTERVAL_NS = 20 * 1000 * 1000,
    DEFAULT_ROW_LIMIT = 16384,
    ROW_LIMIT_LIMIT = 1 << 20,
    STOP_TIMEOUT_NS = 300 * 1000 * 1000,
};
static const double DEFAULT_BUDGET_RATIO = 0.005;

typedef struct {
    PyObject_HEAD
    pk_pysampler *sampler;
    uint32_t told_names;
    uint32_t told_stacks;
    uint64_t told_dropped;
    int is_busy; /* a call that released the GIL is under way */
} sampler_object;

static int begin_call(sampler_object *self)
{
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this PythonSampler");
        return -1;
    }
    self->is_busy = 1;
    return 0;
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"proc_root", "interval_ns", "budget_ratio", "row_limit", NULL};
    long long interval_ns = DEFAULT_INTERVAL_NS;
    Py_ssize_t row_limit = DEFAULT_ROW_LIMIT;
    pk_pysampler_options options = {.budget_ratio = DEFAULT_BUDGET_RATIO};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "s|$Ldn", names, &options.proc_root,
                                     &interval_ns, &options.budget_ratio, &row_limit)) {
        return NULL;
    }
    if (interval_ns < 1000 * 1000 || interval_ns > 1000LL * 1000 * 1000 ||
        !(options.budget_ratio > 0 && options.budget_ratio <= 1) || row_limit < 1 ||
        row_limit > ROW_LIMIT_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "interval_ns must be 1 ms to 1 s, budget_ratio above 0 "
                                          "and at most 1, row_limit 1 to 1048576");
        return NULL;
    }
    options.interval_ns = interval_ns;
    options.row_limit = (size_t)row_limit;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    sampler_object *self = (sampler_object *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    int error = pk_pysampler_start(&options, &self->sampler);
    if (error != 0) {
        pk_module_fail(error);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *object)
{
    sampler_object *self = (sampler_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->sampler != NULL) {
        pk_pysampler *sampler = self->sampler;
        self->sampler = NULL;
        Py_BEGIN_ALLOW_THREADS
        pk_pysampler_stop(sampler, STOP_TIMEOUT_NS);
        pk_pysampler_release(sampler);
        Py_END_ALLOW_THREADS
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *sampler_add(PyObject *object, PyObject *arguments)
{
    sampler_object *self = (sampler_object *)object;
    int pid;
    unsigned long long runtime;
    PyObject *offsets;
    pk_pylayout layout;
    if (!PyArg_ParseTuple(arguments, "iKO", &pid, &runtime, &offsets) ||
        pk_module_to_layout(offsets, &layout) != 0) {
        return NULL;
    }
    if (pid <= 0) {
        PyErr_SetString(PyExc_ValueError, "pid must be positive");
        return NULL;
    }
    if (begin_call(self) != 0) {
        return NULL;
    }
    int error = pk_pysampler_add(self->sampler, pid, runtime, &layout);
    self->is_busy = 0;
    return error == 0 ? Py_NewRef(Py_None) : pk_module_fail(error);
}

static PyObject *sampler_set_budget(PyObject *object, PyObject *ratio)
{
    sampler_object *self = (sampler_object *)object;
    double budget_ratio = PyFloat_AsDouble(ratio);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!(budget_ratio > 0 && budget_ratio <= 1)) {
        PyErr_SetString(PyExc_ValueError, "budget_ratio must be above 0 and at most 1");
        return NULL;
    }
    pk_pysampler_set_budget(self->sampler, budget_ratio);
    return Py_NewRef(Py_None);
}

static PyObject *sampler_take(PyObject *object, PyObject *unused)
{
    (void)unused;
    sampler_object *self = (sampler_object *)object;
    pk_pyshared *shared = pk_pysampler_shared(self->sampler);
    if (begin_call(self) != 0) {
        return NULL;
    }
    /* Rows first: what they refer to was there before them. */
    PyObject *rows = pk_module_take_rows(&shared->rows);
    PyObject *stacks =
        rows == NULL ? NULL : pk_module_list_pystacks(&shared->stacks, &self->told_stacks);
    PyObject *names =
        stacks == NULL ? NULL : pk_module_list_names(&shared->names, &self->told_names);
    self->is_busy = 0;
    if (names == NULL) {
        Py_XDECREF(rows);
        Py_XDECREF(stacks);
        return NULL;
    }
    uint64_t dropped = atomic_load_explicit(&shared->rows.dropped_count, memory_order_relaxed);
    unsigned long long new_dropped = dropped - self->told_dropped;
    self->told_dropped = dropped;
    return Py_BuildValue("(NNNK)", rows, names, stacks, new_dropped);
}

static PyObject *sampler_stop(PyObject *object, PyObject *arguments)
{
    sampler_object *self = (sampler_object *)object;
    long long timeout_ns = STOP_TIMEOUT_NS;
    if (!PyArg_ParseTuple(arguments, "|L", &timeout_ns) || begin_call(self) != 0) {
        return NULL;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_pysampler_stop(self->sampler, timeout_ns);
    Py_END_ALLOW_THREADS
    self->is_busy = 0;
    return PyBool_FromLong(error == 0);
}

static PyObject *sampler_status(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_pysampler_status status;
    pk_pysampler_get_status(((sampler_object *)object)->sampler, &status);
    const pk_pycounts *counts = &status.counts;
    return Py_BuildValue(
        "{s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:i}", "started_ns",
        (long long)status.started_ns, "last_tick_ns", (long long)status.last_tick_ns, "tick_count",
        (long long)status.tick_count, "missed_count", (long long)status.missed_count, "spent_ns",
        (long long)status.spent_ns, "interval_ns", (long long)status.interval_ns, "process_count",
        (long long)status.process_count,
        "thread_count", (long long)status.thread_count, "walk_count",
        (long long)counts->walk_count, "torn_count", (long long)counts->torn_count, "cut_count",
        (long long)counts->cut_count, "full_count", (long long)counts->full_count, "unknown_count",
        (long long)counts->unknown_count, "refused_count", (long long)counts->refused_count,
        "over_limit_count", (long long)counts->over_limit_count, "is_abandoned",
        (int)status.is_abandoned);
}

static PyMethodDef sampler_methods[] = {
    {"add", sampler_add, METH_VARARGS, "Begins to look at one more process."},
    {"set_budget", sampler_set_budget, METH_O, "Changes what it may cost, of a core."},
    {"take", sampler_take, METH_NOARGS, "Takes rows, functions and stacks that are new."},
    {"stop", sampler_stop, METH_VARARGS, "Ends the sampler; False: it was abandoned."},
    {"status", sampler_status, METH_NOARGS, "Tells ticks, cost and counts so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_new, (void *)sampler_new},
    {Py_tp_dealloc, (void *)sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {Py_tp_doc, (void *)"Samples the stacks of Python threads; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "perfkit._native.PythonSampler",
    .basicsize = sizeof(sampler_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};

int pk_module_add_pystacks(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &sampler_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int outcome = PyModule_AddObjectRef(module, "PythonSampler", type);
    Py_DECREF(type);
    return outcome;
}
