/* Decoders (provider-decoder(7)): PEM of ours to DER, and that to a key. Every decoder is offered everything: what is
 * not ours is passed over in silence, what is ours and broken is an error. */
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <string.h>

#include "key.h"

#define LINE_ROOM 128

static void *new_decoder(void *provider)
{
    return provider;
}

static void free_decoder(void *decoder)
{
    (void)decoder;
}

static bool is_reference(const struct hsm_provider *provider, const uint8_t *der, size_t len)
{
    struct hsm_reference *reference = hsm_reference_read(der, len);
    if (reference == NULL)
        hsm_raise(provider, HSM_R_REFERENCE, "what stands between BEGIN and END " HSM_REFERENCE_LABEL
                                             " is cut or altered; write it again: hsmsign key reference NAME");
    hsm_reference_free(reference);
    return reference != NULL;
}

static int pass_der(uint8_t *der, size_t len, OSSL_CALLBACK *callback, void *argument)
{
    char structure[] = HSM_REFERENCE_STRUCTURE;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_STRUCTURE, structure, 0),
                           OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_DATA, der, len),
                           OSSL_PARAM_construct_end()};
    return callback(params, argument);
}

/* After PEM that could not be read: does one of ours begin in it? */
static bool begins(BIO *bio, int start)
{
    static const char ours[] = "-----BEGIN " HSM_REFERENCE_LABEL "-----";
    char line[LINE_ROOM];
    size_t seen = 0;
    if (start < 0 || BIO_seek(bio, start) < 0)
        return false;
    for (int len = 0; seen < HSM_REFERENCE_MAX && (len = BIO_gets(bio, line, sizeof line)) > 0; seen += (size_t)len)
        if (strncmp(line, ours, strlen(ours)) == 0)
            return true;
    return false;
}

static int decode_pem(void *decoder, OSSL_CORE_BIO *core_bio, int selection, OSSL_CALLBACK *callback, void *argument,
                      OSSL_PASSPHRASE_CALLBACK *passphrase, void *passphrase_argument)
{
    const struct hsm_provider *provider = decoder;
    char *label = NULL, *header = NULL;
    unsigned char *der = NULL;
    long len = 0;
    int ok = 1;
    (void)selection, (void)passphrase, (void)passphrase_argument;
    BIO *bio = BIO_new_from_core_bio(provider->inner, core_bio);
    if (bio == NULL)
        return 0;
    ERR_set_mark();
    const int start = (int)BIO_tell(bio);
    const int found = PEM_read_bio(bio, &label, &header, &der, &len);
    const bool cut = found != 1 && begins(bio, start);
    ERR_pop_to_mark();
    if (cut)
        ok = is_reference(provider, NULL, 0);
    else if (found == 1 && strcmp(label, HSM_REFERENCE_LABEL) == 0)
        ok = is_reference(provider, der, (size_t)len) && pass_der(der, (size_t)len, callback, argument);
    OPENSSL_free(label);
    OPENSSL_free(header);
    OPENSSL_clear_free(der, (size_t)len); /* it may have been somebody's private key */
    BIO_free(bio);
    return ok;
}

/* One DER item, of those that are ours in size; 0: there is none. */
static size_t read_item(BIO *bio, uint8_t der[HSM_REFERENCE_MAX])
{
    size_t len = 0, got = 0;
    while (len < HSM_REFERENCE_MAX && BIO_read_ex(bio, der + len, HSM_REFERENCE_MAX - len, &got) == 1)
        len += got;
    return len < HSM_REFERENCE_MAX ? len : 0;
}

static int decode_der(const struct hsm_provider *provider, OSSL_CORE_BIO *core_bio, enum hsm_kind kind,
                      OSSL_CALLBACK *callback, void *argument)
{
    uint8_t der[HSM_REFERENCE_MAX];
    BIO *bio = BIO_new_from_core_bio(provider->inner, core_bio);
    if (bio == NULL)
        return 0;
    const size_t len = read_item(bio, der);
    BIO_free(bio);
    struct hsm_reference *reference = hsm_reference_read(der, len);
    OPENSSL_cleanse(der, sizeof der);
    if (reference == NULL)
        return 1;
    struct hsm_key *key = hsm_key_of_reference(provider, reference);
    if (key == NULL)
        return 0;
    if (key->kind == kind && hsm_key_open(key))
        return hsm_key_pass(key, callback, argument);
    const int ok = key->kind != kind;
    hsm_key_free(key);
    return ok;
}

#define DECODE(kind, number)                                                                                         \
    static int decode_##kind(void *decoder, OSSL_CORE_BIO *bio, int selection, OSSL_CALLBACK *callback,              \
                             void *argument, OSSL_PASSPHRASE_CALLBACK *passphrase, void *passphrase_argument)        \
    {                                                                                                                \
        (void)selection, (void)passphrase, (void)passphrase_argument;                                                \
        return decode_der(decoder, bio, number, callback, argument);                                                 \
    }                                                                                                                \
    DECODER(kind)
#define DECODER(kind)                                                                                                \
    static const OSSL_DISPATCH kind##_functions[] = {HSM_ENTRY(OSSL_FUNC_DECODER_NEWCTX, new_decoder),               \
                                                     HSM_ENTRY(OSSL_FUNC_DECODER_FREECTX, free_decoder),             \
                                                     HSM_ENTRY(OSSL_FUNC_DECODER_DECODE, decode_##kind),             \
                                                     HSM_ENTRY_END}

DECODER(pem);
DECODE(ec, HSM_EC);
DECODE(rsa, HSM_RSA);
DECODE(ed25519, HSM_ED25519);

#define FROM_DER "provider=hsmsign,input=der,structure=" HSM_REFERENCE_STRUCTURE

const OSSL_ALGORITHM hsm_decoder_algorithms[] = {
    {"DER", "provider=hsmsign,input=pem", pem_functions, "PEM of references"},
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", FROM_DER, ec_functions, "references to EC keys"},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", FROM_DER, rsa_functions, "references to RSA keys"},
    {"ED25519:1.3.101.112", FROM_DER, ed25519_functions, "references to Ed25519 keys"},
    {NULL, NULL, NULL, NULL}};
