/* Orders that wait, fairly: a turn for each connection, in it a turn for each flow (whose work it is), in it a turn
 * for each order, in it a few items.
 *
 * Nothing here locks: the pool's lock is held at every call. An order's view and body do not change once it
 * was added, so that who has a chunk of it in hand may read them without the lock. */
#ifndef HSMSIGN_QUEUE_H
#define HSMSIGN_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "../core/order.h"

#define HSM_CHUNK_MAX 32u
#define HSM_LANE_BUCKETS 1024u

struct hsm_lane;

/* A run of items of an order that nobody has in hand. */
struct hsm_span {
    TAILQ_ENTRY(hsm_span) link;
    uint32_t first;
    uint32_t count;
    size_t offset; /* of the first one's input */
    uint32_t attempts;
};

TAILQ_HEAD(hsm_spans, hsm_span);

/* An order and its body, one piece of memory. Freed when nothing of it waits and nothing is in hand. */
struct hsm_order {
    TAILQ_ENTRY(hsm_order) turn; /* in flow->orders while it has spans */
    struct hsm_order *same_bucket;
    struct hsm_lane *lane;
    struct hsm_flow *flow;
    struct hsm_spans spans;
    struct hsm_span whole; /* the span it begins with */
    uint64_t id;
    uint32_t in_hand;      /* chunks taken and not finished */
    bool cancelled;
    struct hsm_order_view view;
    size_t bytes;          /* of the body */
    _Alignas(8) uint8_t body[];
};

/* The orders of one flow that have spans. */
struct hsm_flow {
    TAILQ_ENTRY(hsm_flow) turn; /* in lane->flows while it has orders */
    TAILQ_HEAD(, hsm_order) orders;
    uint32_t waiting; /* orders */
};

/* What the queue knows of a connection. All zeros but for hsm_lane_init. */
struct hsm_lane {
    TAILQ_ENTRY(hsm_lane) turn;
    TAILQ_HEAD(, hsm_flow) flows; /* with orders that have spans */
    struct hsm_flow all_flows[HSM_FLOWS];
    struct hsm_order *buckets[HSM_LANE_BUCKETS]; /* every order that is not freed, by id */
    size_t bytes;     /* of all its orders */
    uint32_t waiting; /* flows in `flows` */
    uint32_t in_hand; /* chunks */
    bool has_turn;
    bool closed;
};

struct hsm_queue {
    TAILQ_HEAD(, hsm_lane) lanes; /* with orders that have spans */
    uint32_t lanes_waiting;       /* those lanes */
    uint32_t waiting;             /* items in spans */
};

/* Some items of one order, for one thread. */
struct hsm_chunk {
    struct hsm_order *order;
    uint32_t first;
    uint32_t count;
    size_t offset;
    uint32_t attempts;
};

void hsm_queue_init(struct hsm_queue *queue);
void hsm_lane_init(struct hsm_lane *lane);

/* Memory for an order with a body of `bytes`, or NULL. The caller's until hsm_queue_add. */
struct hsm_order *hsm_order_new(size_t bytes);

/* Takes over the order, whose view is set. */
void hsm_queue_add(struct hsm_queue *queue, struct hsm_lane *lane, struct hsm_order *order);

/* Takes the next chunk: at most HSM_CHUNK_MAX items, and less the less there is to share out among threads, so
 * that they end together. False where nothing waits. hsm_queue_finish ends it. */
bool hsm_queue_take(struct hsm_queue *queue, uint32_t sessions, struct hsm_chunk *out);

/* How many items are signed, at most, until an order that is added to the lane now is done, where nobody
 * comes after it and one session signs `a_turn` items at a time. */
uint64_t hsm_queue_until_done(const struct hsm_queue *queue, const struct hsm_lane *lane,
                              const struct hsm_order_view *view, uint32_t a_turn);

/* Puts items of a chunk that is in hand back, in front. False where the order was cancelled (then the caller
 * answers) or memory is short (likewise). Of a closed lane they are dropped, and that is true. */
bool hsm_queue_give_back(struct hsm_queue *queue, const struct hsm_chunk *part);

/* The chunk was answered or given back. Frees the order where that was the last of it. */
void hsm_queue_finish(struct hsm_queue *queue, const struct hsm_chunk *chunk);

/* The order of a lane, or NULL. */
struct hsm_order *hsm_queue_find(struct hsm_lane *lane, uint64_t id);

/* Moves the order's spans to `out` and counts them as one chunk in hand: answer them, hsm_spans_free, and
 * hsm_queue_finish. */
void hsm_queue_withdraw(struct hsm_queue *queue, struct hsm_order *order, struct hsm_spans *out);

/* Frees what hsm_queue_withdraw gave. */
void hsm_spans_free(struct hsm_order *order, struct hsm_spans *spans);

/* The next order with spans whose deadline is over at `now_ns`, or NULL. */
struct hsm_order *hsm_queue_expired(struct hsm_queue *queue, uint64_t now_ns);

/* Drops all that waits of the lane and takes no more for it. */
void hsm_queue_close(struct hsm_queue *queue, struct hsm_lane *lane);

#endif
