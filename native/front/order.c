#include "order.h"

#include <stdlib.h>
#include <string.h>

int hsm_order_fits(const hsm_order *from)
{
    if (from->count == 0 || from->count > HSM_ORDER_MAX_ITEMS || from->locator == NULL || from->locator_len == 0 ||
        from->locator_len > HSM_LOCATOR_MAX || from->flow >= HSM_FLOWS || (from->inputs == NULL && from->inputs_len > 0))
        return 0;
    if (from->inputs_len > HSM_FRAME_MAX - sizeof(struct hsm_order_head) - HSM_LOCATOR_MAX - 4 -
                               (size_t)from->count * sizeof(uint32_t))
        return 0;
    if (from->lengths == NULL)
        return from->inputs_len % from->count == 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < from->count; i++)
        sum += from->lengths[i];
    return sum == from->inputs_len;
}

/* The frame of protocol version 1 (frame.h), into memory that has exactly room for it. */
static void write_frame(struct order *order, const hsm_order *from, size_t lengths_at, size_t inputs_at)
{
    const struct hsm_frame_header header = {
        .magic = HSM_FRAME_MAGIC,
        .type = HSM_FRAME_ORDER,
        .order_id = order->id,
        .count = order->count,
        .length = (uint32_t)(order->frame_len - sizeof(struct hsm_frame_header)),
    };
    const struct hsm_order_head head = {
        .deadline_ns = from->deadline_ns,
        .scheme = from->scheme,
        .kind = from->kind,
        .format = from->format,
        .locator_len = from->locator_len,
        .flow = from->flow,
    };
    uint8_t *body = order->frame + sizeof header;
    memcpy(order->frame, &header, sizeof header);
    memcpy(body, &head, sizeof head);
    memcpy(body + sizeof head, from->locator, from->locator_len);
    if (from->lengths != NULL) {
        memcpy(body + lengths_at, from->lengths, (size_t)from->count * sizeof(uint32_t));
    } else {
        const uint32_t each = (uint32_t)(from->inputs_len / from->count);
        for (uint32_t i = 0; i < from->count; i++)
            memcpy(body + lengths_at + (size_t)i * sizeof each, &each, sizeof each);
    }
    if (from->inputs_len > 0)
        memcpy(body + inputs_at, from->inputs, from->inputs_len);
}

struct order *hsm_order_new(uint64_t id, const hsm_order *from)
{
    const size_t count = from->count;
    const size_t lengths_at = (sizeof(struct hsm_order_head) + from->locator_len + 3u) & ~(size_t)3u;
    const size_t inputs_at = lengths_at + count * sizeof(uint32_t);
    struct order *order = calloc(1, sizeof *order);
    if (order == NULL)
        return NULL;
    order->id = id;
    order->count = from->count;
    order->inputs_len = from->inputs_len;
    order->frame_len = sizeof(struct hsm_frame_header) + inputs_at + from->inputs_len;
    order->frame = calloc(1, order->frame_len); /* zeroed: the gap before the lengths goes over the wire */
    order->ckrs = malloc(count * (sizeof(uint64_t) + 3 * sizeof(uint32_t)));
    if (order->frame == NULL || order->ckrs == NULL) {
        hsm_order_free(order);
        return NULL;
    }
    order->statuses = (uint32_t *)(void *)(order->ckrs + count);
    order->offsets = order->statuses + count;
    order->lengths = order->offsets + count;
    write_frame(order, from, lengths_at, inputs_at);
    hsm_order_reset(order);
    return order;
}

void hsm_order_free(struct order *order)
{
    if (order == NULL)
        return;
    free(order->frame);
    free(order->ckrs);
    free(order->signatures);
    free(order);
}

void hsm_order_reset(struct order *order)
{
    order->unanswered = order->count;
    order->failed = 0;
    order->frame_sent = 0;
    order->signatures_len = 0;
    for (uint32_t i = 0; i < order->count; i++) {
        order->ckrs[i] = 0;
        order->statuses[i] = HSM_UNANSWERED;
        order->offsets[i] = 0;
        order->lengths[i] = 0;
    }
}

static hsm_status make_room(struct order *order, size_t more)
{
    const size_t needed = order->signatures_len + more;
    if (needed <= order->signatures_room)
        return HSM_OK;
    size_t room = order->signatures_room > 0 ? order->signatures_room * 2 : (size_t)order->count * 72;
    if (room < needed)
        room = needed;
    uint8_t *grown = realloc(order->signatures, room);
    if (grown == NULL)
        return HSM_E_NO_MEMORY;
    order->signatures = grown;
    order->signatures_room = room;
    return HSM_OK;
}

static hsm_status take_result(struct order *order, const struct hsm_result *result, const uint8_t *signature)
{
    const uint32_t index = result->index;
    if (index >= order->count || order->statuses[index] != HSM_UNANSWERED || result->status > HSM_E_LAST_IN_FRAME)
        return HSM_E_FRAME;
    if ((result->status == HSM_OK) != (result->length > 0))
        return HSM_E_FRAME;
    order->statuses[index] = result->status;
    order->ckrs[index] = result->ckr;
    order->lengths[index] = result->length;
    order->offsets[index] = (uint32_t)order->signatures_len;
    if (result->length > 0)
        memcpy(order->signatures + order->signatures_len, signature, result->length);
    order->signatures_len += result->length;
    order->failed += result->status != HSM_OK;
    order->unanswered--;
    return HSM_OK;
}

hsm_status hsm_order_answer(struct order *order, uint32_t count, const uint8_t *body, size_t length)
{
    if (count > order->unanswered || length < (size_t)count * sizeof(struct hsm_result))
        return HSM_E_FRAME;
    size_t at = (size_t)count * sizeof(struct hsm_result);
    const hsm_status room = make_room(order, length - at);
    if (room != HSM_OK)
        return room;
    for (uint32_t i = 0; i < count; i++) {
        struct hsm_result result;
        memcpy(&result, body + (size_t)i * sizeof result, sizeof result);
        if (result.length > HSM_SIGNATURE_MAX || result.length > length - at)
            return HSM_E_FRAME;
        const hsm_status taken = take_result(order, &result, body + at);
        if (taken != HSM_OK)
            return taken;
        at += result.length;
    }
    return at == length ? HSM_OK : HSM_E_FRAME;
}

void hsm_order_give_up(struct order *order, hsm_status status)
{
    for (uint32_t i = 0; i < order->count; i++) {
        if (order->statuses[i] == HSM_UNANSWERED) {
            order->statuses[i] = (uint32_t)status;
            order->failed++;
        }
    }
    order->unanswered = 0;
}
