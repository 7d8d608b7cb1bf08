/* Signatures (provider-signature(7)). What the application sets goes to a context of OpenSSL's own for verification
 * with the public key (`said`): it knows what may be set, says what was, and verifies. What is to be signed goes to
 * the daemon: the message where OpenSSL gives it, so that a key which reads what it signs can. */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <string.h>

#include "key.h"
#include "scheme.h"

#define MESSAGE_MAX (1u << 20) /* of what is longer the digest is sent, which we make */
#define FIRST_ROOM 1024u
#define DIGEST_MAX EVP_MAX_MD_SIZE

struct signing {
    const struct hsm_provider *provider;
    struct hsm_key *key;
    EVP_PKEY_CTX *said;   /* within `verifier`, or by itself where there is none */
    EVP_MD_CTX *verifier; /* of the operations that hash */
    struct hsm_scheme scheme;
    EVP_MD_CTX *digest; /* of a message that has become too long */
    uint8_t *message;
    size_t len, room;
};

static void *new_signing(void *provider, const char *properties)
{
    (void)properties;
    struct signing *signing = OPENSSL_zalloc(sizeof *signing);
    if (signing != NULL)
        signing->provider = provider;
    return signing;
}

static void forget(struct signing *signing)
{
    if (signing->verifier == NULL)
        EVP_PKEY_CTX_free(signing->said);
    EVP_MD_CTX_free(signing->verifier);
    EVP_MD_CTX_free(signing->digest);
    OPENSSL_clear_free(signing->message, signing->room);
    hsm_key_free(signing->key);
    *signing = (struct signing){.provider = signing->provider};
}

static void free_signing(void *context)
{
    struct signing *signing = context;
    if (signing == NULL)
        return;
    forget(signing);
    OPENSSL_free(signing);
}

static bool copy_contexts(struct signing *to, const struct signing *from)
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
    const struct signing *from = context;
    struct signing *to = new_signing((void *)(uintptr_t)from->provider, NULL);
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
static bool take_key(struct signing *signing, void *keydata)
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
    struct signing *signing = context;
    if (params == NULL || params[0].key == NULL)
        return 1;
    return signing->said != NULL && EVP_PKEY_CTX_set_params(signing->said, params) == 1;
}

static bool start_raw(struct signing *signing, void *keydata, const OSSL_PARAM params[])
{
    if (!take_key(signing, keydata))
        return false;
    signing->said = EVP_PKEY_CTX_new_from_pkey(signing->provider->inner, signing->key->public_key, NULL);
    if (signing->said != NULL && EVP_PKEY_verify_init(signing->said) == 1 && set_params(signing, params))
        return true;
    forget(signing);
    return false;
}

static bool start_digest(struct signing *signing, const char *digest, void *keydata, const OSSL_PARAM params[])
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

static bool has_private(const struct signing *signing)
{
    if (signing->key->reference != NULL)
        return true;
    hsm_raise(signing->provider, HSM_R_KEY, "this is a public key alone");
    return false;
}

/* EVP_PKEY_sign is of digests. OpenSSL 3.4 and newer let it start with Ed25519, which has none. */
static bool has_digests(const struct signing *signing)
{
    if (signing->key->kind != HSM_ED25519)
        return true;
    hsm_raise(signing->provider, HSM_R_ALGORITHM, "Ed25519 signs messages, not digests; say -rawin");
    return false;
}

static int init_sign(void *context, void *keydata, const OSSL_PARAM params[])
{
    struct signing *signing = context;
    return start_raw(signing, keydata, params) && has_digests(signing) && has_private(signing);
}

static int init_verify(void *context, void *keydata, const OSSL_PARAM params[])
{
    struct signing *signing = context;
    return start_raw(signing, keydata, params) && has_digests(signing);
}

/* libssl asks here which digests a key signs by, and takes one that it does. The padding comes later. */
static int init_digest_sign(void *context, const char *digest, void *keydata, const OSSL_PARAM params[])
{
    struct signing *signing = context;
    return start_digest(signing, digest, keydata, params) && has_private(signing) &&
           hsm_scheme_of(signing->key, signing->said, &signing->scheme);
}

static int init_digest_verify(void *context, const char *digest, void *keydata, const OSSL_PARAM params[])
{
    return start_digest(context, digest, keydata, params);
}

static bool verifies(const struct signing *signing, const struct hsm_wish *wish, const uint8_t *signature, size_t len)
{
    bool ok = false;
    if (!wish->is_message && signing->verifier == NULL) {
        EVP_PKEY_CTX *fresh = EVP_PKEY_CTX_dup(signing->said);
        ok = fresh != NULL && EVP_PKEY_verify(fresh, signature, len, wish->input, wish->input_len) == 1;
        EVP_PKEY_CTX_free(fresh);
        return ok;
    }
    EVP_MD_CTX *fresh = EVP_MD_CTX_new();
    if (fresh != NULL && EVP_MD_CTX_copy_ex(fresh, signing->verifier) == 1)
        ok = EVP_DigestVerify(fresh, signature, len, wish->input, wish->input_len) == 1;
    EVP_MD_CTX_free(fresh);
    return ok;
}

static int ask(struct signing *signing, const struct hsm_wish *wish, uint8_t *out, size_t *len, size_t room)
{
    const struct hsm_provider *provider = signing->provider;
    const char *name = signing->key->reference->name;
    struct hsm_words words = {""};
    *len = room;
    if (provider->signer->sign(signing->key->opened, wish, out, len, &words) != HSM_OK) {
        hsm_raise(provider, HSM_R_SIGN, "%.80s: %s", name, words.text);
        *len = 0;
        return 0;
    }
    if (*len > 0 && *len <= room &&
        (!signing->key->reference->verify || verifies(signing, wish, out, *len)))
        return 1;
    hsm_raise(provider, HSM_R_VERIFY, "%.80s: what the daemon sent is no signature by the key of the reference; was "
                                      "the key made anew? write the reference again", name);
    OPENSSL_cleanse(out, room);
    *len = 0;
    return 0;
}

/* The length for sizing, or false where there is no room for one. */
static bool has_room(const struct signing *signing, const uint8_t *out, size_t *len, size_t room)
{
    const int most = EVP_PKEY_get_size(signing->key->public_key);
    if (out == NULL && most > 0) {
        *len = (size_t)most;
        return true;
    }
    if (out != NULL && most > 0 && room >= (size_t)most)
        return true;
    hsm_raise(signing->provider, HSM_R_SIGN, "there is room for %zu bytes, and a signature has up to %d", room, most);
    return false;
}

static int sign(void *context, unsigned char *out, size_t *len, size_t room, const unsigned char *digest,
                size_t digest_len)
{
    struct signing *signing = context;
    if (signing->key == NULL || !has_room(signing, out, len, room))
        return 0;
    if (out == NULL)
        return 1;
    if (!hsm_scheme_of(signing->key, signing->said, &signing->scheme))
        return 0;
    const struct hsm_wish wish = {signing->scheme.number, signing->scheme.digest == NULL, digest, digest_len};
    return ask(signing, &wish, out, len, room);
}

static int verify(void *context, const unsigned char *signature, size_t len, const unsigned char *digest,
                  size_t digest_len)
{
    struct signing *signing = context;
    return signing->said != NULL && EVP_PKEY_verify(signing->said, signature, len, digest, digest_len) == 1;
}

static bool start_hashing(struct signing *signing)
{
    EVP_MD *digest = EVP_MD_fetch(signing->provider->inner, signing->scheme.digest, NULL);
    const bool ok = digest != NULL && (signing->digest = EVP_MD_CTX_new()) != NULL &&
                    EVP_DigestInit_ex2(signing->digest, digest, NULL) == 1 &&
                    EVP_DigestUpdate(signing->digest, signing->message, signing->len) == 1;
    EVP_MD_free(digest);
    OPENSSL_clear_free(signing->message, signing->room);
    signing->message = NULL;
    signing->len = signing->room = 0;
    return ok;
}

static bool grow(struct signing *signing, size_t more)
{
    size_t room = signing->room != 0 ? signing->room : FIRST_ROOM;
    while (room < signing->len + more)
        room *= 2;
    if (room == signing->room)
        return true;
    uint8_t *larger = OPENSSL_clear_realloc(signing->message, signing->room, room);
    if (larger == NULL)
        return false;
    signing->message = larger;
    signing->room = room;
    return true;
}

static int update_sign(void *context, const unsigned char *data, size_t len)
{
    struct signing *signing = context;
    if (signing->key == NULL)
        return 0;
    if (signing->digest == NULL && len > MESSAGE_MAX - signing->len) {
        if (signing->scheme.digest == NULL) {
            hsm_raise(signing->provider, HSM_R_SIGN, "Ed25519 signs messages of up to %u bytes", MESSAGE_MAX);
            return 0;
        }
        if (!start_hashing(signing))
            return 0;
    }
    if (signing->digest != NULL)
        return EVP_DigestUpdate(signing->digest, data, len);
    if (!grow(signing, len))
        return 0;
    if (len > 0)
        memcpy(signing->message + signing->len, data, len);
    signing->len += len;
    return 1;
}

static int finish_digest(struct signing *signing, unsigned char *out, size_t *len, size_t room)
{
    unsigned char digest[DIGEST_MAX];
    unsigned int digest_len = 0;
    if (EVP_DigestFinal_ex(signing->digest, digest, &digest_len) != 1)
        return 0;
    const struct hsm_wish wish = {signing->scheme.number, false, digest, digest_len};
    return ask(signing, &wish, out, len, room);
}

static int final_sign(void *context, unsigned char *out, size_t *len, size_t room)
{
    struct signing *signing = context;
    if (signing->key == NULL || !has_room(signing, out, len, room))
        return 0;
    if (out == NULL)
        return 1;
    if (!hsm_scheme_of(signing->key, signing->said, &signing->scheme))
        return 0;
    if (signing->digest != NULL)
        return finish_digest(signing, out, len, room);
    const struct hsm_wish wish = {signing->scheme.number, true, signing->message, signing->len};
    return ask(signing, &wish, out, len, room);
}

static int digest_sign(void *context, unsigned char *out, size_t *len, size_t room, const unsigned char *message,
                       size_t message_len)
{
    struct signing *signing = context;
    if (signing->key == NULL)
        return 0;
    if (out == NULL)
        return has_room(signing, out, len, room);
    if (message_len > MESSAGE_MAX)
        return update_sign(context, message, message_len) && final_sign(context, out, len, room);
    if (!has_room(signing, out, len, room) || !hsm_scheme_of(signing->key, signing->said, &signing->scheme))
        return 0;
    const struct hsm_wish wish = {signing->scheme.number, true, message, message_len};
    return ask(signing, &wish, out, len, room);
}

static int update_verify(void *context, const unsigned char *data, size_t len)
{
    struct signing *signing = context;
    return signing->verifier != NULL && EVP_DigestVerifyUpdate(signing->verifier, data, len) == 1;
}

static int final_verify(void *context, const unsigned char *signature, size_t len)
{
    struct signing *signing = context;
    return signing->verifier != NULL && EVP_DigestVerifyFinal(signing->verifier, signature, len) == 1;
}

static int digest_verify(void *context, const unsigned char *signature, size_t len, const unsigned char *message,
                         size_t message_len)
{
    struct signing *signing = context;
    return signing->verifier != NULL &&
           EVP_DigestVerify(signing->verifier, signature, len, message, message_len) == 1;
}

/* In an AlgorithmIdentifier stands the length of the salt, which is ours to say: that of the digest. */
static void settle_salt(struct signing *signing)
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
    struct signing *signing = context;
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
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_SIGN, sign),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_VERIFY_INIT, init_verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_VERIFY, verify),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, init_digest_sign),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, update_sign),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, final_sign),
    HSM_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, digest_sign),
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
