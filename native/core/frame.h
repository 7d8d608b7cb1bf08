/* The binary protocol between a front worker and a device host, over a Unix stream socket.
 *
 * Both ends are on one machine and are built from one source tree: integers are in the host's byte
 * order and CLOCK_MONOTONIC is shared. All the same, the host never trusts a length that it reads.
 *
 * A connection begins with one hsm_hello from the worker. It says what the connection is for:
 *   HSM_HELLO_MANAGE  length-prefixed JSON requests and answers (hsmsign/model/hostwire.py), in Python
 *   HSM_HELLO_SIGN    the frames below, in C on both sides
 *
 * A signing connection carries, towards the host, ORDER and CANCEL frames, and back, DONE frames. An
 * order is many signatures with one key and one scheme; it may be answered by several DONE frames, each
 * with some of its items, in any order. Every item of an order is answered exactly once, also after a
 * CANCEL (as HSM_E_CANCELLED, or as signed if it was under way).
 */
#ifndef HSMSIGN_FRAME_H
#define HSMSIGN_FRAME_H

#include <stdint.h>

#define HSM_FRAME_MAGIC 0x314d5348u /* "HSM1" */
#define HSM_PROTOCOL_VERSION 1u

enum hsm_hello_kind { HSM_HELLO_MANAGE = 1, HSM_HELLO_SIGN = 2 };

struct hsm_hello {      /* 12 bytes */
    uint32_t magic;
    uint16_t version;
    uint16_t kind;      /* enum hsm_hello_kind */
    uint32_t reserved;  /* 0 */
};

enum hsm_frame_type { HSM_FRAME_ORDER = 1, HSM_FRAME_CANCEL = 2, HSM_FRAME_DONE = 3 };

struct hsm_frame_header { /* 24 bytes; `length` bytes of body follow */
    uint32_t magic;
    uint16_t type;       /* enum hsm_frame_type */
    uint16_t reserved;   /* 0 */
    uint64_t order_id;   /* chosen by the worker, unique on its connection */
    uint32_t count;      /* ORDER: items; DONE: results; CANCEL: 0 */
    uint32_t length;     /* of the body, at most HSM_FRAME_MAX */
};

#define HSM_FRAME_MAX (72u << 20)   /* a batch at the daemon's default limits fits with room to spare */
#define HSM_ORDER_MAX_ITEMS 65536u
#define HSM_FLOWS 256u
#define HSM_LOCATOR_MAX 1024u     /* the wrapped blob of a TPM's RSA-3072 key */
#define HSM_SIGNATURE_MAX 512u      /* RSA-4096; the largest DER ECDSA signature (P-521) has 139 bytes */

/* body of ORDER: struct hsm_order_head, locator, uint32_t lengths[count], the inputs without gaps.
 * The lengths begin at an offset rounded up to 4. */
struct hsm_order_head {  /* 16 bytes */
    uint64_t deadline_ns;  /* CLOCK_MONOTONIC; 0: none */
    uint16_t scheme;       /* hsmsign.model.algorithms.Scheme */
    uint8_t kind;          /* InputKind: 0 digest, 1 message */
    uint8_t format;        /* SignatureFormat: 0 DER, 1 raw */
    uint16_t locator_len;  /* 1..HSM_LOCATOR_MAX */
    uint16_t flow;         /* of a connection, whose work it is: flows take turns. 0..HSM_FLOWS - 1 */
};

/* body of DONE: struct hsm_result results[count], then the signatures without gaps, in that order */
struct hsm_result {      /* 24 bytes */
    uint32_t index;        /* the item's place in its order */
    uint32_t status;       /* enum hsm_status */
    uint64_t ckr;          /* the device's own code where status is HSM_E_DEVICE, else 0: a CK_RV, or HSM_TPM_CODE | TPM_RC */
    uint32_t length;       /* of the signature; 0 unless HSM_OK */
    uint32_t reserved;
};

enum hsm_scheme {
    HSM_ECDSA_P256_SHA256 = 1,
    HSM_ECDSA_P384_SHA384 = 2,
    HSM_ECDSA_P521_SHA512 = 3,
    HSM_RSA_PKCS1_SHA256 = 4,
    HSM_RSA_PKCS1_SHA384 = 5,
    HSM_RSA_PKCS1_SHA512 = 6,
    HSM_RSA_PSS_SHA256 = 7,
    HSM_RSA_PSS_SHA384 = 8,
    HSM_RSA_PSS_SHA512 = 9,
    HSM_ED25519 = 10
};

#define HSM_TPM_CODE (UINT64_C(1) << 32)

enum hsm_input_kind { HSM_INPUT_DIGEST = 0, HSM_INPUT_MESSAGE = 1 };
enum hsm_format { HSM_FORMAT_DER = 0, HSM_FORMAT_RAW = 1 };

/* A PKCS #11 locator: uint8_t id_len, CKA_ID, uint8_t label_len, CKA_LABEL. One of the two may be empty.
 * It fits exactly one CKO_PRIVATE_KEY object, or the answer is HSM_E_KEY_NOT_FOUND. */

#endif
