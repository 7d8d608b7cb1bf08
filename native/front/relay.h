/* Bytes carried both ways between two stream sockets, without blocking and with bounded memory. */
#ifndef HSMSIGN_FRONT_RELAY_H
#define HSMSIGN_FRONT_RELAY_H

#include <stddef.h>
#include <stdint.h>

#define HSM_RELAY_BUFFER (64u << 10) /* a direction */

struct relay;

/* One of the two sockets, and what was read from it and is not yet written to the other. */
struct relay_end {
    struct relay *relay;
    int fd;
    uint32_t interest; /* what epoll was last told */
    uint8_t *buffer;   /* HSM_RELAY_BUFFER bytes */
    size_t start, length;
    int ended;      /* it will send no more */
    int ended_told; /* and the other side was told */
    int hung;       /* it is gone altogether, and out of epoll: what it left is still handed on */
};

struct relay {
    struct relay_end ends[2];
    int dead;
    uint32_t uid; /* whose it is: for who keeps the list */
    struct relay *previous, *next;
};

/* Takes over both sockets (non-blocking), also on failure, and has `epoll_fd` report them with the end as
 * data. NULL: no memory, or epoll refused. */
struct relay *hsm_relay_new(int epoll_fd, int outer_fd, int inner_fd);
void hsm_relay_free(struct relay *relay); /* closes both sockets */

/* Does what epoll's `events` for this end allow. Sets relay->dead when it is over. */
void hsm_relay_event(int epoll_fd, struct relay_end *end, uint32_t events);

#endif
