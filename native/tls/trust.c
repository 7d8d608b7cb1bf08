#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "time.h"
#include "tls.h"

#define DIGEST 32

struct digests {
    uint8_t (*all)[DIGEST];
    size_t count;
};

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, DIGEST);
}

static int is_newer(const X509_CRL *crl, const X509_CRL *other)
{
    return hsm_time_of(X509_CRL_get0_lastUpdate(crl)) > hsm_time_of(X509_CRL_get0_lastUpdate(other));
}

/* Whether another CRL of the same issuer says what is true now. */
static int is_replaced(const X509_CRL *crl, const STACK_OF(X509_OBJECT) *objects)
{
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509_CRL *other = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));
        if (other != NULL && other != crl && is_newer(other, crl) &&
            X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_CRL_get_issuer(other)) == 0)
            return 1;
    }
    return 0;
}

static void note_end(const X509_CRL *crl, hsm_trust *out)
{
    const int64_t end = hsm_time_of(X509_CRL_get0_nextUpdate(crl));
    if (end != 0 && (out->crls_until == 0 || end < out->crls_until))
        out->crls_until = end;
}

static hsm_status read_objects(const STACK_OF(X509_OBJECT) *objects, struct digests *digests, hsm_trust *out)
{
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509_OBJECT *object = sk_X509_OBJECT_value(objects, i);
        X509 *certificate = X509_OBJECT_get0_X509(object);
        X509_CRL *crl = X509_OBJECT_get0_X509_CRL((X509_OBJECT *)(uintptr_t)object);
        unsigned int length = 0;
        uint8_t *digest = digests->all[digests->count];
        if (certificate != NULL && !X509_digest(certificate, EVP_sha256(), digest, &length))
            return HSM_E_BROKEN;
        if (crl != NULL) {
            if (!X509_CRL_digest(crl, EVP_sha256(), digest, &length))
                return HSM_E_BROKEN;
            out->crls++;
            if (!is_replaced(crl, objects))
                note_end(crl, out);
        }
        if (length == DIGEST)
            digests->count++;
    }
    return HSM_OK;
}

static hsm_status together(const SSL_CTX *context, const struct digests *digests, uint8_t *out)
{
    const X509_VERIFY_PARAM *param = SSL_CTX_get0_param((SSL_CTX *)(uintptr_t)context);
    const uint64_t rules[] = {(uint64_t)SSL_CTX_get_verify_mode(context),
                              X509_VERIFY_PARAM_get_flags((X509_VERIFY_PARAM *)(uintptr_t)param),
                              (uint64_t)X509_VERIFY_PARAM_get_depth(param)};
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    const int done = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) &&
                     EVP_DigestUpdate(hash, rules, sizeof rules) &&
                     EVP_DigestUpdate(hash, digests->all, digests->count * DIGEST) &&
                     EVP_DigestFinal_ex(hash, out, NULL);
    EVP_MD_CTX_free(hash);
    return done ? HSM_OK : HSM_E_BROKEN;
}

hsm_status hsm_tls_trust(SSL_CTX *context, hsm_trust *out)
{
    memset(out, 0, sizeof *out);
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    if (store == NULL || !X509_STORE_lock(store))
        return HSM_E_BROKEN;
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
    const int count = sk_X509_OBJECT_num(objects);
    struct digests digests = {calloc((size_t)count + 1, DIGEST), 0};
    hsm_status status = HSM_E_NO_MEMORY;
    if (digests.all != NULL && count >= 0)
        status = read_objects(objects, &digests, out);
    (void)X509_STORE_unlock(store);
    if (status == HSM_OK) {
        /* their order in the store is no rule */
        qsort(digests.all, digests.count, DIGEST, compare);
        status = together(context, &digests, out->digest);
    }
    free(digests.all);
    return status;
}

hsm_status hsm_tls_add_crl(SSL_CTX *context, const uint8_t *der, size_t der_len)
{
    const uint8_t *at = der;
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)der_len);
    hsm_status status = HSM_E_BAD_INPUT;
    if (crl != NULL && store != NULL && at == der + der_len)
        status = X509_STORE_add_crl(store, crl) ? HSM_OK : HSM_E_NO_MEMORY;
    X509_CRL_free(crl);
    ERR_clear_error(); /* Python's `ssl` would take what is left for an error of its own */
    return status;
}
