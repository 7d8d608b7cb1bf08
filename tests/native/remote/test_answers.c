/* The client against a daemon that the test plays, over a socket pair: what is refused, how, and what is repeated. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native/core/clock.h"
#include "native/provider/remote/connection.h"
#include "native/provider/remote/grpc.h"
#include "tests/native/host/check.h"
#include "tests/native/remote/frames.h"

static const uint8_t good[64] = {1, 2, 3};
static const uint8_t digest[32] = {9};
static const hsm_remote_order order = {"keys/web-1", 1, false, digest, sizeof digest};
static struct hsm_connection connection;
static struct hsm_why why;
static uint8_t signature[128];
static size_t signature_len;
static int daemon_;

/* One call, whose answer is `said`; with `hang_up` the daemon closes after it. */
static hsm_status call(const struct text *said, bool hang_up, uint32_t deadline_ms)
{
    char words[] = "unix:///test", authority[] = "localhost";
    const struct hsm_target target = {.words = words, .path = words, .authority = authority,
                                      .deadline_ms = deadline_ms};
    const uint64_t deadline = hsm_now_ns() + (uint64_t)deadline_ms * 1000000u;
    uint8_t *message = NULL;
    size_t len = 0;
    int pair[2];
    memset(&why, 0, sizeof why);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    daemon_ = pair[1];
    hsm_connection_init(&connection);
    CHECK(hsm_connection_adopt(&connection, pair[0], &why) == HSM_OK);
    CHECK(send(daemon_, said->bytes, said->len, MSG_NOSIGNAL) == (ssize_t)said->len);
    if (hang_up)
        CHECK(shutdown(daemon_, SHUT_WR) == 0);
    CHECK(hsm_message_write(&order, &message, &len, &why) == HSM_OK);
    hsm_status status = hsm_connection_call(&connection, &target, HSM_PATH_SIGN, message, len, deadline, &why);
    const struct hsm_answer *answer = status == HSM_OK ? hsm_http2_answer(connection.http2) : NULL;
    if (status == HSM_OK)
        status = hsm_grpc_judge(answer, order.name, &why);
    signature_len = sizeof signature;
    if (status == HSM_OK)
        status = hsm_message_read(answer->body, answer->body_len, &order, signature, &signature_len, &why);
    if (status != HSM_OK)
        (void)fprintf(stderr, "  %d%s %s\n", (int)status, why.again ? " again:" : ":", why.trouble.words);
    CHECK((status == HSM_OK) == (why.trouble.words[0] == '\0'));
    const bool usable = hsm_connection_is_usable(&connection);
    CHECK(status != HSM_OK || hang_up || usable);
    hsm_connection_close(&connection);
    (void)close(daemon_);
    free(message);
    return status;
}

static hsm_status answer_with(const struct text *body, const char *status, const char *message)
{
    struct text said = {.len = 0};
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_headers(&said);
    if (body != NULL)
        put_frame(&said, DATA, 0, 1, body->bytes, body->len);
    put_trailers(&said, status, message);
    return call(&said, false, 5000);
}

static hsm_status respond(const char *version, unsigned scheme, size_t len, uint32_t spoil)
{
    struct text body = {.len = 0};
    put_response(&body, version, scheme, good, len, hsm_crc32c(good, len) ^ spoil);
    return answer_with(&body, "0", NULL);
}

static void a_good_answer_is_taken(void)
{
    struct text said = {.len = 0};
    put_good_answer(&said, good, sizeof good);
    CHECK(call(&said, false, 5000) == HSM_OK);
    CHECK(signature_len == sizeof good && memcmp(signature, good, sizeof good) == 0);
}

static void an_answer_of_another_key_or_scheme_is_refused(void)
{
    CHECK(respond("keys/web-1/versions/7", 1, 64, 0) == HSM_OK);
    CHECK(respond("keys/web-2/versions/2", 1, 64, 0) == HSM_E_BROKEN);
    CHECK(respond("keys/web-10/versions/2", 1, 64, 0) == HSM_E_BROKEN);
    CHECK(respond("keys/web-1", 1, 64, 0) == HSM_E_BROKEN);
    CHECK(respond("keys/web-1/versions/", 1, 64, 0) == HSM_E_BROKEN);
    CHECK(respond("keys/web-1/versions/2x", 1, 64, 0) == HSM_E_BROKEN);
    CHECK(respond("keys/web-1/versions/2", 2, 64, 0) == HSM_E_BROKEN && !why.again);
}

static void a_signature_that_changed_or_is_not_there_is_refused(void)
{
    CHECK(respond("keys/web-1/versions/2", 1, 64, 1) == HSM_E_BROKEN);
    CHECK(strstr(why.trouble.words, "checksum") != NULL);
    CHECK(respond("keys/web-1/versions/2", 1, 0, 0) == HSM_E_BROKEN);
}

static void a_message_with_wrong_lengths_is_refused(void)
{
    struct text body = {.len = 0};
    put_response(&body, "keys/web-1/versions/2", 1, good, 64, hsm_crc32c(good, 64));
    body.bytes[0] = 1; /* compressed */
    CHECK(answer_with(&body, "0", NULL) == HSM_E_FRAME);
    body.bytes[0] = 0;
    body.bytes[4]++;
    CHECK(answer_with(&body, "0", NULL) == HSM_E_FRAME);
    body.bytes[4]--;
    body.bytes[6] = 100; /* key_version reaches into what comes after */
    CHECK(answer_with(&body, "0", NULL) == HSM_E_FRAME);
    body.len = 3;
    CHECK(answer_with(&body, "0", NULL) == HSM_E_FRAME);
    CHECK(answer_with(NULL, "0", NULL) == HSM_E_FRAME);
}

static void a_status_that_is_missing_or_garbage_is_refused(void)
{
    CHECK(answer_with(NULL, NULL, NULL) == HSM_E_FRAME);
    CHECK(answer_with(NULL, "17", NULL) == HSM_E_FRAME);
    CHECK(answer_with(NULL, "-1", NULL) == HSM_E_FRAME);
    CHECK(answer_with(NULL, "0000000000000000", NULL) == HSM_E_FRAME);
    CHECK(answer_with(NULL, "", NULL) == HSM_E_FRAME && !why.again);
}

static void the_daemons_words_reach_the_caller_printable(void)
{
    CHECK(answer_with(NULL, "5", "key%20%27web-1%27%0Ais%ffgone%") == HSM_E_KEY_NOT_FOUND && !why.again);
    CHECK(strstr(why.trouble.words, "key 'web-1'?is") != NULL && strchr(why.trouble.words, '\n') == NULL);
    CHECK(answer_with(NULL, "7", NULL) == HSM_E_KEY_NOT_FOUND);
    CHECK(answer_with(NULL, "4", NULL) == HSM_E_DEADLINE && !why.again);
    CHECK(answer_with(NULL, "14", "come back") == HSM_E_NOT_PRESENT && why.again);
    CHECK(answer_with(NULL, "8", "slowly") == HSM_E_BUSY && !why.again);
}

static void a_lost_connection_is_worth_another_try(void)
{
    struct text said = {.len = 0};
    CHECK(call(&said, true, 5000) == HSM_E_IO && why.again);
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_headers(&said);
    CHECK(call(&said, true, 5000) == HSM_E_IO && why.again);
    said.len = 0;
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_frame(&said, RST_STREAM, 0, 1, "\0\0\0\7", 4); /* REFUSED_STREAM */
    CHECK(call(&said, false, 5000) == HSM_E_NOT_PRESENT && why.again);
    said.len = 0;
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_frame(&said, GOAWAY, 0, 0, "\0\0\0\0\0\0\0\0", 8); /* no stream was looked at */
    CHECK(call(&said, false, 5000) != HSM_OK && why.again);
}

static void a_stream_that_is_reset_otherwise_is_an_error(void)
{
    struct text said = {.len = 0};
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_frame(&said, RST_STREAM, 0, 1, "\0\0\0\2", 4); /* INTERNAL_ERROR */
    CHECK(call(&said, false, 5000) == HSM_E_FRAME && !why.again);
}

static void an_answer_without_end_is_refused_while_it_comes(void)
{
    static uint8_t much[16384];
    static char long_[15000];
    struct text said = {.len = 0}, block = {.len = 0};
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_headers(&said);
    put_frame(&said, DATA, 0, 1, much, sizeof much);
    put_frame(&said, DATA, 0, 1, much, 6);
    CHECK(call(&said, false, 5000) == HSM_E_FRAME && strstr(why.trouble.words, "data") != NULL);
    said.len = 0;
    memset(long_, 'x', sizeof long_ - 1);
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_headers(&said);
    put_header(&block, "a", long_);
    put_frame(&said, HEADERS, END_HEADERS, 1, block.bytes, block.len); /* trailers without an end: no HTTP/2 */
    CHECK(call(&said, false, 5000) == HSM_E_FRAME);
    said.len = block.len = 0;
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_headers(&said);
    put_header(&block, "a", long_);
    put_frame(&said, HEADERS, END_STREAM, 1, block.bytes, block.len);
    block.len = 0;
    put_header(&block, "b", long_);
    put_frame(&said, 9, END_HEADERS, 1, block.bytes, block.len); /* CONTINUATION */
    CHECK(call(&said, false, 5000) == HSM_E_FRAME && strstr(why.trouble.words, "headers") != NULL);
}

static void what_is_not_http2_or_not_grpc_is_refused(void)
{
    static const char http1[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno such thing here, good bye\r\n";
    struct text said = {.len = 0}, block = {.len = 0};
    put(&said, http1, strlen(http1));
    CHECK(call(&said, false, 5000) == HSM_E_FRAME && !why.again);
    said.len = 0;
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_header(&block, ":status", "200");
    put_header(&block, "content-type", "text/html");
    put_frame(&said, HEADERS, END_HEADERS | END_STREAM, 1, block.bytes, block.len);
    CHECK(call(&said, false, 5000) == HSM_E_FRAME);
    said.len = block.len = 0;
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    put_header(&block, ":status", "503");
    put_frame(&said, HEADERS, END_HEADERS | END_STREAM, 1, block.bytes, block.len);
    CHECK(call(&said, false, 5000) == HSM_E_NOT_PRESENT && why.again);
}

static void silence_ends_at_the_deadline(void)
{
    struct text said = {.len = 0};
    put_frame(&said, SETTINGS, 0, 0, "", 0);
    CHECK(call(&said, false, 30) == HSM_E_DEADLINE && !why.again);
}

static void an_idle_connection_that_was_closed_or_ended_is_not_used(void)
{
    struct text said = {.len = 0};
    int pair[2];
    for (int goodbye = 0; goodbye < 2; goodbye++) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        hsm_connection_init(&connection);
        CHECK(hsm_connection_adopt(&connection, pair[0], &why) == HSM_OK);
        CHECK(hsm_connection_is_usable(&connection));
        said.len = 0;
        put_frame(&said, SETTINGS, 0, 0, "", 0);
        if (goodbye)
            put_frame(&said, GOAWAY, 0, 0, "\x7f\xff\xff\xff\0\0\0\0", 8);
        CHECK(send(pair[1], said.bytes, said.len, 0) == (ssize_t)said.len);
        CHECK(hsm_connection_is_usable(&connection) == !goodbye);
        (void)close(pair[1]);
        CHECK(!hsm_connection_is_usable(&connection));
        hsm_connection_close(&connection);
    }
}

static void a_descriptor_that_became_somebody_elses_is_left_alone(void)
{
    int pair[2], other[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, other) == 0);
    hsm_connection_init(&connection);
    CHECK(hsm_connection_adopt(&connection, pair[0], &why) == HSM_OK);
    CHECK(dup2(other[0], pair[0]) == pair[0]);
    CHECK(!hsm_connection_is_usable(&connection));
    hsm_connection_close(&connection);
    CHECK(send(pair[0], "x", 1, MSG_NOSIGNAL) == 1); /* still open */
    (void)close(pair[0]), (void)close(pair[1]), (void)close(other[0]), (void)close(other[1]);
}

int main(void)
{
    int passed = 0;
    RUN(a_good_answer_is_taken);
    RUN(an_answer_of_another_key_or_scheme_is_refused);
    RUN(a_signature_that_changed_or_is_not_there_is_refused);
    RUN(a_message_with_wrong_lengths_is_refused);
    RUN(a_status_that_is_missing_or_garbage_is_refused);
    RUN(the_daemons_words_reach_the_caller_printable);
    RUN(a_lost_connection_is_worth_another_try);
    RUN(a_stream_that_is_reset_otherwise_is_an_error);
    RUN(an_answer_without_end_is_refused_while_it_comes);
    RUN(what_is_not_http2_or_not_grpc_is_refused);
    RUN(silence_ends_at_the_deadline);
    RUN(an_idle_connection_that_was_closed_or_ended_is_not_used);
    RUN(a_descriptor_that_became_somebody_elses_is_left_alone);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
