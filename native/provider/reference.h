/* The reference that stands where a private key would: which key, its public half, where the daemon is. No secret.
 *
 *     KeyReference ::= SEQUENCE {
 *         version     INTEGER (1),
 *         name        UTF8String,               -- keys/web-1, or one version of it
 *         publicKey   OCTET STRING,             -- SubjectPublicKeyInfo, DER
 *         endpoint    UTF8String,               -- unix:///path or dns:///host:port
 *         deadline    INTEGER,                  -- milliseconds for one signature
 *         verify      BOOLEAN,                  -- check each signature before it is used
 *         tls         [0] EXPLICIT Tls OPTIONAL }
 *     Tls ::= SEQUENCE {
 *         ca UTF8String, certificate UTF8String, key UTF8String,     -- paths of PEM files
 *         serverName [0] EXPLICIT UTF8String OPTIONAL }
 *
 * In PEM between -----BEGIN HSMSIGN KEY REFERENCE----- and -----END HSMSIGN KEY REFERENCE-----. */
#ifndef HSMSIGN_REFERENCE_H
#define HSMSIGN_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HSM_REFERENCE_LABEL "HSMSIGN KEY REFERENCE"
#define HSM_REFERENCE_MAX 16384u        /* bytes of DER that are looked at */
#define HSM_REFERENCE_DEADLINE_MS 5000u /* where nothing else is said */
#define HSM_REFERENCE_DEADLINE_MAX_MS 600000u

struct hsm_reference {
    char *name;
    uint8_t *public_key;
    size_t public_key_len;
    char *endpoint;
    uint32_t deadline_ms;
    bool verify;
    char *ca, *certificate, *key; /* all three or none */
    char *server_name;            /* or NULL */
};

/* NULL: these bytes are none, or there is no memory; nothing is raised. The caller's, for hsm_reference_free. */
struct hsm_reference *hsm_reference_read(const uint8_t *der, size_t len);

/* From `hsmsign:NAME?endpoint=…[&ca=…&certificate=…&key=…][&server-name=…][&deadline-ms=…][&verify=yes]`, with
 * percent-encoding (RFC 3986): without a public key. NULL: as above. */
struct hsm_reference *hsm_reference_of_uri(const char *uri);

void hsm_reference_free(struct hsm_reference *reference);

/* DER: *der is the caller's, for OPENSSL_free. 0: no memory, or a field that is missing. */
size_t hsm_reference_write(const struct hsm_reference *reference, uint8_t **der);

#endif
