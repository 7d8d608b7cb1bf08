#include "provider.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <string.h>

#define VERSION "0.1.0"

static const OSSL_ITEM reasons[] = {{HSM_R_REFERENCE, "bad key reference"},
                                    {HSM_R_URI, "bad key URI"},
                                    {HSM_R_KEY, "key not usable"},
                                    {HSM_R_ALGORITHM, "not what this key signs with"},
                                    {HSM_R_SIGN, "no signature"},
                                    {HSM_R_VERIFY, "the signature is not by this key"},
                                    {HSM_R_MEMORY, "out of memory"},
                                    {0, NULL}};

/* Applications often throw OpenSSL's queue away, or show its last entry alone: this stays for whoever asks. */
static _Thread_local struct hsm_words last;

void hsm_take_last_words(struct hsm_words *words)
{
    *words = last;
    last.text[0] = '\0';
}

static const char *reason_words(enum hsm_reason reason)
{
    for (const OSSL_ITEM *item = reasons; item->ptr != NULL; item++)
        if (item->id == (unsigned)reason)
            return item->ptr;
    return "error";
}

static void keep(enum hsm_reason reason, const char *format, va_list arguments)
{
    const int len = snprintf(last.text, sizeof last.text, "%s: ", reason_words(reason));
    if (len > 0 && (size_t)len < sizeof last.text)
        (void)vsnprintf(last.text + len, sizeof last.text - (size_t)len, format, arguments);
}

void hsm_raise_at(const struct hsm_provider *provider, const char *file, int line, const char *function,
                  enum hsm_reason reason, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    keep(reason, format, arguments);
    va_end(arguments);
    if (provider->new_error == NULL || provider->vset_error == NULL)
        return;
    va_start(arguments, format);
    provider->new_error(provider->core);
    if (provider->set_error_debug != NULL)
        provider->set_error_debug(provider->core, file, line, function);
    provider->vset_error(provider->core, (uint32_t)reason, format, arguments);
    va_end(arguments);
}

static const OSSL_ALGORITHM *query(void *context, int operation, int *no_cache)
{
    (void)context;
    *no_cache = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT:
        return hsm_keymgmt_algorithms;
    case OSSL_OP_SIGNATURE:
        return hsm_signature_algorithms;
    case OSSL_OP_DECODER:
        return hsm_decoder_algorithms;
    case OSSL_OP_STORE:
        return hsm_store_algorithms;
    default:
        return NULL;
    }
}

static const OSSL_PARAM *gettable(void *context)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_NAME, NULL, 0),
                                        OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_VERSION, NULL, 0),
                                        OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, NULL), OSSL_PARAM_END};
    (void)context;
    return params;
}

static int get(void *context, OSSL_PARAM params[])
{
    OSSL_PARAM *param = NULL;
    (void)context;
    if ((param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME)) != NULL &&
        !OSSL_PARAM_set_utf8_ptr(param, "Keys on devices behind hsmsign"))
        return 0;
    if ((param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION)) != NULL &&
        !OSSL_PARAM_set_utf8_ptr(param, VERSION))
        return 0;
    return (param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS)) == NULL || OSSL_PARAM_set_int(param, 1);
}

static const OSSL_ITEM *get_reasons(void *context)
{
    (void)context;
    return reasons;
}

static void teardown(void *context)
{
    struct hsm_provider *provider = context;
    if (provider->inner_default != NULL)
        OSSL_PROVIDER_unload(provider->inner_default);
    OSSL_LIB_CTX_free(provider->inner);
    OPENSSL_free(provider);
}

static const OSSL_DISPATCH dispatch[] = {HSM_ENTRY(OSSL_FUNC_PROVIDER_TEARDOWN, teardown),
                                         HSM_ENTRY(OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, gettable),
                                         HSM_ENTRY(OSSL_FUNC_PROVIDER_GET_PARAMS, get),
                                         HSM_ENTRY(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query),
                                         HSM_ENTRY(OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, get_reasons),
                                         HSM_ENTRY_END};

int hsm_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *from_core, const OSSL_DISPATCH **out,
                      void **context, const struct hsm_signer *signer)
{
    struct hsm_provider *provider = OPENSSL_zalloc(sizeof *provider);
    if (provider == NULL)
        return 0;
    provider->core = core;
    provider->signer = signer;
    for (const OSSL_DISPATCH *entry = from_core; entry->function_id != 0; entry++) {
        if (entry->function_id == OSSL_FUNC_CORE_NEW_ERROR)
            provider->new_error = OSSL_FUNC_core_new_error(entry);
        else if (entry->function_id == OSSL_FUNC_CORE_SET_ERROR_DEBUG)
            provider->set_error_debug = OSSL_FUNC_core_set_error_debug(entry);
        else if (entry->function_id == OSSL_FUNC_CORE_VSET_ERROR)
            provider->vset_error = OSSL_FUNC_core_vset_error(entry);
    }
    /* `from dispatch`: so that BIOs of the core can be read */
    if ((provider->inner = OSSL_LIB_CTX_new_from_dispatch(core, from_core)) == NULL ||
        (provider->inner_default = OSSL_PROVIDER_load(provider->inner, "default")) == NULL) {
        teardown(provider);
        return 0;
    }
    *out = dispatch;
    *context = provider;
    return 1;
}
