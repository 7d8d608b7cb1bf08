/* Checking what arrives in frames. Pure functions: no memory is taken, nothing is read beyond what was given. */
#ifndef HSMSIGN_ORDER_H
#define HSMSIGN_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "status.h"

/* An order whose lengths all fit. The pointers point into the body that was parsed, and live as long. */
struct hsm_order_view {
    struct hsm_order_head head;
    const uint8_t *locator; /* head.locator_len bytes */
    const uint8_t *lengths; /* `count` uint32_t, perhaps unaligned: use hsm_order_length */
    const uint8_t *inputs;  /* inputs_len bytes: the sum of the lengths */
    size_t inputs_len;
    uint32_t count;
};

/* HSM_OK for a header that a device host may receive (ORDER, CANCEL) and whose length is within bounds,
 * else HSM_E_FRAME. To be called before memory is taken for the body. */
hsm_status hsm_frame_check(const struct hsm_frame_header *header);

/* Reads the body of an ORDER, header->length bytes at `body`. HSM_OK, or HSM_E_FRAME where any length is
 * wrong. Whether the scheme is known and a digest has the right size is left to who signs. */
hsm_status hsm_order_parse(const struct hsm_frame_header *header, const uint8_t *body, struct hsm_order_view *out);

/* The length of item `index`, which is below view->count. */
uint32_t hsm_order_length(const struct hsm_order_view *view, uint32_t index);

#endif
