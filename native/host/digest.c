#include "digest.h"

#include <openssl/evp.h>

hsm_status hsm_digests_fetch(struct hsm_digests *digests)
{
    static const char *const names[HSM_HASHES] = {"SHA256", "SHA384", "SHA512"};
    for (int i = 0; i < HSM_HASHES; i++)
        digests->md[i] = NULL;
    for (int i = 0; i < HSM_HASHES; i++) {
        digests->md[i] = EVP_MD_fetch(NULL, names[i], NULL);
        if (digests->md[i] == NULL) {
            hsm_digests_free(digests);
            return HSM_E_NO_MEMORY;
        }
    }
    return HSM_OK;
}

void hsm_digests_free(struct hsm_digests *digests)
{
    for (int i = 0; i < HSM_HASHES; i++) {
        EVP_MD_free(digests->md[i]);
        digests->md[i] = NULL;
    }
}

hsm_status hsm_digest(const struct hsm_digests *digests, struct evp_md_ctx_st *context, enum hsm_hash hash,
                      const uint8_t *message, size_t message_len, uint8_t *out, size_t *out_len)
{
    unsigned int written = 0;
    if (hash < 0 || hash >= HSM_HASHES)
        return HSM_E_BAD_INPUT;
    if (EVP_DigestInit_ex2(context, digests->md[hash], NULL) != 1 ||
        EVP_DigestUpdate(context, message, message_len) != 1 || EVP_DigestFinal_ex(context, out, &written) != 1)
        return HSM_E_NO_MEMORY;
    *out_len = written;
    return HSM_OK;
}
