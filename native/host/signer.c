/* A signing thread: takes chunks, signs, answers. */
#include <string.h>

#include "../core/clock.h"
#include "answer.h"
#include "pool.h"

#define SWEEP_NS 20000000 /* how late a deadline may be noticed while the device is being healed */

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
static void sign_chunk(struct hsm_thread *self, struct hsm_chunk chunk, struct hsm_answer *answer)
{
    const struct hsm_order_view *view = &chunk.order->view;
    uint64_t start = hsm_now_ns();
    uint64_t now = start;
    while (chunk.count > 0 && now - start < HSM_SLICE_NS) {
        size_t length = hsm_order_length(view, chunk.first);
        if (view->head.deadline_ns != 0 && view->head.deadline_ns <= now)
            hsm_answer_fail(answer, chunk.first, HSM_E_DEADLINE, 0);
        else {
            struct hsm_signature signature = {.out = hsm_answer_room(answer)};
            forget(self);
            enter_module(self);
            hsm_sign(&self->signer, view, view->inputs + chunk.offset, length, &signature);
            leave_module(self);
            if (signature.fault || (failed_on_device(signature.status) && healing_began(self))) {
                hsm_pool_fault(self->pool, self->generation, signature.ckr);
                hsm_answer_put_off(self->pool, chunk, signature.ckr, answer);
                return;
            }
            if (signature.status == HSM_OK)
                hsm_answer_add(answer, chunk.first, signature.length);
            else
                hsm_answer_fail(answer, chunk.first, signature.status, signature.ckr);
        }
        chunk.offset += length;
        chunk.first++;
        chunk.count--;
        now = hsm_now_ns();
    }
    hsm_answer_give_back(self->pool, &chunk, answer);
}

static void work_on(struct hsm_thread *self, const struct hsm_chunk *chunk, hsm_pool_mode mode, hsm_status failing_with)
{
    struct hsm_answer answer;
    hsm_answer_clear(&answer);
    if (mode == HSM_POOL_RUNNING)
        sign_chunk(self, *chunk, &answer);
    else {
        for (uint32_t i = 0; i < chunk->count; i++)
            hsm_answer_fail(&answer, chunk->first + i, failing_with, 0);
    }
    hsm_answer_flush(self->pool, chunk->order, &answer, self->frame);
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

void hsm_pool_sweep(struct hsm_pool *pool)
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
            hsm_pool_sweep(pool);
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
