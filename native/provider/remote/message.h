/* SignRequest and SignResponse (protos/hsmsign/v1/signing.proto) as gRPC messages, with their five bytes before. */
#ifndef HSMSIGN_REMOTE_MESSAGE_H
#define HSMSIGN_REMOTE_MESSAGE_H

#include "why.h"

#define HSM_MESSAGE_PREFIX 5u
#define HSM_MESSAGE_MAX (16u << 10) /* of an answer */

/* HSM_OK: *message is the caller's to free(). */
hsm_status hsm_message_write(const hsm_remote_order *order, uint8_t **message, size_t *len, struct hsm_why *why);

/* Reads an answer, and holds it against the order. As hsm_remote_sign says. */
hsm_status hsm_message_read(const uint8_t *message, size_t len, const hsm_remote_order *order, uint8_t *signature,
                            size_t *signature_len, struct hsm_why *why);

#endif
