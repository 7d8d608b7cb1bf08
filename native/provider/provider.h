/* The OpenSSL 3 provider `hsmsign`: keys that are on a device, as EVP_PKEYs. See provider(7). */
#ifndef HSMSIGN_PROVIDER_H
#define HSMSIGN_PROVIDER_H

#include <openssl/bio.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/evp.h>
#include <stdarg.h>

#include "signer.h"

#define HSM_PROVIDER_NAME "hsmsign"
#define HSM_REFERENCE_STRUCTURE "hsmsign-reference"

/* Everything that is public about keys (numbers, verification, encodings) is done by OpenSSL's own provider in a
 * library context of ours, so that it does not matter what the application made of its own. */
struct hsm_provider {
    const OSSL_CORE_HANDLE *core;
    OSSL_FUNC_core_new_error_fn *new_error;
    OSSL_FUNC_core_set_error_debug_fn *set_error_debug;
    OSSL_FUNC_core_vset_error_fn *vset_error;
    OSSL_LIB_CTX *inner;
    OSSL_PROVIDER *inner_default;
    const struct hsm_signer *signer;
};

/* What OSSL_provider_init is to do. */
int hsm_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *from_core, const OSSL_DISPATCH **out,
                      void **context, const struct hsm_signer *signer);

enum hsm_reason {
    HSM_R_REFERENCE = 1,
    HSM_R_URI,
    HSM_R_KEY,
    HSM_R_ALGORITHM,
    HSM_R_SIGN,
    HSM_R_VERIFY,
    HSM_R_MEMORY
};

/* Puts an error into OpenSSL's queue. */
#define hsm_raise(provider, reason, ...) \
    hsm_raise_at(provider, __FILE__, __LINE__, __func__, reason, __VA_ARGS__)
void hsm_raise_at(const struct hsm_provider *provider, const char *file, int line, const char *function,
                  enum hsm_reason reason, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* What was raised last in this thread, once; "" where nothing was. */
void hsm_take_last_words(struct hsm_words *words);

/* Tables of provider-base(7), each ended by one with a NULL name. */
extern const OSSL_ALGORITHM hsm_keymgmt_algorithms[];
extern const OSSL_ALGORITHM hsm_signature_algorithms[];
extern const OSSL_ALGORITHM hsm_decoder_algorithms[];
extern const OSSL_ALGORITHM hsm_store_algorithms[];

#define HSM_ENTRY(id, function) {id, (void (*)(void))(function)}
#define HSM_ENTRY_END {0, NULL}

#endif
