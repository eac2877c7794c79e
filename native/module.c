/* The extension module perfkit._native: multi-phase initialisation, no static state. */
#include "pk_module.h"
#include "pk_module_histogram.h"

static int module_exec(PyObject *module)
{
    if (pk_module_add_threads(module) != 0) {
        return -1;
    }
    if (pk_module_add_sockets(module) != 0) {
        return -1;
    }
    if (pk_module_add_pystacks(module) != 0) {
        return -1;
    }
    if (pk_module_add_processes(module) != 0 || pk_module_add_dump(module) != 0) {
        return -1;
    }
    if (pk_module_add_histogram(module) != 0 || pk_module_add_stacktable(module) != 0) {
        return -1;
    }
    if (pk_module_add_shared_histogram(module) != 0 || pk_module_add_shared_reader(module) != 0) {
        return -1;
    }
    return pk_module_add_profiler(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "perfkit._native",
    .m_doc = "Samplers of threads, sockets and stacks, histograms, tables of stacks; see "
             "perfkit/_native.pyi.",
    .m_size = sizeof(pk_module_state),
    .m_slots = module_slots,
    .m_traverse = pk_module_state_traverse,
    .m_clear = pk_module_state_clear,
    .m_free = pk_module_state_free,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
