/* One signature, healed in place where that is possible. */
#ifndef HSMSIGN_SIGN_H
#define HSMSIGN_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/order.h"
#include "../core/status.h"
#include "digest.h"
#include "session.h"

/* What a signing thread signs with; all but `digests` is its own. */
struct hsm_signer {
    struct hsm_session session;
    const struct hsm_digests *digests;
    struct evp_md_ctx_st *context;
};

struct hsm_signature {
    hsm_status status;
    CK_RV ckr;   /* with HSM_E_DEVICE; and with `fault`, why */
    bool fault;  /* the device needs healing from outside; the item was not signed and may be tried again */
    size_t length;
    uint8_t *out; /* HSM_SIGNATURE_MAX bytes, the caller's */
};

/* Signs one input of an order. The session is open, or was and is opened again here. */
void hsm_sign(struct hsm_signer *signer, const struct hsm_order_view *order, const uint8_t *input, size_t input_len,
              struct hsm_signature *result);

#endif
