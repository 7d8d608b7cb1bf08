/* A CA, certificates of it and OCSP answers, made as they are needed; and handshakes in memory. */
#ifndef HSMSIGN_TEST_SITE_H
#define HSMSIGN_TEST_SITE_H

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "native/tls/tls.h"
#include "tests/native/host/check.h"

struct holder {
    EVP_PKEY *key;
    X509 *certificate;
    uint8_t *der;
    int der_len;
};

static struct holder ca;

static inline void add_name(X509 *certificate, const char *name, int is_ca)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0));
    X509_EXTENSION *basic = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "CA:FALSE");
    CHECK(basic != NULL && X509_add_ext(certificate, basic, -1));
    X509_EXTENSION_free(basic);
}

static inline struct holder make(const char *name, const struct holder *issuer)
{
    static long serial = 1;
    struct holder made = {EVP_EC_gen("P-256"), X509_new(), NULL, 0};
    CHECK(made.key != NULL && made.certificate != NULL);
    add_name(made.certificate, name, issuer == NULL);
    CHECK(X509_set_version(made.certificate, X509_VERSION_3));
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), serial++));
    CHECK(X509_gmtime_adj(X509_getm_notBefore(made.certificate), -3600));
    CHECK(X509_gmtime_adj(X509_getm_notAfter(made.certificate), 3600));
    CHECK(X509_set_pubkey(made.certificate, made.key));
    X509 *above = issuer == NULL ? made.certificate : issuer->certificate;
    CHECK(X509_set_issuer_name(made.certificate, X509_get_subject_name(above)));
    CHECK(X509_sign(made.certificate, issuer == NULL ? made.key : issuer->key, EVP_sha256()));
    made.der_len = i2d_X509(made.certificate, &made.der);
    CHECK(made.der_len > 0);
    return made;
}

static inline void drop(struct holder *holder)
{
    EVP_PKEY_free(holder->key);
    X509_free(holder->certificate);
    OPENSSL_free(holder->der);
}

static inline SSL_CTX *server_of(const struct holder *holder)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    CHECK(context != NULL && SSL_CTX_use_certificate(context, holder->certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey(context, holder->key) == 1);
    return context;
}

static inline SSL_CTX *client_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    CHECK(context != NULL);
    return context;
}

struct ends {
    SSL *server, *client;
};

/* 1 where both are done, 0 where one refused. */
static inline int shake(const struct ends *ends)
{
    for (int round = 0; round < 10; round++) {
        const int client = SSL_do_handshake(ends->client), server = SSL_do_handshake(ends->server);
        if (client == 1 && server == 1)
            return 1;
        if ((client != 1 && SSL_get_error(ends->client, client) != SSL_ERROR_WANT_READ) ||
            (server != 1 && SSL_get_error(ends->server, server) != SSL_ERROR_WANT_READ))
            break;
    }
    ERR_clear_error();
    return 0;
}

static inline struct ends ends_of(SSL_CTX *server, SSL_CTX *client, const char *name)
{
    struct ends ends = {SSL_new(server), SSL_new(client)};
    BIO *up = NULL, *down = NULL;
    CHECK(ends.server != NULL && ends.client != NULL && BIO_new_bio_pair(&up, 0, &down, 0));
    SSL_set_bio(ends.server, up, up);
    SSL_set_bio(ends.client, down, down);
    SSL_set_accept_state(ends.server);
    SSL_set_connect_state(ends.client);
    if (name != NULL)
        CHECK(SSL_set_tlsext_host_name(ends.client, name));
    return ends;
}

static inline void close_ends(const struct ends *ends)
{
    SSL_free(ends->server);
    SSL_free(ends->client);
}

/* An OCSP answer, DER, to be freed with OPENSSL_free. */
static inline uint8_t *answer_about(const struct holder *holder, const struct holder *signer, int status, int *len)
{
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), holder->certificate, ca.certificate);
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0), *then = X509_gmtime_adj(NULL, 600);
    CHECK(basic != NULL && id != NULL && now != NULL && then != NULL);
    CHECK(OCSP_basic_add1_status(basic, id, status, -1, now, now, then) != NULL);
    CHECK(OCSP_basic_sign(basic, signer->certificate, signer->key, EVP_sha256(), NULL, 0));
    OCSP_RESPONSE *answer = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    uint8_t *der = NULL;
    *len = i2d_OCSP_RESPONSE(answer, &der);
    CHECK(*len > 0);
    OCSP_RESPONSE_free(answer);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(now);
    ASN1_TIME_free(then);
    return der;
}

#endif
