/* From what OpenSSL was told (digest, padding, length of the salt) to the daemon's signature scheme. */
#ifndef HSMSIGN_PROVIDER_SCHEME_H
#define HSMSIGN_PROVIDER_SCHEME_H

#include "key.h"

struct hsm_scheme {
    uint32_t number;    /* hsmsign.v1.SignatureScheme */
    const char *digest; /* "SHA256", …; NULL: Ed25519 hashes by itself */
};

/* `said` is a context of the inner key for verification, with everything that the application has set.
 * false: an error that says what the key does is raised. */
bool hsm_scheme_of(const struct hsm_key *key, EVP_PKEY_CTX *said, struct hsm_scheme *out);

#endif
