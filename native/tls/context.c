#include <dlfcn.h>
#include <openssl/ssl.h>
#include <string.h>

#include "tls.h"

int hsm_tls_same_library(const char *library)
{
    /* it is loaded already: this only asks for its handle, and so for the libraries that it brought */
    void *handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    if (handle == NULL)
        return 0;
    int (*ours)(const SSL_CTX *) = SSL_CTX_get_verify_mode;
    void *const theirs = dlsym(handle, "SSL_CTX_get_verify_mode");
    const int same = theirs != NULL && memcmp(&theirs, &ours, sizeof theirs) == 0;
    (void)dlclose(handle);
    return same;
}

SSL_CTX *hsm_tls_context(const void *object, size_t offset)
{
    SSL_CTX *context;
    memcpy(&context, (const uint8_t *)object + offset, sizeof context);
    return context;
}

void hsm_tls_facts(const SSL_CTX *context, hsm_context_facts *out)
{
    out->options = SSL_CTX_get_options(context);
    out->num_tickets = SSL_CTX_get_num_tickets(context);
    out->verify_mode = SSL_CTX_get_verify_mode(context);
}

hsm_status hsm_tls_certificate(SSL_CTX *context, uint8_t *out, size_t *out_len)
{
    X509 *certificate = SSL_CTX_get0_certificate(context);
    if (certificate == NULL)
        return HSM_E_KEY_NOT_FOUND;
    const int length = i2d_X509(certificate, NULL);
    if (length <= 0)
        return HSM_E_BROKEN;
    const size_t room = *out_len;
    *out_len = (size_t)length;
    if (room < *out_len)
        return HSM_E_BUFFER;
    return i2d_X509(certificate, &out) == length ? HSM_OK : HSM_E_BROKEN;
}
