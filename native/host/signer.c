/* A signing thread: takes chunks, signs, answers. */
#include <string.h>

#include "../core/clock.h"
#include "pool.h"

#define SWEEP_NS 20000000 /* how late a deadline may be noticed while the device is being healed */

size_t hsm_signer_frame_size(void)
{
    return sizeof(struct hsm_frame_header) + HSM_CHUNK_MAX * (sizeof(struct hsm_result) + HSM_SIGNATURE_MAX);
}

/* The DONE frame of a chunk, being made: results in their place, signatures behind room for all results. */
struct answer {
    struct hsm_result results[HSM_CHUNK_MAX];
    uint8_t signatures[HSM_CHUNK_MAX * HSM_SIGNATURE_MAX];
    size_t signatures_len;
    uint32_t count;
};

static void add_failure(struct answer *answer, uint32_t index, hsm_status status, CK_RV ckr)
{
    answer->results[answer->count++] = (struct hsm_result){index, (uint32_t)status, ckr, 0, 0};
}

static void add_signature(struct answer *answer, uint32_t index, size_t length)
{
    answer->results[answer->count++] = (struct hsm_result){index, HSM_OK, 0, (uint32_t)length, 0};
    answer->signatures_len += length;
}

static void send_answer(struct hsm_thread *self, const struct hsm_order *order, const struct answer *answer)
{
    if (answer->count == 0)
        return;
    uint32_t failed = 0;
    for (uint32_t i = 0; i < answer->count; i++)
        failed += answer->results[i].status != HSM_OK;
    size_t results_len = answer->count * sizeof(struct hsm_result);
    struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_DONE, 0, order->id, answer->count,
                                      (uint32_t)(results_len + answer->signatures_len)};
    uint8_t *at = self->frame;
    memcpy(at, &header, sizeof header);
    memcpy(at + sizeof header, answer->results, results_len);
    memcpy(at + sizeof header + results_len, answer->signatures, answer->signatures_len);
    (void)atomic_fetch_add_explicit(&self->pool->signed_total, answer->count - failed, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&self->pool->failed_total, failed, memory_order_relaxed);
    hsm_answer_send((struct hsm_conn *)order->lane, at, sizeof header + header.length);
}

/* Drops handles that hsm_pool_forget named since this thread looked last. */
static void forget(struct hsm_thread *self)
{
    struct hsm_pool *pool = self->pool;
    if (atomic_load_explicit(&pool->forgotten, memory_order_acquire) == self->forgotten)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    uint64_t last = atomic_load_explicit(&pool->forgotten, memory_order_relaxed);
    if (last - self->forgotten > HSM_FORGET_RING)
        hsm_cache_clear(&self->signer.session.cache);
    else {
        for (uint64_t i = self->forgotten; i < last; i++) {
            const struct hsm_forgotten *one = &pool->ring[i % HSM_FORGET_RING];
            hsm_cache_drop(&self->signer.session.cache, one->locator, one->len);
        }
    }
    self->forgotten = last;
    (void)pthread_mutex_unlock(&pool->lock);
}

static void enter_module(struct hsm_thread *self)
{
    if (self->pool->config.exclusive_management == HSM_EXCLUDE_ALL)
        (void)pthread_rwlock_rdlock(&self->pool->manage);
    atomic_store_explicit(&self->active_since, hsm_now_ns(), memory_order_relaxed);
}

static void leave_module(struct hsm_thread *self)
{
    atomic_store_explicit(&self->active_since, 0, memory_order_relaxed);
    atomic_store_explicit(&self->session_open, self->signer.session.open, memory_order_relaxed);
    if (self->pool->config.exclusive_management == HSM_EXCLUDE_ALL)
        (void)pthread_rwlock_unlock(&self->pool->manage);
}

/* What of a chunk is not done goes back; or is answered here where the queue does not take it. */
static void give_back(struct hsm_thread *self, const struct hsm_chunk *part, struct answer *answer)
{
    if (part->count == 0)
        return;
    struct hsm_pool *pool = self->pool;
    (void)pthread_mutex_lock(&pool->lock);
    bool taken = hsm_queue_give_back(&pool->queue, part);
    hsm_status status = part->order->cancelled ? HSM_E_CANCELLED : HSM_E_NO_MEMORY;
    if (taken && pool->idle > 0)
        (void)pthread_cond_signal(&pool->work);
    (void)pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; !taken && i < part->count; i++)
        add_failure(answer, part->first + i, status, 0);
}

/* The device failed under item `chunk->first`: it and the rest wait for healing, but not for ever. */
static void put_off(struct hsm_thread *self, struct hsm_chunk chunk, CK_RV ckr, struct answer *answer)
{
    hsm_pool_fault(self->pool, self->generation, ckr);
    struct hsm_chunk failed = chunk;
    failed.count = 1;
    failed.attempts++;
    chunk.offset += hsm_order_length(&chunk.order->view, chunk.first);
    chunk.first++;
    chunk.count--;
    give_back(self, &chunk, answer); /* first, so that `failed` comes to stand in front of it */
    if (failed.attempts >= HSM_ATTEMPTS_MAX)
        add_failure(answer, failed.first, ckr != CKR_OK ? HSM_E_DEVICE : HSM_E_KEY_NOT_FOUND, ckr);
    else
        give_back(self, &failed, answer);
}

static bool failed_on_device(hsm_status status)
{
    return status == HSM_E_DEVICE || status == HSM_E_KEY_NOT_FOUND;
}

/* Whether the device is, or was since this thread opened its session, being healed. Python then closes
 * sessions and logs in anew under the threads that sign: whatever they were told means nothing. */
static bool healing_began(struct hsm_thread *self)
{
    struct hsm_pool *pool = self->pool;
    (void)pthread_mutex_lock(&pool->lock);
    bool began = pool->mode != HSM_POOL_RUNNING || pool->generation != self->generation;
    (void)pthread_mutex_unlock(&pool->lock);
    return began;
}

/* Signs a chunk item by item, until it is done, the time slice is over, or the device fails. */
static void sign_chunk(struct hsm_thread *self, struct hsm_chunk chunk, struct answer *answer)
{
    const struct hsm_order_view *view = &chunk.order->view;
    uint64_t start = hsm_now_ns();
    uint64_t now = start;
    while (chunk.count > 0 && now - start < HSM_SLICE_NS) {
        size_t length = hsm_order_length(view, chunk.first);
        if (view->head.deadline_ns != 0 && view->head.deadline_ns <= now)
            add_failure(answer, chunk.first, HSM_E_DEADLINE, 0);
        else {
            struct hsm_signature signature = {.out = answer->signatures + answer->signatures_len};
            forget(self);
            enter_module(self);
            hsm_sign(&self->signer, view, view->inputs + chunk.offset, length, &signature);
            leave_module(self);
            if (signature.fault || (failed_on_device(signature.status) && healing_began(self))) {
                put_off(self, chunk, signature.ckr, answer);
                return;
            }
            if (signature.status == HSM_OK)
                add_signature(answer, chunk.first, signature.length);
            else
                add_failure(answer, chunk.first, signature.status, signature.ckr);
        }
        chunk.offset += length;
        chunk.first++;
        chunk.count--;
        now = hsm_now_ns();
    }
    give_back(self, &chunk, answer);
}

static void work_on(struct hsm_thread *self, const struct hsm_chunk *chunk, hsm_pool_mode mode, hsm_status failing_with)
{
    struct answer answer;
    answer.count = 0;
    answer.signatures_len = 0;
    if (mode == HSM_POOL_RUNNING)
        sign_chunk(self, *chunk, &answer);
    else {
        for (uint32_t i = 0; i < chunk->count; i++)
            add_failure(&answer, chunk->first + i, failing_with, 0);
    }
    send_answer(self, chunk->order, &answer);
    (void)pthread_mutex_lock(&self->pool->lock);
    hsm_answer_finish(self->pool, chunk);
    (void)pthread_mutex_unlock(&self->pool->lock);
}

/* The token has fewer sessions than there are threads: this one rests until there is a new beginning. False
 * where all of them would. */
static bool rest(struct hsm_thread *self)
{
    struct hsm_pool *pool = self->pool;
    (void)pthread_mutex_lock(&pool->lock);
    bool current = pool->generation == self->generation;
    bool others = pool->resting + 1 < pool->config.sessions;
    self->resting = current && others;
    if (self->resting)
        pool->resting++;
    (void)pthread_mutex_unlock(&pool->lock);
    return !current || others;
}

static void open_session(struct hsm_thread *self)
{
    self->signer.session.logged_in = false; /* a new beginning: what was expected of the token before is over */
    enter_module(self);
    CK_RV rv = hsm_session_open(&self->signer.session);
    leave_module(self);
    if (rv == CKR_OK || (rv == CKR_SESSION_COUNT && rest(self)))
        return;
    hsm_pool_fault(self->pool, self->generation, rv);
}

/* Waits a little, then answers orders whose deadline is over. With the lock held; it lets go of it. */
static void sweep(struct hsm_pool *pool)
{
    struct timespec until;
    pool->sweeping = true;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SWEEP_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&pool->work, &pool->lock, &until);
    struct hsm_order *order;
    while (pool->mode == HSM_POOL_HEALING && (order = hsm_queue_expired(&pool->queue, hsm_now_ns())) != NULL) {
        struct hsm_spans spans;
        hsm_queue_withdraw(&pool->queue, order, &spans);
        (void)pthread_mutex_unlock(&pool->lock);
        hsm_answer_withdrawn(pool, order, &spans, HSM_E_DEADLINE);
        (void)pthread_mutex_lock(&pool->lock);
    }
    pool->sweeping = false;
}

/* Blocks until there is something to do. With the lock held. False: the end. */
static bool next_chunk(struct hsm_thread *self, struct hsm_chunk *chunk, bool *reopen)
{
    struct hsm_pool *pool = self->pool;
    *reopen = false;
    for (;;) {
        if (pool->stop)
            return false;
        if (pool->mode == HSM_POOL_RUNNING && self->generation != pool->generation) {
            self->generation = pool->generation;
            self->resting = false;
            *reopen = true;
            return true;
        }
        if (pool->mode == HSM_POOL_RUNNING && self->resting) { /* not at `work`: it would take others' signals */
            (void)pthread_cond_wait(&pool->rest, &pool->lock);
            continue;
        }
        if (pool->mode != HSM_POOL_HEALING &&
            hsm_queue_take(&pool->queue, pool->config.sessions - pool->resting, chunk))
            return true;
        pool->idle++;
        if (pool->mode == HSM_POOL_HEALING && pool->queue.waiting > 0 && !pool->sweeping)
            sweep(pool);
        else
            (void)pthread_cond_wait(&pool->work, &pool->lock);
        pool->idle--;
    }
}

void *hsm_signer_main(void *argument)
{
    struct hsm_thread *self = argument;
    struct hsm_pool *pool = self->pool;
    (void)pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct hsm_chunk chunk;
        bool reopen = false;
        if (!next_chunk(self, &chunk, &reopen))
            break;
        hsm_pool_mode mode = pool->mode;
        hsm_status failing_with = pool->failing_with;
        (void)pthread_mutex_unlock(&pool->lock);
        if (reopen)
            open_session(self);
        else
            work_on(self, &chunk, mode, failing_with);
        (void)pthread_mutex_lock(&pool->lock);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    enter_module(self);
    hsm_session_close(&self->signer.session);
    leave_module(self);
    return NULL;
}
