/* How results get to the other side. */
#include <stdlib.h>
#include <string.h>

#include "pool.h"

void hsm_answer_send(struct hsm_conn *conn, const uint8_t *frame, size_t len)
{
    if (hsm_out_send(&conn->out, frame, len) == HSM_OUT_WAITING)
        hsm_conn_wake(conn);
}

void hsm_answer_finish(struct hsm_pool *pool, const struct hsm_chunk *chunk)
{
    struct hsm_conn *conn = (struct hsm_conn *)chunk->order->lane;
    hsm_queue_finish(&pool->queue, chunk);
    if (conn->paused && conn->lane.bytes < pool->config.max_queued_bytes)
        hsm_conn_wake(conn);
    hsm_conn_retire(conn);
}

/* A DONE frame in which every item of the spans has the same failure, or NULL. The caller frees it. */
static uint8_t *same_for_all(const struct hsm_order *order, const struct hsm_spans *spans, hsm_status status,
                             size_t *len, uint32_t *items)
{
    uint32_t count = 0;
    const struct hsm_span *span;
    TAILQ_FOREACH(span, spans, link)
        count += span->count;
    *items = count;
    *len = sizeof(struct hsm_frame_header) + (size_t)count * sizeof(struct hsm_result);
    uint8_t *frame = malloc(*len);
    if (frame == NULL)
        return NULL;
    struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_DONE, 0, order->id, count,
                                      (uint32_t)(count * sizeof(struct hsm_result))};
    memcpy(frame, &header, sizeof header);
    uint8_t *at = frame + sizeof header;
    TAILQ_FOREACH(span, spans, link) {
        for (uint32_t i = 0; i < span->count; i++) {
            struct hsm_result result = {span->first + i, (uint32_t)status, 0, 0, 0};
            memcpy(at, &result, sizeof result);
            at += sizeof result;
        }
    }
    return frame;
}

void hsm_answer_withdrawn(struct hsm_pool *pool, struct hsm_order *order, struct hsm_spans *spans, hsm_status status)
{
    struct hsm_conn *conn = (struct hsm_conn *)order->lane;
    if (!TAILQ_EMPTY(spans)) {
        size_t len = 0;
        uint32_t items = 0;
        uint8_t *frame = same_for_all(order, spans, status, &len, &items);
        if (frame != NULL)
            hsm_answer_send(conn, frame, len);
        else /* every item has an answer or the connection is over: the worker then asks again elsewhere */
            hsm_out_break(&conn->out);
        free(frame);
        (void)atomic_fetch_add_explicit(&pool->failed_total, items, memory_order_relaxed);
        hsm_spans_free(order, spans);
    }
    struct hsm_chunk all = {order, 0, 0, 0, 0};
    (void)pthread_mutex_lock(&pool->lock);
    hsm_answer_finish(pool, &all);
    (void)pthread_mutex_unlock(&pool->lock);
}
