/* Protocol Buffers (nanopb) with gRPC's five bytes before each message. */
#ifndef HSMSIGN_REMOTE_WIRE_H
#define HSMSIGN_REMOTE_WIRE_H

#include <pb.h>

#include "why.h"

#define HSM_MESSAGE_PREFIX 5u
#define HSM_NAME_ROOM HSM_REMOTE_NAME_ROOM

/* Of a field to be written. */
struct hsm_bytes {
    const uint8_t *data;
    size_t len;
};

/* For a field to be read. */
struct hsm_room {
    uint8_t *data;
    size_t room, len;
    bool too_long; /* `len` says how long it is; nothing was stored */
};

/* Either has to live as long as what is returned. */
pb_callback_t hsm_wire_put(struct hsm_bytes *bytes);
pb_callback_t hsm_wire_get(struct hsm_room *room);

/* The bytes of a key's name; HSM_E_BAD_INPUT. */
hsm_status hsm_wire_name(const char *name, struct hsm_bytes *bytes, struct hsm_why *why);

/* HSM_OK: *message is the caller's to free(). */
hsm_status hsm_wire_write(const pb_msgdesc_t *fields, const void *request, uint8_t **message, size_t *len,
                          struct hsm_why *why);

hsm_status hsm_wire_read(const pb_msgdesc_t *fields, void *response, const uint8_t *message, size_t len,
                         struct hsm_why *why);

/* Whether `version` is keys/ID/versions/N of the key that was asked for, or the version that was. */
bool hsm_wire_is_of(const char *name, const char *version);

#endif
