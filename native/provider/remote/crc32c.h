/* CRC32C (RFC 3720, section 12.1 and appendix B.4): what signing.proto's checksums are. */
#ifndef HSMSIGN_REMOTE_CRC32C_H
#define HSMSIGN_REMOTE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t hsm_crc32c(const uint8_t *bytes, size_t len);

#endif
