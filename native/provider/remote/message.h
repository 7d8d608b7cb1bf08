/* What is said to the daemon, and what it answers (protos/hsmsign/v1: SignRequest, SignResponse,
 * GetPublicKeyRequest, PublicKey). */
#ifndef HSMSIGN_REMOTE_MESSAGE_H
#define HSMSIGN_REMOTE_MESSAGE_H

#include "wire.h"

#define HSM_PATH_SIGN "/hsmsign.v1.SigningService/Sign"
#define HSM_PATH_PUBLIC_KEY "/hsmsign.v1.KeyService/GetPublicKey"
#define HSM_MESSAGE_MAX (16u << 10) /* of an answer */

/* HSM_OK: *message is the caller's to free(). */
hsm_status hsm_message_write(const hsm_remote_order *order, uint8_t **message, size_t *len, struct hsm_why *why);

/* Reads an answer, and holds it against the order. As hsm_remote_sign says. */
hsm_status hsm_message_read(const uint8_t *message, size_t len, const hsm_remote_order *order, uint8_t *signature,
                            size_t *signature_len, struct hsm_why *why);

/* The same for the public key of a name. */
hsm_status hsm_message_write_lookup(const char *key, uint8_t **message, size_t *len, struct hsm_why *why);
hsm_status hsm_message_read_public_key(const uint8_t *message, size_t len, const char *key,
                                       char version[HSM_NAME_ROOM], uint8_t *der, size_t *der_len,
                                       struct hsm_why *why);

#endif
