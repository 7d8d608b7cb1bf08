#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"

/* What one connection was given. In the list of its context, and in a slot of its SSL, with which it dies. */
struct gift {
    struct gift *next, **at;
    struct wishes *of;
    const void *owner;
    uint8_t *der;
    size_t len;
};

/* Of one context: held by its SSL_CTX and by each gift. */
struct wishes {
    pthread_mutex_t lock;
    size_t holders;
    struct gift *first;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int wishes_slot = -1, gift_slot = -1;
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static void let_go(struct wishes *wishes)
{
    (void)pthread_mutex_lock(&wishes->lock);
    const size_t left = --wishes->holders;
    (void)pthread_mutex_unlock(&wishes->lock);
    if (left != 0)
        return;
    (void)pthread_mutex_destroy(&wishes->lock);
    free(wishes);
}

static void forget_wishes(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent, (void)data, (void)index, (void)argl, (void)argp;
    if (ptr != NULL)
        let_go(ptr);
}

static void forget_gift(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent, (void)data, (void)index, (void)argl, (void)argp;
    struct gift *gift = ptr;
    if (gift == NULL)
        return;
    struct wishes *wishes = gift->of;
    (void)pthread_mutex_lock(&wishes->lock);
    *gift->at = gift->next;
    if (gift->next != NULL)
        gift->next->at = gift->at;
    (void)pthread_mutex_unlock(&wishes->lock);
    let_go(wishes);
    free(gift->der);
    free(gift);
}

static void take_slots(void)
{
    wishes_slot = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, forget_wishes);
    gift_slot = SSL_get_ex_new_index(0, NULL, NULL, NULL, forget_gift);
}

static struct wishes *wishes_of(const SSL_CTX *context)
{
    return wishes_slot < 0 ? NULL : SSL_CTX_get_ex_data(context, wishes_slot);
}

static struct gift *add(struct wishes *wishes, SSL *ssl)
{
    struct gift *gift = calloc(1, sizeof *gift);
    if (gift == NULL)
        return NULL;
    gift->of = wishes;
    gift->owner = SSL_get_app_data(ssl); /* Python's `ssl` puts its `_SSLSocket` there */
    (void)pthread_mutex_lock(&wishes->lock);
    wishes->holders++;
    gift->next = wishes->first;
    gift->at = &wishes->first;
    if (gift->next != NULL)
        gift->next->at = &gift->next;
    wishes->first = gift;
    (void)pthread_mutex_unlock(&wishes->lock);
    if (!SSL_set_ex_data(ssl, gift_slot, gift)) {
        forget_gift(NULL, gift, NULL, 0, 0, NULL);
        return NULL;
    }
    return gift;
}

/* In the handshake. 1: go on, -1: end it with an internal error. */
static int keep(SSL *ssl, void *arg)
{
    (void)arg;
    struct wishes *wishes = wishes_of(SSL_get_SSL_CTX(ssl));
    const uint8_t *der = NULL;
    const long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    if (wishes == NULL || der == NULL || len <= 0)
        return 1;
    uint8_t *copy = malloc((size_t)len);
    struct gift *gift = copy == NULL ? NULL : SSL_get_ex_data(ssl, gift_slot);
    if (copy != NULL && gift == NULL)
        gift = add(wishes, ssl);
    if (gift == NULL) {
        free(copy);
        return -1;
    }
    memcpy(copy, der, (size_t)len);
    (void)pthread_mutex_lock(&wishes->lock);
    uint8_t *const old = gift->der;
    gift->der = copy;
    gift->len = (size_t)len;
    (void)pthread_mutex_unlock(&wishes->lock);
    free(old);
    return 1;
}

static hsm_status make(SSL_CTX *context)
{
    struct wishes *wishes = calloc(1, sizeof *wishes);
    if (wishes == NULL)
        return HSM_E_NO_MEMORY;
    if (pthread_mutex_init(&wishes->lock, NULL) != 0) {
        free(wishes);
        return HSM_E_NO_MEMORY;
    }
    wishes->holders = 1;
    if (!SSL_CTX_set_ex_data(context, wishes_slot, wishes)) {
        let_go(wishes);
        return HSM_E_NO_MEMORY;
    }
    if (!SSL_CTX_set_tlsext_status_type(context, TLSEXT_STATUSTYPE_ocsp) ||
        !SSL_CTX_set_tlsext_status_cb(context, keep))
        return HSM_E_BROKEN;
    return HSM_OK;
}

hsm_status hsm_wish_staples(SSL_CTX *context)
{
    if (pthread_once(&once, take_slots) != 0 || wishes_slot < 0 || gift_slot < 0)
        return HSM_E_NO_MEMORY;
    (void)pthread_mutex_lock(&making);
    const hsm_status status = wishes_of(context) == NULL ? make(context) : HSM_OK;
    (void)pthread_mutex_unlock(&making);
    return status;
}

static hsm_status copy_out(const struct gift *gift, uint8_t *out, size_t *out_len)
{
    const size_t room = *out_len;
    *out_len = gift->len;
    if (room < gift->len)
        return HSM_E_BUFFER;
    memcpy(out, gift->der, gift->len);
    return HSM_OK;
}

hsm_status hsm_wish_granted(SSL_CTX *context, const void *owner, uint8_t *out, size_t *out_len)
{
    struct wishes *wishes = wishes_of(context);
    if (wishes == NULL)
        return HSM_E_KEY_NOT_FOUND;
    hsm_status status = HSM_E_KEY_NOT_FOUND;
    (void)pthread_mutex_lock(&wishes->lock);
    for (const struct gift *gift = wishes->first; gift != NULL; gift = gift->next) {
        if (gift->owner != owner || gift->der == NULL)
            continue;
        status = copy_out(gift, out, out_len);
        break;
    }
    (void)pthread_mutex_unlock(&wishes->lock);
    return status;
}
