#include "socket.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "native/core/clock.h"

#define KIND (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

uint32_t hsm_left_ms(uint64_t deadline_ns)
{
    const uint64_t now = hsm_now_ns();
    return deadline_ns > now ? (uint32_t)((deadline_ns - now + 999999u) / 1000000u) : 0;
}

hsm_status hsm_socket_wait(const struct hsm_socket *socket, short events, uint64_t deadline_ns)
{
    struct pollfd waiting = {.fd = socket->fd, .events = events};
    for (;;) {
        const uint32_t left = hsm_left_ms(deadline_ns);
        const int ready = poll(&waiting, 1, left > INT_MAX ? INT_MAX : (int)left);
        if (ready > 0)
            return (waiting.revents & POLLNVAL) != 0 ? HSM_E_CLOSED : HSM_OK;
        if (ready < 0 && errno != EINTR)
            return HSM_E_IO;
        if (left == 0)
            return HSM_E_DEADLINE;
    }
}

hsm_status hsm_socket_send(const struct hsm_socket *socket, const uint8_t *bytes, size_t len, size_t *done)
{
    const ssize_t sent = send(socket->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    *done = sent > 0 ? (size_t)sent : 0;
    if (sent >= 0 || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return HSM_OK;
    return errno == EPIPE || errno == ECONNRESET ? HSM_E_CLOSED : HSM_E_IO;
}

hsm_status hsm_socket_receive(const struct hsm_socket *socket, uint8_t *bytes, size_t room, size_t *done)
{
    const ssize_t got = recv(socket->fd, bytes, room, MSG_DONTWAIT);
    *done = got > 0 ? (size_t)got : 0;
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
        return HSM_OK;
    return got == 0 || errno == ECONNRESET ? HSM_E_CLOSED : HSM_E_IO;
}

bool hsm_socket_is_ours(const struct hsm_socket *socket)
{
    struct stat now;
    return socket->fd >= 0 && fstat(socket->fd, &now) == 0 && S_ISSOCK(now.st_mode) &&
           now.st_dev == socket->device && now.st_ino == socket->number;
}

void hsm_socket_close(struct hsm_socket *socket)
{
    if (hsm_socket_is_ours(socket))
        (void)close(socket->fd); /* nothing to learn from its end */
    socket->fd = -1;
}

/* 0, or the errno of why not; ETIMEDOUT where the deadline came first. */
static int try_address(struct hsm_socket *made, const struct sockaddr *address, socklen_t len, uint64_t deadline_ns)
{
    struct stat now;
    int problem = 0;
    socklen_t room = sizeof problem;
    made->fd = socket(address->sa_family, KIND, 0);
    if (made->fd < 0)
        return errno;
    if (fstat(made->fd, &now) != 0) {
        problem = errno;
        (void)close(made->fd);
        made->fd = -1;
        return problem;
    }
    made->device = now.st_dev;
    made->number = now.st_ino;
    if (connect(made->fd, address, len) == 0)
        return 0;
    problem = errno;
    /* EINTR: goes on by itself; EAGAIN: the queue of a Unix socket is full, and nothing would tell when it is not */
    if (problem == EINPROGRESS || problem == EINTR) {
        if (hsm_socket_wait(made, POLLOUT, deadline_ns) != HSM_OK)
            problem = ETIMEDOUT;
        else if (getsockopt(made->fd, SOL_SOCKET, SO_ERROR, &problem, &room) != 0)
            problem = errno;
    }
    if (problem != 0)
        hsm_socket_close(made);
    return problem;
}

static hsm_status explain(const struct hsm_target *target, int problem, struct hsm_why *why)
{
    if (problem == EACCES || problem == EPERM)
        return hsm_why_final(why, HSM_E_IO, "this user may not connect to %.100s; ask for the socket's group or mode",
                             target->words);
    return hsm_why_passing(why, HSM_E_IO, "cannot reach the daemon at %.100s: %s; does it run?", target->words,
                           strerrordesc_np(problem) != NULL ? strerrordesc_np(problem) : "unknown error");
}

static hsm_status connect_unix(const struct hsm_target *target, uint64_t deadline_ns, struct hsm_socket *socket,
                               struct hsm_why *why)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, target->path, strlen(target->path) + 1); /* fits: checked when it was read */
    const int problem = try_address(socket, (const struct sockaddr *)&address, sizeof address, deadline_ns);
    return problem == 0 ? HSM_OK : explain(target, problem, why);
}

static void tune(const struct hsm_socket *socket, uint32_t deadline_ms)
{
    /* a machine that went away without a word shows within a third of the time, which leaves some for another try */
    const unsigned patience = deadline_ms / 3 > 200 ? deadline_ms / 3 : 200;
    const int yes = 1;
    /* without them it is slower, not wrong */
    (void)setsockopt(socket->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    (void)setsockopt(socket->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
}

static hsm_status connect_tcp(const struct hsm_target *target, uint64_t deadline_ns, struct hsm_socket *socket,
                              struct hsm_why *why)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    unsigned left = 0;
    int problem = ECONNREFUSED;
    const int looked = getaddrinfo(target->host, target->port, &hints, &found);
    if (looked == EAI_AGAIN || looked == EAI_SYSTEM)
        return hsm_why_passing(why, HSM_E_IO, "the name %.100s cannot be looked up now", target->host);
    if (looked != 0)
        return hsm_why_final(why, HSM_E_IO, "the host %.100s is not known: %s", target->host, gai_strerror(looked));
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
        left++;
    for (const struct addrinfo *at = found; at != NULL && problem != 0; at = at->ai_next, left--) {
        const uint64_t now = hsm_now_ns(), share = deadline_ns > now ? (deadline_ns - now) / left : 0;
        problem = try_address(socket, at->ai_addr, at->ai_addrlen, now + share);
    }
    freeaddrinfo(found);
    if (problem != 0)
        return explain(target, problem, why);
    tune(socket, target->deadline_ms);
    return HSM_OK;
}

hsm_status hsm_socket_connect(const struct hsm_target *target, uint64_t deadline_ns, struct hsm_socket *socket,
                              struct hsm_why *why)
{
    socket->fd = -1;
    return target->path != NULL ? connect_unix(target, deadline_ns, socket, why)
                                : connect_tcp(target, deadline_ns, socket, why);
}
