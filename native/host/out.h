/* What is to be sent on a connection: whole frames, from many threads, without waiting for the reader. */
#ifndef HSMSIGN_OUT_H
#define HSMSIGN_OUT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A peer that leaves this much unread is cut off: its answers would fill the host's memory. */
#define HSM_OUT_MAX ((size_t)64 << 20)

struct hsm_out {
    pthread_mutex_t lock;
    int fd;         /* borrowed */
    uint8_t *bytes; /* from `start` to `end` wait to be sent */
    size_t start;
    size_t end;
    size_t room;
    bool broken; /* nothing can be sent any more; the socket was shut down */
};

enum hsm_out_state { HSM_OUT_EMPTY, HSM_OUT_WAITING, HSM_OUT_BROKEN };

/* 0, or an errno. */
int hsm_out_init(struct hsm_out *out, int fd);
void hsm_out_free(struct hsm_out *out);

/* Sends, or keeps a copy of, one frame. HSM_OUT_WAITING where something was left and nothing had been before:
 * who watches the socket has to be told. */
enum hsm_out_state hsm_out_send(struct hsm_out *out, const uint8_t *frame, size_t len);

/* Sends what the socket takes now. */
enum hsm_out_state hsm_out_flush(struct hsm_out *out);

/* Cuts the peer off. */
void hsm_out_break(struct hsm_out *out);

enum hsm_out_state hsm_out_look(struct hsm_out *out);

#endif
