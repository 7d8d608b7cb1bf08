/* ECDSA signatures from PKCS #11's form (section 6.3.1: r || s) to ASN.1 (RFC 3279, section 2.2.3). */
#include <string.h>

#include "host.h"

static int known(size_t raw_len)
{
    return raw_len == 64 || raw_len == 96 || raw_len == 132; /* P-256, P-384, P-521 */
}

/* Skips leading zeros of the unsigned number of *len bytes at `number`; *len is 0 for the number 0. */
static const uint8_t *strip(const uint8_t *number, size_t *len)
{
    while (*len > 0 && *number == 0) {
        number++;
        --*len;
    }
    return number;
}

/* Writes an INTEGER at `out`, and returns what is behind it. A number has at most 66 bytes, so that its
 * length fits one byte. */
static uint8_t *integer(uint8_t *out, const uint8_t *number, size_t len)
{
    int sign = (number[0] & 0x80) != 0; /* a zero byte in front keeps it positive (X.690, section 8.3) */
    *out++ = 0x02;
    *out++ = (uint8_t)(len + (size_t)sign);
    if (sign)
        *out++ = 0x00;
    memcpy(out, number, len);
    return out + len;
}

hsm_status hsm_ecdsa_raw_to_der(const uint8_t *raw, size_t raw_len, uint8_t *out, size_t *out_len)
{
    if (!known(raw_len))
        return HSM_E_BAD_INPUT;
    size_t r_len = raw_len / 2;
    size_t s_len = raw_len / 2;
    const uint8_t *r = strip(raw, &r_len);
    const uint8_t *s = strip(raw + raw_len / 2, &s_len);
    if (r_len == 0 || s_len == 0)
        return HSM_E_BAD_INPUT;

    size_t body = 2 + r_len + (r[0] >> 7) + 2 + s_len + (s[0] >> 7);
    size_t needed = body + (body < 0x80 ? 2 : 3);
    if (*out_len < needed) {
        *out_len = needed;
        return HSM_E_BUFFER;
    }
    *out++ = 0x30;
    if (body >= 0x80) /* P-521 only */
        *out++ = 0x81;
    *out++ = (uint8_t)body;
    out = integer(out, r, r_len);
    (void)integer(out, s, s_len);
    *out_len = needed;
    return HSM_OK;
}
