#include "reference.h"

#include <openssl/asn1t.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <string.h>

#define VERSION 1

typedef struct wire_tls {
    ASN1_UTF8STRING *ca, *certificate, *key, *server_name;
} WIRE_TLS;

typedef struct wire {
    int64_t version;
    ASN1_UTF8STRING *name;
    ASN1_OCTET_STRING *public_key;
    ASN1_UTF8STRING *endpoint;
    int64_t deadline;
    ASN1_BOOLEAN verify;
    WIRE_TLS *tls;
} WIRE;

static const ASN1_ITEM *WIRE_TLS_it(void);
static const ASN1_ITEM *WIRE_it(void);

/* OpenSSL's macros of templates are not written for these warnings */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
ASN1_SEQUENCE(WIRE_TLS) = {
    ASN1_SIMPLE(WIRE_TLS, ca, ASN1_UTF8STRING),
    ASN1_SIMPLE(WIRE_TLS, certificate, ASN1_UTF8STRING),
    ASN1_SIMPLE(WIRE_TLS, key, ASN1_UTF8STRING),
    ASN1_EXP_OPT(WIRE_TLS, server_name, ASN1_UTF8STRING, 0),
} static_ASN1_SEQUENCE_END(WIRE_TLS)

ASN1_SEQUENCE(WIRE) = {
    ASN1_EMBED(WIRE, version, INT64),
    ASN1_SIMPLE(WIRE, name, ASN1_UTF8STRING),
    ASN1_SIMPLE(WIRE, public_key, ASN1_OCTET_STRING),
    ASN1_SIMPLE(WIRE, endpoint, ASN1_UTF8STRING),
    ASN1_EMBED(WIRE, deadline, INT64),
    ASN1_SIMPLE(WIRE, verify, ASN1_BOOLEAN),
    ASN1_EXP_OPT(WIRE, tls, WIRE_TLS, 0),
} static_ASN1_SEQUENCE_END(WIRE)
#pragma GCC diagnostic pop

/* A copy that ends with a NUL; NULL where there is one within, or nothing at all. */
static char *words_of(const ASN1_STRING *string)
{
    const int len = string != NULL ? ASN1_STRING_length(string) : 0;
    if (len <= 0 || memchr(ASN1_STRING_get0_data(string), '\0', (size_t)len) != NULL)
        return NULL;
    return OPENSSL_strndup((const char *)ASN1_STRING_get0_data(string), (size_t)len);
}

static bool take_tls(struct hsm_reference *reference, const WIRE_TLS *tls)
{
    reference->ca = words_of(tls->ca);
    reference->certificate = words_of(tls->certificate);
    reference->key = words_of(tls->key);
    reference->server_name = words_of(tls->server_name);
    return reference->ca != NULL && reference->certificate != NULL && reference->key != NULL &&
           (tls->server_name == NULL) == (reference->server_name == NULL);
}

static bool take(struct hsm_reference *reference, const WIRE *wire)
{
    if (wire->version != VERSION || wire->deadline < 1 || wire->deadline > (int64_t)HSM_REFERENCE_DEADLINE_MAX_MS)
        return false;
    reference->public_key_len = (size_t)ASN1_STRING_length(wire->public_key);
    reference->public_key = OPENSSL_memdup(ASN1_STRING_get0_data(wire->public_key), reference->public_key_len);
    reference->name = words_of(wire->name);
    reference->endpoint = words_of(wire->endpoint);
    reference->deadline_ms = (uint32_t)wire->deadline;
    reference->verify = wire->verify != 0;
    return reference->public_key != NULL && reference->name != NULL && reference->endpoint != NULL &&
           (wire->tls == NULL || take_tls(reference, wire->tls));
}

struct hsm_reference *hsm_reference_read(const uint8_t *der, size_t len)
{
    if (len == 0 || len > HSM_REFERENCE_MAX)
        return NULL;
    ERR_set_mark();
    const uint8_t *at = der;
    struct hsm_reference *reference = NULL;
    WIRE *wire = (WIRE *)ASN1_item_d2i(NULL, &at, (long)len, ASN1_ITEM_rptr(WIRE));
    if (wire != NULL && at == der + len && (reference = OPENSSL_zalloc(sizeof *reference)) != NULL &&
        !take(reference, wire)) {
        hsm_reference_free(reference);
        reference = NULL;
    }
    ASN1_item_free((ASN1_VALUE *)wire, ASN1_ITEM_rptr(WIRE));
    ERR_pop_to_mark();
    return reference;
}

static bool put(ASN1_STRING *string, const char *words)
{
    return string != NULL && words != NULL && ASN1_STRING_set(string, words, -1) == 1;
}

static bool put_tls(WIRE *wire, const struct hsm_reference *reference)
{
    if (reference->ca == NULL)
        return reference->server_name == NULL;
    WIRE_TLS *tls = wire->tls = (WIRE_TLS *)ASN1_item_new(ASN1_ITEM_rptr(WIRE_TLS));
    if (tls == NULL || !put(tls->ca, reference->ca) || !put(tls->certificate, reference->certificate) ||
        !put(tls->key, reference->key))
        return false;
    return reference->server_name == NULL ||
           ((tls->server_name = ASN1_UTF8STRING_new()) != NULL && put(tls->server_name, reference->server_name));
}

size_t hsm_reference_write(const struct hsm_reference *reference, uint8_t **der)
{
    int len = 0;
    *der = NULL;
    WIRE *wire = (WIRE *)ASN1_item_new(ASN1_ITEM_rptr(WIRE));
    if (wire != NULL && put(wire->name, reference->name) && put(wire->endpoint, reference->endpoint) &&
        ASN1_OCTET_STRING_set(wire->public_key, reference->public_key, (int)reference->public_key_len) == 1 &&
        put_tls(wire, reference)) {
        wire->version = VERSION;
        wire->deadline = reference->deadline_ms;
        wire->verify = reference->verify ? 0xff : 0;
        len = ASN1_item_i2d((ASN1_VALUE *)wire, der, ASN1_ITEM_rptr(WIRE));
    }
    ASN1_item_free((ASN1_VALUE *)wire, ASN1_ITEM_rptr(WIRE));
    return len > 0 ? (size_t)len : 0;
}

void hsm_reference_free(struct hsm_reference *reference)
{
    if (reference == NULL)
        return;
    OPENSSL_free(reference->name);
    OPENSSL_free(reference->public_key);
    OPENSSL_free(reference->endpoint);
    OPENSSL_free(reference->ca);
    OPENSSL_free(reference->certificate);
    OPENSSL_free(reference->key);
    OPENSSL_free(reference->server_name);
    OPENSSL_free(reference);
}
