/* Held against OpenSSL's own encoder. */
#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "native/host/host.h"

static const size_t sizes[] = {64, 96, 132};

static void encodes_like_openssl(const uint8_t *raw, size_t len)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    CHECK(sig != NULL);
    CHECK(ECDSA_SIG_set0(sig, BN_bin2bn(raw, (int)len / 2, NULL), BN_bin2bn(raw + len / 2, (int)len / 2, NULL)) == 1);
    uint8_t *expected = NULL;
    int expected_len = i2d_ECDSA_SIG(sig, &expected);
    CHECK(expected_len > 0);

    uint8_t *out = malloc((size_t)expected_len); /* exactly: the sanitizer sees one byte more */
    CHECK(out != NULL);
    size_t out_len = (size_t)expected_len;
    CHECK(hsm_ecdsa_raw_to_der(raw, len, out, &out_len) == HSM_OK);
    CHECK(out_len == (size_t)expected_len && memcmp(out, expected, out_len) == 0);

    out_len = (size_t)expected_len - 1;
    CHECK(hsm_ecdsa_raw_to_der(raw, len, out, &out_len) == HSM_E_BUFFER);
    CHECK(out_len == (size_t)expected_len);
    free(out);
    OPENSSL_free(expected);
    ECDSA_SIG_free(sig);
}

static void every_length_of_r_and_s_is_encoded_like_openssl(void)
{
    uint8_t raw[132];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t half = sizes[i] / 2;
        for (size_t r = 0; r < half; r++) {
            for (size_t s = 0; s < half; s += 3) {
                for (int top = 0x7f; top <= 0x80; top++) {
                    memset(raw, 0, sizeof raw);
                    memset(raw + r, 0xa5, half - r);
                    memset(raw + half + s, 0x5a, half - s);
                    raw[r] = (uint8_t)top;
                    raw[half + s] = (uint8_t)(top ^ 0xff);
                    encodes_like_openssl(raw, sizes[i]);
                }
            }
        }
    }
}

static void zero_is_refused(void)
{
    uint8_t raw[64] = {0};
    uint8_t out[80];
    size_t len = sizeof out;
    raw[63] = 1;
    CHECK(hsm_ecdsa_raw_to_der(raw, sizeof raw, out, &len) == HSM_E_BAD_INPUT);
    raw[63] = 0;
    raw[0] = 1;
    CHECK(hsm_ecdsa_raw_to_der(raw, sizeof raw, out, &len) == HSM_E_BAD_INPUT);
}

static void an_unknown_length_is_refused(void)
{
    uint8_t raw[140];
    uint8_t out[160];
    memset(raw, 1, sizeof raw);
    for (size_t len = 0; len <= sizeof raw; len++) {
        size_t out_len = sizeof out;
        hsm_status expected = len == 64 || len == 96 || len == 132 ? HSM_OK : HSM_E_BAD_INPUT;
        CHECK(hsm_ecdsa_raw_to_der(raw, len, out, &out_len) == expected);
    }
}

int main(void)
{
    int passed = 0;
    RUN(every_length_of_r_and_s_is_encoded_like_openssl);
    RUN(zero_is_refused);
    RUN(an_unknown_length_is_refused);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
