/* What still has to be written to a device host's socket: whole frames, in order. */
#ifndef HSMSIGN_FRONT_OUTBOX_H
#define HSMSIGN_FRONT_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "order.h"

struct parcel;

struct outbox {
    struct parcel *first, **last;
};

void hsm_outbox_init(struct outbox *outbox);

/* The order's frame will be sent; the order stays its owner's, who must not free it while it is queued. */
hsm_status hsm_outbox_add_order(struct outbox *outbox, struct order *order);
hsm_status hsm_outbox_add_cancel(struct outbox *outbox, uint64_t order_id);

/* Takes out an order of which nothing was sent. */
void hsm_outbox_remove(struct outbox *outbox, struct order *order);

/* Writes what the socket takes. An order that was forgotten is freed when it is out. */
hsm_status hsm_outbox_flush(struct outbox *outbox, int fd);

/* Drops everything; forgotten orders are freed. */
void hsm_outbox_clear(struct outbox *outbox);

#endif
