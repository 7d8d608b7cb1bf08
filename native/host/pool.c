/* A pool's life: made, told its mode, asked how it is, ended. */
#include "pool.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../core/clock.h"
#include "answer.h"

#define SESSIONS_MAX 1024u
#define DRAIN_STEP_NS 2000000

static int init_locks(hsm_pool *pool)
{
    pthread_condattr_t monotonic;
    pthread_rwlockattr_t writer_first;
    int failed = pthread_mutex_init(&pool->lock, NULL);
    if (failed == 0 && (failed = pthread_condattr_init(&monotonic)) == 0) {
        (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        failed = pthread_cond_init(&pool->work, &monotonic);
        if (failed == 0)
            failed = pthread_cond_init(&pool->rest, NULL);
        (void)pthread_condattr_destroy(&monotonic);
    }
    if (failed == 0 && (failed = pthread_rwlockattr_init(&writer_first)) == 0) {
        /* signatures come without end: without this, management would wait for ever */
        (void)pthread_rwlockattr_setkind_np(&writer_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        failed = pthread_rwlock_init(&pool->manage, &writer_first);
        (void)pthread_rwlockattr_destroy(&writer_first);
    }
    return failed; /* glibc's initialisers take no memory: nothing to undo where a later one fails */
}

static hsm_status start_thread(hsm_pool *pool, struct hsm_thread *thread)
{
    thread->pool = pool;
    thread->signer.digests = &pool->digests;
    thread->signer.session.module = pool->module;
    thread->signer.session.slot = (CK_SLOT_ID)pool->config.slot_id;
    thread->signer.session.active_since = &thread->active_since;
    if (pool->config.exclusive_management == HSM_EXCLUDE_LOOKUPS)
        thread->signer.session.lookups = &pool->manage;
    thread->signer.context = EVP_MD_CTX_new();
    thread->frame = malloc(HSM_ANSWER_FRAME_MAX);
    if (thread->signer.context != NULL && thread->frame != NULL &&
        pthread_create(&thread->thread, NULL, hsm_signer_main, thread) == 0)
        return HSM_OK;
    EVP_MD_CTX_free(thread->signer.context);
    free(thread->frame);
    return HSM_E_NO_MEMORY;
}

hsm_status hsm_pool_new(const hsm_pool_config *config, hsm_pool **out)
{
    *out = NULL;
    const bool outside = config->sessions == 0; /* then there is no module, either */
    if (config->sessions > SESSIONS_MAX || config->max_queued_bytes == 0 ||
        config->exclusive_management > HSM_EXCLUDE_LOOKUPS)
        return HSM_E_BAD_INPUT;
    if (!outside && hsm_module_functions() == NULL)
        return HSM_E_MODULE;
    hsm_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return HSM_E_NO_MEMORY;
    pool->config = *config;
    pool->module = hsm_module_functions();
    pool->mode = HSM_POOL_HEALING;
    hsm_queue_init(&pool->queue);
    TAILQ_INIT(&pool->conns);
    pool->fault_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pool->threads = calloc(outside ? 1 : config->sessions, sizeof *pool->threads);
    pool->outside = outside ? hsm_outside_new() : NULL;
    if (pool->fault_fd < 0 || pool->threads == NULL || (outside && pool->outside == NULL) || init_locks(pool) != 0 ||
        hsm_digests_fetch(&pool->digests) != HSM_OK) {
        if (pool->fault_fd >= 0)
            (void)close(pool->fault_fd);
        hsm_outside_free(pool->outside);
        free(pool->threads);
        free(pool);
        return HSM_E_NO_MEMORY;
    }
    while (pool->thread_count < config->sessions) {
        if (start_thread(pool, &pool->threads[pool->thread_count]) != HSM_OK) {
            hsm_pool_free(pool);
            return HSM_E_NO_MEMORY;
        }
        pool->thread_count++;
    }
    *out = pool;
    return HSM_OK;
}

/* Whether the token gives a session at all, so that going to RUNNING can fail where Python sees it instead of
 * in a thread that would ask for healing at once. */
static CK_RV probe(hsm_pool *pool)
{
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    CK_RV rv = pool->module->C_OpenSession((CK_SLOT_ID)pool->config.slot_id, CKF_SERIAL_SESSION, NULL, NULL, &session);
    if (rv == CKR_OK)
        (void)pool->module->C_CloseSession(session);
    return rv;
}

hsm_status hsm_pool_set_mode(hsm_pool *pool, hsm_pool_mode mode, hsm_status status)
{
    if (mode > HSM_POOL_FAILING || (mode == HSM_POOL_FAILING && (status == HSM_OK || status > HSM_E_BROKEN)))
        return HSM_E_BAD_INPUT;
    CK_RV refused = mode == HSM_POOL_RUNNING && pool->outside == NULL ? probe(pool) : CKR_OK;
    uint64_t ignored;
    (void)pthread_mutex_lock(&pool->lock);
    if (refused != CKR_OK) {
        pool->last_fault_ckr = refused;
        (void)pthread_mutex_unlock(&pool->lock);
        return HSM_E_DEVICE;
    }
    ssize_t n = read(pool->fault_fd, &ignored, sizeof ignored); /* what was wrong is being dealt with */
    (void)n;
    pool->mode = mode;
    pool->failing_with = status;
    if (mode == HSM_POOL_RUNNING) {
        pool->generation++;
        pool->resting = 0;
    }
    (void)pthread_cond_broadcast(&pool->work);
    (void)pthread_cond_broadcast(&pool->rest);
    (void)pthread_mutex_unlock(&pool->lock);
    return HSM_OK;
}

void hsm_pool_fault(hsm_pool *pool, uint64_t generation, uint64_t ckr)
{
    const uint64_t one = 1;
    (void)pthread_mutex_lock(&pool->lock);
    if (pool->mode == HSM_POOL_RUNNING && pool->generation == generation) {
        pool->mode = HSM_POOL_HEALING;
        pool->last_fault_ckr = ckr;
        ssize_t n = write(pool->fault_fd, &one, sizeof one);
        (void)n; /* fails only where it is readable already */
    }
    (void)pthread_mutex_unlock(&pool->lock);
}

void hsm_pool_pace(hsm_pool *pool, uint64_t pace_ns)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->pace_ns = pace_ns;
    (void)pthread_mutex_unlock(&pool->lock);
}

hsm_status hsm_pool_serve(hsm_pool *pool, int fd)
{
    return hsm_conn_start(pool, fd);
}

int hsm_pool_fault_fd(const hsm_pool *pool)
{
    return pool->fault_fd;
}

void hsm_pool_get_stats(hsm_pool *pool, hsm_pool_stats *out)
{
    memset(out, 0, sizeof *out);
    (void)pthread_mutex_lock(&pool->lock);
    out->mode = pool->mode;
    out->queued = pool->queue.waiting;
    out->last_fault_ckr = pool->last_fault_ckr;
    out->resting = pool->resting;
    const struct hsm_conn *conn;
    TAILQ_FOREACH(conn, &pool->conns, link)
        out->connections += !conn->finished;
    (void)pthread_mutex_unlock(&pool->lock);

    uint64_t now = hsm_now_ns();
    for (uint32_t i = 0; i < pool->thread_count; i++) {
        uint64_t since = atomic_load_explicit(&pool->threads[i].active_since, memory_order_relaxed);
        out->sessions += atomic_load_explicit(&pool->threads[i].session_open, memory_order_relaxed);
        out->active += since != 0;
        if (since != 0 && since < now && (now - since) / 1000000 > out->oldest_active_ms)
            out->oldest_active_ms = (now - since) / 1000000;
    }
    out->signed_total = atomic_load_explicit(&pool->signed_total, memory_order_relaxed);
    out->failed_total = atomic_load_explicit(&pool->failed_total, memory_order_relaxed);
}

void hsm_manage_begin(hsm_pool *pool)
{
    if (pool->config.exclusive_management)
        (void)pthread_rwlock_wrlock(&pool->manage);
}

void hsm_manage_end(hsm_pool *pool)
{
    if (pool->config.exclusive_management)
        (void)pthread_rwlock_unlock(&pool->manage);
}

void hsm_pool_forget(hsm_pool *pool, const uint8_t *locator, size_t locator_len)
{
    if (locator_len == 0 || locator_len > HSM_LOCATOR_MAX)
        return; /* no such locator can be in an order */
    (void)pthread_mutex_lock(&pool->lock);
    uint64_t count = atomic_load_explicit(&pool->forgotten, memory_order_relaxed);
    struct hsm_forgotten *one = &pool->ring[count % HSM_FORGET_RING];
    one->len = locator_len;
    memcpy(one->locator, locator, locator_len);
    atomic_store_explicit(&pool->forgotten, count + 1, memory_order_release);
    (void)pthread_mutex_unlock(&pool->lock);
}

/* Whether nothing waits, nothing is in hand and every answer is on its way. */
static bool all_done(hsm_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    bool done = pool->queue.waiting == 0;
    struct hsm_conn *conn;
    TAILQ_FOREACH(conn, &pool->conns, link) {
        if (conn->lane.in_hand > 0)
            done = false;
        if (!conn->finished && hsm_out_look(&conn->out) == HSM_OUT_WAITING)
            done = false;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return done;
}

hsm_status hsm_pool_drain(hsm_pool *pool, uint32_t timeout_ms)
{
    uint64_t until = hsm_now_ns() + (uint64_t)timeout_ms * 1000000;
    while (!all_done(pool)) {
        if (hsm_now_ns() >= until)
            return HSM_E_DEADLINE;
        const struct timespec step = {0, DRAIN_STEP_NS};
        (void)nanosleep(&step, NULL);
    }
    return HSM_OK;
}

void hsm_pool_free(hsm_pool *pool)
{
    if (pool == NULL)
        return;
    struct hsm_conn *conn;
    (void)pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    (void)pthread_cond_broadcast(&pool->work);
    (void)pthread_cond_broadcast(&pool->rest);
    TAILQ_FOREACH(conn, &pool->conns, link) {
        conn->stop = true;
        hsm_conn_wake(conn);
    }
    (void)pthread_mutex_unlock(&pool->lock);

    for (uint32_t i = 0; i < pool->thread_count; i++) {
        (void)pthread_join(pool->threads[i].thread, NULL);
        EVP_MD_CTX_free(pool->threads[i].signer.context);
        free(pool->threads[i].frame);
    }
    hsm_outside_drop(pool);
    while ((conn = TAILQ_FIRST(&pool->conns)) != NULL) {
        TAILQ_REMOVE(&pool->conns, conn, link);
        (void)pthread_join(conn->reader, NULL);
        hsm_conn_free(conn);
    }
    hsm_digests_free(&pool->digests);
    (void)pthread_rwlock_destroy(&pool->manage);
    (void)pthread_cond_destroy(&pool->work);
    (void)pthread_cond_destroy(&pool->rest);
    (void)pthread_mutex_destroy(&pool->lock);
    (void)close(pool->fault_fd);
    hsm_outside_free(pool->outside);
    free(pool->threads);
    free(pool);
}
