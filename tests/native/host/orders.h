/* Writing frames as a front worker does, for tests. */
#ifndef HSMSIGN_TEST_ORDERS_H
#define HSMSIGN_TEST_ORDERS_H

#include <stdint.h>
#include <string.h>

#include "check.h"
#include "native/core/order.h"

/* A whole ORDER frame of `count` inputs of `each` bytes, all of them `fill`. malloc'ed: the caller frees it. */
static inline uint8_t *order_frame(uint64_t id, const uint8_t *locator, uint16_t locator_len,
                                   struct hsm_order_head head, uint32_t count, uint32_t each, int fill, size_t *len)
{
    size_t lengths_at = (sizeof head + locator_len + 3u) & ~(size_t)3;
    size_t body = lengths_at + (size_t)count * 4 + (size_t)count * each;
    struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_ORDER, 0, id, count, (uint32_t)body};
    *len = sizeof header + body;
    uint8_t *frame = calloc(1, *len);
    CHECK(frame != NULL);
    head.locator_len = locator_len;
    memcpy(frame, &header, sizeof header);
    memcpy(frame + sizeof header, &head, sizeof head);
    memcpy(frame + sizeof header + sizeof head, locator, locator_len);
    for (uint32_t i = 0; i < count; i++)
        memcpy(frame + sizeof header + lengths_at + (size_t)i * 4, &each, sizeof each);
    memset(frame + sizeof header + lengths_at + (size_t)count * 4, fill, (size_t)count * each);
    return frame;
}

/* Parses the frame as the host does, with the body in memory of exactly its own size. */
static inline hsm_status parse_frame(const uint8_t *frame, size_t len, struct hsm_order_view *view, uint8_t **body)
{
    struct hsm_frame_header header;
    *body = NULL;
    if (len < sizeof header)
        return HSM_E_FRAME;
    memcpy(&header, frame, sizeof header);
    hsm_status status = hsm_frame_check(&header);
    if (status != HSM_OK || header.type != HSM_FRAME_ORDER)
        return status == HSM_OK ? HSM_E_FRAME : status;
    if (len - sizeof header < header.length)
        return HSM_E_CLOSED; /* the rest of the body never comes */
    *body = malloc(header.length);
    CHECK(*body != NULL);
    memcpy(*body, frame + sizeof header, header.length);
    return hsm_order_parse(&header, *body, view);
}

#endif
