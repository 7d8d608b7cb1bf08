#include "out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int hsm_out_init(struct hsm_out *out, int fd)
{
    memset(out, 0, sizeof *out);
    out->fd = fd;
    return pthread_mutex_init(&out->lock, NULL);
}

void hsm_out_free(struct hsm_out *out)
{
    free(out->bytes);
    out->bytes = NULL;
    (void)pthread_mutex_destroy(&out->lock);
}

static void give_up(struct hsm_out *out)
{
    out->broken = true;
    free(out->bytes);
    out->bytes = NULL;
    out->start = out->end = out->room = 0;
    (void)shutdown(out->fd, SHUT_RDWR); /* wakes the reader, which closes the connection */
}

/* How much of it went, up to `len`; gives up on anything but a full socket. */
static size_t push(struct hsm_out *out, const uint8_t *bytes, size_t len)
{
    size_t sent = 0;
    while (sent < len) {
        ssize_t n = send(out->fd, bytes + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            break;
        else if (errno != EINTR) {
            give_up(out);
            break;
        }
    }
    return sent;
}

static bool keep(struct hsm_out *out, const uint8_t *bytes, size_t len)
{
    size_t waiting = out->end - out->start;
    if (waiting + len > HSM_OUT_MAX)
        return false;
    if (out->end + len > out->room) {
        if (out->start > 0) {
            memmove(out->bytes, out->bytes + out->start, waiting);
            out->start = 0;
            out->end = waiting;
        }
        size_t room = out->room == 0 ? 1u << 16 : out->room;
        while (room < waiting + len)
            room *= 2;
        if (room != out->room) {
            uint8_t *more = realloc(out->bytes, room);
            if (more == NULL)
                return false;
            out->bytes = more;
            out->room = room;
        }
    }
    memcpy(out->bytes + out->end, bytes, len);
    out->end += len;
    return true;
}

static enum hsm_out_state state(const struct hsm_out *out)
{
    return out->broken ? HSM_OUT_BROKEN : out->end > out->start ? HSM_OUT_WAITING : HSM_OUT_EMPTY;
}

enum hsm_out_state hsm_out_send(struct hsm_out *out, const uint8_t *frame, size_t len)
{
    (void)pthread_mutex_lock(&out->lock);
    enum hsm_out_state result = state(out);
    if (result != HSM_OUT_BROKEN) {
        size_t sent = result == HSM_OUT_EMPTY ? push(out, frame, len) : 0;
        if (!out->broken && sent < len && !keep(out, frame + sent, len - sent))
            give_up(out);
        /* who had bytes waiting before is watched already */
        result = result == HSM_OUT_WAITING && !out->broken ? HSM_OUT_EMPTY : state(out);
    }
    (void)pthread_mutex_unlock(&out->lock);
    return result;
}

enum hsm_out_state hsm_out_flush(struct hsm_out *out)
{
    (void)pthread_mutex_lock(&out->lock);
    if (state(out) == HSM_OUT_WAITING) {
        size_t sent = push(out, out->bytes + out->start, out->end - out->start);
        if (!out->broken) {
            out->start += sent;
            if (out->start == out->end)
                out->start = out->end = 0;
        }
    }
    enum hsm_out_state result = state(out);
    (void)pthread_mutex_unlock(&out->lock);
    return result;
}

enum hsm_out_state hsm_out_look(struct hsm_out *out)
{
    (void)pthread_mutex_lock(&out->lock);
    enum hsm_out_state result = state(out);
    (void)pthread_mutex_unlock(&out->lock);
    return result;
}

void hsm_out_break(struct hsm_out *out)
{
    (void)pthread_mutex_lock(&out->lock);
    if (!out->broken)
        give_up(out);
    (void)pthread_mutex_unlock(&out->lock);
}
