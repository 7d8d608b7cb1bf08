/* One HTTP/2 connection as bytes in and bytes out (nghttp2), with one gRPC call at a time on it. No descriptor here. */
#ifndef HSMSIGN_REMOTE_HTTP2_H
#define HSMSIGN_REMOTE_HTTP2_H

#include "message.h"

#define HSM_HEADERS_MAX (16u << 10)  /* bytes of headers and trailers of one answer */
#define HSM_RECEIVED_MAX (128u << 10) /* bytes of all kinds while one answer is waited for */

struct hsm_http2;

struct hsm_request {
    const char *scheme;    /* "http" or "https" */
    const char *authority;
    const char *path;      /* of the method */
    uint32_t timeout_ms;   /* of the call, at least 1 */
    const uint8_t *message; /* borrowed until the call is over */
    size_t message_len;
};

/* What came back. The sizes are checked, nothing else. */
struct hsm_answer {
    bool over;             /* nothing more will come */
    bool reset, refused;   /* the stream was reset with `reset_code`; never looked at by the daemon */
    uint32_t reset_code;
    int http_status;       /* 0: no headers came */
    bool is_grpc;
    int grpc_statuses;     /* how often there was one */
    int grpc_status;       /* -1: not a number from 0 to 16 */
    char words[200];       /* grpc-message, decoded */
    uint8_t body[HSM_MESSAGE_PREFIX + HSM_MESSAGE_MAX];
    size_t body_len;
};

hsm_status hsm_http2_new(struct hsm_http2 **out);
void hsm_http2_free(struct hsm_http2 *http2);

/* Whether a call may be started: the daemon did not say goodbye, and numbers for streams are left. */
bool hsm_http2_is_open(const struct hsm_http2 *http2);

hsm_status hsm_http2_start(struct hsm_http2 *http2, const struct hsm_request *request, struct hsm_why *why);

/* Takes in what came. HSM_E_FRAME: the connection is to be closed. */
hsm_status hsm_http2_receive(struct hsm_http2 *http2, const uint8_t *bytes, size_t len, struct hsm_why *why);

/* What is to be sent next; *len is 0 where there is nothing. Stays readable until the next call of any function. */
hsm_status hsm_http2_next(struct hsm_http2 *http2, const uint8_t **bytes, size_t *len, struct hsm_why *why);

/* The answer of the call that was started last; it lives as long as the connection. */
const struct hsm_answer *hsm_http2_answer(const struct hsm_http2 *http2);

#endif
