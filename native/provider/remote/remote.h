/* Signatures by a hsmsign daemon, asked for over gRPC from inside somebody else's program: blocking, without a
 * thread of its own, safe with threads and after fork(). It never raises SIGPIPE, leaves the caller's OpenSSL error
 * queue as it was, and uses nothing of the caller's OpenSSL configuration but the system-wide policy for TLS. */
#ifndef HSMSIGN_REMOTE_H
#define HSMSIGN_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "native/core/status.h"

typedef struct hsm_remote hsm_remote;

#define HSM_REMOTE_NAME_ROOM 128u /* of a version's name, with the NUL at its end */

/* Where the daemon is. Strings are copied. The files are read at each new connection: renewed ones are noticed. */
typedef struct hsm_remote_endpoint {
    const char *target;      /* unix:///path or dns:///host:port (an IPv6 address in brackets) */
    const char *ca;          /* PEM files for mutual TLS; all three NULL for a Unix socket */
    const char *certificate; /* the client's, with its chain */
    const char *key;         /* a plain private key, without a passphrase */
    const char *server_name; /* checked in the daemon's certificate instead of the host, or NULL */
    uint32_t deadline_ms;    /* for one signature, everything included but the look-up of a host's name */
} hsm_remote_endpoint;

/* One signature. Nothing is kept of it. */
typedef struct hsm_remote_order {
    const char *name; /* keys/web-1 or keys/web-1/versions/2 */
    uint32_t scheme;  /* hsmsign.v1.SignatureScheme; 0 where the key has one only */
    bool is_message;  /* the daemon hashes `input`; else it is a digest */
    const uint8_t *input;
    size_t input_len;
} hsm_remote_order;

/* One sentence for a person: what was wrong, what to do. Printable, never a secret; empty after HSM_OK. */
struct hsm_remote_trouble {
    char words[256];
};

/* Checks the words of `endpoint`; connects to nothing and reads no file. HSM_OK: *out is the caller's, for
 * hsm_remote_close. HSM_E_BAD_INPUT or HSM_E_NO_MEMORY: *out is NULL. */
hsm_status hsm_remote_open(const hsm_remote_endpoint *endpoint, hsm_remote **out, struct hsm_remote_trouble *trouble);

/* Waits for the signature, until the deadline at most. *signature_len is the room on entry, the length on return
 * (ECDSA: ASN.1 DER). Many threads may call it at once.
 *
 * HSM_E_DEADLINE       no answer in time
 * HSM_E_IO             the daemon cannot be reached, or not be trusted (TLS)
 * HSM_E_NOT_PRESENT    the daemon, or its device, was not available until the deadline
 * HSM_E_KEY_NOT_FOUND  no such key, or none that this caller may use
 * HSM_E_BUFFER         the signature is longer than the room; *signature_len says how long
 * HSM_E_BUSY           a limit of the daemon is reached
 * HSM_E_FRAME          what came is no answer of a daemon;  HSM_E_BROKEN: it is one, but contradicts itself
 * HSM_E_BAD_INPUT, HSM_E_UNSUPPORTED, HSM_E_DEVICE, HSM_E_CANCELLED: as the daemon said */
hsm_status hsm_remote_sign(hsm_remote *remote, const hsm_remote_order *order, uint8_t *signature,
                           size_t *signature_len, struct hsm_remote_trouble *trouble);

/* The public key of a name: SubjectPublicKeyInfo, DER, and the version that it is of. As above; HSM_E_BROKEN where there
 * is no room for it. */
hsm_status hsm_remote_public_key(hsm_remote *remote, const char *name, uint8_t *der, size_t *len,
                                 char version[HSM_REMOTE_NAME_ROOM],
                                 struct hsm_remote_trouble *trouble);

/* No thread may be in a call. NULL is allowed. */
void hsm_remote_close(hsm_remote *remote);

#endif
