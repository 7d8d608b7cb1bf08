/* A library context with OpenSSL's own provider and ours, and a signer that has its keys in memory: it signs like a
 * daemon, counts, and fails or lies where a test says so. */
#ifndef HSMSIGN_WORLD_H
#define HSMSIGN_WORLD_H

#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/store.h>
#include <openssl/x509.h>
#include <stdatomic.h>
#include <string.h>

#include "native/provider/provider.h"
#include "tests/native/host/check.h"

enum which { P256, P384, P521, RSA_2048, ED25519_KEY, OTHER_P256, SECP256K1, KEYS };

enum fault {
    NONE,
    SIGN_FAILS,
    SIGN_IS_EMPTY,
    SIGN_IS_TOO_LONG, /* says so, writes as much as there is room */
    SIGN_IS_NOISE,
    SIGN_BY_ANOTHER,
    OPEN_FAILS,
    PUBLIC_FAILS,
    PUBLIC_IS_TOO_LONG,
    PUBLIC_IS_NOISE
};

static const char *const key_names[KEYS] = {"keys/p256", "keys/p384",    "keys/p521", "keys/rsa",
                                            "keys/ed",   "keys/another", "keys/k1"};
static EVP_PKEY *real_keys[KEYS];
static OSSL_LIB_CTX *world;
static OSSL_PROVIDER *world_providers[2];
static atomic_int fault, opened, closed, messages, digests, public_keys;

static EVP_PKEY *make_key(enum which which)
{
    static const char *const curves[] = {"P-256", "P-384", "P-521"};
    switch (which) {
    case RSA_2048:
        return EVP_RSA_gen(2048);
    case ED25519_KEY:
        return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    case SECP256K1:
        return EVP_EC_gen("secp256k1");
    default:
        return EVP_EC_gen(which == OTHER_P256 ? "P-256" : curves[which]);
    }
}

static hsm_status fail(struct hsm_words *words, const char *text)
{
    (void)snprintf(words->text, sizeof words->text, "%s", text);
    return HSM_E_IO;
}

static hsm_status open_in_memory(const struct hsm_reference *reference, void **out, struct hsm_words *words)
{
    int which = 0;
    while (which < KEYS && strcmp(reference->name, key_names[which]) != 0)
        which++;
    if (fault == OPEN_FAILS || which == KEYS)
        return fail(words, "the test's daemon has no such key");
    int *handle = malloc(sizeof *handle);
    CHECK(handle != NULL);
    *handle = which;
    *out = handle;
    opened++;
    return HSM_OK;
}

static bool sign_by(EVP_PKEY *key, const struct hsm_wish *wish, uint8_t *signature, size_t *len)
{
    static const char *const names[] = {"SHA256", "SHA384", "SHA512"};
    const char *name = wish->scheme == 10 ? NULL : names[(wish->scheme - 1) % 3];
    const bool pss = wish->scheme >= 7 && wish->scheme <= 9;
    EVP_MD_CTX *hashing = EVP_MD_CTX_new();
    EVP_PKEY_CTX *context = NULL;
    EVP_MD *digest = name != NULL ? EVP_MD_fetch(NULL, name, NULL) : NULL;
    bool ok = false;
    if (wish->is_message) {
        ok = EVP_DigestSignInit_ex(hashing, &context, name, NULL, NULL, key, NULL) == 1;
    } else {
        context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
        ok = EVP_PKEY_sign_init(context) == 1 && EVP_PKEY_CTX_set_signature_md(context, digest) == 1;
    }
    if (ok && pss)
        ok = EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) == 1;
    if (ok && wish->is_message)
        ok = EVP_DigestSign(hashing, signature, len, wish->input, wish->input_len) == 1;
    else if (ok)
        ok = EVP_PKEY_sign(context, signature, len, wish->input, wish->input_len) == 1;
    if (!wish->is_message)
        EVP_PKEY_CTX_free(context);
    EVP_MD_CTX_free(hashing);
    EVP_MD_free(digest);
    return ok;
}

static hsm_status sign_in_memory(void *handle, const struct hsm_wish *wish, uint8_t *signature, size_t *len,
                                 struct hsm_words *words)
{
    const int which = *(const int *)handle;
    *(wish->is_message ? &messages : &digests) += 1;
    switch ((enum fault)fault) {
    case SIGN_FAILS:
        return fail(words, "the test's daemon does not sign");
    case SIGN_IS_EMPTY:
        *len = 0;
        return HSM_OK;
    case SIGN_IS_TOO_LONG:
        memset(signature, 0x30, *len);
        *len += 1;
        return HSM_OK;
    case SIGN_IS_NOISE:
        memset(signature, 0x30, *len);
        return HSM_OK;
    default:
        break;
    }
    EVP_PKEY *key = real_keys[fault == SIGN_BY_ANOTHER ? OTHER_P256 : which];
    return sign_by(key, wish, signature, len) ? HSM_OK : fail(words, "the test's daemon cannot do this");
}

static hsm_status public_key_in_memory(void *handle, uint8_t *der, size_t *len, struct hsm_version *version,
                                       struct hsm_words *words)
{
    unsigned char *own = NULL;
    public_keys++;
    if (fault == PUBLIC_FAILS)
        return fail(words, "the test's daemon does not know it");
    const int own_len = i2d_PUBKEY(real_keys[*(const int *)handle], &own);
    CHECK(own_len > 0 && (size_t)own_len <= *len);
    (void)snprintf(version->name, sizeof version->name, "%s/versions/7", key_names[*(const int *)handle]);
    if (fault == PUBLIC_IS_TOO_LONG) {
        *len += 1;
    } else {
        memcpy(der, own, (size_t)own_len);
        *len = (size_t)own_len;
    }
    if (fault == PUBLIC_IS_NOISE)
        memset(der, 0x30, *len);
    OPENSSL_free(own);
    return HSM_OK;
}

static void close_in_memory(void *handle)
{
    free(handle);
    closed++;
}

static const struct hsm_signer in_memory = {open_in_memory, sign_in_memory, public_key_in_memory, close_in_memory};

static int init_in_memory(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *from_core, const OSSL_DISPATCH **out,
                          void **context)
{
    return hsm_provider_init(core, from_core, out, context, &in_memory);
}

static void open_world(void)
{
    for (int which = 0; which < KEYS; which++)
        CHECK((real_keys[which] = make_key((enum which)which)) != NULL);
    CHECK((world = OSSL_LIB_CTX_new()) != NULL);
    CHECK((world_providers[0] = OSSL_PROVIDER_load(world, "default")) != NULL);
    CHECK(OSSL_PROVIDER_add_builtin(world, HSM_PROVIDER_NAME, init_in_memory) == 1);
    CHECK((world_providers[1] = OSSL_PROVIDER_load(world, HSM_PROVIDER_NAME)) != NULL);
}

/* Whatever was opened was closed: no test loses a key. */
static inline void close_world(void)
{
    CHECK(opened == closed);
    CHECK(OSSL_PROVIDER_unload(world_providers[1]) == 1);
    CHECK(OSSL_PROVIDER_unload(world_providers[0]) == 1);
    OSSL_LIB_CTX_free(world);
    for (int which = 0; which < KEYS; which++)
        EVP_PKEY_free(real_keys[which]);
}

/* DER, for OPENSSL_free. */
static inline size_t write_reference(enum which which, bool verify, uint8_t **der)
{
    char name[32], endpoint[] = "unix:///nowhere";
    struct hsm_reference reference = {.name = name, .endpoint = endpoint, .deadline_ms = 5000, .verify = verify};
    (void)snprintf(name, sizeof name, "%s", key_names[which]);
    const int len = i2d_PUBKEY(real_keys[which], &reference.public_key);
    CHECK(len > 0);
    reference.public_key_len = (size_t)len;
    const size_t size = hsm_reference_write(&reference, der);
    OPENSSL_free(reference.public_key);
    CHECK(size > 0);
    return size;
}

/* As programs do: whatever key there is, in whatever form. NULL: none. */
static inline EVP_PKEY *load_bytes(const uint8_t *bytes, size_t len)
{
    EVP_PKEY *key = NULL;
    OSSL_DECODER_CTX *decoders = OSSL_DECODER_CTX_new_for_pkey(&key, NULL, NULL, NULL, 0, world, NULL);
    CHECK(decoders != NULL);
    const int ok = OSSL_DECODER_from_data(decoders, &bytes, &len);
    OSSL_DECODER_CTX_free(decoders);
    CHECK((ok == 1) == (key != NULL));
    return key;
}

static inline EVP_PKEY *load_key(enum which which, bool verify)
{
    uint8_t *der = NULL;
    const size_t len = write_reference(which, verify, &der);
    EVP_PKEY *key = load_bytes(der, len);
    OPENSSL_free(der);
    CHECK(key != NULL);
    return key;
}

/* Whether an error that stands in the queue has these words; empties it. */
static inline bool was_said(const char *words)
{
    const char *data = NULL, *file = NULL, *function = NULL;
    int line = 0, flags = 0;
    bool found = false;
    while (ERR_get_error_all(&file, &line, &function, &data, &flags) != 0)
        found = found || (data != NULL && strstr(data, words) != NULL);
    return found;
}

#endif
