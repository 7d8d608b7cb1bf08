#include "scheme.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <string.h>

#define NAME_ROOM 64

static const char *const digests[] = {"SHA256", "SHA384", "SHA512"};

enum { ECDSA_P256_SHA256 = 1, RSA_PKCS1_SHA256 = 4, RSA_PSS_SHA256 = 7, ED25519 = 10 };

static bool is_digest(const struct hsm_key *key, const char *name, const char *other)
{
    EVP_MD *digest = EVP_MD_fetch(key->provider->inner, name, NULL);
    const bool is = digest != NULL && EVP_MD_is_a(digest, other);
    EVP_MD_free(digest);
    return is;
}

/* Of those that the daemon knows; -1 for another. */
static int digest_of(const struct hsm_key *key, const char *name)
{
    for (int i = 0; i < 3; i++)
        if (is_digest(key, name, digests[i]))
            return i;
    return -1;
}

static bool ask(EVP_PKEY_CTX *said, const char *name, char words[NAME_ROOM])
{
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(name, words, NAME_ROOM), OSSL_PARAM_construct_end()};
    words[0] = '\0';
    return EVP_PKEY_CTX_get_params(said, params) == 1;
}

static bool of_ec(const struct hsm_key *key, EVP_PKEY_CTX *said, struct hsm_scheme *out)
{
    static const char *const curves[] = {"prime256v1", "secp384r1", "secp521r1"};
    char group[NAME_ROOM] = "", digest[NAME_ROOM];
    size_t len = 0;
    int curve = 0;
    (void)EVP_PKEY_get_group_name(key->public_key, group, sizeof group, &len);
    while (curve < 3 && strcmp(group, curves[curve]) != 0)
        curve++;
    if (curve == 3) {
        hsm_raise(key->provider, HSM_R_ALGORITHM, "the curve is %s; it may be P-256, P-384 or P-521", group);
        return false;
    }
    if (ask(said, OSSL_SIGNATURE_PARAM_DIGEST, digest) && digest[0] != '\0' &&
        !is_digest(key, digest, digests[curve])) {
        hsm_raise(key->provider, HSM_R_ALGORITHM, "a key on %s signs by %s alone, not by %s", group, digests[curve],
                  digest);
        return false;
    }
    *out = (struct hsm_scheme){(uint32_t)(ECDSA_P256_SHA256 + curve), digests[curve]};
    return true;
}

static bool pss_is_like_tls(const struct hsm_key *key, EVP_PKEY_CTX *said, int digest)
{
    char mgf1[NAME_ROOM];
    int salt = 0;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, &salt),
                           OSSL_PARAM_construct_end()};
    if (EVP_PKEY_CTX_get_params(said, params) != 1)
        return false;
    if (salt != RSA_PSS_SALTLEN_DIGEST && salt != RSA_PSS_SALTLEN_AUTO && salt != -4 /* auto, at most the digest */ &&
        salt != 32 + 16 * digest) {
        hsm_raise(key->provider, HSM_R_ALGORITHM, "the salt of PSS is as long as the digest; say -sigopt "
                                                  "rsa_pss_saltlen:digest");
        return false;
    }
    if (ask(said, OSSL_SIGNATURE_PARAM_MGF1_DIGEST, mgf1) && mgf1[0] != '\0' &&
        !is_digest(key, mgf1, digests[digest])) {
        hsm_raise(key->provider, HSM_R_ALGORITHM, "MGF1 hashes as the signature does, by %s, not by %s",
                  digests[digest], mgf1);
        return false;
    }
    return true;
}

static bool of_rsa(const struct hsm_key *key, EVP_PKEY_CTX *said, struct hsm_scheme *out)
{
    char name[NAME_ROOM];
    int padding = 0;
    const int digest = ask(said, OSSL_SIGNATURE_PARAM_DIGEST, name) && name[0] != '\0' ? digest_of(key, name) : -1;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_PAD_MODE, &padding),
                           OSSL_PARAM_construct_end()};
    if (digest < 0) {
        hsm_raise(key->provider, HSM_R_ALGORITHM, "an RSA key signs by SHA-256, SHA-384 or SHA-512%s%s",
                  name[0] == '\0' ? "; say which" : ", not by ", name);
        return false;
    }
    if (EVP_PKEY_CTX_get_params(said, params) != 1 ||
        (padding != RSA_PKCS1_PADDING && padding != RSA_PKCS1_PSS_PADDING)) {
        hsm_raise(key->provider, HSM_R_ALGORITHM, "an RSA key signs with the padding of PKCS #1 v1.5 or PSS");
        return false;
    }
    const bool pss = padding == RSA_PKCS1_PSS_PADDING;
    *out = (struct hsm_scheme){(uint32_t)((pss ? RSA_PSS_SHA256 : RSA_PKCS1_SHA256) + digest), digests[digest]};
    return !pss || pss_is_like_tls(key, said, digest);
}

bool hsm_scheme_of(const struct hsm_key *key, EVP_PKEY_CTX *said, struct hsm_scheme *out)
{
    switch (key->kind) {
    case HSM_EC:
        return of_ec(key, said, out);
    case HSM_RSA:
        return of_rsa(key, said, out);
    default:
        *out = (struct hsm_scheme){ED25519, NULL};
        return true;
    }
}
