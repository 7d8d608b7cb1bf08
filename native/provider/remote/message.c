#include "message.h"

#include <pb_decode.h>
#include <pb_encode.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "hsmsign/v1/signing.pb.h"

#define NAME_ROOM 128u
#define INPUT_MAX (16u << 20) /* the daemon takes less */

struct bytes {
    const uint8_t *data;
    size_t len;
};

struct room {
    uint8_t *data;
    size_t room, len;
    bool too_long;
};

static bool write_bytes(pb_ostream_t *stream, const pb_field_t *field, void *const *argument)
{
    const struct bytes *bytes = *argument;
    return pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, bytes->data, bytes->len);
}

static bool read_bytes(pb_istream_t *stream, const pb_field_t *field, void **argument)
{
    (void)field;
    struct room *into = *argument;
    into->len = stream->bytes_left; /* a field that comes twice: the last one counts (protobuf) */
    into->too_long = into->len > into->room;
    return into->too_long ? pb_read(stream, NULL, into->len) : pb_read(stream, into->data, into->len);
}

static bool encode(const hsmsign_v1_SignRequest *request, uint8_t *message, size_t size)
{
    pb_ostream_t stream = pb_ostream_from_buffer(message + HSM_MESSAGE_PREFIX, size);
    message[0] = 0; /* not compressed */
    for (unsigned i = 0; i < 4; i++)
        message[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    return pb_encode(&stream, hsmsign_v1_SignRequest_fields, request) && stream.bytes_written == size;
}

hsm_status hsm_message_write(const hsm_remote_order *order, uint8_t **message, size_t *len, struct hsm_why *why)
{
    struct bytes name = {(const uint8_t *)order->name, 0}, input = {order->input, order->input_len};
    hsmsign_v1_SignRequest request = hsmsign_v1_SignRequest_init_zero;
    *message = NULL;
    name.len = order->name != NULL ? strnlen(order->name, NAME_ROOM) : 0;
    if (name.len == 0 || name.len == NAME_ROOM)
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the name of a key has 1 to 127 bytes, like keys/web-1");
    if (input.len > INPUT_MAX || (input.data == NULL && input.len > 0))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "there is no input to sign, or more than a daemon takes");
    const pb_callback_t put_input = {.funcs.encode = write_bytes, .arg = &input};
    request.name = (pb_callback_t){.funcs.encode = write_bytes, .arg = &name};
    request.scheme = (hsmsign_v1_SignatureScheme)order->scheme;
    request.which_input = order->is_message ? hsmsign_v1_SignRequest_message_tag : hsmsign_v1_SignRequest_digest_tag;
    if (order->is_message)
        request.input.message = put_input;
    else
        request.input.digest = put_input;
    request.has_input_crc32c = true;
    request.input_crc32c = hsm_crc32c(input.data, input.len);
    size_t size = 0;
    if (!pb_get_encoded_size(&size, hsmsign_v1_SignRequest_fields, &request))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the request cannot be written");
    *message = malloc(HSM_MESSAGE_PREFIX + size);
    if (*message == NULL)
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    *len = HSM_MESSAGE_PREFIX + size;
    if (encode(&request, *message, size))
        return HSM_OK;
    free(*message);
    *message = NULL;
    return hsm_why_final(why, HSM_E_BAD_INPUT, "the request cannot be written");
}

/* Whether `version` is keys/ID/versions/N of the key that was asked for, or the version that was. */
static bool is_of(const char *name, const char *version)
{
    static const char between[] = "/versions/";
    const size_t len = strlen(name);
    if (strstr(name, between) != NULL)
        return strcmp(name, version) == 0;
    if (strncmp(name, version, len) != 0 || strncmp(version + len, between, strlen(between)) != 0)
        return false;
    const char *number = version + len + strlen(between);
    const size_t digits = strspn(number, "0123456789");
    return digits >= 1 && digits <= 10 && number[0] != '0' && number[digits] == '\0';
}

static hsm_status unwrap(const uint8_t *message, size_t len, struct hsm_why *why)
{
    size_t said = 0;
    if (len < HSM_MESSAGE_PREFIX)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon said yes and sent no signature; is it hsmsign?");
    for (unsigned i = 1; i < HSM_MESSAGE_PREFIX; i++)
        said = said << 8 | message[i];
    if (message[0] != 0)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer is compressed, which was not asked for");
    if (said != len - HSM_MESSAGE_PREFIX)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer has %zu bytes where it announces %zu",
                             len - HSM_MESSAGE_PREFIX, said);
    return HSM_OK;
}

static hsm_status judge(const hsmsign_v1_SignResponse *response, const char *version, const hsm_remote_order *order,
                        const struct room *signature, struct hsm_why *why)
{
    if (!is_of(order->name, version))
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
    char version[NAME_ROOM] = "";
    struct room name = {(uint8_t *)version, sizeof version - 1, 0, false};
    struct room into = {signature, *signature_len, 0, false};
    hsmsign_v1_SignResponse response = hsmsign_v1_SignResponse_init_zero;
    hsm_status status = unwrap(message, len, why);
    *signature_len = 0;
    if (status != HSM_OK)
        return status;
    response.key_version = (pb_callback_t){.funcs.decode = read_bytes, .arg = &name};
    response.signature = (pb_callback_t){.funcs.decode = read_bytes, .arg = &into};
    pb_istream_t stream = pb_istream_from_buffer(message + HSM_MESSAGE_PREFIX, len - HSM_MESSAGE_PREFIX);
    if (!pb_decode(&stream, hsmsign_v1_SignResponse_fields, &response) || name.too_long)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer cannot be read; is it hsmsign, and not newer?");
    version[name.len] = '\0';
    status = judge(&response, version, order, &into, why);
    if (status == HSM_OK || status == HSM_E_BUFFER)
        *signature_len = into.len;
    return status;
}
