#include "message.h"

#include "crc32c.h"
#include "hsmsign/v1/keys.pb.h"
#include "hsmsign/v1/signing.pb.h"
#include "wire.h"

#define INPUT_MAX (16u << 20) /* the daemon takes less */

hsm_status hsm_message_write(const hsm_remote_order *order, uint8_t **message, size_t *len, struct hsm_why *why)
{
    struct hsm_bytes name, input = {order->input, order->input_len};
    hsmsign_v1_SignRequest request = hsmsign_v1_SignRequest_init_zero;
    *message = NULL;
    const hsm_status status = hsm_wire_name(order->name, &name, why);
    if (status != HSM_OK)
        return status;
    if (input.len > INPUT_MAX || (input.data == NULL && input.len > 0))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "there is no input to sign, or more than a daemon takes");
    request.name = hsm_wire_put(&name);
    request.scheme = (hsmsign_v1_SignatureScheme)order->scheme;
    request.which_input = order->is_message ? hsmsign_v1_SignRequest_message_tag : hsmsign_v1_SignRequest_digest_tag;
    if (order->is_message)
        request.input.message = hsm_wire_put(&input);
    else
        request.input.digest = hsm_wire_put(&input);
    request.has_input_crc32c = true;
    request.input_crc32c = hsm_crc32c(input.data, input.len);
    return hsm_wire_write(hsmsign_v1_SignRequest_fields, &request, message, len, why);
}

static hsm_status judge(const hsmsign_v1_SignResponse *response, const char *version, const hsm_remote_order *order,
                        const struct hsm_room *signature, struct hsm_why *why)
{
    if (!hsm_wire_is_of(order->name, version))
        return hsm_why_final(why, HSM_E_BROKEN, "the answer is of another key (%.60s) than the one asked for (%.60s)",
                             version, order->name);
    if (order->scheme != 0 && (uint32_t)response->scheme != order->scheme)
        return hsm_why_final(why, HSM_E_BROKEN, "the daemon signed by scheme %u where %u was asked for",
                             (unsigned)response->scheme, (unsigned)order->scheme);
    if (signature->too_long)
        return hsm_why_final(why, HSM_E_BUFFER, "the signature has %zu bytes, and there is room for %zu",
                             signature->len, signature->room);
    if (signature->len == 0)
        return hsm_why_final(why, HSM_E_BROKEN, "the daemon's answer holds no signature");
    if (hsm_crc32c(signature->data, signature->len) != response->signature_crc32c)
        return hsm_why_final(why, HSM_E_BROKEN, "the signature changed on its way: its checksum does not fit it");
    return HSM_OK;
}

hsm_status hsm_message_read(const uint8_t *message, size_t len, const hsm_remote_order *order, uint8_t *signature,
                            size_t *signature_len, struct hsm_why *why)
{
    char version[HSM_NAME_ROOM] = "";
    struct hsm_room name = {(uint8_t *)version, sizeof version - 1, 0, false};
    struct hsm_room into = {signature, *signature_len, 0, false};
    hsmsign_v1_SignResponse response = hsmsign_v1_SignResponse_init_zero;
    *signature_len = 0;
    response.key_version = hsm_wire_get(&name);
    response.signature = hsm_wire_get(&into);
    hsm_status status = hsm_wire_read(hsmsign_v1_SignResponse_fields, &response, message, len, why);
    if (status != HSM_OK)
        return status;
    if (name.too_long)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer cannot be read; is it hsmsign, and not newer?");
    version[name.len] = '\0';
    status = judge(&response, version, order, &into, why);
    if (status == HSM_OK || status == HSM_E_BUFFER)
        *signature_len = into.len;
    return status;
}

hsm_status hsm_message_write_lookup(const char *key, uint8_t **message, size_t *len, struct hsm_why *why)
{
    struct hsm_bytes name;
    hsmsign_v1_GetPublicKeyRequest request = hsmsign_v1_GetPublicKeyRequest_init_zero;
    *message = NULL;
    const hsm_status status = hsm_wire_name(key, &name, why);
    request.name = hsm_wire_put(&name);
    return status == HSM_OK ? hsm_wire_write(hsmsign_v1_GetPublicKeyRequest_fields, &request, message, len, why)
                            : status;
}

hsm_status hsm_message_read_public_key(const uint8_t *message, size_t len, const char *key,
                                       char version[HSM_NAME_ROOM], uint8_t *der, size_t *der_len,
                                       struct hsm_why *why)
{
    struct hsm_room name = {(uint8_t *)version, HSM_NAME_ROOM - 1, 0, false};
    struct hsm_room into = {der, *der_len, 0, false};
    hsmsign_v1_PublicKey response = hsmsign_v1_PublicKey_init_zero;
    *der_len = 0;
    version[0] = '\0';
    response.name = hsm_wire_get(&name);
    response.der = hsm_wire_get(&into);
    const hsm_status status = hsm_wire_read(hsmsign_v1_PublicKey_fields, &response, message, len, why);
    if (status != HSM_OK)
        return status;
    version[name.too_long ? 0 : name.len] = '\0';
    if (!hsm_wire_is_of(key, version))
        return hsm_why_final(why, HSM_E_BROKEN, "the answer is of another key (%.60s) than the one asked for (%.60s)",
                             version, key);
    if (into.too_long || into.len == 0)
        return hsm_why_final(why, HSM_E_BROKEN, "the daemon's answer holds no public key that can be one");
    *der_len = into.len;
    return HSM_OK;
}
