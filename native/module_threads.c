/* Python face of the thread sampler. */
#include "pk_module_wall.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "pk_sampler.h"

enum {
    DEFAULT_INTERVAL_NS = 10 * 1000 * 1000,
    DEFAULT_ROW_LIMIT = 32768,
    DEFAULT_THREAD_LIMIT = 4096,
    LIMIT_LIMIT = 1 << 20, /* of the two above */
    DESCRIPTOR_RESERVE = 512, /* left to the rest of the process */
    STOP_TIMEOUT_NS = 300 * 1000 * 1000,
    COLUMN_LIMIT = 32,
};
static const double DEFAULT_BUDGET_RATIO = 0.02;

typedef struct {
    PyObject_HEAD
    pk_sampler *sampler;
    uint64_t told_dropped[PK_TABLE_COUNT]; /* how many drops earlier takes have told */
    uint32_t told_wall[4];                 /* what of the stacks earlier ones have told */
    int is_busy;                           /* a call that released the GIL is under way */
} sampler_object;

static const char *const TABLE_NAMES[PK_TABLE_COUNT] = {
    [PK_TABLE_RUNS] = "thread_runs",      [PK_TABLE_MEMBERS] = "poll_members",
    [PK_TABLE_TICKS] = "sampler_ticks",   [PK_TABLE_QUOTAS] = "cgroup_ticks",
    [PK_TABLE_MET] = "threads_met",       [PK_TABLE_WALL] = "wall_samples",
    [PK_TABLE_OPEN_RUNS] = "thread_runs_open",
};

static int64_t default_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < DESCRIPTOR_RESERVE) {
        return 0;
    }
    return limit.rlim_cur == RLIM_INFINITY ? 1 << 20 : (int64_t)limit.rlim_cur - DESCRIPTOR_RESERVE;
}

/* Takes the mark of the one call that may be under way; -1 with an error where it is taken. */
static int begin_call(sampler_object *self)
{
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is using this ThreadSampler");
        return -1;
    }
    self->is_busy = 1;
    return 0;
}

static int add_pids(sampler_object *self, PyObject *pids)
{
    PyObject *sequence = PySequence_List(pids);
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_Size(sequence);
    for (Py_ssize_t i = 0; i < count; i++) {
        long pid = PyLong_AsLong(PyList_GetItem(sequence, i));
        int error = 0;
        if (!PyErr_Occurred()) {
            error = pid <= 0 || pid > INT32_MAX ? EINVAL
                                                : pk_sampler_add_pid(self->sampler, (int32_t)pid);
        }
        if (error != 0) {
            pk_module_fail(error);
        }
        if (PyErr_Occurred()) {
            Py_DECREF(sequence);
            return -1;
        }
    }
    Py_DECREF(sequence);
    return 0;
}

static int check_budget(double budget_ratio)
{
    if (!(budget_ratio > 0 && budget_ratio <= 1)) {
        PyErr_SetString(PyExc_ValueError, "budget_ratio must be above 0 and at most 1");
        return -1;
    }
    return 0;
}

static int check_options(const pk_sampler_options *options)
{
    if (options->interval_ns < 1000 * 1000 || options->interval_ns > 1000LL * 1000 * 1000) {
        PyErr_SetString(PyExc_ValueError, "interval_ns must be between 1 ms and 1 s");
        return -1;
    }
    bool has_wall = options->wall_budget_ratio > 0;
    if (check_budget(options->budget_ratio) != 0 ||
        (has_wall && check_budget(options->wall_budget_ratio) != 0)) {
        return -1;
    }
    if (options->row_limit < 1 || options->row_limit > LIMIT_LIMIT ||
        options->thread_limit < 1 || options->thread_limit > LIMIT_LIMIT) {
        PyErr_SetString(PyExc_ValueError, "row_limit and thread_limit must be 1 to 1048576");
        return -1;
    }
    return 0;
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"proc_root",         "pids",         "interval_ns",
                            "budget_ratio",      "row_limit",    "thread_limit",
                            "descriptor_limit",  "wall_budget_ratio", NULL};
    PyObject *pids;
    long long interval_ns = DEFAULT_INTERVAL_NS;
    long long descriptor_limit = -1;
    pk_sampler_options options = {
        .budget_ratio = DEFAULT_BUDGET_RATIO,
        .row_limit = DEFAULT_ROW_LIMIT,
        .thread_limit = DEFAULT_THREAD_LIMIT,
    };
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "sO|$LdIILd", names, &options.proc_root,
                                     &pids, &interval_ns, &options.budget_ratio,
                                     &options.row_limit, &options.thread_limit,
                                     &descriptor_limit, &options.wall_budget_ratio)) {
        return NULL;
    }
    options.interval_ns = interval_ns;
    options.descriptor_limit = descriptor_limit < 0 ? default_descriptor_limit() : descriptor_limit;
    if (check_options(&options) != 0) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    sampler_object *self = (sampler_object *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    int error = pk_sampler_start(&options, &self->sampler);
    if (error != 0 || add_pids(self, pids) != 0) {
        if (error != 0) {
            pk_module_fail(error);
        }
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
        pk_sampler *sampler = self->sampler;
        self->sampler = NULL;
        Py_BEGIN_ALLOW_THREADS
        pk_sampler_stop(sampler, STOP_TIMEOUT_NS);
        pk_sampler_release(sampler);
        Py_END_ALLOW_THREADS
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *sampler_add_pids(PyObject *object, PyObject *pids)
{
    sampler_object *self = (sampler_object *)object;
    if (begin_call(self) != 0) {
        return NULL;
    }
    int outcome = add_pids(self, pids);
    self->is_busy = 0;
    return outcome == 0 ? Py_NewRef(Py_None) : NULL;
}

static PyObject *sampler_add_cgroup(PyObject *object, PyObject *arguments)
{
    sampler_object *self = (sampler_object *)object;
    long long cgroup_index;
    const char *path;
    int version; /* both versions are read alike: the unit is in the key's name */
    if (!PyArg_ParseTuple(arguments, "Lsi", &cgroup_index, &path, &version) ||
        begin_call(self) != 0) {
        return NULL;
    }
    int error = pk_sampler_add_cgroup(self->sampler, cgroup_index, path);
    self->is_busy = 0;
    return error == 0 ? Py_NewRef(Py_None) : pk_module_fail(error);
}

static PyObject *sampler_set_budget(PyObject *object, PyObject *ratio)
{
    sampler_object *self = (sampler_object *)object;
    double budget_ratio = PyFloat_AsDouble(ratio);
    if (PyErr_Occurred() || check_budget(budget_ratio) != 0 || begin_call(self) != 0) {
        return NULL;
    }
    pk_sampler_set_budget(self->sampler, budget_ratio);
    self->is_busy = 0;
    return Py_NewRef(Py_None);
}

/* What takes the stacks, or NULL with an error. */
static pk_wall *find_wall(sampler_object *self)
{
    pk_wall *wall = pk_sampler_wall(self->sampler);
    if (wall == NULL) {
        PyErr_SetString(PyExc_ValueError, "no wall_budget_ratio was given: no stacks are taken");
    }
    return wall;
}

static PyObject *sampler_set_wall_budget(PyObject *object, PyObject *ratio)
{
    double budget_ratio = PyFloat_AsDouble(ratio);
    pk_wall *wall = PyErr_Occurred() ? NULL : find_wall((sampler_object *)object);
    if (wall == NULL || check_budget(budget_ratio) != 0) {
        return NULL;
    }
    pk_wall_set_budget(wall, budget_ratio);
    return Py_NewRef(Py_None);
}

static PyObject *sampler_add_python(PyObject *object, PyObject *arguments)
{
    sampler_object *self = (sampler_object *)object;
    pk_wall *wall = find_wall(self);
    if (wall == NULL || begin_call(self) != 0) {
        return NULL;
    }
    int error;
    PyObject *done = pk_module_wall_add_python(wall, arguments, &error);
    self->is_busy = 0;
    if (error != 0) {
        Py_XDECREF(done);
        return pk_module_fail(error);
    }
    return done;
}

static PyObject *sampler_take_stacks(PyObject *object, PyObject *unused)
{
    (void)unused;
    sampler_object *self = (sampler_object *)object;
    const pk_wall *wall = find_wall(self);
    if (wall == NULL || begin_call(self) != 0) {
        return NULL;
    }
    PyObject *taken = pk_module_wall_take(wall, self->told_wall);
    self->is_busy = 0;
    return taken;
}

static PyObject *sampler_wall_status(PyObject *object, PyObject *unused)
{
    (void)unused;
    const pk_wall *wall = find_wall((sampler_object *)object);
    return wall == NULL ? NULL : pk_module_wall_status(wall);
}

/* Moves one table's rows into a tuple (columns, row count, dropped count). */
static PyObject *take_table(sampler_object *self, pk_table table)
{
    size_t column_count = pk_sampler_column_count(table);
    size_t row_count = pk_sampler_row_count(self->sampler, table);
    int64_t *columns[COLUMN_LIMIT];
    PyObject *packed = pk_module_make_columns((Py_ssize_t)column_count, row_count, columns);
    if (packed == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    pk_sampler_take(self->sampler, table, row_count, columns);
    Py_END_ALLOW_THREADS
    uint64_t dropped = pk_sampler_dropped_count(self->sampler, table);
    unsigned long long new_dropped = dropped - self->told_dropped[table];
    self->told_dropped[table] = dropped;
    return Py_BuildValue("(NnK)", packed, (Py_ssize_t)row_count, new_dropped);
}

static PyObject *sampler_take(PyObject *object, PyObject *unused)
{
    (void)unused;
    sampler_object *self = (sampler_object *)object;
    if (begin_call(self) != 0) {
        return NULL;
    }
    PyObject *tables = PyDict_New();
    for (int i = 0; tables != NULL && i < PK_TABLE_COUNT; i++) {
        PyObject *taken = take_table(self, (pk_table)i);
        if (taken == NULL || PyDict_SetItemString(tables, TABLE_NAMES[i], taken) != 0) {
            Py_CLEAR(tables);
        }
        Py_XDECREF(taken);
    }
    self->is_busy = 0;
    return tables;
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
    error = pk_sampler_stop(self->sampler, timeout_ns);
    Py_END_ALLOW_THREADS
    self->is_busy = 0;
    return PyBool_FromLong(error == 0);
}

static PyObject *sampler_status(PyObject *object, PyObject *unused)
{
    (void)unused;
    pk_sampler_status status;
    pk_sampler_get_status(((sampler_object *)object)->sampler, &status);
    return Py_BuildValue(
        "{s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:i,s:i}", "started_ns",
        (long long)status.started_ns, "last_tick_ns", (long long)status.last_tick_ns, "tick_count",
        (long long)status.tick_count, "missed_count", (long long)status.missed_count,
        "interval_ns", (long long)status.interval_ns, "spent_ns", (long long)status.spent_ns,
        "thread_count", (long long)status.thread_count, "descriptor_count",
        (long long)status.descriptor_count, "refused_count", (long long)status.refused_count,
        "over_limit_count", (long long)status.over_limit_count, "put_off_count",
        (long long)status.put_off_count, "has_ended", (int)status.has_ended, "is_abandoned",
        (int)status.is_abandoned);
}

static PyMethodDef sampler_methods[] = {
    {"add_pids", sampler_add_pids, METH_O, "Begins to follow more processes."},
    {"add_cgroup", sampler_add_cgroup, METH_VARARGS, "Begins to read a cpu.stat file."},
    {"set_budget", sampler_set_budget, METH_O, "Changes what it may cost, of a core."},
    {"add_python", sampler_add_python, METH_VARARGS, "Has Python frames of a process read."},
    {"set_wall_budget", sampler_set_wall_budget, METH_O, "Changes what stacks may cost."},
    {"take_stacks", sampler_take_stacks, METH_NOARGS, "Takes what wall_samples refer to."},
    {"wall_status", sampler_wall_status, METH_NOARGS, "Tells cost and counts of stacks."},
    {"take", sampler_take, METH_NOARGS, "Takes the rows that have been closed."},
    {"stop", sampler_stop, METH_VARARGS, "Ends the sampler; False: it was abandoned."},
    {"status", sampler_status, METH_NOARGS, "Tells ticks, cost and counts so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_new, (void *)sampler_new},
    {Py_tp_dealloc, (void *)sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {Py_tp_doc, (void *)"Samples the threads of processes; see perfkit/_native.pyi."},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "perfkit._native.ThreadSampler",
    .basicsize = sizeof(sampler_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};

int pk_module_add_threads(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &sampler_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int outcome = PyModule_AddObjectRef(module, "ThreadSampler", type);
    Py_DECREF(type);
    return outcome;
}
