#include "wire.h"

#include <pb_decode.h>
#include <pb_encode.h>
#include <stdlib.h>
#include <string.h>

static bool write_bytes(pb_ostream_t *stream, const pb_field_t *field, void *const *argument)
{
    const struct hsm_bytes *bytes = *argument;
    return pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, bytes->data, bytes->len);
}

static bool read_bytes(pb_istream_t *stream, const pb_field_t *field, void **argument)
{
    (void)field;
    struct hsm_room *into = *argument;
    into->len = stream->bytes_left; /* a field that comes twice: the last one counts (protobuf) */
    into->too_long = into->len > into->room;
    return into->too_long ? pb_read(stream, NULL, into->len) : pb_read(stream, into->data, into->len);
}

pb_callback_t hsm_wire_put(struct hsm_bytes *bytes)
{
    return (pb_callback_t){.funcs.encode = write_bytes, .arg = bytes};
}

pb_callback_t hsm_wire_get(struct hsm_room *room)
{
    return (pb_callback_t){.funcs.decode = read_bytes, .arg = room};
}

hsm_status hsm_wire_name(const char *name, struct hsm_bytes *bytes, struct hsm_why *why)
{
    *bytes = (struct hsm_bytes){(const uint8_t *)name, name != NULL ? strnlen(name, HSM_NAME_ROOM) : 0};
    if (bytes->len == 0 || bytes->len == HSM_NAME_ROOM)
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the name of a key has 1 to 127 bytes, like keys/web-1");
    return HSM_OK;
}

static bool encode(const pb_msgdesc_t *fields, const void *request, uint8_t *message, size_t size)
{
    pb_ostream_t stream = pb_ostream_from_buffer(message + HSM_MESSAGE_PREFIX, size);
    message[0] = 0; /* not compressed */
    for (unsigned i = 0; i < 4; i++)
        message[1 + i] = (uint8_t)(size >> (24 - 8 * i));
    return pb_encode(&stream, fields, request) && stream.bytes_written == size;
}

hsm_status hsm_wire_write(const pb_msgdesc_t *fields, const void *request, uint8_t **message, size_t *len,
                          struct hsm_why *why)
{
    size_t size = 0;
    *message = NULL;
    if (!pb_get_encoded_size(&size, fields, request))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the request cannot be written");
    *message = malloc(HSM_MESSAGE_PREFIX + size);
    if (*message == NULL)
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    *len = HSM_MESSAGE_PREFIX + size;
    if (encode(fields, request, *message, size))
        return HSM_OK;
    free(*message);
    *message = NULL;
    return hsm_why_final(why, HSM_E_BAD_INPUT, "the request cannot be written");
}

static hsm_status unwrap(const uint8_t *message, size_t len, struct hsm_why *why)
{
    size_t said = 0;
    if (len < HSM_MESSAGE_PREFIX)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon said yes and sent nothing; is it hsmsign?");
    for (unsigned i = 1; i < HSM_MESSAGE_PREFIX; i++)
        said = said << 8 | message[i];
    if (message[0] != 0)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer is compressed, which was not asked for");
    if (said != len - HSM_MESSAGE_PREFIX)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer has %zu bytes where it announces %zu",
                             len - HSM_MESSAGE_PREFIX, said);
    return HSM_OK;
}

hsm_status hsm_wire_read(const pb_msgdesc_t *fields, void *response, const uint8_t *message, size_t len,
                         struct hsm_why *why)
{
    const hsm_status status = unwrap(message, len, why);
    if (status != HSM_OK)
        return status;
    pb_istream_t stream = pb_istream_from_buffer(message + HSM_MESSAGE_PREFIX, len - HSM_MESSAGE_PREFIX);
    if (!pb_decode(&stream, fields, response))
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer cannot be read; is it hsmsign, and not newer?");
    return HSM_OK;
}

bool hsm_wire_is_of(const char *name, const char *version)
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
