#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>

#include "tls.h"

struct chooser {
    hsm_choose choose;
    void *arg;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int slot = -1;

static void forget(void *parent, void *ptr, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
    (void)parent, (void)data, (void)index, (void)argl, (void)argp;
    free(ptr);
}

static void take_slot(void)
{
    slot = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, forget);
}

/* The first name of a ServerNameList (RFC 6066, section 3): 1, or 0 for what is none. OpenSSL looks at it again, more
 * closely, before it is sent back. */
static int read_name(const uint8_t *list, size_t len, const uint8_t **name, size_t *name_len)
{
    if (len < 5 || (((size_t)list[0] << 8) | list[1]) != len - 2 || list[2] != TLSEXT_NAMETYPE_host_name)
        return 0;
    *name_len = ((size_t)list[3] << 8) | list[4];
    *name = list + 5;
    return *name_len > 0 && *name_len <= len - 5;
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
    const struct chooser *chooser = arg;
    const uint8_t *list = NULL, *name = NULL;
    size_t len = 0, name_len = 0;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &list, &len) &&
        !read_name(list, len, &name, &name_len)) {
        *alert = SSL_AD_DECODE_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    const int refused = chooser->choose(chooser->arg, ssl, name, name_len);
    if (refused == 0)
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = refused;
    return SSL_CLIENT_HELLO_ERROR;
}

hsm_status hsm_hello_install(SSL_CTX *listening, hsm_choose choose, void *arg)
{
    if (pthread_once(&once, take_slot) != 0 || slot < 0)
        return HSM_E_NO_MEMORY;
    if (SSL_CTX_get_ex_data(listening, slot) != NULL)
        return HSM_E_BAD_INPUT; /* connections may be looking at it */
    struct chooser *chooser = malloc(sizeof *chooser);
    if (chooser == NULL)
        return HSM_E_NO_MEMORY;
    chooser->choose = choose;
    chooser->arg = arg;
    if (!SSL_CTX_set_ex_data(listening, slot, chooser)) {
        free(chooser);
        return HSM_E_NO_MEMORY;
    }
    SSL_CTX_set_client_hello_cb(listening, on_hello, chooser);
    return HSM_OK;
}

hsm_status hsm_hello_use(SSL *ssl, SSL_CTX *context, const uint8_t *group, size_t group_len)
{
    /* the certificate, the CAs of clients, ALPN and the staple are looked up in the context; all else was copied from the
     * listening one when the connection began */
    if (SSL_set_SSL_CTX(ssl, context) != context ||
        !SSL_set_session_id_context(ssl, group, (unsigned int)group_len) ||
        !SSL_set1_param(ssl, SSL_CTX_get0_param(context)) ||
        !SSL_set_min_proto_version(ssl, (int)SSL_CTX_get_min_proto_version(context)) ||
        !SSL_set_max_proto_version(ssl, (int)SSL_CTX_get_max_proto_version(context)) ||
        !SSL_set_num_tickets(ssl, SSL_CTX_get_num_tickets(context)))
        return HSM_E_BROKEN;
    SSL_set_verify(ssl, SSL_CTX_get_verify_mode(context), SSL_CTX_get_verify_callback(context));
    SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(context));
    (void)SSL_clear_options(ssl, SSL_get_options(ssl));
    (void)SSL_set_options(ssl, SSL_CTX_get_options(context));
    return HSM_OK;
}

const void *hsm_hello_owner(const SSL *ssl)
{
    return SSL_get_app_data(ssl); /* where Python's `ssl` puts it */
}
