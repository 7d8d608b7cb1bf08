#include "outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PARCELS_A_CALL 64

struct parcel {
    struct parcel *next;
    struct order *order; /* or NULL: a CANCEL, in `cancel` */
    size_t sent;         /* of a CANCEL; an order counts for itself */
    struct hsm_frame_header cancel;
};

void hsm_outbox_init(struct outbox *outbox)
{
    outbox->first = NULL;
    outbox->last = &outbox->first;
}

static struct parcel *add(struct outbox *outbox)
{
    struct parcel *parcel = calloc(1, sizeof *parcel);
    if (parcel == NULL)
        return NULL;
    *outbox->last = parcel;
    outbox->last = &parcel->next;
    return parcel;
}

hsm_status hsm_outbox_add_order(struct outbox *outbox, struct order *order)
{
    struct parcel *parcel = add(outbox);
    if (parcel == NULL)
        return HSM_E_NO_MEMORY;
    parcel->order = order;
    order->queued = 1;
    return HSM_OK;
}

hsm_status hsm_outbox_add_cancel(struct outbox *outbox, uint64_t order_id)
{
    struct parcel *parcel = add(outbox);
    if (parcel == NULL)
        return HSM_E_NO_MEMORY;
    parcel->cancel.magic = HSM_FRAME_MAGIC;
    parcel->cancel.type = HSM_FRAME_CANCEL;
    parcel->cancel.order_id = order_id;
    return HSM_OK;
}

void hsm_outbox_remove(struct outbox *outbox, struct order *order)
{
    for (struct parcel **at = &outbox->first; *at != NULL; at = &(*at)->next) {
        struct parcel *parcel = *at;
        if (parcel->order != order)
            continue;
        *at = parcel->next;
        if (parcel->next == NULL)
            outbox->last = at;
        order->queued = 0;
        free(parcel);
        return;
    }
}

static void drop_first(struct outbox *outbox)
{
    struct parcel *parcel = outbox->first;
    outbox->first = parcel->next;
    if (outbox->first == NULL)
        outbox->last = &outbox->first;
    if (parcel->order != NULL) {
        parcel->order->queued = 0;
        if (parcel->order->forgotten)
            hsm_order_free(parcel->order);
    }
    free(parcel);
}

void hsm_outbox_clear(struct outbox *outbox)
{
    while (outbox->first != NULL)
        drop_first(outbox);
}

static size_t length_of(const struct parcel *parcel)
{
    return parcel->order != NULL ? parcel->order->frame_len : sizeof parcel->cancel;
}

static size_t *sent_of(struct parcel *parcel)
{
    return parcel->order != NULL ? &parcel->order->frame_sent : &parcel->sent;
}

static size_t gather(struct outbox *outbox, struct iovec *pieces)
{
    size_t n = 0;
    for (struct parcel *parcel = outbox->first; parcel != NULL && n < PARCELS_A_CALL; parcel = parcel->next) {
        uint8_t *bytes = parcel->order != NULL ? parcel->order->frame : (uint8_t *)&parcel->cancel;
        const size_t sent = *sent_of(parcel);
        pieces[n].iov_base = bytes + sent;
        pieces[n].iov_len = length_of(parcel) - sent;
        n++;
    }
    return n;
}

static void account(struct outbox *outbox, size_t written)
{
    while (written > 0) {
        struct parcel *parcel = outbox->first;
        size_t *sent = sent_of(parcel);
        const size_t left = length_of(parcel) - *sent;
        if (written < left) {
            *sent += written;
            return;
        }
        *sent += left;
        written -= left;
        drop_first(outbox);
    }
}

hsm_status hsm_outbox_flush(struct outbox *outbox, int fd)
{
    while (outbox->first != NULL) {
        struct iovec pieces[PARCELS_A_CALL];
        const struct msghdr message = {.msg_iov = pieces, .msg_iovlen = gather(outbox, pieces)};
        const ssize_t written = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (written >= 0)
            account(outbox, (size_t)written);
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return HSM_OK;
        else if (errno != EINTR)
            return HSM_E_IO;
    }
    return HSM_OK;
}
