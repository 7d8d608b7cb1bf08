/* An order as a front worker keeps it: the frame to send (and to send again), and the answers so far. */
#ifndef HSMSIGN_FRONT_ORDER_H
#define HSMSIGN_FRONT_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "../core/frame.h"
#include "../core/status.h"
#include "front.h"

#define HSM_UNANSWERED UINT32_MAX

struct order {
    uint64_t id;
    uint32_t count;
    uint32_t unanswered;
    uint32_t failed;
    uint32_t attempts; /* connections that were lost while they had at least a byte of this */
    uint8_t *frame;    /* header and body, owned */
    size_t frame_len;
    size_t frame_sent;
    size_t inputs_len;
    /* count of each, one allocation that starts at ckrs */
    uint64_t *ckrs;
    uint32_t *statuses;
    uint32_t *offsets;
    uint32_t *lengths;
    uint8_t *signatures; /* owned, grows */
    size_t signatures_len;
    size_t signatures_room;
    int queued;    /* stands in the outbox */
    int forgotten; /* cancelled in the middle of being sent: freed when its last byte is out */
    struct order *previous, *next; /* in the list of orders that wait, or that are finished */
    struct order *chain;           /* in the table */
};

/* Copies `from` into a new order with a frame ready to send. NULL: no memory. The caller owns it. */
struct order *hsm_order_new(uint64_t id, const hsm_order *from);
void hsm_order_free(struct order *order); /* safe on NULL */

/* Whether the numbers of `from` fit each other and the frame's limits. */
int hsm_order_fits(const hsm_order *from);

/* Forgets all answers: the whole order is asked again. */
void hsm_order_reset(struct order *order);

/* Takes the body of a DONE frame with `count` results. HSM_E_FRAME for an index out of range, a second
 * answer for one item, lengths that do not fit: the order is then in no good state but can be reset. */
hsm_status hsm_order_answer(struct order *order, uint32_t count, const uint8_t *body, size_t length);

/* Gives every item that has no answer this status. */
void hsm_order_give_up(struct order *order, hsm_status status);

#endif
