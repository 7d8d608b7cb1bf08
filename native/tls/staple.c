#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tls.h"

/* The answer of one context: its SSL_CTX owns it, and it dies with that. */
struct staple {
    pthread_mutex_t lock;
    uint8_t *der;
    size_t len;
    int64_t until;
    X509 *leaf;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int slot = -1;
/* of those who give a context its first answer */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static void forget(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent, (void)data, (void)index, (void)argl, (void)argp;
    struct staple *staple = ptr;
    if (staple == NULL)
        return;
    (void)pthread_mutex_destroy(&staple->lock);
    OPENSSL_free(staple->der);
    X509_free(staple->leaf);
    free(staple);
}

static void take_slot(void)
{
    slot = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, forget);
}

static struct staple *staple_of(const SSL_CTX *context)
{
    return SSL_CTX_get_ex_data(context, slot);
}

/* A copy for OpenSSL, which frees it; NULL: nothing is to be sent. */
static uint8_t *copy_for(const SSL *ssl, struct staple *staple, size_t *len)
{
    uint8_t *copy = NULL;
    (void)pthread_mutex_lock(&staple->lock);
    /* with several certificates in a context, this is the one that is sent */
    const X509 *sent = SSL_get_certificate(ssl);
    if (staple->der != NULL && (int64_t)time(NULL) < staple->until && sent != NULL && X509_cmp(sent, staple->leaf) == 0) {
        *len = staple->len;
        copy = OPENSSL_memdup(staple->der, staple->len);
    }
    (void)pthread_mutex_unlock(&staple->lock);
    return copy;
}

static int answer_wish(SSL *ssl, void *arg)
{
    (void)arg;
    struct staple *staple = staple_of(SSL_get_SSL_CTX(ssl));
    if (staple == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    size_t len = 0;
    uint8_t *copy = copy_for(ssl, staple, &len);
    if (copy == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    if (!SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)len)) {
        OPENSSL_free(copy);
        return SSL_TLSEXT_ERR_NOACK;
    }
    return SSL_TLSEXT_ERR_OK;
}

static struct staple *make(SSL_CTX *context)
{
    struct staple *staple = calloc(1, sizeof *staple);
    if (staple == NULL)
        return NULL;
    if (pthread_mutex_init(&staple->lock, NULL) != 0) {
        free(staple);
        return NULL;
    }
    if (!SSL_CTX_set_ex_data(context, slot, staple)) {
        forget(NULL, staple, NULL, 0, 0, NULL);
        return NULL;
    }
    (void)SSL_CTX_set_tlsext_status_cb(context, answer_wish);
    return staple;
}

static struct staple *find_or_make(SSL_CTX *context)
{
    if (pthread_once(&once, take_slot) != 0 || slot < 0)
        return NULL;
    (void)pthread_mutex_lock(&making);
    struct staple *staple = staple_of(context);
    if (staple == NULL)
        staple = make(context);
    (void)pthread_mutex_unlock(&making);
    return staple;
}

hsm_status hsm_staple_put(SSL_CTX *context, const uint8_t *der, size_t der_len, int64_t until, const uint8_t *leaf,
                          size_t leaf_len)
{
    struct staple *staple = find_or_make(context);
    if (staple == NULL)
        return HSM_E_NO_MEMORY;
    uint8_t *copy = NULL;
    X509 *certificate = NULL;
    if (der_len != 0) {
        const uint8_t *at = leaf;
        certificate = d2i_X509(NULL, &at, (long)leaf_len);
        if (certificate == NULL) {
            ERR_clear_error(); /* Python's `ssl` would take what is left for an error of its own */
            return HSM_E_BAD_INPUT;
        }
        copy = OPENSSL_memdup(der, der_len);
        if (copy == NULL) {
            X509_free(certificate);
            return HSM_E_NO_MEMORY;
        }
    }
    (void)pthread_mutex_lock(&staple->lock);
    uint8_t *const old = staple->der;
    X509 *const before = staple->leaf;
    staple->der = copy;
    staple->len = der_len;
    staple->until = until;
    staple->leaf = certificate;
    (void)pthread_mutex_unlock(&staple->lock);
    OPENSSL_free(old);
    X509_free(before);
    return HSM_OK;
}
