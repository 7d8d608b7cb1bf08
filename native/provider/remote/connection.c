#include "connection.h"

#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#define PIECES_WHILE_IDLE 8 /* of 16 KiB: pings, settings, tickets; who has more to say is no daemon */

void hsm_connection_init(struct hsm_connection *connection)
{
    memset(connection, 0, offsetof(struct hsm_connection, in));
    connection->socket.fd = -1;
}

void hsm_connection_close(struct hsm_connection *connection)
{
    hsm_http2_free(connection->http2);
    hsm_tls_close(&connection->tls);
    hsm_socket_close(&connection->socket);
    hsm_connection_init(connection);
}

static hsm_status lost(const struct hsm_connection *connection, hsm_status status, struct hsm_why *why)
{
    if (connection->tls.ssl != NULL && !connection->heard) /* gRPC servers often leave without an alert */
        return hsm_why_passing(why, HSM_E_IO, "the daemon closed the connection before a word; is this client's"
                               " certificate in date and one that it takes, or was it stopped?");
    return hsm_why_passing(why, status == HSM_E_CLOSED ? HSM_E_IO : status,
                           "the connection to the daemon was lost before it answered; was it stopped?");
}

static hsm_status take_plain(struct hsm_connection *connection, struct hsm_why *why)
{
    for (;;) {
        size_t len = 0;
        hsm_status status =
            hsm_tls_read(&connection->tls, connection->plain, sizeof connection->plain, &len, why);
        if (status != HSM_OK || len == 0)
            return status;
        connection->heard = true;
        status = hsm_http2_receive(connection->http2, connection->plain, len, why);
        if (status != HSM_OK)
            return status;
    }
}

/* Takes in what is there; *got whether there was something. Before the handshake is done it goes to TLS alone. */
static hsm_status fill(struct hsm_connection *connection, bool *got, struct hsm_why *why)
{
    size_t len = 0;
    hsm_status status = hsm_socket_receive(&connection->socket, connection->in, sizeof connection->in, &len);
    *got = len > 0;
    if (status != HSM_OK)
        return lost(connection, status, why);
    if (len == 0)
        return HSM_OK;
    if (connection->tls.ssl == NULL)
        return hsm_http2_receive(connection->http2, connection->in, len, why);
    status = hsm_tls_feed(&connection->tls, connection->in, len, why);
    return status == HSM_OK && connection->http2 != NULL ? take_plain(connection, why) : status;
}

/* Makes `pending` the next bytes for the socket, if there are any. */
static hsm_status find_pending(struct hsm_connection *connection, struct hsm_why *why)
{
    while (connection->pending_len == 0) {
        const uint8_t *bytes = NULL;
        size_t len = 0;
        if (connection->tls.ssl != NULL) {
            connection->pending = connection->out;
            connection->pending_len = hsm_tls_drain(&connection->tls, connection->out, sizeof connection->out);
        }
        if (connection->pending_len > 0 || connection->http2 == NULL)
            return HSM_OK;
        hsm_status status = hsm_http2_next(connection->http2, &bytes, &len, why);
        if (status != HSM_OK || len == 0)
            return status;
        if (connection->tls.ssl == NULL) {
            connection->pending = bytes;
            connection->pending_len = len;
        } else if ((status = hsm_tls_write(&connection->tls, bytes, len, why)) != HSM_OK) {
            return status;
        }
    }
    return HSM_OK;
}

/* Sends what the socket takes. */
static hsm_status flush(struct hsm_connection *connection, struct hsm_why *why)
{
    for (;;) {
        size_t done = 0;
        hsm_status status = find_pending(connection, why);
        if (status != HSM_OK || connection->pending_len == 0)
            return status;
        status = hsm_socket_send(&connection->socket, connection->pending, connection->pending_len, &done);
        if (status != HSM_OK) {
            bool got = true; /* what the daemon said before it closed may be the reason */
            hsm_status last = HSM_OK;
            while (last == HSM_OK && got)
                last = fill(connection, &got, why);
            return last != HSM_OK ? last : lost(connection, status, why);
        }
        if (done == 0)
            return HSM_OK;
        connection->pending += done;
        connection->pending_len -= done;
    }
}

/* Waits until something came or can go, and does it. */
static hsm_status step(struct hsm_connection *connection, const struct hsm_target *target, uint64_t deadline_ns,
                       struct hsm_why *why)
{
    bool got = false;
    const short events = (short)(POLLIN | (connection->pending_len > 0 ? POLLOUT : 0));
    const hsm_status ready = hsm_socket_wait(&connection->socket, events, deadline_ns);
    if (ready == HSM_E_DEADLINE || hsm_left_ms(deadline_ns) == 0) /* who sends without end is late, too */
        return hsm_why_final(why, HSM_E_DEADLINE, "no answer from %.100s within %u ms; give more time, or see how the"
                             " daemon is: hsmsign doctor", target->words, (unsigned)target->deadline_ms);
    return ready == HSM_OK ? fill(connection, &got, why) : lost(connection, ready, why);
}

static hsm_status shake_hands(struct hsm_connection *connection, const struct hsm_target *target,
                              uint64_t deadline_ns, struct hsm_why *why)
{
    bool done = false;
    for (;;) {
        hsm_status status = hsm_tls_handshake(&connection->tls, target, &done, why);
        struct hsm_why unsent; /* the alert that says why we leave is sent if it can be */
        const hsm_status sent = flush(connection, status == HSM_OK ? why : &unsent);
        if (status == HSM_OK)
            status = sent;
        if (status == HSM_OK && !done)
            status = step(connection, target, deadline_ns, why);
        if (status != HSM_OK || done)
            return status;
    }
}

hsm_status hsm_connection_open(struct hsm_connection *connection, const struct hsm_target *target,
                               const struct hsm_tls_home *home, uint64_t deadline_ns, struct hsm_why *why)
{
    hsm_status status = HSM_OK;
    if (target->path == NULL) /* first: without usable files the daemon is not bothered */
        status = hsm_tls_open(home, target, &connection->tls, why);
    if (status == HSM_OK)
        status = hsm_socket_connect(target, deadline_ns, &connection->socket, why);
    if (status == HSM_OK && target->path == NULL)
        status = shake_hands(connection, target, deadline_ns, why);
    if (status == HSM_OK && hsm_http2_new(&connection->http2) != HSM_OK)
        status = hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    if (status == HSM_OK && connection->tls.ssl != NULL)
        status = take_plain(connection, why); /* what came with the handshake's last bytes */
    if (status != HSM_OK)
        hsm_connection_close(connection);
    return status;
}

hsm_status hsm_connection_adopt(struct hsm_connection *connection, int fd, struct hsm_why *why)
{
    struct stat now;
    if (fstat(fd, &now) != 0 || hsm_http2_new(&connection->http2) != HSM_OK)
        return hsm_why_final(why, HSM_E_NO_MEMORY, "the socket cannot be taken over");
    connection->socket = (struct hsm_socket){fd, now.st_dev, now.st_ino};
    return HSM_OK;
}

bool hsm_connection_is_usable(struct hsm_connection *connection)
{
    struct hsm_why why;
    bool got = true;
    if (connection->http2 == NULL || !hsm_socket_is_ours(&connection->socket))
        return false;
    for (int i = 0; got && i < PIECES_WHILE_IDLE; i++)
        if (fill(connection, &got, &why) != HSM_OK)
            return false;
    return !got && hsm_http2_is_open(connection->http2);
}

hsm_status hsm_connection_call(struct hsm_connection *connection, const struct hsm_target *target, const char *path,
                               const uint8_t *message, size_t len, uint64_t deadline_ns, struct hsm_why *why)
{
    const uint32_t left = hsm_left_ms(deadline_ns);
    const struct hsm_request request = {.scheme = connection->tls.ssl != NULL ? "https" : "http",
                                        .authority = target->authority,
                                        .path = path,
                                        .timeout_ms = left > 0 ? left : 1,
                                        .message = message,
                                        .message_len = len};
    hsm_status status = hsm_http2_start(connection->http2, &request, why);
    while (status == HSM_OK && !hsm_http2_answer(connection->http2)->over) {
        status = flush(connection, why);
        if (status == HSM_OK && !hsm_http2_answer(connection->http2)->over)
            status = step(connection, target, deadline_ns, why);
    }
    return status;
}
