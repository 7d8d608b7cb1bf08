/* This extension as a PKCS #11 module: everything is the real module's own, but its start and its end. */
#include "module.h"

#include <pthread.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* Cryptoki 3.x lists begin as 2.40's, then C_GetInterfaceList, C_GetInterface and 22 more; 3.2 adds 12. */
#define FUNCTIONS_2 68
#define FUNCTIONS_30 (FUNCTIONS_2 + 24)
#define FUNCTIONS_32 (FUNCTIONS_30 + 12)
#define LISTS_MAX 8

struct ck_interface { /* CK_INTERFACE, Cryptoki 3.0, section 3.3 */
    CK_UTF8CHAR *name;
    void *list;
    CK_FLAGS flags;
};

typedef CK_RV (*get_interface_fn)(CK_UTF8CHAR *, CK_VERSION *, struct ck_interface **, CK_FLAGS);
typedef CK_RV (*get_interface_list_fn)(struct ck_interface *, CK_ULONG *);

/* A 3.x list seen as a 2.40 list with more behind it. */
union any_list {
    CK_FUNCTION_LIST list;
    struct {
        CK_FUNCTION_LIST first;
        void (*more[FUNCTIONS_32 - FUNCTIONS_2])(void);
    } v3;
};

struct forwarded {
    void *real; /* the list that `copy` was made from */
    union any_list copy;
    struct ck_interface interface;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct forwarded lists[LISTS_MAX]; /* under `lock`; an entry does not change once it is given out */
static unsigned long users;               /* under `lock` */

EXPORT CK_RV C_GetInterface(CK_UTF8CHAR *name, CK_VERSION *version, struct ck_interface **out, CK_FLAGS flags);
EXPORT CK_RV C_GetInterfaceList(struct ck_interface *out, CK_ULONG *count);

static CK_RV counted_initialize(void *arguments)
{
    (void)arguments; /* the real module was initialised with OS locking, which serves every caller */
    (void)pthread_mutex_lock(&lock);
    users++;
    (void)pthread_mutex_unlock(&lock);
    return CKR_OK;
}

static CK_RV counted_finalize(void *reserved)
{
    if (reserved != NULL)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    (void)pthread_mutex_lock(&lock);
    if (users > 0) {
        users--;
        rv = CKR_OK;
    }
    (void)pthread_mutex_unlock(&lock);
    return rv;
}

/* Under `lock`. The copy of `real`, made if there is none yet; NULL where there is no more room. */
static struct forwarded *forward(CK_FUNCTION_LIST *real)
{
    struct forwarded *entry = NULL;
    for (int i = 0; i < LISTS_MAX && entry == NULL; i++) {
        if (lists[i].real == real)
            return &lists[i];
        if (lists[i].real == NULL)
            entry = &lists[i];
    }
    if (entry == NULL)
        return NULL;
    size_t more = 0;
    if (real->version.major > 3 || (real->version.major == 3 && real->version.minor >= 2))
        more = FUNCTIONS_32 - FUNCTIONS_2;
    else if (real->version.major == 3)
        more = FUNCTIONS_30 - FUNCTIONS_2;
    memcpy(&entry->copy, real, sizeof(CK_FUNCTION_LIST) + more * sizeof(void (*)(void)));
    entry->copy.list.C_Initialize = counted_initialize;
    entry->copy.list.C_Finalize = counted_finalize;
    entry->copy.list.C_GetFunctionList = C_GetFunctionList;
    if (more > 0) {
        entry->copy.v3.more[0] = (void (*)(void))C_GetInterfaceList;
        entry->copy.v3.more[1] = (void (*)(void))C_GetInterface;
    }
    entry->real = real;
    return entry;
}

EXPORT CK_RV C_GetFunctionList(CK_FUNCTION_LIST **out)
{
    CK_FUNCTION_LIST *real = hsm_module_functions();
    if (out == NULL)
        return CKR_ARGUMENTS_BAD;
    if (real == NULL)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    (void)pthread_mutex_lock(&lock);
    struct forwarded *entry = forward(real);
    (void)pthread_mutex_unlock(&lock);
    if (entry == NULL)
        return CKR_HOST_MEMORY;
    *out = &entry->copy.list;
    return CKR_OK;
}

/* Replaces the list of a standard interface by our copy; a vendor's own interface stays as it is. */
static CK_RV forward_interface(const struct ck_interface *real, struct ck_interface *out)
{
    *out = *real;
    if (real->name == NULL || strcmp((const char *)real->name, "PKCS 11") != 0)
        return CKR_OK;
    struct forwarded *entry = forward(real->list);
    if (entry == NULL)
        return CKR_HOST_MEMORY;
    out->list = &entry->copy;
    return CKR_OK;
}

CK_RV C_GetInterface(CK_UTF8CHAR *name, CK_VERSION *version, struct ck_interface **out, CK_FLAGS flags)
{
    get_interface_fn get = NULL;
    void *symbol = hsm_module_symbol("C_GetInterface");
    memcpy(&get, &symbol, sizeof get);
    if (out == NULL)
        return CKR_ARGUMENTS_BAD;
    if (get == NULL)
        return CKR_FUNCTION_NOT_SUPPORTED; /* a 2.40 module has no such function */
    struct ck_interface *real = NULL;
    CK_RV rv = get(name, version, &real, flags);
    if (rv != CKR_OK)
        return rv;
    if (real == NULL)
        return CKR_FUNCTION_FAILED;
    if (real->name == NULL || strcmp((const char *)real->name, "PKCS 11") != 0) {
        *out = real;
        return CKR_OK;
    }
    (void)pthread_mutex_lock(&lock);
    struct forwarded *entry = forward(real->list);
    if (entry != NULL && entry->interface.list == NULL)
        entry->interface = (struct ck_interface){real->name, &entry->copy, real->flags};
    (void)pthread_mutex_unlock(&lock);
    if (entry == NULL)
        return CKR_HOST_MEMORY;
    *out = &entry->interface;
    return CKR_OK;
}

CK_RV C_GetInterfaceList(struct ck_interface *out, CK_ULONG *count)
{
    get_interface_list_fn get = NULL;
    void *symbol = hsm_module_symbol("C_GetInterfaceList");
    memcpy(&get, &symbol, sizeof get);
    if (get == NULL)
        return CKR_FUNCTION_NOT_SUPPORTED;
    CK_RV rv = get(out, count);
    if (rv != CKR_OK || out == NULL)
        return rv;
    (void)pthread_mutex_lock(&lock);
    for (CK_ULONG i = 0; i < *count && rv == CKR_OK; i++) {
        struct ck_interface real = out[i];
        rv = forward_interface(&real, &out[i]);
    }
    (void)pthread_mutex_unlock(&lock);
    return rv;
}
