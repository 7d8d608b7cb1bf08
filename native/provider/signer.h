/* What the provider asks of whoever reaches the daemon: the C client in a stand-alone hsmsign.so, Python in a process
 * that has it. */
#ifndef HSMSIGN_SIGNER_H
#define HSMSIGN_SIGNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "native/core/status.h"
#include "reference.h"

/* One sentence for a person: what was wrong, what to do. Never a secret; empty after HSM_OK. */
struct hsm_words {
    char text[256];
};

/* keys/web-1/versions/2, with a NUL at its end. */
struct hsm_version {
    char name[128];
};

struct hsm_wish {
    uint32_t scheme; /* hsmsign.v1.SignatureScheme */
    bool is_message; /* the daemon hashes `input`; else it is a digest */
    const uint8_t *input;
    size_t input_len;
};

/* All may be called by many threads at once, `close` excepted. */
struct hsm_signer {
    /* Checks the words of `reference`, which outlives *opened, and whose name may change until the first signature; speaks with nobody yet. */
    hsm_status (*open)(const struct hsm_reference *reference, void **opened, struct hsm_words *words);
    /* *len is the room on entry, the length on return. Waits no longer than the reference's deadline. */
    hsm_status (*sign)(void *opened, const struct hsm_wish *wish, uint8_t *signature, size_t *len,
                       struct hsm_words *words);
    /* SubjectPublicKeyInfo, DER: into `der` as above; and the version that it is of. */
    hsm_status (*public_key)(void *opened, uint8_t *der, size_t *len, struct hsm_version *version,
                             struct hsm_words *words);
    void (*close)(void *opened);
};

#endif
