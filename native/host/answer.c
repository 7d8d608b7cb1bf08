/* How results get to the other side. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include "pool.h"

void hsm_answer_clear(struct hsm_answer *answer)
{
    answer->count = 0;
    answer->signatures_len = 0;
}

uint8_t *hsm_answer_room(struct hsm_answer *answer)
{
    return answer->signatures + answer->signatures_len;
}

void hsm_answer_add(struct hsm_answer *answer, uint32_t index, size_t length)
{
    answer->results[answer->count++] = (struct hsm_result){index, HSM_OK, 0, (uint32_t)length, 0};
    answer->signatures_len += length;
}

void hsm_answer_fail(struct hsm_answer *answer, uint32_t index, hsm_status status, uint64_t code)
{
    answer->results[answer->count++] = (struct hsm_result){index, (uint32_t)status, code, 0, 0};
}

void hsm_answer_flush(struct hsm_pool *pool, const struct hsm_order *order, const struct hsm_answer *answer,
                      uint8_t *frame)
{
    if (answer->count == 0)
        return;
    uint32_t failed = 0;
    for (uint32_t i = 0; i < answer->count; i++)
        failed += answer->results[i].status != HSM_OK;
    size_t results_len = answer->count * sizeof(struct hsm_result);
    struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_DONE, 0, order->id, answer->count,
                                      (uint32_t)(results_len + answer->signatures_len)};
    memcpy(frame, &header, sizeof header);
    memcpy(frame + sizeof header, answer->results, results_len);
    memcpy(frame + sizeof header + results_len, answer->signatures, answer->signatures_len);
    (void)atomic_fetch_add_explicit(&pool->signed_total, answer->count - failed, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&pool->failed_total, failed, memory_order_relaxed);
    hsm_answer_send((struct hsm_conn *)order->lane, frame, sizeof header + header.length);
}

void hsm_answer_give_back(struct hsm_pool *pool, const struct hsm_chunk *part, struct hsm_answer *answer)
{
    if (part->count == 0)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    bool taken = hsm_queue_give_back(&pool->queue, part);
    hsm_status status = part->order->cancelled ? HSM_E_CANCELLED : HSM_E_NO_MEMORY;
    if (taken && pool->idle > 0)
        (void)pthread_cond_signal(&pool->work);
    (void)pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; !taken && i < part->count; i++)
        hsm_answer_fail(answer, part->first + i, status, 0);
}

void hsm_answer_put_off(struct hsm_pool *pool, struct hsm_chunk chunk, uint64_t code, struct hsm_answer *answer)
{
    struct hsm_chunk failed = chunk;
    failed.count = 1;
    failed.attempts++;
    chunk.offset += hsm_order_length(&chunk.order->view, chunk.first);
    chunk.first++;
    chunk.count--;
    hsm_answer_give_back(pool, &chunk, answer); /* first, so that `failed` comes to stand in front of it */
    if (failed.attempts >= HSM_ATTEMPTS_MAX)
        hsm_answer_fail(answer, failed.first, code != 0 ? HSM_E_DEVICE : HSM_E_KEY_NOT_FOUND, code);
    else
        hsm_answer_give_back(pool, &failed, answer);
}

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
