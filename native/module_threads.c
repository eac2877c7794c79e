/* Python face of the threads sampler. */
#include "pk_module.h"

int pk_module_add_threads(PyObject *module)
{
    (void)module;
    return 0;
}
