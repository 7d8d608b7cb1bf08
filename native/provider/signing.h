/* A signature on its way (what OpenSSL calls a signature context): which key, what was set, what is to be signed. */
#ifndef HSMSIGN_PROVIDER_SIGNING_H
#define HSMSIGN_PROVIDER_SIGNING_H

#include "key.h"
#include "scheme.h"

struct hsm_signing {
    const struct hsm_provider *provider;
    struct hsm_key *key;
    EVP_PKEY_CTX *said;   /* within `verifier`, or by itself where there is none */
    EVP_MD_CTX *verifier; /* of the operations that hash */
    struct hsm_scheme scheme;
    EVP_MD_CTX *digest; /* of a message that has become too long; where signatures are checked `verifier` has it too */
    uint8_t *message;
    size_t len, room;
};

/* Functions of provider-signature(7) that sign; `context` is a struct hsm_signing whose key is private. */
int hsm_signing_of_digest(void *context, unsigned char *out, size_t *len, size_t room, const unsigned char *digest,
                          size_t digest_len);
int hsm_signing_update(void *context, const unsigned char *data, size_t len);
int hsm_signing_final(void *context, unsigned char *out, size_t *len, size_t room);
int hsm_signing_of_message(void *context, unsigned char *out, size_t *len, size_t room, const unsigned char *message,
                           size_t message_len);

#endif
