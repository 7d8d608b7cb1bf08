/* A connection to the daemon: socket, TLS where it is wanted, HTTP/2; it carries one call at a time. */
#ifndef HSMSIGN_REMOTE_CONNECTION_H
#define HSMSIGN_REMOTE_CONNECTION_H

#include "http2.h"
#include "socket.h"
#include "tls.h"

struct hsm_connection {
    struct hsm_socket socket;
    struct hsm_tls tls;      /* ssl is NULL over a Unix socket */
    struct hsm_http2 *http2; /* NULL: closed */
    const uint8_t *pending;  /* not sent yet: in `out`, or in memory of http2 */
    size_t pending_len;
    bool heard;              /* the daemon said something in HTTP/2 */
    uint8_t in[16u << 10], plain[16u << 10], out[16u << 10];
};

void hsm_connection_init(struct hsm_connection *connection);

/* `home` is of no use for a Unix socket. */
hsm_status hsm_connection_open(struct hsm_connection *connection, const struct hsm_target *target,
                               const struct hsm_tls_home *home, uint64_t deadline_ns, struct hsm_why *why);

/* The same over a stream socket that is there already: closed with the connection. For tests. */
hsm_status hsm_connection_adopt(struct hsm_connection *connection, int fd, struct hsm_why *why);

/* Whether a call may be made; takes in what the daemon said meanwhile. */
bool hsm_connection_is_usable(struct hsm_connection *connection);

/* One call, to its answer. The connection is to be closed before the message is freed, unless it is usable. */
hsm_status hsm_connection_call(struct hsm_connection *connection, const struct hsm_target *target, const char *path,
                               const uint8_t *message, size_t len, uint64_t deadline_ns, struct hsm_why *why);

/* Sends nothing. */
void hsm_connection_close(struct hsm_connection *connection);

#endif
