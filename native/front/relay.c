#include "relay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct relay_end *other(struct relay_end *end)
{
    return end == &end->relay->ends[0] ? &end->relay->ends[1] : &end->relay->ends[0];
}

static int watch(int epoll_fd, int operation, struct relay_end *end, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data = {.ptr = end}};
    end->interest = interest;
    return epoll_ctl(epoll_fd, operation, end->fd, &event);
}

struct relay *hsm_relay_new(int epoll_fd, int outer_fd, int inner_fd)
{
    struct relay *relay = calloc(1, sizeof *relay);
    if (relay == NULL) {
        (void)close(outer_fd);
        (void)close(inner_fd);
        return NULL;
    }
    const int fds[2] = {outer_fd, inner_fd};
    int failed = 0;
    for (int i = 0; i < 2; i++) {
        relay->ends[i].relay = relay;
        relay->ends[i].fd = fds[i];
        relay->ends[i].buffer = malloc(HSM_RELAY_BUFFER);
        failed |= relay->ends[i].buffer == NULL;
    }
    failed = failed || watch(epoll_fd, EPOLL_CTL_ADD, &relay->ends[0], EPOLLIN) != 0 ||
             watch(epoll_fd, EPOLL_CTL_ADD, &relay->ends[1], EPOLLIN) != 0;
    if (failed) {
        hsm_relay_free(relay);
        return NULL;
    }
    return relay;
}

void hsm_relay_free(struct relay *relay)
{
    for (int i = 0; i < 2; i++) {
        (void)close(relay->ends[i].fd); /* epoll forgets a closed socket */
        free(relay->ends[i].buffer);
    }
    free(relay);
}

/* The other process has closed the socket: what it sent can still be read, what it is sent goes nowhere. */
static int is_gone(int error)
{
    return error == EPIPE || error == ECONNRESET;
}

/* Reads once, as much as there is room for. 0 when the relay is over. */
static int take_in(struct relay_end *end)
{
    const size_t used = end->start + end->length;
    if (end->ended || used == HSM_RELAY_BUFFER)
        return 1;
    const ssize_t got = recv(end->fd, end->buffer + used, HSM_RELAY_BUFFER - used, MSG_DONTWAIT);
    if (got > 0)
        end->length += (size_t)got;
    else if (got == 0 || is_gone(errno)) /* the error comes after the last byte: it left some of ours unread */
        end->ended = 1;
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        return 0;
    return 1;
}

/* Writes to the other side what was read from this one; what it no longer takes is dropped, for it may have left
 * something itself, which still goes the other way. 0 when the relay is over. */
static int hand_on(struct relay_end *end)
{
    struct relay_end *to = other(end);
    while (end->length > 0 && !to->hung) {
        const ssize_t sent = send(to->fd, end->buffer + end->start, end->length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0) {
            end->start += (size_t)sent;
            end->length -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 1;
        } else if (is_gone(errno)) {
            break;
        } else if (errno != EINTR) {
            return 0;
        }
    }
    end->start = end->length = 0;
    if (end->ended && !end->ended_told) {
        end->ended_told = 1;
        (void)shutdown(to->fd, SHUT_WR); /* it may be gone already: then its own end shows it */
    }
    return 1;
}

static int update_interest(int epoll_fd, struct relay_end *end)
{
    if (end->hung)
        return 1;
    const int room = end->start + end->length < HSM_RELAY_BUFFER;
    const uint32_t interest = (!end->ended && room ? (uint32_t)EPOLLIN : 0u) |
                              (other(end)->length > 0 ? (uint32_t)EPOLLOUT : 0u);
    return interest == end->interest || watch(epoll_fd, EPOLL_CTL_MOD, end, interest) == 0;
}

/* Hands on what an end that hung up has left, as far as the other side takes it. 0 when the relay is over. Nobody
 * wakes us for that end any more: as long as it goes on, something is in the buffer for which the other side's
 * readiness is waited for. */
static int drain_hung(struct relay_end *end)
{
    while (hand_on(end) && !end->ended_told) {
        if (end->length > 0)
            return 1;
        if (!take_in(end) || (end->length == 0 && !end->ended))
            return 0;
    }
    return 0;
}

void hsm_relay_event(int epoll_fd, struct relay_end *end, uint32_t events)
{
    struct relay_end *peer = other(end);
    int alive = 1;
    if ((events & (uint32_t)(EPOLLHUP | EPOLLERR)) && !end->hung) { /* an error: it left some of our bytes unread */
        end->hung = 1; /* epoll would report it for ever */
        alive = epoll_ctl(epoll_fd, EPOLL_CTL_DEL, end->fd, NULL) == 0;
    }
    alive = alive && !(end->hung && peer->hung); /* nobody is left to hand anything to */
    if (alive && (events & (uint32_t)EPOLLIN) && !end->hung)
        alive = take_in(end) && hand_on(end);
    if (alive && ((events & (uint32_t)EPOLLOUT) || end->hung))
        alive = hand_on(peer);
    if (alive && end->hung)
        alive = drain_hung(end);
    if (alive && peer->hung)
        alive = drain_hung(peer);
    if (!alive || (end->ended_told && peer->ended_told) || !update_interest(epoll_fd, end) ||
        !update_interest(epoll_fd, peer))
        end->relay->dead = 1;
}
