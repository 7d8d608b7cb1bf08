/* Times of certificates as numbers. */
#ifndef HSMSIGN_TLS_TIME_H
#define HSMSIGN_TLS_TIME_H

#include <openssl/asn1.h>
#include <stdint.h>

/* Seconds since 1970; 0 for none, and for what is no time. */
int64_t hsm_time_of(const ASN1_TIME *time);

#endif
