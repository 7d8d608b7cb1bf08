#include "tls.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <openssl/x509v3.h>
#include <string.h>

static const unsigned char h2[] = {2, 'h', '2'};

/* The last complaint of libssl; the caller's own were set aside (errors.h), so that it is about us. */
static const char *complaint(void)
{
    const char *words = ERR_reason_error_string(ERR_peek_last_error());
    return words != NULL ? words : "no reason given";
}

hsm_status hsm_tls_home_open(struct hsm_tls_home *home, struct hsm_why *why)
{
    home->context = OSSL_LIB_CTX_new();
    home->provider = home->context != NULL ? OSSL_PROVIDER_load(home->context, "default") : NULL;
    if (home->provider != NULL)
        return HSM_OK;
    hsm_tls_home_close(home);
    return hsm_why_final(why, HSM_E_UNSUPPORTED, "OpenSSL's default provider cannot be loaded: %s", complaint());
}

void hsm_tls_home_close(struct hsm_tls_home *home)
{
    if (home->provider != NULL)
        (void)OSSL_PROVIDER_unload(home->provider); /* goes with the context */
    OSSL_LIB_CTX_free(home->context);
    home->provider = NULL;
    home->context = NULL;
}

void hsm_tls_home_leave(const struct hsm_tls_home *home)
{
    if (home->context != NULL)
        OPENSSL_thread_stop_ex(home->context);
}

/* Instead of asking at the terminal of somebody's web server. */
static int no_passphrase(char *into, int room, int writing, void *user)
{
    (void)into, (void)room, (void)writing, (void)user;
    return -1;
}

static hsm_status read_files(SSL_CTX *context, const struct hsm_target *target, struct hsm_why *why)
{
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    if (SSL_CTX_load_verify_file(context, target->ca) != 1)
        return hsm_why_final(why, HSM_E_IO, "cannot read the CA certificates in %.100s: %s", target->ca, complaint());
    if (SSL_CTX_use_certificate_chain_file(context, target->certificate) != 1)
        return hsm_why_final(why, HSM_E_IO, "cannot read the certificate in %.100s: %s", target->certificate,
                             complaint());
    if (SSL_CTX_use_PrivateKey_file(context, target->key, SSL_FILETYPE_PEM) != 1)
        return hsm_why_final(why, HSM_E_IO,
                             "cannot use the key in %.80s: %s; it must be a plain PEM private key of the certificate,"
                             " not a reference to one in a device",
                             target->key, complaint());
    return HSM_OK;
}

static hsm_status check_name(SSL *ssl, const struct hsm_target *target, struct hsm_why *why)
{
    const char *name = target->server_name != NULL ? target->server_name : target->host;
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name) == 1)
        return HSM_OK; /* an address is no name for SNI (RFC 6066, section 3) */
    if (SSL_set1_host(ssl, name) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1)
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the server name %.100s cannot be used", name);
    return HSM_OK;
}

static hsm_status make_ssl(struct hsm_tls *tls, SSL_CTX *context, const struct hsm_target *target, struct hsm_why *why)
{
    tls->ssl = SSL_new(context);
    BIO *in = tls->ssl != NULL ? BIO_new(BIO_s_mem()) : NULL, *out = in != NULL ? BIO_new(BIO_s_mem()) : NULL;
    if (out == NULL) {
        BIO_free(in);
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    }
    SSL_set_bio(tls->ssl, in, out);
    tls->in = in;
    tls->out = out;
    SSL_set_connect_state(tls->ssl);
    return check_name(tls->ssl, target, why);
}

hsm_status hsm_tls_open(const struct hsm_tls_home *home, const struct hsm_target *target, struct hsm_tls *tls,
                        struct hsm_why *why)
{
    memset(tls, 0, sizeof *tls);
    SSL_CTX *context = SSL_CTX_new_ex(home->context, NULL, TLS_client_method());
    if (context == NULL)
        return hsm_why_final(why, HSM_E_UNSUPPORTED, "TLS is not available: %s", complaint());
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    hsm_status status = HSM_OK;
    /* the system's policy may ask for more */
    if (SSL_CTX_get_min_proto_version(context) < TLS1_2_VERSION &&
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
        status = hsm_why_final(why, HSM_E_UNSUPPORTED, "TLS 1.2 is not available: %s", complaint());
    if (status == HSM_OK && SSL_CTX_set_alpn_protos(context, h2, sizeof h2) != 0) /* 0 is its success */
        status = hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    if (status == HSM_OK)
        status = read_files(context, target, why);
    if (status == HSM_OK)
        status = make_ssl(tls, context, target, why);
    SSL_CTX_free(context); /* the SSL holds on to it */
    if (status != HSM_OK)
        hsm_tls_close(tls);
    return status;
}

void hsm_tls_close(struct hsm_tls *tls)
{
    SSL_free(tls->ssl);
    memset(tls, 0, sizeof *tls);
}

/* Not SSL_get_error: it looks at the error queue first, which in an application may hold what is not about us. */
static bool wants_more(const struct hsm_tls *tls)
{
    return SSL_want_read(tls->ssl) && BIO_should_retry(tls->in);
}

hsm_status hsm_tls_handshake(struct hsm_tls *tls, const struct hsm_target *target, bool *done, struct hsm_why *why)
{
    const unsigned char *chosen = NULL;
    unsigned len = 0;
    const int shaken = SSL_do_handshake(tls->ssl);
    *done = shaken == 1;
    if (shaken != 1 && wants_more(tls))
        return HSM_OK;
    const long verified = SSL_get_verify_result(tls->ssl);
    if (shaken != 1 && verified != X509_V_OK)
        return hsm_why_final(why, HSM_E_IO, "the certificate of %.60s is not accepted: %.60s; is ca the one that signed"
                             " it, and does it hold the name?", target->words, X509_verify_cert_error_string(verified));
    if (shaken != 1)
        return hsm_why_final(why, HSM_E_IO, "TLS with %.60s failed: %.60s; is this client's certificate in date, and"
                             " one that the daemon takes?", target->words, complaint());
    SSL_get0_alpn_selected(tls->ssl, &chosen, &len);
    if (len != 2 || memcmp(chosen, "h2", 2) != 0)
        return hsm_why_final(why, HSM_E_FRAME, "%.100s does not speak HTTP/2; is it the gRPC port?", target->words);
    return HSM_OK;
}

hsm_status hsm_tls_feed(struct hsm_tls *tls, const uint8_t *bytes, size_t len, struct hsm_why *why)
{
    if (len <= INT_MAX && BIO_write(tls->in, bytes, (int)len) == (int)len)
        return HSM_OK;
    return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
}

size_t hsm_tls_drain(struct hsm_tls *tls, uint8_t *bytes, size_t room)
{
    const int got = BIO_read(tls->out, bytes, room > INT_MAX ? INT_MAX : (int)room);
    return got > 0 ? (size_t)got : 0;
}

hsm_status hsm_tls_read(struct hsm_tls *tls, uint8_t *bytes, size_t room, size_t *len, struct hsm_why *why)
{
    *len = 0;
    if (SSL_read_ex(tls->ssl, bytes, room, len) == 1 || wants_more(tls))
        return HSM_OK;
    if ((SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) != 0 && ERR_peek_last_error() == 0)
        return hsm_why_passing(why, HSM_E_CLOSED, "the daemon closed the connection");
    return hsm_why_final(why, HSM_E_IO, "TLS failed: %.80s; is this client's certificate in date, and one that the"
                         " daemon takes?", complaint());
}

hsm_status hsm_tls_write(struct hsm_tls *tls, const uint8_t *bytes, size_t len, struct hsm_why *why)
{
    size_t written = 0; /* all at once: the other side is memory */
    if (SSL_write_ex(tls->ssl, bytes, len, &written) == 1 && written == len)
        return HSM_OK;
    return hsm_why_final(why, HSM_E_IO, "TLS failed: %.100s", complaint());
}
