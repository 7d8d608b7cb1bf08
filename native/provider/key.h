/* A key of the provider: what OpenSSL calls keydata. It never changes, and is counted. */
#ifndef HSMSIGN_KEY_H
#define HSMSIGN_KEY_H

#include "provider.h"

enum hsm_kind { HSM_EC, HSM_RSA, HSM_ED25519, HSM_KINDS };

struct hsm_key {
    const struct hsm_provider *provider;
    int references;
    CRYPTO_RWLOCK *lock; /* of the count, where the machine has no atomic one */
    enum hsm_kind kind;
    EVP_PKEY *public_key;            /* of the inner library context; NULL: new, and not filled yet */
    struct hsm_reference *reference; /* NULL: a public key alone, brought in to be compared or verified with */
    void *opened;                    /* the signer's */
};

/* What OpenSSL calls a kind: "EC", "RSA", "ED25519". */
const char *hsm_kind_name(enum hsm_kind kind);

/* Empty; NULL: no memory. Every key is given back by hsm_key_free. */
struct hsm_key *hsm_key_new(const struct hsm_provider *provider, enum hsm_kind kind);

/* Takes `reference`, whatever comes out. NULL: an error is raised. */
struct hsm_key *hsm_key_of_reference(const struct hsm_provider *provider, struct hsm_reference *reference);

/* The same without a public key in it: the daemon is asked. */
struct hsm_key *hsm_key_of_daemon(const struct hsm_provider *provider, struct hsm_reference *reference);

/* Hands the key over to whoever asked for an object (provider-object(7)); it is given back where that does not take it. */
int hsm_key_pass(struct hsm_key *key, OSSL_CALLBACK *callback, void *argument);

struct hsm_key *hsm_key_share(struct hsm_key *key);
void hsm_key_free(struct hsm_key *key);

#endif
