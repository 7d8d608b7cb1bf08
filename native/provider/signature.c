/* Signature contexts (provider-signature(7)). What the application sets goes to a context of OpenSSL's own for
 * verification with the public key (`said`): it knows what may be set, says what was, and verifies. */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>

#include "signing.h"

static void *new_signing(void *provider, const char *properties)
{
    (void)properties;
    struct hsm_signing *signing = OPENSSL_zalloc(sizeof *signing);
    if (signing != NULL)
        signing->provider = provider;
    return signing;
}

static void forget(struct hsm_signing *signing)
{
    if (signing->verifier == NULL)
        EVP_PKEY_CTX_free(signing->said);
    EVP_MD_CTX_free(signing->verifier);
    EVP_MD_CTX_free(signing->digest);
    OPENSSL_clear_free(signing->message, signing->room);
    hsm_key_free(signing->key);
    *signing = (struct hsm_signing){.provider = signing->provider};
}

static void free_signing(void *context)
{
    struct hsm_signing *signing = context;
    if (signing == NULL)
        return;
    forget(signing);
    OPENSSL_free(signing);
}

static bool copy_contexts(struct hsm_signing *to, const struct hsm_signing *from)
{
    if (from->verifier != NULL) {
        if ((to->verifier = EVP_MD_CTX_new()) == NULL || EVP_MD_CTX_copy_ex(to->verifier, from->verifier) != 1)
            return false;
        to->said = EVP_MD_CTX_get_pkey_ctx(to->verifier);
    } else if (from->said != NULL && (to->said = EVP_PKEY_CTX_dup(from->said)) == NULL) {
        return false;
    }
    return from->digest == NULL ||
           ((to->digest = EVP_MD_CTX_new()) != NULL && EVP_MD_CTX_copy_ex(to->digest, from->digest) == 1);
}

static void *dup_signing(void *context)
{
    const struct hsm_signing *from = context;
    struct hsm_signing *to = new_signing((void *)(uintptr_t)from->provider, NULL);
    if (to == NULL)
        return NULL;
    to->key = from->key != NULL ? hsm_key_share(from->key) : NULL;
    to->scheme = from->scheme;
    bool ok = (from->key == NULL || to->key != NULL) && copy_contexts(to, from);
    if (ok && from->message != NULL && (to->message = OPENSSL_memdup(from->message, from->room)) != NULL) {
        to->len = from->len;
        to->room = from->room;
    }
    if (ok && (from->message == NULL || to->message != NULL))
        return to;
    free_signing(to);
    return NULL;
}

/* NULL for `keydata`: the same key again, with everything set anew. */
static bool take_key(struct hsm_signing *signing, void *keydata)
{
    struct hsm_key *key = keydata != NULL ? hsm_key_share(keydata) : signing->key;
    if (keydata == NULL)
        signing->key = NULL;
    forget(signing);
    signing->key = key;
    return key != NULL && key->public_key != NULL;
}

static int set_params(void *context, const OSSL_PARAM params[])
{
    struct hsm_signing *signing = context;
    if (params == NULL || params[0].key == NULL)
        return 1;
    return signing->said != NULL && EVP_PKEY_CTX_set_params(signing->said, params) == 1;
}

static bool start_raw(struct hsm_signing *signing, void *keydata, const OSSL_PARAM params[])
{
    if (!take_key(signing, keydata))
        return false;
    signing->said = EVP_PKEY_CTX_new_from_pkey(signing->provider->inner, signing->key->public_key, NULL);
    if (signing->said != NULL && EVP_PKEY_verify_init(signing->said) == 1 && set_params(signing, params))
        return true;
    forget(signing);
    return false;
}

static bool start_digest(struct hsm_signing *signing, const char *digest, void *keydata, const OSSL_PARAM params[])
{
    if (!take_key(signing, keydata))
        return false;
    if (digest != NULL && digest[0] == '\0')
        digest = NULL;
    if ((signing->verifier = EVP_MD_CTX_new()) != NULL &&
        EVP_DigestVerifyInit_ex(signing->verifier, &signing->said, digest, signing->provider->inner, NULL,
                                signing->key->public_key, NULL) == 1 &&
        set_params(signing, params))
        return true;
    forget(signing);
    return false;
}

static bool has_private(const struct hsm_signing *signing)
{
    if (signing->key->reference != NULL)
        return true;
    hsm_raise(signing->provider, HSM_R_KEY, "this is a public key alone");
    return false;
}

/* EVP_PKEY_sign is of digests. OpenSSL 3.4 and newer let it start with Ed25519, which has none. */
static bool has_digests(const struct hsm_signing *signing)
{
    if (signing->key->kind != HSM_ED25519)
        return true;
    hsm_raise(signing->provider, HSM_R_ALGORITHM, "Ed25519 signs messages, not digests; say -rawin");
    return false;
}

/* EVP keeps a context whose start failed, and lets the application go on with it. */
static int settled(struct hsm_signing *signing, bool ok)
{
    if (!ok)
        forget(signing);
    return ok;
}

static int init_sign(void *context, void *keydata, const OSSL_PARAM params[])
{
    struct hsm_signing *signing = context;
    return settled(signing, start_raw(signing, keydata, params) && has_digests(signing) && has_private(signing));
}

static int init_verify(void *context, void *keydata, const OSSL_PARAM params[])
{
    struct hsm_signing *signing = context;
    return settled(signing, start_raw(signing, keydata, params) && has_digests(signing));
}

/* libssl asks here which digests a key signs by, and takes one that it does. The padding comes later. */
static int init_digest_sign(void *context, const char *digest, void *keydata, const OSSL_PARAM params[])
{
    struct hsm_signing *signing = context;
    return settled(signing, start_digest(signing, digest, keydata, params) && has_private(signing) &&
                                hsm_scheme_of(signing->key, signing->said, &signing->scheme));
}

static int init_digest_verify(void *context, const char *digest, void *keydata, const OSSL_PARAM params[])
{
    return start_digest(context, digest, keydata, params);
}

static int verify(void *context, const unsigned char *signature, size_t len, const unsigned char *digest,
                  size_t digest_len)
{
    struct hsm_signing *signing = context;
    return signing->said != NULL && EVP_PKEY_verify(signing->said, signature, len, digest, digest_len) == 1;
}

static int update_verify(void *context, const unsigned char *data, size_t len)
{
    struct hsm_signing *signing = context;
    return signing->verifier != NULL && EVP_DigestVerifyUpdate(signing->verifier, data, len) == 1;
}

static int final_verify(void *context, const unsigned char *signature, size_t len)
{
    struct hsm_signing *signing = context;
    return signing->verifier != NULL && EVP_DigestVerifyFinal(signing->verifier, signature, len) == 1;
}

static int digest_verify(void *context, const unsigned char *signature, size_t len, const unsigned char *message,
                         size_t message_len)
{
    struct hsm_signing *signing = context;
    return signing->verifier != NULL &&
           EVP_DigestVerify(signing->verifier, signature, len, message, message_len) == 1;
}

/* In an AlgorithmIdentifier stands the length of the salt, which is ours to say: that of the digest. */
static void settle_salt(struct hsm_signing *signing)
{
    int padding = 0, salt = RSA_PSS_SALTLEN_DIGEST;
    OSSL_PARAM asked[] = {OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PAD_MODE, &padding),
                          OSSL_PARAM_construct_end()};
    const OSSL_PARAM settled[] = {OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, &salt),
                                  OSSL_PARAM_construct_end()};
    if (signing->key->kind == HSM_RSA && EVP_PKEY_CTX_get_params(signing->said, asked) == 1 &&
        padding == RSA_PKCS1_PSS_PADDING)
        (void)EVP_PKEY_CTX_set_params(signing->said, settled);
}

static int get_params(void *context, OSSL_PARAM params[])
{
    struct hsm_signing *signing = context;
    if (signing->said == NULL)
        return 0;
    if (OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID) != NULL)
        settle_salt(signing);
    return EVP_PKEY_CTX_get_params(signing->said, params);
}

static const OSSL_PARAM *gettable(void *context, void *provider)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
                                        OSSL_PARAM_END};
    (void)context, (void)provider;
    return params;
}

static const OSSL_PARAM *settable(void *context, void *provider)
{
    static const OSSL_PARAM params[] = {OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PROPERTIES, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
                                        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
                                        OSSL_PARAM_END};
    (void)context, (void)provider;
    return params;
}

static const OSSL_DISPATCH functions[] = {
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_NEWCTX, new_signing),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_FREECTX, free_signing),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DUPCTX, dup_signing),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_SIGN_INIT, init_sign),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_SIGN, hsm_signing_of_digest),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_VERIFY_INIT, init_verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_VERIFY, verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, init_digest_sign),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, hsm_signing_update),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, hsm_signing_final),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, hsm_signing_of_message),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_INIT, init_digest_verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_UPDATE, update_verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY_FINAL, final_verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_VERIFY, digest_verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, get_params),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, gettable),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, set_params),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, settable),
    HSM_ENTRY_END};

const OSSL_ALGORITHM hsm_signature_algorithms[] = {
    {"ECDSA", "provider=hsmsign", functions, "ECDSA by a device"},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", "provider=hsmsign", functions, "RSA by a device"},
    {"ED25519:1.3.101.112", "provider=hsmsign", functions, "Ed25519 by a device"},
    {NULL, NULL, NULL, NULL}};
