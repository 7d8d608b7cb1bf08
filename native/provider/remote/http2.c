#include "http2.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hsm_http2 {
    nghttp2_session *session;
    int32_t stream; /* of the call under way or the last one; 0: none yet */
    bool goodbye;   /* a GOAWAY came */
    const char *too_much;
    size_t received, headers;
    const uint8_t *message;
    size_t message_len, message_sent;
    struct hsm_answer answer;
};

static ssize_t read_message(nghttp2_session *session, int32_t stream, uint8_t *into, size_t room, uint32_t *flags,
                            nghttp2_data_source *source, void *user)
{
    (void)session, (void)stream, (void)source;
    struct hsm_http2 *http2 = user;
    const size_t left = http2->message_len - http2->message_sent, now = left < room ? left : room;
    memcpy(into, http2->message + http2->message_sent, now);
    http2->message_sent += now;
    if (now == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)now;
}

static bool is_named(const uint8_t *name, size_t len, const char *wanted)
{
    return len == strlen(wanted) && memcmp(name, wanted, len) == 0;
}

/* A number from 0 to `most`, of decimal digits alone; else -1. */
static int number(const uint8_t *value, size_t len, int most)
{
    int sum = 0;
    if (len == 0 || len > 3)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -1;
        sum = sum * 10 + (value[i] - '0');
    }
    return sum <= most ? sum : -1;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    static const char grpc[] = "application/grpc";
    (void)session, (void)flags;
    struct hsm_http2 *http2 = user;
    struct hsm_answer *answer = &http2->answer;
    http2->headers += name_len + value_len + 32; /* as RFC 9113, section 6.5.2 counts */
    if (http2->headers > HSM_HEADERS_MAX) {
        http2->too_much = "headers";
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (frame->hd.stream_id != http2->stream)
        return 0;
    if (is_named(name, name_len, ":status"))
        answer->http_status = number(value, value_len, 999);
    else if (is_named(name, name_len, "content-type"))
        answer->is_grpc = value_len >= strlen(grpc) && memcmp(value, grpc, strlen(grpc)) == 0 &&
                          (value_len == strlen(grpc) || strchr("+;", value[strlen(grpc)]) != NULL);
    else if (is_named(name, name_len, "grpc-status")) {
        answer->grpc_statuses += answer->grpc_statuses < 2;
        answer->grpc_status = number(value, value_len, 16);
    } else if (is_named(name, name_len, "grpc-message"))
        hsm_words_decode((const char *)value, value_len, answer->words, sizeof answer->words);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t len,
                   void *user)
{
    (void)session, (void)flags;
    struct hsm_http2 *http2 = user;
    struct hsm_answer *answer = &http2->answer;
    if (stream != http2->stream)
        return 0;
    if (len > sizeof answer->body - answer->body_len) {
        http2->too_much = "data";
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    memcpy(answer->body + answer->body_len, data, len);
    answer->body_len += len;
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct hsm_http2 *http2 = user;
    const bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    http2->goodbye |= frame->hd.type == NGHTTP2_GOAWAY;
    if (ends && frame->hd.stream_id == http2->stream)
        http2->answer.over = true;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    (void)session;
    struct hsm_http2 *http2 = user;
    struct hsm_answer *answer = &http2->answer;
    if (stream != http2->stream)
        return 0;
    if (!answer->over) { /* else the answer was whole before */
        answer->reset = true;
        answer->reset_code = code;
        answer->refused = code == NGHTTP2_REFUSED_STREAM;
    }
    answer->over = true;
    http2->message = NULL;
    http2->message_len = http2->message_sent = 0;
    return 0;
}

static int make_session(struct hsm_http2 *http2, nghttp2_session_callbacks *callbacks, nghttp2_option *options)
{
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option_set_no_closed_streams(options, 1);
    return nghttp2_session_client_new2(&http2->session, callbacks, http2, options);
}

hsm_status hsm_http2_new(struct hsm_http2 **out)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HSM_HEADERS_MAX},
    };
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *options = NULL;
    struct hsm_http2 *http2 = calloc(1, sizeof *http2);
    *out = NULL;
    bool made = http2 != NULL && nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&options) == 0 &&
                make_session(http2, callbacks, options) == 0;
    made = made && nghttp2_submit_settings(http2->session, NGHTTP2_FLAG_NONE, settings,
                                           sizeof settings / sizeof settings[0]) == 0;
    nghttp2_option_del(options);
    nghttp2_session_callbacks_del(callbacks);
    if (made)
        *out = http2;
    else
        hsm_http2_free(http2);
    return made ? HSM_OK : HSM_E_NO_MEMORY;
}

void hsm_http2_free(struct hsm_http2 *http2)
{
    if (http2 == NULL)
        return;
    nghttp2_session_del(http2->session);
    free(http2);
}

bool hsm_http2_is_open(const struct hsm_http2 *http2)
{
    return !http2->goodbye && http2->message == NULL && nghttp2_session_want_read(http2->session) != 0 &&
           nghttp2_session_check_request_allowed(http2->session) != 0;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

hsm_status hsm_http2_start(struct hsm_http2 *http2, const struct hsm_request *request, struct hsm_why *why)
{
    char timeout[16]; /* at most eight digits and a unit (gRPC over HTTP/2, "Timeout") */
    const bool in_seconds = request->timeout_ms > 99999999u;
    (void)snprintf(timeout, sizeof timeout, in_seconds ? "%uS" : "%um",
                   in_seconds ? request->timeout_ms / 1000 : request->timeout_ms);
    const nghttp2_nv headers[] = {
        header(":method", "POST"),
        header(":scheme", request->scheme),
        header(":path", request->path),
        header(":authority", request->authority),
        header("te", "trailers"),
        header("content-type", "application/grpc"),
        header("grpc-timeout", timeout),
        header("user-agent", "hsmsign-provider"),
    };
    const nghttp2_data_provider body = {.source = {.ptr = NULL}, .read_callback = read_message};
    memset(&http2->answer, 0, offsetof(struct hsm_answer, body));
    http2->answer.body_len = 0;
    http2->received = http2->headers = 0;
    http2->message = request->message;
    http2->message_len = request->message_len;
    http2->message_sent = 0;
    http2->stream =
        nghttp2_submit_request(http2->session, NULL, headers, sizeof headers / sizeof headers[0], &body, NULL);
    if (http2->stream > 0)
        return HSM_OK;
    http2->message = NULL;
    return hsm_why_passing(why, HSM_E_IO, "no call can be started on the connection: %s",
                           nghttp2_strerror(http2->stream));
}

static hsm_status not_http2(struct hsm_why *why)
{
    return hsm_why_final(why, HSM_E_FRAME, "what answers is not HTTP/2; does the endpoint name the gRPC port?");
}

hsm_status hsm_http2_receive(struct hsm_http2 *http2, const uint8_t *bytes, size_t len, struct hsm_why *why)
{
    http2->received += len;
    if (http2->received > HSM_RECEIVED_MAX)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon sends without end where an answer was waited for");
    const ssize_t taken = nghttp2_session_mem_recv(http2->session, bytes, len);
    if (http2->too_much != NULL)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer has more %s than %u bytes", http2->too_much,
                             HSM_MESSAGE_MAX);
    if (taken == NGHTTP2_ERR_NOMEM)
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    return taken >= 0 && (size_t)taken == len ? HSM_OK : not_http2(why);
}

hsm_status hsm_http2_next(struct hsm_http2 *http2, const uint8_t **bytes, size_t *len, struct hsm_why *why)
{
    const ssize_t got = nghttp2_session_mem_send(http2->session, bytes);
    *len = got > 0 ? (size_t)got : 0;
    if (got > 0)
        return HSM_OK;
    if (got == 0) /* nghttp2 said goodbye to a peer that broke the protocol: the call would wait for nothing */
        return http2->message != NULL && !http2->answer.over && nghttp2_session_want_read(http2->session) == 0
                   ? not_http2(why)
                   : HSM_OK;
    return hsm_why_final(why, got == NGHTTP2_ERR_NOMEM ? HSM_E_NO_MEMORY : HSM_E_FRAME, "HTTP/2 failed: %s",
                         nghttp2_strerror((int)got));
}

const struct hsm_answer *hsm_http2_answer(const struct hsm_http2 *http2)
{
    return &http2->answer;
}
