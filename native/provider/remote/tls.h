/* TLS as bytes in and bytes out: libssl never sees the socket, so it never raises SIGPIPE and never blocks. It has a
 * library context of its own with the default provider alone: the application's may load the provider that we are
 * part of. */
#ifndef HSMSIGN_REMOTE_TLS_H
#define HSMSIGN_REMOTE_TLS_H

#include <openssl/ssl.h>

#include "target.h"

struct hsm_tls_home {
    OSSL_LIB_CTX *context;
    OSSL_PROVIDER *provider;
};

hsm_status hsm_tls_home_open(struct hsm_tls_home *home, struct hsm_why *why);
void hsm_tls_home_close(struct hsm_tls_home *home);

/* What OpenSSL keeps for this thread (random numbers) is given up: it would reach for the context when the thread
 * ends, and another thread may have closed it by then. Each thread that used the home calls it before it leaves. */
void hsm_tls_home_leave(const struct hsm_tls_home *home);

struct hsm_tls {
    SSL *ssl;
    BIO *in, *out; /* belong to ssl */
};

/* Reads the files of the target. */
hsm_status hsm_tls_open(const struct hsm_tls_home *home, const struct hsm_target *target, struct hsm_tls *tls,
                        struct hsm_why *why);
void hsm_tls_close(struct hsm_tls *tls); /* sends nothing */

/* Goes on as far as what came allows; *done when the daemon is known and speaks HTTP/2. */
hsm_status hsm_tls_handshake(struct hsm_tls *tls, const struct hsm_target *target, bool *done, struct hsm_why *why);

/* What came from, or goes to, the socket; and the same in plain. *len is 0 where there is nothing yet. */
hsm_status hsm_tls_feed(struct hsm_tls *tls, const uint8_t *bytes, size_t len, struct hsm_why *why);
size_t hsm_tls_drain(struct hsm_tls *tls, uint8_t *bytes, size_t room);
hsm_status hsm_tls_read(struct hsm_tls *tls, uint8_t *bytes, size_t room, size_t *len, struct hsm_why *why);
hsm_status hsm_tls_write(struct hsm_tls *tls, const uint8_t *bytes, size_t len, struct hsm_why *why);

#endif
