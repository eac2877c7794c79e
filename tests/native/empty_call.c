/* An extension module whose one function takes an object and does nothing: a floor of calls. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

static PyObject *take(PyObject *module, PyObject *value)
{
    (void)module;
    (void)value;
    return Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"take", take, METH_O, "Takes a value, and does nothing."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "empty_call", .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit_empty_call(void)
{
    return PyModuleDef_Init(&definition);
}
