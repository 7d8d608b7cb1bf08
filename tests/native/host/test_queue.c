#include "native/host/queue.h"
#include "orders.h"

static const uint8_t locator[] = {1, 'k', 0};
static struct hsm_queue queue;

static struct hsm_order *add_to(struct hsm_lane *lane, uint16_t flow, uint64_t id, uint32_t count, uint64_t deadline)
{
    size_t len;
    struct hsm_order_head head = {deadline, HSM_ECDSA_P256_SHA256, 0, 0, 0, flow};
    uint8_t *frame = order_frame(id, locator, sizeof locator, head, count, 32, 0, &len);
    struct hsm_frame_header header;
    memcpy(&header, frame, sizeof header);
    struct hsm_order *order = hsm_order_new(header.length);
    CHECK(order != NULL);
    memcpy(order->body, frame + sizeof header, header.length);
    CHECK(hsm_order_parse(&header, order->body, &order->view) == HSM_OK);
    order->id = id;
    hsm_queue_add(&queue, lane, order);
    free(frame);
    return order;
}

static struct hsm_order *add(struct hsm_lane *lane, uint64_t id, uint32_t count, uint64_t deadline)
{
    return add_to(lane, 0, id, count, deadline);
}

static struct hsm_chunk take(void)
{
    struct hsm_chunk chunk;
    CHECK(hsm_queue_take(&queue, 2, &chunk));
    return chunk;
}

static void orders_and_connections_take_turns(void)
{
    struct hsm_lane a, b;
    hsm_queue_init(&queue);
    hsm_lane_init(&a);
    hsm_lane_init(&b);
    struct hsm_order *big = add(&a, 1, 1000, 0);
    struct hsm_order *small = add(&a, 2, 8, 0);
    struct hsm_order *other = add(&b, 1, 400, 0);
    struct hsm_order *expected[] = {big, other, small, other, big, other, big};
    struct hsm_chunk taken[7];
    for (int i = 0; i < 7; i++) {
        taken[i] = take();
        CHECK(taken[i].order == expected[i]);
    }
    CHECK(taken[0].count == 32 && taken[0].first == 0 && taken[0].offset == 0);
    CHECK(taken[4].count == 32 && taken[4].first == 32 && taken[4].offset == 32 * 32);
    CHECK(taken[2].count == 8 && taken[6].order == big); /* in one piece: there is enough for all threads */
    CHECK(queue.waiting == 1408 - 6 * 32 - 8);
    for (int i = 0; i < 7; i++)
        hsm_queue_finish(&queue, &taken[i]);
    hsm_queue_close(&queue, &a);
    hsm_queue_close(&queue, &b);
    CHECK(queue.waiting == 0 && a.bytes == 0 && b.bytes == 0);
}

static void a_flow_of_many_orders_gets_no_more_turns_than_one_of_few(void)
{
    static struct hsm_lane lane;
    hsm_queue_init(&queue);
    hsm_lane_init(&lane);
    struct hsm_order *noisy[20];
    for (uint64_t i = 0; i < 20; i++)
        noisy[i] = add_to(&lane, 7, i + 1, 1000, 0);
    struct hsm_order *quiet = add_to(&lane, HSM_FLOWS - 1, 99, 64, 0);
    struct hsm_order *expected[] = {noisy[0], quiet, noisy[1], quiet, noisy[2], noisy[3]};
    for (int i = 0; i < 6; i++) {
        struct hsm_chunk chunk = take();
        CHECK(chunk.order == expected[i] && chunk.count == 32);
        hsm_queue_finish(&queue, &chunk);
    }
    struct hsm_chunk chunk = take(); /* given back, it is the first of its flow again */
    CHECK(chunk.order == noisy[4] && hsm_queue_give_back(&queue, &chunk));
    hsm_queue_finish(&queue, &chunk);
    hsm_queue_close(&queue, &lane);
    CHECK(queue.waiting == 0 && lane.waiting == 0 && lane.bytes == 0);
}

static void the_last_items_are_shared_out(void)
{
    struct hsm_lane lane;
    struct hsm_chunk chunk;
    hsm_queue_init(&queue);
    hsm_lane_init(&lane);
    add(&lane, 1, 16, 0);
    uint32_t expected[] = {4, 3, 2, 1, 1, 1, 1, 1, 1, 1}; /* a half of an even share for two */
    for (int i = 0; i < 10; i++) {
        CHECK(hsm_queue_take(&queue, 2, &chunk) && chunk.count == expected[i]);
        hsm_queue_finish(&queue, &chunk);
    }
    CHECK(!hsm_queue_take(&queue, 2, &chunk));
}

static void every_item_is_taken_once(void)
{
    struct hsm_lane lane;
    hsm_queue_init(&queue);
    hsm_lane_init(&lane);
    uint8_t seen[100] = {0};
    add(&lane, 1, 100, 0);
    struct hsm_chunk chunk;
    while (hsm_queue_take(&queue, 3, &chunk)) {
        struct hsm_chunk rest = chunk;
        if (chunk.count > 4 && chunk.attempts == 0) { /* gives a part back, as a thread does after its time */
            rest.first += 2;
            rest.count -= 2;
            rest.offset += 64;
            rest.attempts = 1;
            CHECK(hsm_queue_give_back(&queue, &rest));
            chunk.count = 2;
        }
        for (uint32_t i = 0; i < chunk.count; i++)
            seen[chunk.first + i]++;
        CHECK(chunk.offset == (size_t)chunk.first * 32);
        hsm_queue_finish(&queue, &chunk);
    }
    for (int i = 0; i < 100; i++)
        CHECK(seen[i] == 1);
    CHECK(lane.bytes == 0 && hsm_queue_find(&lane, 1) == NULL);
}

static void what_is_given_back_of_a_cancelled_order_is_for_the_giver_to_answer(void)
{
    struct hsm_lane lane;
    hsm_queue_init(&queue);
    hsm_lane_init(&lane);
    struct hsm_order *order = add(&lane, 9, 100, 0);
    struct hsm_chunk chunk = take();
    struct hsm_spans spans;
    CHECK(hsm_queue_find(&lane, 9) == order && hsm_queue_find(&lane, 10) == NULL);
    order->cancelled = true;
    hsm_queue_withdraw(&queue, order, &spans);
    CHECK(TAILQ_FIRST(&spans)->count == 75 && TAILQ_FIRST(&spans)->first == 25);
    CHECK(queue.waiting == 0);
    hsm_spans_free(order, &spans);
    struct hsm_chunk withdrawn = {order, 0, 0, 0, 0};
    hsm_queue_finish(&queue, &withdrawn);
    CHECK(!hsm_queue_give_back(&queue, &chunk));
    hsm_queue_finish(&queue, &chunk);
    CHECK(lane.bytes == 0);
}

static void a_closed_connection_leaves_nothing(void)
{
    struct hsm_lane lane, other;
    struct hsm_chunk chunk;
    hsm_queue_init(&queue);
    hsm_lane_init(&lane);
    hsm_lane_init(&other);
    for (uint64_t id = 0; id < 3000; id++) /* more than there are buckets */
        add(&lane, id, 4, 0);
    add(&other, 1, 1, 0);
    chunk = take();
    CHECK(chunk.order->lane == &lane);
    hsm_queue_close(&queue, &lane);
    CHECK(queue.waiting == 1);
    CHECK(hsm_queue_give_back(&queue, &chunk)); /* is dropped */
    CHECK(queue.waiting == 1);
    hsm_queue_finish(&queue, &chunk);
    CHECK(lane.bytes == 0 && lane.in_hand == 0);
    chunk = take();
    CHECK(chunk.order->lane == &other);
    hsm_queue_finish(&queue, &chunk);
    CHECK(!hsm_queue_take(&queue, 2, &chunk));
}

static void only_orders_whose_time_is_over_expire(void)
{
    struct hsm_lane lane;
    hsm_queue_init(&queue);
    hsm_lane_init(&lane);
    add(&lane, 1, 4, 0);
    struct hsm_order *late = add(&lane, 2, 4, 1000);
    CHECK(hsm_queue_expired(&queue, 999) == NULL);
    CHECK(hsm_queue_expired(&queue, 1000) == late);
    hsm_queue_close(&queue, &lane);
    CHECK(hsm_queue_expired(&queue, 1000) == NULL);
}

static uint64_t until_done(const struct hsm_lane *lane, uint16_t flow, uint32_t count, uint32_t a_turn)
{
    const struct hsm_order_view view = {.head = {.flow = flow}, .count = count};
    return hsm_queue_until_done(&queue, lane, &view, a_turn);
}

static void how_long_an_order_takes_follows_from_the_turns(void)
{
    struct hsm_lane a, b;
    hsm_queue_init(&queue);
    hsm_lane_init(&a);
    hsm_lane_init(&b);
    CHECK(until_done(&a, 0, 100, 8) == 100); /* nobody else */
    add(&a, 1, 1000, 0);
    CHECK(until_done(&a, 0, 1, 8) == 16);     /* a turn for each */
    CHECK(until_done(&a, 0, 20, 8) == 48);
    CHECK(until_done(&a, 0, 2000, 8) == 3000); /* never more than all there is */
    CHECK(until_done(&a, 9, 8, 8) == 16); /* the same for another flow */
    add(&a, 2, 1000, 0);
    CHECK(until_done(&a, 0, 8, 8) == 24); /* within a flow orders take turns */
    CHECK(until_done(&a, 9, 8, 8) == 16);
    hsm_queue_close(&queue, &a);
    hsm_lane_init(&a);
    add(&a, 1, 1000, 0);
    add(&b, 1, 1, 0);
    CHECK(until_done(&a, 0, 1, 8) == 32);
    CHECK(until_done(&b, 0, 1, 1) == 4);
    struct hsm_chunk chunk = take();
    CHECK(chunk.order->lane == &a && hsm_queue_give_back(&queue, &chunk));
    hsm_queue_finish(&queue, &chunk);
    CHECK(until_done(&b, 0, 1, 1) == 4);
    hsm_queue_close(&queue, &a);
    CHECK(until_done(&b, 0, 1, 1) == 2);
    hsm_queue_close(&queue, &b);
    CHECK(until_done(&b, 0, 1, 1) == 1);
}

int main(void)
{
    int passed = 0;
    RUN(orders_and_connections_take_turns);
    RUN(a_flow_of_many_orders_gets_no_more_turns_than_one_of_few);
    RUN(the_last_items_are_shared_out);
    RUN(every_item_is_taken_once);
    RUN(what_is_given_back_of_a_cancelled_order_is_for_the_giver_to_answer);
    RUN(a_closed_connection_leaves_nothing);
    RUN(only_orders_whose_time_is_over_expire);
    RUN(how_long_an_order_takes_follows_from_the_turns);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
