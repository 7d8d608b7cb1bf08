/* A stream socket that never blocks by itself, never raises SIGPIPE, and is closed on exec. */
#ifndef HSMSIGN_REMOTE_SOCKET_H
#define HSMSIGN_REMOTE_SOCKET_H

#include <sys/types.h>

#include "target.h"

struct hsm_socket {
    int fd; /* -1: none */
    dev_t device;
    ino_t number; /* to know the socket by: an application may close descriptors that it does not know */
};

hsm_status hsm_socket_connect(const struct hsm_target *target, uint64_t deadline_ns, struct hsm_socket *socket,
                              struct hsm_why *why);

/* Whether the descriptor is still the socket that was opened. */
bool hsm_socket_is_ours(const struct hsm_socket *socket);

/* Closes it where it is still ours. Sends nothing. */
void hsm_socket_close(struct hsm_socket *socket);

/* Waits for `events` of poll(). HSM_E_DEADLINE, HSM_E_IO. */
hsm_status hsm_socket_wait(const struct hsm_socket *socket, short events, uint64_t deadline_ns);

/* As much as goes at once; *done is 0 where it would block. HSM_E_CLOSED, HSM_E_IO (errno). */
hsm_status hsm_socket_send(const struct hsm_socket *socket, const uint8_t *bytes, size_t len, size_t *done);
hsm_status hsm_socket_receive(const struct hsm_socket *socket, uint8_t *bytes, size_t room, size_t *done);

/* Milliseconds until then, rounded up, 0 when it has passed. */
uint32_t hsm_left_ms(uint64_t deadline_ns);

#endif
