/* SHA-2 through OpenSSL's EVP: the algorithms are fetched once, a context is each thread's own. */
#ifndef HSMSIGN_DIGEST_H
#define HSMSIGN_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "../core/status.h"
#include "scheme.h"

struct evp_md_st;
struct evp_md_ctx_st;

/* What all threads share: constant between fetch and free. */
struct hsm_digests {
    struct evp_md_st *md[HSM_HASHES];
};

hsm_status hsm_digests_fetch(struct hsm_digests *digests);
void hsm_digests_free(struct hsm_digests *digests);

/* Writes the digest of `message` to `out` (HSM_DIGEST_MAX bytes) and its length to *out_len. */
hsm_status hsm_digest(const struct hsm_digests *digests, struct evp_md_ctx_st *context, enum hsm_hash hash,
                      const uint8_t *message, size_t message_len, uint8_t *out, size_t *out_len);

#endif
