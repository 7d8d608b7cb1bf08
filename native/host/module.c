/* Loading and initialising the vendor's module. It is never finalised nor unloaded: signing threads and
 * python-pkcs11 share it until the process ends, and the process ends with the device host. */
#include "module.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static void *handle; /* under `opening` until `functions` is set, then constant */
static _Atomic(CK_FUNCTION_LIST *) functions;

CK_FUNCTION_LIST *hsm_module_functions(void)
{
    return atomic_load_explicit(&functions, memory_order_acquire);
}

void *hsm_module_symbol(const char *name)
{
    return hsm_module_functions() == NULL ? NULL : dlsym(handle, name);
}

__attribute__((format(printf, 3, 4))) static hsm_status say(char *error, size_t size, const char *format, ...)
{
    if (size > 0) {
        va_list values;
        va_start(values, format);
        (void)vsnprintf(error, size, format, values); /* a sentence that is cut short is still a sentence */
        va_end(values);
    }
    return HSM_E_MODULE;
}

static hsm_status initialise(CK_FUNCTION_LIST *list, const char *path, char *error, size_t size, uint64_t *ckr)
{
    CK_C_INITIALIZE_ARGS arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = CKF_OS_LOCKING_OK;
    CK_RV rv = list->C_Initialize(&arguments);
    if (rv == CKR_OK || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED)
        return HSM_OK;
    *ckr = rv;
    if (rv == CKR_CANT_LOCK)
        return say(error, size, "the PKCS #11 module %s cannot be used by several threads (C_Initialize: CKR_CANT_LOCK)",
                   path);
    return say(error, size, "the PKCS #11 module %s refused to start (C_Initialize: CKR 0x%lx)", path, rv);
}

static hsm_status load(const char *path, char *error, size_t size, uint64_t *ckr)
{
    if (access(path, R_OK) != 0)
        return say(error, size, "the PKCS #11 module %s cannot be read: %s", path, strerror(errno));
    void *loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (loaded == NULL) {
        const char *why = dlerror();
        return say(error, size, "%s cannot be loaded as a shared library: %s", path, why != NULL ? why : "unknown");
    }
    CK_C_GetFunctionList get = NULL;
    void *symbol = dlsym(loaded, "C_GetFunctionList");
    memcpy(&get, &symbol, sizeof get); /* C11 has no cast from object to function pointer; POSIX has this */
    CK_FUNCTION_LIST *list = NULL;
    hsm_status status = HSM_OK;
    if (get == NULL)
        status = say(error, size, "%s is no PKCS #11 module: it has no C_GetFunctionList", path);
    else if (symbol == (void *)(uintptr_t)&C_GetFunctionList)
        status = say(error, size, "%s is the forwarder of hsmsign itself: name the vendor's module", path);
    else {
        CK_RV rv = get(&list);
        if (rv != CKR_OK || list == NULL) {
            *ckr = rv;
            status = say(error, size, "the PKCS #11 module %s gave no function list (CKR 0x%lx)", path, rv);
        } else
            status = initialise(list, path, error, size, ckr);
    }
    if (status != HSM_OK) {
        (void)dlclose(loaded);
        return status;
    }
    handle = loaded;
    atomic_store_explicit(&functions, list, memory_order_release);
    return HSM_OK;
}

hsm_status hsm_module_open(const char *path, char *error, size_t error_size, uint64_t *ckr)
{
    *ckr = 0;
    if (error_size > 0)
        error[0] = '\0';
    (void)pthread_mutex_lock(&opening);
    hsm_status status = hsm_module_functions() != NULL
                            ? say(error, error_size, "this process has a PKCS #11 module already; one process, one module")
                            : load(path, error, error_size, ckr);
    (void)pthread_mutex_unlock(&opening);
    return status;
}
