/* The provider within a Python process, on the libcrypto that its `ssl` uses: signatures by whoever is given here. */
#ifndef HSMSIGN_INPROCESS_H
#define HSMSIGN_INPROCESS_H

#include "signer.h"

/* Whether the shared object at `path` (Python's _ssl; "" for the program itself) uses the libcrypto that this code
 * uses. Only then do the two know of each other's providers. */
bool hsm_inprocess_is_shared_with(const char *path);

/* What OpenSSL calls itself, like "OpenSSL 3.0.19 27 Jan 2026". */
const char *hsm_inprocess_openssl(void);

/* Whether openssl.cnf has loaded hsmsign.so into this process: then the place is taken. */
bool hsm_inprocess_is_taken(void);

/* Registers the provider in the default library context, for good; `signer` has to live as long as the process.
 * Call it once. false: the words of OpenSSL's error are in `words`. */
bool hsm_inprocess_load(const struct hsm_signer *signer, struct hsm_words *words);

/* What the provider raised last in this thread, once; "" where it raised nothing. */
void hsm_inprocess_trouble(struct hsm_words *words);

#endif
