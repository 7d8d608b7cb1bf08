#include "queue.h"

#include <stdlib.h>
#include <string.h>

void hsm_queue_init(struct hsm_queue *queue)
{
    TAILQ_INIT(&queue->lanes);
    queue->waiting = 0;
    queue->lanes_waiting = 0;
}

void hsm_lane_init(struct hsm_lane *lane)
{
    memset(lane, 0, sizeof *lane);
    TAILQ_INIT(&lane->flows);
    for (uint32_t i = 0; i < HSM_FLOWS; i++)
        TAILQ_INIT(&lane->all_flows[i].orders);
}

struct hsm_order *hsm_order_new(size_t bytes)
{
    struct hsm_order *order = malloc(sizeof *order + bytes);
    if (order == NULL)
        return NULL;
    memset(order, 0, sizeof *order);
    TAILQ_INIT(&order->spans);
    order->bytes = bytes;
    return order;
}

static struct hsm_order **bucket(struct hsm_lane *lane, uint64_t id)
{
    return &lane->buckets[id % HSM_LANE_BUCKETS];
}

static void give_turn(struct hsm_queue *queue, struct hsm_lane *lane)
{
    if (lane->has_turn)
        return;
    TAILQ_INSERT_TAIL(&queue->lanes, lane, turn);
    queue->lanes_waiting++;
    lane->has_turn = true;
}

static void lose_turn(struct hsm_queue *queue, struct hsm_lane *lane)
{
    if (!lane->has_turn)
        return;
    TAILQ_REMOVE(&queue->lanes, lane, turn);
    queue->lanes_waiting--;
    lane->has_turn = false;
}

/* An order that has spans again, or for the first time, waits in its flow: behind the others, or in front of them. */
static void join(struct hsm_order *order, bool in_front)
{
    struct hsm_flow *flow = order->flow;
    if (in_front)
        TAILQ_INSERT_HEAD(&flow->orders, order, turn);
    else
        TAILQ_INSERT_TAIL(&flow->orders, order, turn);
    if (flow->waiting++ > 0)
        return;
    TAILQ_INSERT_TAIL(&order->lane->flows, flow, turn);
    order->lane->waiting++;
}

/* It waits no more, and neither does its flow where it was the last of it. */
static void leave(struct hsm_order *order)
{
    struct hsm_flow *flow = order->flow;
    TAILQ_REMOVE(&flow->orders, order, turn);
    if (--flow->waiting > 0)
        return;
    TAILQ_REMOVE(&order->lane->flows, flow, turn);
    order->lane->waiting--;
}

static void free_if_over(struct hsm_order *order)
{
    if (order->in_hand > 0 || !TAILQ_EMPTY(&order->spans))
        return;
    struct hsm_order **at = bucket(order->lane, order->id);
    while (*at != order)
        at = &(*at)->same_bucket;
    *at = order->same_bucket;
    order->lane->bytes -= order->bytes;
    free(order);
}

void hsm_queue_add(struct hsm_queue *queue, struct hsm_lane *lane, struct hsm_order *order)
{
    order->lane = lane;
    order->flow = &lane->all_flows[order->view.head.flow];
    order->whole = (struct hsm_span){.first = 0, .count = order->view.count, .offset = 0, .attempts = 0};
    TAILQ_INSERT_TAIL(&order->spans, &order->whole, link);
    struct hsm_order **at = bucket(lane, order->id);
    order->same_bucket = *at;
    *at = order;
    lane->bytes += order->bytes;
    join(order, false);
    give_turn(queue, lane);
    queue->waiting += order->view.count;
}

static void free_span(struct hsm_order *order, struct hsm_span *span)
{
    if (span != &order->whole)
        free(span);
}

bool hsm_queue_take(struct hsm_queue *queue, uint32_t sessions, struct hsm_chunk *out)
{
    struct hsm_lane *lane = TAILQ_FIRST(&queue->lanes);
    if (lane == NULL)
        return false;
    struct hsm_flow *flow = TAILQ_FIRST(&lane->flows);
    struct hsm_order *order = TAILQ_FIRST(&flow->orders);
    struct hsm_span *span = TAILQ_FIRST(&order->spans);
    uint32_t share = queue->waiting / (2 * sessions);
    uint32_t count = share > HSM_CHUNK_MAX ? HSM_CHUNK_MAX : share > 1 ? share : 1;
    if (count > span->count)
        count = span->count;
    *out = (struct hsm_chunk){order, span->first, count, span->offset, span->attempts};

    for (uint32_t i = 0; i < count; i++)
        span->offset += hsm_order_length(&order->view, span->first + i);
    span->first += count;
    span->count -= count;
    if (span->count == 0) {
        TAILQ_REMOVE(&order->spans, span, link);
        free_span(order, span);
    }
    queue->waiting -= count;
    order->in_hand++;
    lane->in_hand++;

    /* each goes behind its kind: the order in its flow, the flow in its lane, the lane among the others */
    const bool more = !TAILQ_EMPTY(&order->spans);
    leave(order);
    if (more)
        join(order, false);
    if (flow->waiting > 0) {
        TAILQ_REMOVE(&lane->flows, flow, turn);
        TAILQ_INSERT_TAIL(&lane->flows, flow, turn);
    }
    lose_turn(queue, lane);
    if (lane->waiting > 0)
        give_turn(queue, lane);
    return true;
}

uint64_t hsm_queue_until_done(const struct hsm_queue *queue, const struct hsm_lane *lane,
                              const struct hsm_order_view *view, uint32_t a_turn)
{
    const struct hsm_flow *flow = &lane->all_flows[view->head.flow];
    const uint64_t lanes = (uint64_t)queue->lanes_waiting + !lane->has_turn;
    const uint64_t flows = (uint64_t)lane->waiting + (flow->waiting == 0);
    const uint64_t rounds = ((uint64_t)view->count + a_turn - 1) / a_turn;
    const uint64_t turns = rounds * (flow->waiting + UINT64_C(1)) * flows * lanes;
    const uint64_t all = (uint64_t)queue->waiting + view->count;
    return turns < all / a_turn ? turns * a_turn : all;
}

bool hsm_queue_give_back(struct hsm_queue *queue, const struct hsm_chunk *part)
{
    struct hsm_order *order = part->order;
    struct hsm_lane *lane = order->lane;
    if (lane->closed)
        return true;
    if (order->cancelled)
        return false;
    struct hsm_span *span = malloc(sizeof *span);
    if (span == NULL)
        return false;
    *span = (struct hsm_span){
        .first = part->first, .count = part->count, .offset = part->offset, .attempts = part->attempts};
    if (TAILQ_EMPTY(&order->spans))
        join(order, true);
    TAILQ_INSERT_HEAD(&order->spans, span, link);
    give_turn(queue, lane);
    queue->waiting += part->count;
    return true;
}

void hsm_queue_finish(struct hsm_queue *queue, const struct hsm_chunk *chunk)
{
    (void)queue;
    chunk->order->in_hand--;
    chunk->order->lane->in_hand--;
    free_if_over(chunk->order);
}

struct hsm_order *hsm_queue_find(struct hsm_lane *lane, uint64_t id)
{
    struct hsm_order *order = *bucket(lane, id);
    while (order != NULL && order->id != id)
        order = order->same_bucket;
    return order;
}

void hsm_queue_withdraw(struct hsm_queue *queue, struct hsm_order *order, struct hsm_spans *out)
{
    struct hsm_lane *lane = order->lane;
    TAILQ_INIT(out);
    if (!TAILQ_EMPTY(&order->spans)) {
        leave(order);
        if (lane->waiting == 0)
            lose_turn(queue, lane);
    }
    TAILQ_CONCAT(out, &order->spans, link);
    struct hsm_span *span;
    TAILQ_FOREACH(span, out, link)
        queue->waiting -= span->count;
    order->in_hand++;
    lane->in_hand++;
}

void hsm_spans_free(struct hsm_order *order, struct hsm_spans *spans)
{
    while (!TAILQ_EMPTY(spans)) {
        struct hsm_span *span = TAILQ_FIRST(spans);
        TAILQ_REMOVE(spans, span, link);
        free_span(order, span);
    }
}

struct hsm_order *hsm_queue_expired(struct hsm_queue *queue, uint64_t now_ns)
{
    struct hsm_lane *lane;
    struct hsm_flow *flow;
    struct hsm_order *order;
    TAILQ_FOREACH(lane, &queue->lanes, turn) {
        TAILQ_FOREACH(flow, &lane->flows, turn) {
            TAILQ_FOREACH(order, &flow->orders, turn) {
                if (order->view.head.deadline_ns != 0 && order->view.head.deadline_ns <= now_ns)
                    return order;
            }
        }
    }
    return NULL;
}

void hsm_queue_close(struct hsm_queue *queue, struct hsm_lane *lane)
{
    lane->closed = true;
    while (!TAILQ_EMPTY(&lane->flows)) {
        struct hsm_order *order = TAILQ_FIRST(&TAILQ_FIRST(&lane->flows)->orders);
        struct hsm_chunk all = {order, 0, 0, 0, 0};
        struct hsm_spans spans;
        hsm_queue_withdraw(queue, order, &spans);
        hsm_spans_free(order, &spans);
        hsm_queue_finish(queue, &all);
    }
}
