/* Key management (provider-keymgmt(7)): what is public comes from OpenSSL's own key of the inner context; what is
 * private does not exist here, and is not given out. */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <string.h>

#include "key.h"

static void *new_ec(void *provider)
{
    return hsm_key_new(provider, HSM_EC);
}

static void *new_rsa(void *provider)
{
    return hsm_key_new(provider, HSM_RSA);
}

static void *new_ed25519(void *provider)
{
    return hsm_key_new(provider, HSM_ED25519);
}

static void free_key(void *keydata)
{
    hsm_key_free(keydata);
}

/* From a decoder or a store, which leave the address of their key. */
static void *load(const void *reference, size_t size)
{
    struct hsm_key **at = NULL;
    if (size != sizeof at)
        return NULL;
    memcpy(&at, &reference, sizeof at);
    struct hsm_key *key = *at;
    *at = NULL;
    return key;
}

static int has(const void *keydata, int selection)
{
    const struct hsm_key *key = keydata;
    if (key == NULL || key->public_key == NULL)
        return 0;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 || key->reference != NULL;
}

static int match(const void *one, const void *other, int selection)
{
    const struct hsm_key *a = one, *b = other;
    if (!has(a, 0) || !has(b, 0))
        return 0;
    ERR_set_mark();
    const bool whole = (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0;
    const int equal =
        whole ? EVP_PKEY_eq(a->public_key, b->public_key) : EVP_PKEY_parameters_eq(a->public_key, b->public_key);
    ERR_pop_to_mark();
    return equal == 1;
}

static void *dup_key(const void *keydata, int selection)
{
    struct hsm_key *key = (struct hsm_key *)(uintptr_t)keydata;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 || key->reference == NULL)
        return hsm_key_share(key);
    struct hsm_key *copy = hsm_key_new(key->provider, key->kind);
    if (copy != NULL && key->public_key != NULL && EVP_PKEY_up_ref(key->public_key) == 1)
        copy->public_key = key->public_key;
    return copy;
}

/* So that a certificate can be held against a key. A private part is for whoever made it, not for us. */
static int import(void *keydata, int selection, const OSSL_PARAM params[])
{
    struct hsm_key *key = keydata;
    if (key->public_key != NULL || OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_PRIV_KEY) != NULL ||
        OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_RSA_D) != NULL)
        return 0;
    (void)selection;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(key->provider->inner, hsm_kind_name(key->kind), NULL);
    const int ok = context != NULL && EVP_PKEY_fromdata_init(context) == 1 &&
                   EVP_PKEY_fromdata(context, &key->public_key, EVP_PKEY_PUBLIC_KEY,
                                     (OSSL_PARAM *)(uintptr_t)params) == 1;
    EVP_PKEY_CTX_free(context);
    return ok;
}

static const OSSL_PARAM *types_ec(int selection)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
                                        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0), OSSL_PARAM_END};
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

static const OSSL_PARAM *types_rsa(int selection)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0), OSSL_PARAM_END};
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

static const OSSL_PARAM *types_ed25519(int selection)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0), OSSL_PARAM_END};
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? params : NULL;
}

/* With OpenSSL 3.0, EVP offers a key to every other provider's signature before ours, by an export of all of it: one
 * that went well without the private part would be used, and fail in the middle of a handshake. Nothing is raised:
 * EVP goes on with us. */
static int export(void *keydata, int selection, OSSL_CALLBACK *callback, void *argument)
{
    const struct hsm_key *key = keydata;
    OSSL_PARAM *params = NULL;
    if (!has(key, 0) || ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 && key->reference != NULL))
        return 0;
    if (EVP_PKEY_todata(key->public_key, EVP_PKEY_PUBLIC_KEY, &params) != 1)
        return 0;
    const int ok = callback(params, argument);
    OSSL_PARAM_free(params);
    return ok;
}

/* Each kind's own digest first: a key has one scheme, or few (RFC 8446, section 4.2.3). */
static const char *default_digest(const struct hsm_key *key)
{
    const int bits = EVP_PKEY_get_bits(key->public_key);
    if (key->kind == HSM_ED25519)
        return "";
    return key->kind == HSM_RSA || bits <= 256 ? "SHA256" : bits <= 384 ? "SHA384" : "SHA512";
}

static int get_params(void *keydata, OSSL_PARAM params[])
{
    const struct hsm_key *key = keydata;
    OSSL_PARAM *digest = NULL;
    if (!has(key, 0))
        return 0;
    if (EVP_PKEY_get_params(key->public_key, params) != 1) /* a buffer that is too small, for one */
        return 0;
    digest = OSSL_PARAM_locate(params, OSSL_PKEY_PARAM_DEFAULT_DIGEST);
    return digest == NULL || key->kind == HSM_ED25519 || OSSL_PARAM_set_utf8_string(digest, default_digest(key));
}

static const OSSL_PARAM *gettable(void *provider)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
                                        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
                                        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
                                        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
                                        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
                                        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_X, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_Y, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
                                        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
                                        OSSL_PARAM_END};
    (void)provider;
    return params;
}

static const char *signature_of_ec(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : NULL;
}

static const char *signature_of_rsa(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "RSA" : NULL;
}

static const char *signature_of_ed25519(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ED25519" : NULL;
}

#define KEYMGMT(kind)                                                                 \
    static const OSSL_DISPATCH kind##_functions[] = {                                 \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_NEW, new_##kind),                                 \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_FREE, free_key),                                  \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_LOAD, load),                                      \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_HAS, has),                                        \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_MATCH, match),                                    \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_DUP, dup_key),                                    \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_IMPORT, import),                                  \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, types_##kind),                      \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_EXPORT, export),                                  \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, types_##kind),                      \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_GET_PARAMS, get_params),                          \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, gettable),                       \
        HSM_ENTRY(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, signature_of_##kind),       \
        HSM_ENTRY_END}

KEYMGMT(ec);
KEYMGMT(rsa);
KEYMGMT(ed25519);

const OSSL_ALGORITHM hsm_keymgmt_algorithms[] = {
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", "provider=hsmsign", ec_functions, "EC keys on a device"},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", "provider=hsmsign", rsa_functions, "RSA keys on a device"},
    {"ED25519:1.3.101.112", "provider=hsmsign", ed25519_functions, "Ed25519 keys on a device"},
    {NULL, NULL, NULL, NULL}};
