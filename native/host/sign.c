#include "sign.h"

#include <string.h>

#include "host.h"

/* What is given to C_Sign: the input itself, or what is built from it in `buffer`. */
struct prepared {
    const uint8_t *data;
    size_t len;
    uint8_t buffer[HSM_DIGEST_INFO_MAX];
};

static hsm_status prepare(struct hsm_signer *signer, const struct hsm_scheme_info *scheme, uint8_t kind,
                          const uint8_t *input, size_t input_len, struct prepared *out)
{
    out->data = input;
    out->len = input_len;
    if (kind > HSM_INPUT_MESSAGE)
        return HSM_E_BAD_INPUT;
    if (scheme->hash == HSM_HASH_NONE)
        return kind == HSM_INPUT_MESSAGE ? HSM_OK : HSM_E_BAD_INPUT;
    if (kind == HSM_INPUT_DIGEST && input_len != scheme->digest_len)
        return HSM_E_BAD_INPUT;
    if (kind == HSM_INPUT_DIGEST && scheme->prefix == NULL)
        return HSM_OK;

    uint8_t *digest = out->buffer + scheme->prefix_len;
    size_t digest_len = scheme->digest_len;
    if (scheme->prefix != NULL)
        memcpy(out->buffer, scheme->prefix, scheme->prefix_len);
    if (kind == HSM_INPUT_DIGEST)
        memcpy(digest, input, digest_len);
    else {
        hsm_status status =
            hsm_digest(signer->digests, signer->context, scheme->hash, input, input_len, digest, &digest_len);
        if (status != HSM_OK)
            return status;
    }
    out->data = out->buffer;
    out->len = scheme->prefix_len + digest_len;
    return HSM_OK;
}

/* One try. *length is room before and length after. CKR_OK with *found false: no such key. */
static CK_RV attempt(struct hsm_session *session, const struct hsm_scheme_info *scheme,
                     const struct hsm_order_view *order, const struct prepared *input, uint8_t *out, CK_ULONG *length,
                     bool *found)
{
    struct hsm_object key = {CK_INVALID_HANDLE, 0};
    CK_RV rv = hsm_session_find(session, order->locator, order->head.locator_len, &key);
    *found = key.handle != CK_INVALID_HANDLE;
    if (rv != CKR_OK || !*found)
        return rv;
    if (key.type != scheme->key_type) /* a module should look itself; SoftHSM 2.6.1 crashes instead */
        return CKR_KEY_TYPE_INCONSISTENT;
    CK_MECHANISM mechanism = hsm_scheme_mechanism(scheme);
    rv = session->module->C_SignInit(session->handle, &mechanism, key.handle);
    if (rv != CKR_OK)
        return rv;
    rv = session->module->C_Sign(session->handle, (CK_BYTE_PTR)(uintptr_t)input->data, input->len, out, length);
    if (rv == CKR_BUFFER_TOO_SMALL)
        hsm_session_close(session); /* the one failure that leaves an operation active (PKCS #11, section 5.2) */
    return rv;
}

static bool stale_key(CK_RV rv)
{
    return rv == CKR_KEY_HANDLE_INVALID || rv == CKR_OBJECT_HANDLE_INVALID;
}

/* CKR_DEVICE_ERROR is tried on a fresh session first: some modules answer so for a session that went bad. */
static bool stale_session(CK_RV rv)
{
    return rv == CKR_SESSION_HANDLE_INVALID || rv == CKR_SESSION_CLOSED || rv == CKR_OPERATION_ACTIVE ||
           rv == CKR_DEVICE_ERROR;
}

static bool needs_healing(CK_RV rv)
{
    switch (rv) {
    case CKR_USER_NOT_LOGGED_IN:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
    case CKR_DEVICE_REMOVED:
    case CKR_DEVICE_ERROR:
    case CKR_SLOT_ID_INVALID:
    case CKR_CRYPTOKI_NOT_INITIALIZED:
    case CKR_SESSION_HANDLE_INVALID:
    case CKR_SESSION_CLOSED:
        return true;
    default:
        return false;
    }
}

static hsm_status outcome(CK_RV rv)
{
    switch (rv) {
    case CKR_OK:
        return HSM_OK;
    case CKR_MECHANISM_INVALID:
    case CKR_MECHANISM_PARAM_INVALID:
        return HSM_E_UNSUPPORTED;
    case CKR_HOST_MEMORY:
        return HSM_E_NO_MEMORY;
    default:
        return HSM_E_DEVICE;
    }
}

/* Turns what C_Sign gave, `length` bytes in result->out, into what was asked for. */
static hsm_status finish(const struct hsm_scheme_info *scheme, uint8_t format, size_t length,
                         struct hsm_signature *result)
{
    result->length = length;
    if (scheme->raw_len != 0 && length != scheme->raw_len) { /* the key is on another curve than the scheme says */
        result->ckr = CKR_SIGNATURE_LEN_RANGE;
        return HSM_E_DEVICE;
    }
    if (scheme->mechanism != CKM_ECDSA || format == HSM_FORMAT_RAW)
        return HSM_OK;
    uint8_t raw[132];
    memcpy(raw, result->out, length);
    result->length = HSM_SIGNATURE_MAX;
    hsm_status status = hsm_ecdsa_raw_to_der(raw, length, result->out, &result->length);
    if (status != HSM_OK) { /* r or s of zero is no signature (FIPS 186-5, section 6.4.1) */
        result->ckr = CKR_FUNCTION_FAILED;
        return HSM_E_DEVICE;
    }
    return HSM_OK;
}

/* *unopened says that no session could be opened; the rest as in attempt(). */
static CK_RV try_to_sign(struct hsm_signer *signer, const struct hsm_scheme_info *scheme,
                         const struct hsm_order_view *order, const struct prepared *input, uint8_t *out,
                         CK_ULONG *length, bool *found, bool *unopened)
{
    bool found_again = false;
    bool reopened = false;
    for (;;) {
        *found = false;
        if (!signer->session.open) {
            CK_RV rv = hsm_session_open(&signer->session);
            *unopened = rv != CKR_OK;
            if (rv != CKR_OK)
                return rv;
        }
        *length = HSM_SIGNATURE_MAX;
        CK_RV rv = attempt(&signer->session, scheme, order, input, out, length, found);
        if (stale_key(rv) && !found_again) {
            found_again = true;
            hsm_cache_drop(&signer->session.cache, order->locator, order->head.locator_len);
        } else if (stale_session(rv) && !reopened) {
            reopened = true;
            hsm_session_close(&signer->session);
        } else
            return rv;
    }
}

void hsm_sign(struct hsm_signer *signer, const struct hsm_order_view *order, const uint8_t *input, size_t input_len,
              struct hsm_signature *result)
{
    result->ckr = CKR_OK;
    result->fault = false;
    result->length = 0;
    const struct hsm_scheme_info *scheme = hsm_scheme_find(order->head.scheme);
    if (scheme == NULL || order->head.format > HSM_FORMAT_RAW) {
        result->status = HSM_E_BAD_INPUT;
        return;
    }
    struct prepared prepared;
    result->status = prepare(signer, scheme, order->head.kind, input, input_len, &prepared);
    if (result->status != HSM_OK)
        return;

    CK_ULONG length = 0;
    bool found = false;
    bool unopened = false;
    CK_RV rv = try_to_sign(signer, scheme, order, &prepared, result->out, &length, &found, &unopened);
    if (rv == CKR_OK && !found)
        result->status = HSM_E_KEY_NOT_FOUND;
    else if (rv == CKR_OK && length > HSM_SIGNATURE_MAX)
        result->status = HSM_E_BROKEN; /* it says that it wrote more than it was allowed to */
    else if (rv == CKR_OK)
        result->status = finish(scheme, order->head.format, length, result);
    else {
        result->status = outcome(rv);
        result->ckr = rv;
        result->fault = needs_healing(rv) || unopened;
    }
    if (result->status != HSM_OK)
        result->length = 0;
    if (result->status != HSM_E_DEVICE && !result->fault)
        result->ckr = CKR_OK;
}
