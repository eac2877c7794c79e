/* Python face of the sockets sampler: the type perfkit._native.SocketSampler, and, for tests,
 * parse_sock_diag. */
#include "pk_module.h"

#include "pk_socket_address.h"
#include "pk_socket_sampler.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const int64_t STOP_WAIT_NS = 300000000;

struct sampler_object {
    PyObject_HEAD
    struct pk_socket_sampler *sampler;
    int is_busy; /* one caller at a time, also while the GIL is released */
};

static int begin(struct sampler_object *self)
{
    if (self->sampler == NULL) {
        PyErr_SetString(PyExc_ValueError, "the sampler was not started");
        return -1;
    }
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this sampler");
        return -1;
    }
    self->is_busy = 1;
    return 0;
}

static PyObject *raise_start_error(int error, enum pk_socket_stage stage)
{
    static const char *const STAGES[] = {"", "thread", "open_namespace", "enter_namespace",
                                         "query"};
    errno = error;
    PyObject *arguments = Py_BuildValue("(iss)", error, strerror(error), STAGES[stage]);
    if (arguments != NULL) {
        PyErr_SetObject(PyExc_OSError, arguments); /* OSError(errno, text, filename=stage) */
        Py_DECREF(arguments);
    }
    return NULL;
}

static int check_limits(const struct pk_socket_config *config)
{
    const int is_valid = config->poll_interval_ns >= 1000000 && config->dump_interval_ns > 0 &&
                         config->accept_interval_ns > 0 && config->budget_ratio > 0.0 &&
                         config->get_limit > 0 && config->socket_limit > 0 &&
                         config->socket_limit <= 1 << 20 && config->inode_limit > 0 &&
                         config->inode_limit <= 1 << 24 && config->row_limit > 0 &&
                         config->row_limit <= 1 << 20 &&
                         config->shared_port_count <= PK_SOCKET_LISTENER_LIMIT;
    if (!is_valid) {
        PyErr_SetString(PyExc_ValueError, "a limit or an interval is out of range");
    }
    return is_valid ? 0 : -1;
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"netns_path",   "poll_interval_ns", "dump_interval_ns",
                            "accept_interval_ns", "budget_ratio", "get_limit",
                            "socket_limit", "inode_limit",      "row_limit",
                            "shared_ports", NULL};
    struct pk_socket_config config = {
        .poll_interval_ns = 50000000,
        .dump_interval_ns = 1000000000,
        .accept_interval_ns = 250000000,
        .budget_ratio = 0.007,
        .get_limit = 200,
        .socket_limit = 16384,
        .inode_limit = 65536,
        .row_limit = 32768,
    };
    long long poll_ns = config.poll_interval_ns;
    long long dump_ns = config.dump_interval_ns;
    long long accept_ns = config.accept_interval_ns;
    const char *shared_ports = ""; /* packed uint16_t */
    Py_ssize_t shared_bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "z|$LLLdIIIIy#", names, &config.namespace_path,
                                     &poll_ns, &dump_ns, &accept_ns, &config.budget_ratio,
                                     &config.get_limit, &config.socket_limit, &config.inode_limit,
                                     &config.row_limit, &shared_ports, &shared_bytes)) {
        return NULL;
    }
    config.shared_port_count = (size_t)shared_bytes / sizeof *config.shared_ports;
    config.poll_interval_ns = poll_ns;
    config.dump_interval_ns = dump_ns;
    config.accept_interval_ns = accept_ns;
    if (check_limits(&config) != 0) {
        return NULL;
    }
    memcpy(config.shared_ports, shared_ports, config.shared_port_count * sizeof(uint16_t));
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct sampler_object *self = (struct sampler_object *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    enum pk_socket_stage stage = PK_SOCKET_STAGE_NONE;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_socket_sampler_create(&config, &self->sampler, &stage);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        Py_DECREF(self);
        return raise_start_error(error, stage);
    }
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *object)
{
    struct sampler_object *self = (struct sampler_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->sampler != NULL) {
        Py_BEGIN_ALLOW_THREADS
        pk_socket_sampler_destroy(self->sampler);
        Py_END_ALLOW_THREADS
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *sampler_set_inodes(PyObject *object, PyObject *argument)
{
    struct sampler_object *self = (struct sampler_object *)object;
    Py_buffer view;
    if (PyObject_GetBuffer(argument, &view, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    if (view.len % (Py_ssize_t)sizeof(int64_t) != 0) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "inodes are packed 64-bit integers");
        return NULL;
    }
    if (begin(self) != 0) {
        PyBuffer_Release(&view);
        return NULL;
    }
    pk_socket_sampler_set_inodes(self->sampler, view.buf, (size_t)view.len / sizeof(int64_t));
    self->is_busy = 0;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *sampler_set_budget(PyObject *object, PyObject *argument)
{
    struct sampler_object *self = (struct sampler_object *)object;
    const double budget_ratio = PyFloat_AsDouble(argument);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (!(budget_ratio > 0 && budget_ratio <= 1)) {
        PyErr_SetString(PyExc_ValueError, "budget_ratio must be above 0 and at most 1");
        return NULL;
    }
    if (begin(self) != 0) {
        return NULL;
    }
    pk_socket_sampler_set_budget(self->sampler, budget_ratio);
    self->is_busy = 0;
    Py_RETURN_NONE;
}

/* (columns, row count, dropped count) of the columns from first on. */
static PyObject *pack_rows(const struct pk_socket_rows *rows, const size_t *columns, size_t count)
{
    PyObject *packed = PyTuple_New((Py_ssize_t)count);
    for (size_t index = 0; packed != NULL && index < count; index++) {
        const size_t column = columns == NULL ? index : columns[index];
        PyObject *bytes =
            PyBytes_FromStringAndSize((const char *)pk_socket_rows_column(rows, column),
                                      (Py_ssize_t)(rows->row_count * sizeof(int64_t)));
        if (bytes == NULL || PyTuple_SetItem(packed, (Py_ssize_t)index, bytes) != 0) {
            Py_DECREF(packed);
            return NULL;
        }
    }
    return packed == NULL ? NULL
                          : Py_BuildValue("(NnL)", packed, (Py_ssize_t)rows->row_count,
                                          (long long)rows->dropped_count);
}

/* The addresses of identity rows, as a list of texts. */
static PyObject *pack_addresses(const struct pk_socket_rows *rows, size_t high_column)
{
    const int64_t *high = pk_socket_rows_column(rows, high_column);
    const int64_t *low = pk_socket_rows_column(rows, high_column + 1);
    const int64_t *port = pk_socket_rows_column(rows, high_column + 2);
    PyObject *texts = PyList_New((Py_ssize_t)rows->row_count);
    for (size_t row = 0; texts != NULL && row < rows->row_count; row++) {
        char text[PK_SOCKET_ADDRESS_BYTES];
        pk_socket_address_write(high[row], low[row], port[row], text);
        PyObject *item = PyUnicode_FromString(text);
        if (item == NULL || PyList_SetItem(texts, (Py_ssize_t)row, item) != 0) {
            Py_DECREF(texts);
            return NULL;
        }
    }
    return texts;
}

static PyObject *pack_named(const struct pk_socket_rows *rows, const size_t *columns, size_t count)
{
    PyObject *packed = pack_rows(rows, columns, count);
    PyObject *local = packed == NULL ? NULL : pack_addresses(rows, PK_IDENTITY_LOCAL_HIGH);
    PyObject *peer = local == NULL ? NULL : pack_addresses(rows, PK_IDENTITY_PEER_HIGH);
    if (peer == NULL) {
        Py_XDECREF(packed);
        Py_XDECREF(local);
        return NULL;
    }
    return Py_BuildValue("(NNN)", packed, local, peer);
}

static PyObject *pack_batch(const struct pk_socket_batch *batch)
{
    static const size_t IDENTITY[] = {PK_IDENTITY_INDEX, PK_IDENTITY_INODE,
                                      PK_IDENTITY_FIRST_SEEN_NS, PK_IDENTITY_ROLE,
                                      PK_IDENTITY_FAMILY};
    enum { FIXED = 5, COUNTERS = PK_CLOSED_COLUMN_COUNT - PK_CLOSED_COUNTERS };
    size_t closed_columns[FIXED + COUNTERS];
    memcpy(closed_columns, IDENTITY, sizeof IDENTITY);
    for (size_t index = 0; index < COUNTERS; index++) {
        closed_columns[FIXED + index] = PK_CLOSED_COUNTERS + index;
    }
    PyObject *runs = pack_rows(&batch->runs, NULL, PK_RUN_COLUMN_COUNT);
    PyObject *polls = runs == NULL ? NULL : pack_rows(&batch->polls, NULL, PK_POLL_COLUMN_COUNT);
    PyObject *closed =
        polls == NULL ? NULL : pack_named(&batch->closed, closed_columns, FIXED + COUNTERS);
    PyObject *identities = closed == NULL ? NULL : pack_named(&batch->identities, IDENTITY, FIXED);
    if (identities == NULL) {
        Py_XDECREF(runs);
        Py_XDECREF(polls);
        Py_XDECREF(closed);
        return NULL;
    }
    return Py_BuildValue("(NNNN)", runs, closed, polls, identities);
}

static PyObject *sampler_take(PyObject *object, PyObject *ignored)
{
    (void)ignored;
    struct sampler_object *self = (struct sampler_object *)object;
    if (begin(self) != 0) {
        return NULL;
    }
    struct pk_socket_batch *batch;
    Py_BEGIN_ALLOW_THREADS
    batch = pk_socket_sampler_take(self->sampler);
    Py_END_ALLOW_THREADS
    PyObject *packed = pack_batch(batch);
    pk_socket_batch_clear(batch);
    self->is_busy = 0;
    return packed;
}

static PyObject *sampler_stop(PyObject *object, PyObject *ignored)
{
    (void)ignored;
    struct sampler_object *self = (struct sampler_object *)object;
    if (begin(self) != 0) {
        return NULL;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pk_socket_sampler_stop(self->sampler, STOP_WAIT_NS);
    Py_END_ALLOW_THREADS
    self->is_busy = 0;
    return PyBool_FromLong(error == 0);
}

static PyObject *sampler_stats(PyObject *object, PyObject *ignored)
{
    static const struct {
        const char *name;
        size_t offset;
    } FIELDS[] = {
        {"start_ns", offsetof(struct pk_socket_stats, start_ns)},
        {"last_poll_ns", offsetof(struct pk_socket_stats, last_poll_ns)},
        {"poll_count", offsetof(struct pk_socket_stats, poll_count)},
        {"cpu_ns", offsetof(struct pk_socket_stats, cpu_ns)},
        {"interval_ns", offsetof(struct pk_socket_stats, interval_ns)},
        {"dump_count", offsetof(struct pk_socket_stats, dump_count)},
        {"full_dump_count", offsetof(struct pk_socket_stats, full_dump_count)},
        {"dump_error_count", offsetof(struct pk_socket_stats, dump_error_count)},
        {"dump_cpu_ns", offsetof(struct pk_socket_stats, dump_cpu_ns)},
        {"lost_count", offsetof(struct pk_socket_stats, lost_count)},
        {"refused_count", offsetof(struct pk_socket_stats, refused_count)},
        {"inode_dropped_count", offsetof(struct pk_socket_stats, inode_dropped_count)},
        {"unanswered_count", offsetof(struct pk_socket_stats, unanswered_count)},
        {"socket_count", offsetof(struct pk_socket_stats, socket_count)},
        {"listener_count", offsetof(struct pk_socket_stats, listener_count)},
        {"unowned_count", offsetof(struct pk_socket_stats, unowned_count)},
        {"closed_error", offsetof(struct pk_socket_stats, closed_error)},
        {"is_own_namespace", offsetof(struct pk_socket_stats, is_own_namespace)},
    };
    (void)ignored;
    struct sampler_object *self = (struct sampler_object *)object;
    if (begin(self) != 0) {
        return NULL;
    }
    struct pk_socket_stats stats;
    pk_socket_sampler_read_stats(self->sampler, &stats);
    self->is_busy = 0;
    PyObject *named = PyDict_New();
    for (size_t index = 0; named != NULL && index < sizeof FIELDS / sizeof *FIELDS; index++) {
        int64_t value;
        memcpy(&value, (const char *)&stats + FIELDS[index].offset, sizeof value);
        PyObject *number = PyLong_FromLongLong(value);
        if (number == NULL || PyDict_SetItemString(named, FIELDS[index].name, number) != 0) {
            Py_CLEAR(named);
        }
        Py_XDECREF(number);
    }
    return named;
}

static PyMethodDef sampler_methods[] = {
    {"set_inodes", sampler_set_inodes, METH_O,
     "Tells which socket inodes the service holds, as packed 64-bit integers."},
    {"set_budget", sampler_set_budget, METH_O, "Changes what it may cost, of a core."},
    {"take", sampler_take, METH_NOARGS, "Hands over what was recorded since the last take."},
    {"stop", sampler_stop, METH_NOARGS,
     "Ends the sampler within 0.3 s; False when its thread is stuck in the kernel."},
    {"stats", sampler_stats, METH_NOARGS, "Counts of the sampler so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sampler_slots[] = {
    {Py_tp_doc, "Reads a service's TCP sockets at a steady rate; see perfkit/_native.pyi."},
    {Py_tp_new, (void *)sampler_new},
    {Py_tp_dealloc, (void *)sampler_dealloc},
    {Py_tp_methods, sampler_methods},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "perfkit._native.SocketSampler",
    .basicsize = sizeof(struct sampler_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = sampler_slots,
};

/* The messages of one datagram: a list of (kind, sequence, error) and, of facts, their values. */
static PyObject *parse_sock_diag(PyObject *module, PyObject *argument)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(argument, &view, PyBUF_SIMPLE) != 0) {
        return NULL;
    }
    PyObject *messages = PyList_New(0);
    size_t position = 0;
    while (messages != NULL && position < (size_t)view.len) {
        struct pk_reply reply;
        const size_t step = pk_sockdiag_read((const uint8_t *)view.buf + position,
                                             (size_t)view.len - position, &reply);
        if (step == 0) {
            break;
        }
        position += step;
        PyObject *message = NULL;
        if (reply.kind == PK_REPLY_FACT) {
            message = Py_BuildValue(
                "(iIiiiLy#)", (int)reply.kind, reply.sequence, reply.error,
                (int)reply.fact.key.family, (int)reply.fact.state, (long long)reply.fact.inode,
                (const char *)reply.fact.counters, (Py_ssize_t)sizeof reply.fact.counters);
        } else {
            message = Py_BuildValue("(iIi)", (int)reply.kind, reply.sequence, reply.error);
        }
        if (message == NULL || PyList_Append(messages, message) != 0) {
            Py_CLEAR(messages);
        }
        Py_XDECREF(message);
    }
    PyBuffer_Release(&view);
    return messages;
}

static PyMethodDef socket_functions[] = {
    {"parse_sock_diag", parse_sock_diag, METH_O,
     "Reads the messages of one netlink datagram; for tests."},
    {NULL, NULL, 0, NULL},
};

int pk_module_add_sockets(PyObject *module)
{
    if (PyModule_AddFunctions(module, socket_functions) != 0) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &sampler_spec, NULL);
    const int result = type == NULL ? -1 : PyModule_AddObjectRef(module, "SocketSampler", type);
    Py_XDECREF(type);
    return result;
}
