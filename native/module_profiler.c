/* Python face of the sampler of native stacks. */
#include "pk_module.h"


#include "pk_profiler.h"

enum {
    DEFAULT_INTERVAL_NS = 1000 * 1000 * 1000 / 49,
    DEFAULT_STACK_BYTES = 16384,
    DEFAULT_ROW_LIMIT = 16384,
    ROW_LIMIT_LIMIT = 1 << 20,
    THREAD_LIMIT = 4096,
    STOP_TIMEOUT_NS = 300 * 1000 * 1000,
};
static const double DEFAULT_BUDGET_RATIO = 0.0025;

typedef struct {
    PyObject_HEAD
    pk_profiler *profiler;
    uint32_t told_stacks;
    uint32_t told_objects;
    uint64_t told_dropped;
    int is_busy; /* a call that released the GIL is under way */
} sampler_object;

static int begin_call(sampler_object *self)
{
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this NativeSampler");
        return -1;
    }
    self->is_busy = 1;
    return 0;
}

/* Numbers of processes or threads, at most `limit`; -1 with an error set. */
static Py_ssize_t to_pids(PyObject *numbers, pid_t *ret, Py_ssize_t limit)
{
    PyObject *list = PySequence_List(numbers);
    if (list == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_Size(list);
    count = count < limit ? count : limit;
    for (Py_ssize_t i = 0; i < count; i++) {
        long value = PyLong_AsLong(PyList_GetItem(list, i));
        if (value <= 0 || value > INT32_MAX) {
            count = -1;
            if (!PyErr_Occurred()) {
                PyErr_SetString(PyExc_ValueError, "processes and threads have positive numbers");
            }
            break;
        }
        ret[i] = (pid_t)value;
    }
    Py_DECREF(list);
    return count;
}

static int check_options(const pk_profiler_options *options)
{
    if (options->interval_ns < 100 * 1000 || options->interval_ns > 1000LL * 1000 * 1000 ||
        !(options->budget_ratio > 0 && options->budget_ratio <= 1) ||
        options->stack_bytes % 8 != 0 || options->stack_bytes < 8 ||
        options->stack_bytes > PK_PERF_STACK_BYTES_MAX || options->row_limit < 1 ||
        options->row_limit > ROW_LIMIT_LIMIT) {
        PyErr_SetString(PyExc_ValueError,
                        "interval_ns must be 0.1 ms to 1 s, budget_ratio above 0 and at most 1, "
                        "stack_bytes 8 to 65528 and a multiple of 8, row_limit 1 to 1048576");
        return -1;
    }
    return 0;
}

static int parse_options(PyObject *arguments, PyObject *keywords, pid_t *threads,
                         pk_profiler_options *ret)
{
    static char *names[] = {"proc_root",   "interval_ns",  "budget_ratio", "stack_bytes",
                            "row_limit",   "is_host_wide", "has_kernel",   "has_switches",
                            "threads",     NULL};
    long long interval_ns = DEFAULT_INTERVAL_NS;
    unsigned stack_bytes = DEFAULT_STACK_BYTES;
    Py_ssize_t row_limit = DEFAULT_ROW_LIMIT;
    int is_host_wide = 1;
    int has_kernel = 1;
    int has_switches = 0;
    PyObject *given = NULL;
    *ret = (pk_profiler_options){.budget_ratio = DEFAULT_BUDGET_RATIO, .threads = threads};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "s|$LdInpppO", names, &ret->proc_root,
                                     &interval_ns, &ret->budget_ratio, &stack_bytes, &row_limit,
                                     &is_host_wide, &has_kernel, &has_switches, &given)) {
        return -1;
    }
    Py_ssize_t count = given == NULL ? 0 : to_pids(given, threads, THREAD_LIMIT);
    if (count < 0) {
        return -1;
    }
    ret->interval_ns = interval_ns;
    ret->stack_bytes = stack_bytes;
    ret->row_limit = row_limit < 0 ? 0 : (size_t)row_limit;
    ret->is_host_wide = is_host_wide != 0;
    ret->has_kernel = has_kernel != 0;
    ret->has_switches = has_switches != 0;
    ret->thread_count = (size_t)count;
    return check_options(ret);
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    pid_t threads[THREAD_LIMIT];
    pk_profiler_options options;
    if (parse_options(arguments, keywords, threads, &options) != 0) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    sampler_object *self = (sampler_object *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_profiler_start(&options, &self->profiler);
    Py_END_ALLOW_THREADS
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
    if (self->profiler != NULL) {
        pk_profiler *profiler = self->profiler;
        self->profiler = NULL;
        Py_BEGIN_ALLOW_THREADS
        pk_profiler_stop(profiler, STOP_TIMEOUT_NS);
        pk_profiler_release(profiler);
        Py_END_ALLOW_THREADS
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *sampler_set_wanted(PyObject *object, PyObject *numbers)
{
    pid_t pids[PK_PROCTABLE_WANTED_LIMIT];
    int is_all = numbers == Py_None;
    Py_ssize_t count = is_all ? 0 : to_pids(numbers, pids, PK_PROCTABLE_WANTED_LIMIT);
    if (count < 0) {
        return NULL;
    }
    pk_wanted *wanted = pk_wanted_new(pids, (size_t)count, is_all);
    if (wanted == NULL) {
        return PyErr_NoMemory();
    }
    pk_profiler_set_wanted(((sampler_object *)object)->profiler, wanted);
    return Py_NewRef(Py_None);
}

static PyObject *sampler_set_budget(PyObject *object, PyObject *ratio)
{
    double budget_ratio = PyFloat_AsDouble(ratio);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!(budget_ratio > 0 && budget_ratio <= 1)) {
        PyErr_SetString(PyExc_ValueError, "budget_ratio must be above 0 and at most 1");
        return NULL;
    }
    pk_profiler_set_budget(((sampler_object *)object)->profiler, budget_ratio);
    return Py_NewRef(Py_None);
}

static PyObject *sampler_take(PyObject *object, PyObject *unused)
{
    (void)unused;
    sampler_object *self = (sampler_object *)object;
    if (begin_call(self) != 0) {
        return NULL;
    }
    pk_ring *ring = pk_profiler_rows(self->profiler);
    const pk_nativestacks *stacks = pk_profiler_stacks(self->profiler);
    /* Rows first: what they refer to was there before them. */
    PyObject *rows = pk_module_take_rows(ring);
    PyObject *frames = rows == NULL ? NULL : pk_module_pack_stacks(stacks, &self->told_stacks);
    PyObject *objects = frames == NULL ? NULL : pk_module_list_objects(stacks, &self->told_objects);
    self->is_busy = 0;
    if (objects == NULL) {
        Py_XDECREF(rows);
        Py_XDECREF(frames);
        return NULL;
    }
    uint64_t dropped = atomic_load_explicit(&ring->dropped_count, memory_order_relaxed);
    unsigned long long new_dropped = dropped - self->told_dropped;
    self->told_dropped = dropped;
    return Py_BuildValue("(NNNK)", rows, frames, objects, new_dropped);
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
    error = pk_profiler_stop(self->profiler, timeout_ns);
    Py_END_ALLOW_THREADS
    self->is_busy = 0;
    return PyBool_FromLong(error == 0);
}

/* Adds a number under a name; false with an error set. */
static int put(PyObject *dictionary, const char *name, int64_t value)
{
    PyObject *number = PyLong_FromLongLong(value);
    int outcome = number == NULL ? -1 : PyDict_SetItemString(dictionary, name, number);
    Py_XDECREF(number);
    return outcome == 0;
}

static PyObject *sampler_status(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_profiler_status status;
    pk_profiler_get_status(((sampler_object *)object)->profiler, &status);
    const pk_profile_counts *counts = &status.counts;
    PyObject *told = PyDict_New();
    if (told != NULL && put(told, "started_ns", status.started_ns) &&
        put(told, "last_tick_ns", status.last_tick_ns) && put(told, "spent_ns", status.spent_ns) &&
        put(told, "interval_ns", status.interval_ns) &&
        put(told, "slot_count", status.slot_count) && put(told, "cpu_count", status.cpu_count) &&
        put(told, "unseen_thread_count", status.unseen_thread_count) &&
        put(told, "lost_count", status.lost_count) &&
        put(told, "damaged_count", status.damaged_count) &&
        put(told, "disordered_count", status.disordered_count) &&
        put(told, "process_count", status.process_count) &&
        put(told, "map_read_count", status.map_read_count) &&
        put(told, "refused_count", status.refused_count) &&
        put(told, "evicted_count", status.evicted_count) &&
        put(told, "dropped_mapping_count", status.dropped_mapping_count) &&
        put(told, "is_stepped_down", status.is_stepped_down) &&
        put(told, "is_abandoned", status.is_abandoned) &&
        put(told, "sample_count", counts->sample_count) &&
        put(told, "other_count", counts->other_count) &&
        put(told, "kernel_count", counts->kernel_count) &&
        put(told, "root_count", counts->root_count) &&
        put(told, "truncated_count", counts->truncated_count) &&
        put(told, "stray_count", counts->stray_count) &&
        put(told, "deep_count", counts->deep_count) &&
        put(told, "late_count", counts->late_count) &&
        put(told, "unmapped_count", counts->unmapped_count) &&
        put(told, "full_count", counts->full_count) &&
        put(told, "switch_count", counts->switch_count)) {
        return told;
    }
    Py_XDECREF(told);
    return NULL;
}

static PyMethodDef sampler_methods[] = {
    {"set_wanted", sampler_set_wanted, METH_O, "Tells whose stacks are wanted; None: all."},
    {"set_budget", sampler_set_budget, METH_O, "Changes what it may cost, of a core."},
    {"take", sampler_take, METH_NOARGS, "Takes samples, stacks and objects that are new."},
    {"stop", sampler_stop, METH_VARARGS, "Ends the sampler; False: it was abandoned."},
    {"status", sampler_status, METH_NOARGS, "Tells samples, cost and counts so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_new, (void *)sampler_new},
    {Py_tp_dealloc, (void *)sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {Py_tp_doc, (void *)"Samples native stacks; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "perfkit._native.NativeSampler",
    .basicsize = sizeof(sampler_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};

int pk_module_add_profiler(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &sampler_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int outcome = PyModule_AddObjectRef(module, "NativeSampler", type);
    Py_DECREF(type);
    return outcome;
}
