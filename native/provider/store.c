/* hsmsign: URIs (provider-storemgmt(7)): a key by its name, whose public half the daemon says. */
#include <openssl/core_names.h>
#include <openssl/crypto.h>

#include "key.h"

struct loader {
    const struct hsm_provider *provider;
    struct hsm_reference *reference; /* NULL: loaded */
};

static void *open_uri(void *context, const char *uri)
{
    const struct hsm_provider *provider = context;
    struct loader *loader = OPENSSL_zalloc(sizeof *loader);
    if (loader == NULL)
        return NULL;
    loader->provider = provider;
    loader->reference = hsm_reference_of_uri(uri);
    if (loader->reference != NULL)
        return loader;
    hsm_raise(provider, HSM_R_URI, "it looks like hsmsign:keys/web-1?endpoint=unix:///run/hsmsign/hsmsign.sock, or "
                                   "…?endpoint=dns:///host:port&ca=FILE&certificate=FILE&key=FILE");
    OPENSSL_free(loader);
    return NULL;
}

static int load(void *context, OSSL_CALLBACK *callback, void *argument, OSSL_PASSPHRASE_CALLBACK *passphrase,
                void *passphrase_argument)
{
    struct loader *loader = context;
    (void)passphrase, (void)passphrase_argument;
    struct hsm_reference *reference = loader->reference;
    loader->reference = NULL;
    struct hsm_key *key = reference != NULL ? hsm_key_of_daemon(loader->provider, reference) : NULL;
    if (key == NULL)
        return 0;
    return hsm_key_pass(key, callback, argument);
}

static int at_end(void *context)
{
    const struct loader *loader = context;
    return loader->reference == NULL;
}

static int close_uri(void *context)
{
    struct loader *loader = context;
    hsm_reference_free(loader->reference);
    OPENSSL_free(loader);
    return 1;
}

static const OSSL_PARAM *settable(void *provider)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL), OSSL_PARAM_END};
    (void)provider;
    return params;
}

/* What is expected is a key, or nothing of ours. */
static int set_params(void *context, const OSSL_PARAM params[])
{
    (void)context, (void)params;
    return 1;
}

static const OSSL_DISPATCH functions[] = {HSM_ENTRY(OSSL_FUNC_STORE_OPEN, open_uri),
                                          HSM_ENTRY(OSSL_FUNC_STORE_LOAD, load),
                                          HSM_ENTRY(OSSL_FUNC_STORE_EOF, at_end),
                                          HSM_ENTRY(OSSL_FUNC_STORE_CLOSE, close_uri),
                                          HSM_ENTRY(OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, settable),
                                          HSM_ENTRY(OSSL_FUNC_STORE_SET_CTX_PARAMS, set_params),
                                          HSM_ENTRY_END};

const OSSL_ALGORITHM hsm_store_algorithms[] = {
    {"hsmsign", "provider=hsmsign", functions, "keys of a hsmsign daemon"}, {NULL, NULL, NULL, NULL}};
