/* Python face of the sockets sampler. */
#include "pk_module.h"

int pk_module_add_sockets(PyObject *module)
{
    (void)module;
    return 0;
}
