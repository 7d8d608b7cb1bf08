/* TLS handshakes in memory: a certificate of a key, a server, a client that checks it, and bytes between the two. */
#ifndef HSMSIGN_HANDSHAKE_H
#define HSMSIGN_HANDSHAKE_H

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>

/* Self-signed by `signer`, which may be on a device; the caller's, for X509_free. NULL: it was not signed. */
static X509 *certify(OSSL_LIB_CTX *context, EVP_PKEY *signer, const EVP_MD *digest)
{
    static _Atomic long numbers = 1; /* each is its own issuer, and two of one name would be taken for each other */
    char words[32];
    const long number = numbers++;
    (void)snprintf(words, sizeof words, "server %ld", number);
    X509 *certificate = X509_new_ex(context, NULL);
    X509_NAME *name = X509_NAME_new();
    bool ok = certificate != NULL && name != NULL && X509_set_version(certificate, X509_VERSION_3) == 1 &&
              ASN1_INTEGER_set(X509_get_serialNumber(certificate), number) == 1 &&
              X509_gmtime_adj(X509_getm_notBefore(certificate), -60) != NULL &&
              X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) != NULL &&
              X509_set_pubkey(certificate, signer) == 1 &&
              X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)words, -1, -1, 0) == 1 &&
              X509_set_subject_name(certificate, name) == 1 && X509_set_issuer_name(certificate, name) == 1;
    X509_NAME_free(name);
    X509_EXTENSION *constraints = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "CA:TRUE");
    ok = ok && constraints != NULL && X509_add_ext(certificate, constraints, -1) == 1 &&
         X509_sign(certificate, signer, digest) > 0;
    X509_EXTENSION_free(constraints);
    if (ok)
        return certificate;
    X509_free(certificate);
    return NULL;
}

static SSL_CTX *tls_server(OSSL_LIB_CTX *context, X509 *certificate, EVP_PKEY *key, int version)
{
    SSL_CTX *server = SSL_CTX_new_ex(context, NULL, TLS_server_method());
    if (server != NULL && SSL_CTX_set_min_proto_version(server, version) == 1 &&
        SSL_CTX_set_max_proto_version(server, version) == 1 && SSL_CTX_use_certificate(server, certificate) == 1 &&
        SSL_CTX_use_PrivateKey(server, key) == 1 && SSL_CTX_check_private_key(server) == 1) {
        (void)SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_OFF);
        (void)SSL_CTX_set_num_tickets(server, 0);
        return server;
    }
    SSL_CTX_free(server);
    return NULL;
}

/* Trusts `trusted` alone; of its own library context, so that nothing of ours is in it. */
static SSL_CTX *tls_client(X509 *trusted)
{
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    if (client != NULL && X509_STORE_add_cert(SSL_CTX_get_cert_store(client), trusted) == 1) {
        SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
        return client;
    }
    SSL_CTX_free(client);
    return NULL;
}

/* Whether both sides came to an end, and a byte goes each way. */
static bool shake_hands(SSL_CTX *server_context, SSL_CTX *client_context)
{
    SSL *server = SSL_new(server_context), *client = SSL_new(client_context);
    BIO *ours = NULL, *theirs = NULL;
    char byte = 0;
    bool ok = false;
    if (server != NULL && client != NULL && BIO_new_bio_pair(&ours, 0, &theirs, 0) == 1) {
        SSL_set_bio(server, ours, ours);
        SSL_set_bio(client, theirs, theirs);
        SSL_set_accept_state(server);
        SSL_set_connect_state(client);
        for (int step = 0; step < 8 && (SSL_in_init(server) || SSL_in_init(client)); step++) {
            (void)SSL_do_handshake(client);
            (void)SSL_do_handshake(server);
        }
        ok = SSL_is_init_finished(server) && SSL_is_init_finished(client) && SSL_write(client, "a", 1) == 1 &&
             SSL_read(server, &byte, 1) == 1 && byte == 'a' && SSL_write(server, "b", 1) == 1 &&
             SSL_read(client, &byte, 1) == 1 && byte == 'b' && SSL_get_verify_result(client) == X509_V_OK;
    }
    SSL_free(server);
    SSL_free(client);
    return ok;
}

#endif
