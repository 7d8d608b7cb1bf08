/* What a daemon, or somebody who is none, sends: HTTP/2 frames (RFC 9113), headers without Huffman or tables
 * (RFC 7541, section 6.2.2), and SignResponse by hand. */
#ifndef HSMSIGN_TEST_REMOTE_FRAMES_H
#define HSMSIGN_TEST_REMOTE_FRAMES_H

#include <stdint.h>
#include <string.h>

#include "native/provider/remote/crc32c.h"

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, GOAWAY = 7, END_STREAM = 1, END_HEADERS = 4 };

struct text {
    uint8_t bytes[40000];
    size_t len;
};

static inline void put(struct text *text, const void *bytes, size_t len)
{
    memcpy(text->bytes + text->len, bytes, len);
    text->len += len;
}

static inline void put_byte(struct text *text, unsigned byte)
{
    text->bytes[text->len++] = (uint8_t)byte;
}

static inline void put_u32(struct text *text, uint32_t number)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        put_byte(text, number >> shift & 255u);
}

static inline void put_frame(struct text *text, unsigned type, unsigned flags, uint32_t stream, const void *bytes,
                             size_t len)
{
    put_byte(text, (unsigned)(len >> 16));
    put_byte(text, (unsigned)(len >> 8) & 255u);
    put_byte(text, (unsigned)len & 255u);
    put_byte(text, type);
    put_byte(text, flags);
    put_u32(text, stream);
    put(text, bytes, len);
}

static inline void put_string(struct text *text, const char *string)
{
    const size_t len = strlen(string);
    put_byte(text, len < 127 ? (unsigned)len : 127u);
    if (len >= 127) {
        size_t rest = len - 127;
        for (; rest >= 128; rest >>= 7)
            put_byte(text, (unsigned)(rest & 127u) | 128u);
        put_byte(text, (unsigned)rest);
    }
    put(text, string, len);
}

static inline void put_header(struct text *text, const char *name, const char *value)
{
    put_byte(text, 0);
    put_string(text, name);
    put_string(text, value);
}

static inline void put_headers(struct text *text)
{
    struct text block = {.len = 0};
    put_header(&block, ":status", "200");
    put_header(&block, "content-type", "application/grpc");
    put_frame(text, HEADERS, END_HEADERS, 1, block.bytes, block.len);
}

static inline void put_trailers(struct text *text, const char *status, const char *message)
{
    struct text block = {.len = 0};
    if (status != NULL)
        put_header(&block, "grpc-status", status);
    if (message != NULL)
        put_header(&block, "grpc-message", message);
    if (block.len == 0)
        put_header(&block, "x", "y");
    put_frame(text, HEADERS, END_HEADERS | END_STREAM, 1, block.bytes, block.len);
}

/* A SignResponse with its gRPC prefix. */
static inline void put_response(struct text *text, const char *version, unsigned scheme, const uint8_t *signature,
                                size_t len, uint32_t crc)
{
    struct text message = {.len = 0};
    put_byte(&message, 1u << 3 | 2u);
    put_string(&message, version);
    put_byte(&message, 2u << 3);
    put_byte(&message, scheme);
    put_byte(&message, 3u << 3 | 2u);
    put_byte(&message, (unsigned)len); /* below 128 here */
    put(&message, signature, len);
    put_byte(&message, 4u << 3 | 5u);
    for (int shift = 0; shift < 32; shift += 8)
        put_byte(&message, crc >> shift & 255u);
    put_byte(text, 0);
    put_u32(text, (uint32_t)message.len);
    put(text, message.bytes, message.len);
}

static inline void put_good_answer(struct text *text, const uint8_t *signature, size_t len)
{
    struct text body = {.len = 0};
    put_frame(text, SETTINGS, 0, 0, "", 0);
    put_headers(text);
    put_response(&body, "keys/web-1/versions/2", 1, signature, len, hsm_crc32c(signature, len));
    put_frame(text, DATA, 0, 1, body.bytes, body.len);
    put_trailers(text, "0", NULL);
}

#endif
