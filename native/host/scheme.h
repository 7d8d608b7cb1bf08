/* What each signature scheme asks of a PKCS #11 module. */
#ifndef HSMSIGN_SCHEME_H
#define HSMSIGN_SCHEME_H

#include "../core/frame.h"
#include "module.h"

enum hsm_hash { HSM_HASH_NONE = -1, HSM_SHA256, HSM_SHA384, HSM_SHA512, HSM_HASHES };

#define HSM_DIGEST_MAX 64
#define HSM_DIGEST_INFO_MAX (19 + HSM_DIGEST_MAX)

struct hsm_scheme_info {
    CK_MECHANISM_TYPE mechanism;
    CK_KEY_TYPE key_type;
    enum hsm_hash hash;
    uint16_t digest_len;  /* 0 where messages are signed as they are */
    uint16_t raw_len;     /* what C_Sign gives; 0 where it depends on the key (RSA) */
    const uint8_t *prefix; /* DER in front of the digest (RFC 8017, section 9.2, note 1), or NULL */
    uint16_t prefix_len;
    CK_RSA_PKCS_PSS_PARAMS pss; /* all 0 where there are none */
};

/* NULL for a number that is no scheme. Constant, never freed. */
const struct hsm_scheme_info *hsm_scheme_find(uint16_t scheme);

/* The CK_MECHANISM of a scheme; it points into `info`, which modules do not write to. */
CK_MECHANISM hsm_scheme_mechanism(const struct hsm_scheme_info *info);

#endif
