#include "order.h"

#include <string.h>

hsm_status hsm_frame_check(const struct hsm_frame_header *header)
{
    if (header->magic != HSM_FRAME_MAGIC || header->reserved != 0 || header->length > HSM_FRAME_MAX)
        return HSM_E_FRAME;
    switch (header->type) {
    case HSM_FRAME_CANCEL:
        return header->count == 0 && header->length == 0 ? HSM_OK : HSM_E_FRAME;
    case HSM_FRAME_ORDER:
        if (header->count == 0 || header->count > HSM_ORDER_MAX_ITEMS)
            return HSM_E_FRAME;
        /* the head, one byte of locator rounded up, and the lengths at least */
        if (header->length < sizeof(struct hsm_order_head) + 4 + (size_t)header->count * 4)
            return HSM_E_FRAME;
        return HSM_OK;
    default:
        return HSM_E_FRAME;
    }
}

hsm_status hsm_order_parse(const struct hsm_frame_header *header, const uint8_t *body, struct hsm_order_view *out)
{
    if (header->type != HSM_FRAME_ORDER || hsm_frame_check(header) != HSM_OK)
        return HSM_E_FRAME;
    memcpy(&out->head, body, sizeof out->head);
    if (out->head.flow >= HSM_FLOWS || out->head.locator_len == 0 || out->head.locator_len > HSM_LOCATOR_MAX)
        return HSM_E_FRAME;

    size_t lengths_at = (sizeof out->head + out->head.locator_len + 3u) & ~(size_t)3;
    size_t inputs_at = lengths_at + (size_t)header->count * 4; /* at most a few hundred KiB: cannot wrap */
    if (inputs_at > header->length)
        return HSM_E_FRAME;

    out->count = header->count;
    out->locator = body + sizeof out->head;
    out->lengths = body + lengths_at;
    out->inputs = body + inputs_at;
    out->inputs_len = header->length - inputs_at;

    uint64_t sum = 0; /* 65536 lengths of 32 bits cannot wrap it */
    for (uint32_t i = 0; i < out->count; i++)
        sum += hsm_order_length(out, i);
    return sum == out->inputs_len ? HSM_OK : HSM_E_FRAME;
}

uint32_t hsm_order_length(const struct hsm_order_view *view, uint32_t index)
{
    uint32_t length;
    memcpy(&length, view->lengths + (size_t)index * 4, sizeof length);
    return length;
}
