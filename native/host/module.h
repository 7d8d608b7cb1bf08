/* The one PKCS #11 module of this process, and its header under the standard's names. */
#ifndef HSMSIGN_MODULE_H
#define HSMSIGN_MODULE_H

#ifndef CRYPTOKI_COMPAT
#define CRYPTOKI_COMPAT 1
#endif
#include "../third_party/pkcs11.h"

/* The real module's functions, or NULL before hsm_module_open succeeded. Good until the process ends. */
CK_FUNCTION_LIST *hsm_module_functions(void);

/* An exported function of the real module, or NULL. */
void *hsm_module_symbol(const char *name);

#endif
