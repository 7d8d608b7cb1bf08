/* What Python sees of the native part of hsmsign.tls (native/build_tls.py exposes exactly this): things of OpenSSL
 * that Python's `ssl` has no words for, on the very SSL_CTX of an `ssl.SSLContext`. May be used by several threads.
 * Nothing here calls Python, but `hsm_choose`, where it is Python's. */
#ifndef HSMSIGN_TLS_H
#define HSMSIGN_TLS_H

#include <stddef.h>
#include <stdint.h>

#include "../core/status.h"

typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_st SSL;

/* ---- context: the SSL_CTX inside of an object of `ssl` -------------------------------------------- */

/* What an SSL_CTX says of itself, to be held against what its `ssl.SSLContext` says. */
typedef struct hsm_context_facts {
    uint64_t options;
    uint64_t num_tickets;
    int verify_mode;
} hsm_context_facts;

/* Whether the OpenSSL that `library` (the file of Python's module `_ssl`; NULL: the program) uses is the one that
 * this code uses. Nothing else here may be called before it said 1. */
int hsm_tls_same_library(const char *library);
/* The pointer that stands `offset` bytes into the object: borrowed, the object's. */
SSL_CTX *hsm_tls_context(const void *object, size_t offset);
void hsm_tls_facts(const SSL_CTX *context, hsm_context_facts *out);

/* Writes the DER of the context's certificate; HSM_E_KEY_NOT_FOUND where it has none, HSM_E_BUFFER with the needed
 * length in *out_len. */
hsm_status hsm_tls_certificate(SSL_CTX *context, uint8_t *out, size_t *out_len);

/* What a server's context verifies clients with. */
typedef struct hsm_trust {
    uint8_t digest[32];   /* another where the certificates, CRLs or rules of verification are others */
    uint32_t crls;
    int64_t crls_until;   /* when the first of the CRLs, of each issuer the newest, is out of date; seconds since 1970;
                             0: one does not say, or there is none */
} hsm_trust;

hsm_status hsm_tls_trust(SSL_CTX *context, hsm_trust *out);
/* Adds a CRL, DER, to what the context knows. HSM_E_BAD_INPUT: it cannot be read. */
hsm_status hsm_tls_add_crl(SSL_CTX *context, const uint8_t *der, size_t der_len);

/* ---- staple: the OCSP answer that a server sends along (RFC 6066, section 8) ---------------------- */

/* Sends `der` with `leaf`, the DER of the context's certificate, while the clock says less than `until` (seconds since
 * 1970). It takes the place of the answer before it, in one step. Copies both. der_len 0: no answer from now on. */
hsm_status hsm_staple_put(SSL_CTX *context, const uint8_t *der, size_t der_len, int64_t until, const uint8_t *leaf,
                          size_t leaf_len);

/* ---- wish: a client asks for such answers --------------------------------------------------------- */

/* From now on connections of the context ask. Again: nothing changes. */
hsm_status hsm_wish_staples(SSL_CTX *context);
/* What the server of the connection stapled; `owner` is the address of its `_ssl._SSLSocket`. HSM_E_KEY_NOT_FOUND:
 * nothing (yet), HSM_E_BUFFER with the needed length in *out_len. */
hsm_status hsm_wish_granted(SSL_CTX *context, const void *owner, uint8_t *out, size_t *out_len);

/* ---- answer: what an OCSP answer is worth --------------------------------------------------------- */

typedef enum hsm_answer_verdict {
    HSM_ANSWER_GOOD = 0,
    HSM_ANSWER_REVOKED = 1,
    HSM_ANSWER_UNKNOWN = 2,
    HSM_ANSWER_NOT_GIVEN = 3,   /* the responder refused; `refusal` is its responseStatus */
    HSM_ANSWER_MALFORMED = 4,
    HSM_ANSWER_FORGED = 5,      /* not signed by the issuer, or by whom it allows to */
    HSM_ANSWER_OTHER = 6,       /* about other certificates */
    HSM_ANSWER_EARLY = 7,       /* of the future */
    HSM_ANSWER_LATE = 8,        /* out of date */
    HSM_ANSWER_ENDLESS = 9      /* does not say until when it holds */
} hsm_answer_verdict;

typedef struct hsm_answer {
    int verdict;                /* hsm_answer_verdict */
    int refusal;
    int64_t this_update;        /* seconds since 1970 */
    int64_t next_update;
} hsm_answer;

/* What `der` says of `leaf`, which `issuer` issued (DER), at `now`. HSM_OK: see `out`. HSM_E_BAD_INPUT: one of the
 * certificates cannot be read. */
hsm_status hsm_answer_check(const uint8_t *der, size_t der_len, const uint8_t *leaf, size_t leaf_len,
                            const uint8_t *issuer, size_t issuer_len, int64_t now, hsm_answer *out);

/* ---- hello: which context serves a connection, before anything else is looked at ------------------ */

/* Chooses for the server name (RFC 6066, section 3) in a ClientHello: name_len bytes as they came, NULL where there is
 * none. Returns 0 (and called hsm_hello_use, or the connection stays as it is), or an alert to end it with. */
typedef int (*hsm_choose)(void *arg, SSL *ssl, const uint8_t *name, size_t name_len);

/* `choose` is called in each handshake of the context. `arg` is the caller's, and must outlive the context. */
hsm_status hsm_hello_install(SSL_CTX *listening, hsm_choose choose, void *arg);
/* Goes on with another context: its certificate, its verification of clients, its options. Sessions of connections with
 * another `group` are not resumed. To be called by a hsm_choose alone. */
hsm_status hsm_hello_use(SSL *ssl, SSL_CTX *context, const uint8_t *group, size_t group_len);
/* The address of the connection's `_ssl._SSLSocket`. */
const void *hsm_hello_owner(const SSL *ssl);

#endif
