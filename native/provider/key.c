#include "key.h"

#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/x509.h>
#include <string.h>

#define PUBLIC_KEY_MAX 4096u

static const char *const names[HSM_KINDS] = {"EC", "RSA", "ED25519"};

const char *hsm_kind_name(enum hsm_kind kind)
{
    return names[kind];
}

struct hsm_key *hsm_key_new(const struct hsm_provider *provider, enum hsm_kind kind)
{
    struct hsm_key *key = OPENSSL_zalloc(sizeof *key);
    if (key == NULL || (key->lock = CRYPTO_THREAD_lock_new()) == NULL) {
        OPENSSL_free(key);
        return NULL;
    }
    key->provider = provider;
    key->kind = kind;
    key->references = 1;
    return key;
}

struct hsm_key *hsm_key_share(struct hsm_key *key)
{
    int count = 0;
    return CRYPTO_atomic_add(&key->references, 1, &count, key->lock) == 1 ? key : NULL;
}

void hsm_key_free(struct hsm_key *key)
{
    int count = 1;
    if (key == NULL || CRYPTO_atomic_add(&key->references, -1, &count, key->lock) != 1 || count > 0)
        return;
    if (key->opened != NULL)
        key->provider->signer->close(key->opened);
    EVP_PKEY_free(key->public_key);
    hsm_reference_free(key->reference);
    CRYPTO_THREAD_lock_free(key->lock);
    OPENSSL_free(key);
}

static EVP_PKEY *public_key_of(const struct hsm_provider *provider, const uint8_t *der, size_t len,
                               enum hsm_kind *kind)
{
    const uint8_t *at = der;
    ERR_set_mark();
    EVP_PKEY *found = d2i_PUBKEY_ex(NULL, &at, (long)len, provider->inner, NULL);
    ERR_pop_to_mark();
    for (int i = 0; found != NULL && at == der + len && i < HSM_KINDS; i++)
        if (EVP_PKEY_is_a(found, names[i])) {
            *kind = (enum hsm_kind)i;
            return found;
        }
    EVP_PKEY_free(found);
    return NULL;
}

/* `der` is within the reference, or beside it. */
static bool fill(struct hsm_key *key, const uint8_t *der, size_t len)
{
    if (len > PUBLIC_KEY_MAX ||
        (key->public_key = public_key_of(key->provider, der, len, &key->kind)) == NULL) {
        hsm_raise(key->provider, HSM_R_REFERENCE, "%.80s: the public key is none of EC, RSA, Ed25519, or is cut",
                  key->reference->name);
        return false;
    }
    return true;
}

bool hsm_key_open(struct hsm_key *key)
{
    struct hsm_words words = {""};
    if (key->provider->signer->open(key->reference, &key->opened, &words) == HSM_OK)
        return true;
    hsm_raise(key->provider, HSM_R_KEY, "%.80s: %s", key->reference->name, words.text);
    return false;
}

static struct hsm_key *start(const struct hsm_provider *provider, struct hsm_reference *reference)
{
    struct hsm_key *key = hsm_key_new(provider, HSM_EC);
    if (key == NULL) {
        hsm_raise(provider, HSM_R_MEMORY, "a key");
        hsm_reference_free(reference);
        return NULL;
    }
    key->reference = reference;
    return key;
}

struct hsm_key *hsm_key_of_reference(const struct hsm_provider *provider, struct hsm_reference *reference)
{
    struct hsm_key *key = start(provider, reference);
    if (key == NULL || fill(key, reference->public_key, reference->public_key_len))
        return key;
    hsm_key_free(key);
    return NULL;
}

static bool fill_by_daemon(struct hsm_key *key)
{
    struct hsm_words words = {""};
    struct hsm_version version = {""};
    uint8_t der[PUBLIC_KEY_MAX];
    size_t len = sizeof der;
    if (key->provider->signer->public_key(key->opened, der, &len, &version, &words) == HSM_OK) {
        /* the version, not whichever is the primary one at a handshake: the certificate is for this one */
        OPENSSL_free(key->reference->name);
        key->reference->name = OPENSSL_strdup(version.name);
        return key->reference->name != NULL && fill(key, der, len);
    }
    hsm_raise(key->provider, HSM_R_KEY, "%.80s: %s", key->reference->name, words.text);
    return false;
}

struct hsm_key *hsm_key_of_daemon(const struct hsm_provider *provider, struct hsm_reference *reference)
{
    struct hsm_key *key = start(provider, reference);
    if (key == NULL || (hsm_key_open(key) && fill_by_daemon(key)))
        return key;
    hsm_key_free(key);
    return NULL;
}

int hsm_key_pass(struct hsm_key *key, OSSL_CALLBACK *callback, void *argument)
{
    int type = OSSL_OBJECT_PKEY;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
        OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE, (char *)(uintptr_t)hsm_kind_name(key->kind), 0),
        OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &key, sizeof key), OSSL_PARAM_construct_end()};
    const int ok = callback(params, argument);
    hsm_key_free(key); /* NULL where it was taken */
    return ok;
}
