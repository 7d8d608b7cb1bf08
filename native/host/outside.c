/* Turns: signatures that somebody outside makes, one at a time. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../core/clock.h"
#include "answer.h"
#include "pool.h"

/* What the one who signs has in hand. It alone touches this. */
struct hsm_outside {
    EVP_MD_CTX *context;
    struct hsm_chunk chunk;
    uint64_t began; /* when the chunk was taken */
    bool busy;      /* has a chunk */
    struct hsm_answer answer;
    uint8_t frame[HSM_ANSWER_FRAME_MAX];
};

struct hsm_outside *hsm_outside_new(void)
{
    struct hsm_outside *outside = calloc(1, sizeof *outside);
    if (outside != NULL && (outside->context = EVP_MD_CTX_new()) == NULL) {
        free(outside);
        return NULL;
    }
    return outside;
}

void hsm_outside_free(struct hsm_outside *outside)
{
    if (outside == NULL)
        return;
    EVP_MD_CTX_free(outside->context);
    free(outside);
}

void hsm_outside_drop(struct hsm_pool *pool)
{
    if (pool->outside == NULL || !pool->outside->busy)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    hsm_queue_finish(&pool->queue, &pool->outside->chunk);
    (void)pthread_mutex_unlock(&pool->lock);
    pool->outside->busy = false;
}

/* Answers what was done of the chunk, and ends it. */
static void finish(struct hsm_pool *pool)
{
    struct hsm_outside *outside = pool->outside;
    hsm_answer_flush(pool, outside->chunk.order, &outside->answer, outside->frame);
    outside->busy = false;
    (void)pthread_mutex_lock(&pool->lock);
    hsm_answer_finish(pool, &outside->chunk);
    (void)pthread_mutex_unlock(&pool->lock);
}

static void next_item(struct hsm_chunk *chunk)
{
    chunk->offset += hsm_order_length(&chunk->order->view, chunk->first);
    chunk->first++;
    chunk->count--;
}

/* Waits for work until `until` (CLOCK_MONOTONIC), or a little where there are deadlines to look after. With the lock
 * held; it lets go of it meanwhile. */
static void wait_for_work(struct hsm_pool *pool, uint64_t until)
{
    pool->idle++;
    if (pool->mode == HSM_POOL_HEALING && pool->queue.waiting > 0) {
        hsm_pool_sweep(pool);
    } else {
        struct timespec at = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
        (void)pthread_cond_timedwait(&pool->work, &pool->lock, &at);
    }
    pool->idle--;
}

/* Takes a chunk. HSM_OK, or HSM_E_DEADLINE where none came. */
static hsm_status take(struct hsm_pool *pool, uint64_t until, hsm_pool_mode *mode, hsm_status *failing_with)
{
    struct hsm_outside *outside = pool->outside;
    (void)pthread_mutex_lock(&pool->lock);
    while (pool->mode == HSM_POOL_HEALING || !hsm_queue_take(&pool->queue, 1, &outside->chunk)) {
        if (hsm_now_ns() >= until) {
            (void)pthread_mutex_unlock(&pool->lock);
            return HSM_E_DEADLINE;
        }
        wait_for_work(pool, until);
    }
    outside->busy = true;
    *mode = pool->mode;
    *failing_with = pool->failing_with;
    (void)pthread_mutex_unlock(&pool->lock);
    outside->began = hsm_now_ns();
    hsm_answer_clear(&outside->answer);
    return HSM_OK;
}

/* Whether the chunk is to be gone on with: its caller still waits, the device is well, and others do not wait longer. */
static bool goes_on(struct hsm_pool *pool)
{
    const struct hsm_outside *outside = pool->outside;
    (void)pthread_mutex_lock(&pool->lock);
    bool well = pool->mode == HSM_POOL_RUNNING && !outside->chunk.order->cancelled &&
                !outside->chunk.order->lane->closed;
    (void)pthread_mutex_unlock(&pool->lock);
    return well && hsm_now_ns() - outside->began < HSM_SLICE_NS;
}

/* The item's digest into the turn, or why it cannot be signed. */
static hsm_status prepare(struct hsm_pool *pool, hsm_turn *turn)
{
    struct hsm_outside *outside = pool->outside;
    const struct hsm_order_view *view = &outside->chunk.order->view;
    const struct hsm_scheme_info *scheme = hsm_scheme_find(view->head.scheme);
    const uint8_t *input = view->inputs + outside->chunk.offset;
    size_t len = hsm_order_length(view, outside->chunk.first);
    if (scheme == NULL || view->head.format > HSM_FORMAT_RAW || view->head.kind > HSM_INPUT_MESSAGE)
        return HSM_E_BAD_INPUT;
    if (scheme->hash == HSM_HASH_NONE)
        return HSM_E_UNSUPPORTED;
    if (view->head.deadline_ns != 0 && view->head.deadline_ns <= hsm_now_ns())
        return HSM_E_DEADLINE;
    turn->locator = view->locator;
    turn->locator_len = view->head.locator_len;
    turn->scheme = view->head.scheme;
    turn->digest_len = scheme->digest_len;
    if (view->head.kind == HSM_INPUT_DIGEST) {
        if (len != scheme->digest_len)
            return HSM_E_BAD_INPUT;
        memcpy(turn->digest, input, len);
        return HSM_OK;
    }
    size_t digest_len = sizeof turn->digest;
    return hsm_digest(&pool->digests, outside->context, scheme->hash, input, len, turn->digest, &digest_len);
}

hsm_status hsm_turn_begin(hsm_pool *pool, uint32_t timeout_ms, hsm_turn *turn)
{
    struct hsm_outside *outside = pool->outside;
    if (outside == NULL)
        return HSM_E_BAD_INPUT;
    const uint64_t until = hsm_now_ns() + (uint64_t)timeout_ms * 1000000;
    memset(turn, 0, sizeof *turn);
    for (;;) {
        if (!outside->busy) {
            hsm_pool_mode mode;
            hsm_status failing_with;
            hsm_status taken = take(pool, until, &mode, &failing_with);
            if (taken != HSM_OK)
                return taken;
            for (; mode == HSM_POOL_FAILING && outside->chunk.count > 0; next_item(&outside->chunk))
                hsm_answer_fail(&outside->answer, outside->chunk.first, failing_with, 0);
        }
        if (outside->chunk.count > 0 && !goes_on(pool)) {
            hsm_answer_give_back(pool, &outside->chunk, &outside->answer);
            outside->chunk.count = 0;
        }
        if (outside->chunk.count == 0) {
            finish(pool);
            continue;
        }
        hsm_status status = prepare(pool, turn);
        if (status == HSM_OK)
            return HSM_OK;
        hsm_answer_fail(&outside->answer, outside->chunk.first, status, 0);
        next_item(&outside->chunk);
    }
}

/* Puts a signature into the answer in the form that was asked for. */
static hsm_status add(struct hsm_outside *outside, const uint8_t *raw, size_t raw_len)
{
    const struct hsm_order_head *head = &outside->chunk.order->view.head;
    const struct hsm_scheme_info *scheme = hsm_scheme_find(head->scheme);
    size_t length = raw_len;
    if (raw_len == 0 || raw_len > HSM_SIGNATURE_MAX || (scheme->raw_len != 0 && raw_len != scheme->raw_len))
        return HSM_E_BAD_INPUT;
    if (scheme->raw_len == 0 || head->format == HSM_FORMAT_RAW) {
        memcpy(hsm_answer_room(&outside->answer), raw, raw_len);
    } else {
        length = HSM_SIGNATURE_MAX;
        hsm_status status = hsm_ecdsa_raw_to_der(raw, raw_len, hsm_answer_room(&outside->answer), &length);
        if (status != HSM_OK)
            return status;
    }
    hsm_answer_add(&outside->answer, outside->chunk.first, length);
    return HSM_OK;
}

hsm_status hsm_turn_end(hsm_pool *pool, hsm_status status, uint64_t code, const uint8_t *raw, size_t raw_len)
{
    struct hsm_outside *outside = pool->outside;
    if (outside == NULL || !outside->busy || outside->chunk.count == 0)
        return HSM_E_BAD_INPUT;
    hsm_status added = HSM_OK;
    if (status == HSM_OK)
        added = add(outside, raw, raw_len);
    if (status != HSM_OK || added != HSM_OK)
        hsm_answer_fail(&outside->answer, outside->chunk.first, status != HSM_OK ? status : HSM_E_DEVICE, code);
    next_item(&outside->chunk);
    if (outside->chunk.count == 0)
        finish(pool);
    return added;
}

void hsm_turn_put_off(hsm_pool *pool, uint64_t code)
{
    struct hsm_outside *outside = pool->outside;
    if (outside == NULL || !outside->busy || outside->chunk.count == 0)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    uint64_t generation = pool->generation;
    (void)pthread_mutex_unlock(&pool->lock);
    hsm_pool_fault(pool, generation, code);
    hsm_answer_put_off(pool, outside->chunk, code, &outside->answer);
    outside->chunk.count = 0;
    finish(pool);
}
