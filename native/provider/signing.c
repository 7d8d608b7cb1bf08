/* What is to be signed goes to the daemon: the message where OpenSSL gives it, so that a key which reads what it signs
 * can; of a long one the digest. */
#include "signing.h"

#include <openssl/crypto.h>
#include <string.h>

#define MESSAGE_MAX (1u << 20) /* of what is longer the digest is sent, which we make */
#define FIRST_ROOM 1024u

/* Contexts are copied: the application may go on with its own. */
static bool verifies_digest(const struct hsm_signing *signing, const struct hsm_wish *wish, const uint8_t *signature,
                            size_t len)
{
    EVP_PKEY_CTX *fresh = EVP_PKEY_CTX_dup(signing->said);
    const bool ok = fresh != NULL && EVP_PKEY_verify(fresh, signature, len, wish->input, wish->input_len) == 1;
    EVP_PKEY_CTX_free(fresh);
    return ok;
}

static bool verifies(const struct hsm_signing *signing, const struct hsm_wish *wish, const uint8_t *signature,
                     size_t len)
{
    if (signing->verifier == NULL)
        return verifies_digest(signing, wish, signature, len);
    EVP_MD_CTX *fresh = EVP_MD_CTX_new();
    bool ok = fresh != NULL && EVP_MD_CTX_copy_ex(fresh, signing->verifier) == 1;
    if (ok && wish->is_message)
        ok = EVP_DigestVerify(fresh, signature, len, wish->input, wish->input_len) == 1;
    else if (ok) /* it was given the message */
        ok = EVP_DigestVerifyFinal(fresh, signature, len) == 1;
    EVP_MD_CTX_free(fresh);
    return ok;
}

static int ask(struct hsm_signing *signing, const struct hsm_wish *wish, uint8_t *out, size_t *len, size_t room)
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

/* The length for sizing, or false where there is no room for one. What the application says of its room is taken for
 * what a signature has, at most: OpenSSL 3.0.0 says SIZE_MAX. */
static bool has_room(const struct hsm_signing *signing, const uint8_t *out, size_t *len, size_t *said)
{
    const int most = EVP_PKEY_get_size(signing->key->public_key);
    const size_t room = *said;
    if (most > 0 && room > (size_t)most)
        *said = (size_t)most;
    if (out == NULL && most > 0) {
        *len = (size_t)most;
        return true;
    }
    if (out != NULL && most > 0 && room >= (size_t)most)
        return true;
    hsm_raise(signing->provider, HSM_R_SIGN, "there is room for %zu bytes, and a signature has up to %d", room, most);
    return false;
}

int hsm_signing_of_digest(void *context, unsigned char *out, size_t *len, size_t room, const unsigned char *digest,
                size_t digest_len)
{
    struct hsm_signing *signing = context;
    if (signing->key == NULL || !has_room(signing, out, len, &room))
        return 0;
    if (out == NULL)
        return 1;
    if (!hsm_scheme_of(signing->key, signing->said, &signing->scheme))
        return 0;
    const struct hsm_wish wish = {signing->scheme.number, signing->scheme.digest == NULL, digest, digest_len};
    return ask(signing, &wish, out, len, room);
}
static bool hash(struct hsm_signing *signing, const uint8_t *data, size_t len)
{
    return EVP_DigestUpdate(signing->digest, data, len) == 1 &&
           (!signing->key->reference->verify || EVP_DigestVerifyUpdate(signing->verifier, data, len) == 1);
}

static bool start_hashing(struct hsm_signing *signing)
{
    const bool ok = (signing->digest = EVP_MD_CTX_new()) != NULL &&
                    EVP_DigestInit_ex2(signing->digest, signing->scheme.digest, NULL) == 1 &&
                    hash(signing, signing->message, signing->len);
    OPENSSL_clear_free(signing->message, signing->room);
    signing->message = NULL;
    signing->len = signing->room = 0;
    return ok;
}

static bool grow(struct hsm_signing *signing, size_t more)
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

int hsm_signing_update(void *context, const unsigned char *data, size_t len)
{
    struct hsm_signing *signing = context;
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
        return hash(signing, data, len);
    if (!grow(signing, len))
        return 0;
    if (len > 0)
        memcpy(signing->message + signing->len, data, len);
    signing->len += len;
    return 1;
}

static int finish_digest(struct hsm_signing *signing, unsigned char *out, size_t *len, size_t room)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int digest_len = 0;
    if (EVP_DigestFinal_ex(signing->digest, digest, &digest_len) != 1)
        return 0;
    const struct hsm_wish wish = {signing->scheme.number, false, digest, digest_len};
    return ask(signing, &wish, out, len, room);
}

int hsm_signing_final(void *context, unsigned char *out, size_t *len, size_t room)
{
    struct hsm_signing *signing = context;
    if (signing->key == NULL || !has_room(signing, out, len, &room))
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

int hsm_signing_of_message(void *context, unsigned char *out, size_t *len, size_t room, const unsigned char *message,
                       size_t message_len)
{
    struct hsm_signing *signing = context;
    if (signing->key == NULL)
        return 0;
    if (out == NULL)
        return has_room(signing, out, len, &room);
    if (message_len > MESSAGE_MAX)
        return hsm_signing_update(context, message, message_len) && hsm_signing_final(context, out, len, room);
    if (!has_room(signing, out, len, &room) || !hsm_scheme_of(signing->key, signing->said, &signing->scheme))
        return 0;
    const struct hsm_wish wish = {signing->scheme.number, true, message, message_len};
    return ask(signing, &wish, out, len, room);
}
