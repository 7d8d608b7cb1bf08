#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct slot {
    struct hsm_connection *connection; /* made at its first use, kept until the end */
    bool lent;
};

struct hsm_pool {
    struct hsm_pool *before;
    pid_t owner;
    atomic_uint inside; /* threads; in a child, of the parent when it forked */
    pthread_mutex_t lock;
    pthread_cond_t given;
    struct slot slots[HSM_POOL_MAX];
    struct hsm_tls_home home;
};

struct hsm_pool *hsm_pool_new(struct hsm_pool *before)
{
    pthread_condattr_t clock;
    struct hsm_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL || pthread_condattr_init(&clock) != 0) {
        free(pool);
        return NULL;
    }
    bool made = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&pool->given, &clock) == 0;
    (void)pthread_condattr_destroy(&clock);
    if (made && pthread_mutex_init(&pool->lock, NULL) != 0) {
        (void)pthread_cond_destroy(&pool->given);
        made = false;
    }
    if (!made) {
        free(pool);
        return NULL;
    }
    pool->before = before;
    pool->owner = getpid();
    atomic_init(&pool->inside, 0);
    return pool;
}

bool hsm_pool_is_ours(const struct hsm_pool *pool)
{
    return pool->owner == getpid();
}

static void empty(struct hsm_pool *pool)
{
    for (int i = 0; i < HSM_POOL_MAX; i++) {
        if (pool->slots[i].connection != NULL)
            hsm_connection_close(pool->slots[i].connection);
        free(pool->slots[i].connection);
        pool->slots[i].connection = NULL;
    }
    hsm_tls_home_close(&pool->home);
}

void hsm_pool_abandon(struct hsm_pool *pool)
{
    if (atomic_load(&pool->inside) == 0) {
        empty(pool);
        return;
    }
    /* a thread that is not here any more was at work on them: only their descriptors are safe to touch */
    for (int i = 0; i < HSM_POOL_MAX; i++)
        if (pool->slots[i].connection != NULL)
            hsm_socket_close(&pool->slots[i].connection->socket);
}

void hsm_pool_free_one(struct hsm_pool *pool)
{
    if (hsm_pool_is_ours(pool)) { /* else: abandoned; its lock may be held by nobody who lives */
        empty(pool);
        (void)pthread_cond_destroy(&pool->given);
        (void)pthread_mutex_destroy(&pool->lock);
    }
    free(pool);
}

void hsm_pool_free(struct hsm_pool *pool)
{
    while (pool != NULL) {
        struct hsm_pool *before = pool->before;
        hsm_pool_free_one(pool);
        pool = before;
    }
}

void hsm_pool_enter(struct hsm_pool *pool)
{
    atomic_fetch_add(&pool->inside, 1);
}

void hsm_pool_leave(struct hsm_pool *pool)
{
    atomic_fetch_sub(&pool->inside, 1);
}

static void close_idle(struct hsm_pool *pool)
{
    for (int i = 0; i < HSM_POOL_MAX; i++)
        if (!pool->slots[i].lent && pool->slots[i].connection != NULL)
            hsm_connection_close(pool->slots[i].connection);
}

/* An open connection rather than a closed one; NULL: all are lent out. */
static struct slot *find(struct hsm_pool *pool)
{
    struct slot *found = NULL;
    for (int i = 0; i < HSM_POOL_MAX; i++) {
        struct slot *slot = &pool->slots[i];
        if (!slot->lent && slot->connection != NULL && slot->connection->http2 != NULL)
            return slot;
        if (!slot->lent && (found == NULL || (found->connection == NULL && slot->connection != NULL)))
            found = slot;
    }
    return found;
}

static hsm_status take(struct hsm_pool *pool, uint64_t deadline_ns, struct hsm_connection **out)
{
    const struct timespec until = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};
    struct slot *slot = find(pool);
    while (slot == NULL) {
        if (pthread_cond_timedwait(&pool->given, &pool->lock, &until) != 0)
            return HSM_E_DEADLINE;
        slot = find(pool);
    }
    if (slot->connection == NULL) {
        slot->connection = malloc(sizeof *slot->connection);
        if (slot->connection == NULL)
            return HSM_E_NO_MEMORY;
        hsm_connection_init(slot->connection);
    }
    slot->lent = true;
    *out = slot->connection;
    return HSM_OK;
}

hsm_status hsm_pool_take(struct hsm_pool *pool, bool fresh, uint64_t deadline_ns, struct hsm_connection **out)
{
    *out = NULL;
    if (pthread_mutex_lock(&pool->lock) != 0)
        return HSM_E_NO_MEMORY;
    if (fresh)
        close_idle(pool);
    const hsm_status status = take(pool, deadline_ns, out);
    (void)pthread_mutex_unlock(&pool->lock);
    return status;
}

void hsm_pool_give(struct hsm_pool *pool, struct hsm_connection *connection)
{
    (void)pthread_mutex_lock(&pool->lock); /* cannot fail: a plain mutex that this thread does not hold */
    for (int i = 0; i < HSM_POOL_MAX; i++)
        if (pool->slots[i].connection == connection)
            pool->slots[i].lent = false;
    (void)pthread_cond_signal(&pool->given);
    (void)pthread_mutex_unlock(&pool->lock);
}

hsm_status hsm_pool_home(struct hsm_pool *pool, const struct hsm_tls_home **home, struct hsm_why *why)
{
    (void)pthread_mutex_lock(&pool->lock);
    const hsm_status status = pool->home.context != NULL ? HSM_OK : hsm_tls_home_open(&pool->home, why);
    (void)pthread_mutex_unlock(&pool->lock);
    *home = status == HSM_OK ? &pool->home : NULL;
    return status;
}
