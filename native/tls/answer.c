#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509_vfy.h>
#include <string.h>

#include "time.h"
#include "tls.h"

#define LEEWAY 300 /* seconds that the responder's clock may be ahead */

static X509 *read_certificate(const uint8_t *der, size_t len)
{
    return d2i_X509(NULL, &der, (long)len);
}

/* Signed by the issuer, or by a delegate that it issued for this (RFC 6960, section 4.2.2.2). */
static int is_signed(OCSP_BASICRESP *basic, X509 *issuer)
{
    int done = 0;
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509) *signers = sk_X509_new_null();
    if (store != NULL && signers != NULL && X509_STORE_add_cert(store, issuer) &&
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) && sk_X509_push(signers, issuer) > 0)
        done = OCSP_basic_verify(basic, signers, store, 0) == 1;
    sk_X509_free(signers);
    X509_STORE_free(store);
    return done;
}

/* Finds the part about a certificate whatever hash names it: 1, or 0. */
static int find(OCSP_BASICRESP *basic, const X509 *leaf, const X509 *issuer, int *status, hsm_answer *out)
{
    const EVP_MD *const hashes[] = {EVP_sha1(), EVP_sha256(), EVP_sha384(), EVP_sha512()};
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++) {
        ASN1_GENERALIZEDTIME *begins = NULL, *ends = NULL;
        int reason;
        OCSP_CERTID *id = OCSP_cert_to_id(hashes[i], leaf, issuer);
        const int found = id != NULL && OCSP_resp_find_status(basic, id, status, &reason, NULL, &begins, &ends);
        OCSP_CERTID_free(id);
        if (!found)
            continue;
        out->this_update = hsm_time_of(begins);
        out->next_update = hsm_time_of(ends);
        return 1;
    }
    return 0;
}

static int judge(OCSP_BASICRESP *basic, const X509 *leaf, X509 *issuer, int64_t now, hsm_answer *out)
{
    int status = V_OCSP_CERTSTATUS_UNKNOWN;
    if (!is_signed(basic, issuer))
        return HSM_ANSWER_FORGED;
    if (!find(basic, leaf, issuer, &status, out))
        return HSM_ANSWER_OTHER;
    if (out->this_update == 0 || out->this_update > now + LEEWAY)
        return HSM_ANSWER_EARLY;
    if (out->next_update == 0)
        return HSM_ANSWER_ENDLESS;
    if (out->next_update <= now)
        return HSM_ANSWER_LATE;
    if (status == V_OCSP_CERTSTATUS_REVOKED)
        return HSM_ANSWER_REVOKED;
    return status == V_OCSP_CERTSTATUS_GOOD ? HSM_ANSWER_GOOD : HSM_ANSWER_UNKNOWN;
}

static void read_answer(const uint8_t *der, size_t der_len, const X509 *leaf, X509 *issuer, int64_t now, hsm_answer *out)
{
    const uint8_t *at = der;
    OCSP_BASICRESP *basic = NULL;
    OCSP_RESPONSE *answer = d2i_OCSP_RESPONSE(NULL, &at, (long)der_len);
    out->verdict = HSM_ANSWER_MALFORMED;
    if (answer != NULL && at == der + der_len) {
        out->refusal = OCSP_response_status(answer);
        if (out->refusal != OCSP_RESPONSE_STATUS_SUCCESSFUL)
            out->verdict = HSM_ANSWER_NOT_GIVEN;
        else
            basic = OCSP_response_get1_basic(answer);
    }
    if (basic != NULL)
        out->verdict = judge(basic, leaf, issuer, now, out);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(answer);
}

hsm_status hsm_answer_check(const uint8_t *der, size_t der_len, const uint8_t *leaf, size_t leaf_len,
                            const uint8_t *issuer, size_t issuer_len, int64_t now, hsm_answer *out)
{
    memset(out, 0, sizeof *out);
    X509 *about = read_certificate(leaf, leaf_len);
    X509 *above = read_certificate(issuer, issuer_len);
    hsm_status status = HSM_E_BAD_INPUT;
    if (about != NULL && above != NULL) {
        read_answer(der, der_len, about, above, now, out);
        status = HSM_OK;
    }
    X509_free(about);
    X509_free(above);
    ERR_clear_error(); /* Python's `ssl` would take what is left for an error of its own */
    return status;
}
