#include "scheme.h"

#include <stddef.h>

/* DigestInfo up to the digest, RFC 8017, section 9.2, note 1 */
static const uint8_t info_sha256[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
static const uint8_t info_sha384[] = {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30};
static const uint8_t info_sha512[] = {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40};

/* Indexed by enum hsm_scheme. The salt of PSS is as long as the hash. */
static const struct hsm_scheme_info schemes[] = {
    [HSM_ECDSA_P256_SHA256] = {CKM_ECDSA, CKK_EC, HSM_SHA256, 32, 64, NULL, 0, {0, 0, 0}},
    [HSM_ECDSA_P384_SHA384] = {CKM_ECDSA, CKK_EC, HSM_SHA384, 48, 96, NULL, 0, {0, 0, 0}},
    [HSM_ECDSA_P521_SHA512] = {CKM_ECDSA, CKK_EC, HSM_SHA512, 64, 132, NULL, 0, {0, 0, 0}},
    [HSM_RSA_PKCS1_SHA256] = {CKM_RSA_PKCS, CKK_RSA, HSM_SHA256, 32, 0, info_sha256, sizeof info_sha256, {0, 0, 0}},
    [HSM_RSA_PKCS1_SHA384] = {CKM_RSA_PKCS, CKK_RSA, HSM_SHA384, 48, 0, info_sha384, sizeof info_sha384, {0, 0, 0}},
    [HSM_RSA_PKCS1_SHA512] = {CKM_RSA_PKCS, CKK_RSA, HSM_SHA512, 64, 0, info_sha512, sizeof info_sha512, {0, 0, 0}},
    [HSM_RSA_PSS_SHA256] = {CKM_RSA_PKCS_PSS, CKK_RSA, HSM_SHA256, 32, 0, NULL, 0, {CKM_SHA256, CKG_MGF1_SHA256, 32}},
    [HSM_RSA_PSS_SHA384] = {CKM_RSA_PKCS_PSS, CKK_RSA, HSM_SHA384, 48, 0, NULL, 0, {CKM_SHA384, CKG_MGF1_SHA384, 48}},
    [HSM_RSA_PSS_SHA512] = {CKM_RSA_PKCS_PSS, CKK_RSA, HSM_SHA512, 64, 0, NULL, 0, {CKM_SHA512, CKG_MGF1_SHA512, 64}},
    [HSM_ED25519] = {CKM_EDDSA, CKK_EC_EDWARDS, HSM_HASH_NONE, 0, 64, NULL, 0, {0, 0, 0}},
};

const struct hsm_scheme_info *hsm_scheme_find(uint16_t scheme)
{
    if (scheme == 0 || scheme >= sizeof schemes / sizeof schemes[0])
        return NULL;
    return &schemes[scheme];
}

CK_MECHANISM hsm_scheme_mechanism(const struct hsm_scheme_info *info)
{
    CK_MECHANISM mechanism = {info->mechanism, NULL, 0};
    if (info->mechanism == CKM_RSA_PKCS_PSS) {
        mechanism.pParameter = (void *)(uintptr_t)&info->pss;
        mechanism.ulParameterLen = sizeof info->pss;
    }
    return mechanism;
}
