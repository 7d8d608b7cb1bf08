/* A connection's reader thread: frames in, and what slow peers left to be written. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../core/clock.h"
#include "pool.h"

void hsm_conn_wake(struct hsm_conn *conn)
{
    const uint64_t one = 1;
    ssize_t n = write(conn->wake_fd, &one, sizeof one);
    (void)n; /* fails only where it is readable already, which is what is wanted */
}

void hsm_conn_retire(struct hsm_conn *conn)
{
    if (!conn->finished || conn->lane.in_hand > 0 || conn->fd < 0)
        return;
    (void)close(conn->fd);
    conn->fd = -1;
}

/* ---- one frame at a time; HSM_OK, HSM_E_FULL (the socket has no more now), or why the connection ends */

static hsm_status receive(struct hsm_conn *conn, void *into, size_t wanted, size_t *have)
{
    while (*have < wanted) {
        ssize_t n = recv(conn->fd, (uint8_t *)into + *have, wanted - *have, MSG_DONTWAIT);
        if (n > 0)
            *have += (size_t)n;
        else if (n == 0)
            return HSM_E_CLOSED;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return HSM_E_FULL;
        else if (errno != EINTR)
            return HSM_E_IO;
    }
    return HSM_OK;
}

static void cancel(struct hsm_conn *conn, uint64_t id)
{
    struct hsm_pool *pool = conn->pool;
    struct hsm_spans spans;
    (void)pthread_mutex_lock(&pool->lock);
    struct hsm_order *order = hsm_queue_find(&conn->lane, id);
    if (order != NULL) {
        order->cancelled = true;
        hsm_queue_withdraw(&pool->queue, order, &spans);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    if (order != NULL) /* else it was answered in full already */
        hsm_answer_withdrawn(pool, order, &spans, HSM_E_CANCELLED);
}

/* Whether the order cannot be served by its deadline, at the pace of the moment: to say so at once is better than
 * to let it wait in vain, and others behind it. With the lock held. */
static bool too_late(const struct hsm_conn *conn, const struct hsm_order *order)
{
    const struct hsm_pool *pool = conn->pool;
    uint64_t deadline = order->view.head.deadline_ns;
    if (pool->pace_ns == 0 || deadline == 0 || pool->mode != HSM_POOL_RUNNING)
        return false;
    uint64_t now = hsm_now_ns();
    const uint64_t slice = HSM_SLICE_NS / pool->pace_ns + 1;
    const uint32_t a_turn = slice < HSM_CHUNK_MAX ? (uint32_t)slice : HSM_CHUNK_MAX;
    const uint64_t until_done = hsm_queue_until_done(&pool->queue, &conn->lane, &order->view, a_turn);
    return deadline > now && (deadline - now) / pool->pace_ns < until_done;
}

static void enqueue(struct hsm_conn *conn, struct hsm_order *order)
{
    struct hsm_pool *pool = conn->pool;
    struct hsm_spans spans;
    (void)pthread_mutex_lock(&pool->lock);
    bool late = too_late(conn, order);
    hsm_queue_add(&pool->queue, &conn->lane, order);
    if (late) {
        hsm_queue_withdraw(&pool->queue, order, &spans);
    } else if (pool->idle > 0) {
        if (order->view.count > 1)
            (void)pthread_cond_broadcast(&pool->work);
        else
            (void)pthread_cond_signal(&pool->work);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    if (late)
        hsm_answer_withdrawn(pool, order, &spans, HSM_E_BUSY);
}

static hsm_status read_frame(struct hsm_conn *conn)
{
    hsm_status status = receive(conn, &conn->header, sizeof conn->header, &conn->header_have);
    if (status != HSM_OK)
        return status;
    if (conn->incoming == NULL) {
        status = hsm_frame_check(&conn->header);
        if (status != HSM_OK)
            return status;
        if (conn->header.type == HSM_FRAME_CANCEL) {
            conn->header_have = 0;
            cancel(conn, conn->header.order_id);
            return HSM_OK;
        }
        conn->incoming = hsm_order_new(conn->header.length);
        conn->incoming_have = 0;
        if (conn->incoming == NULL)
            return HSM_E_NO_MEMORY;
    }
    struct hsm_order *order = conn->incoming;
    status = receive(conn, order->body, conn->header.length, &conn->incoming_have);
    if (status != HSM_OK)
        return status;
    status = hsm_order_parse(&conn->header, order->body, &order->view);
    if (status != HSM_OK)
        return status;
    order->id = conn->header.order_id;
    conn->incoming = NULL;
    conn->header_have = 0;
    enqueue(conn, order);
    return HSM_OK;
}

/* ---- the thread */

/* Whether the reader may read: it may not while too much waits. A full order in one piece is always let in. */
static bool may_read(struct hsm_conn *conn, bool *stop)
{
    (void)pthread_mutex_lock(&conn->pool->lock);
    conn->paused = conn->lane.bytes >= conn->pool->config.max_queued_bytes;
    *stop = conn->stop;
    bool paused = conn->paused;
    (void)pthread_mutex_unlock(&conn->pool->lock);
    return !paused;
}

static bool wait_for_events(struct hsm_conn *conn, bool reading, bool writing, short *events)
{
    struct pollfd fds[2] = {
        {.fd = conn->fd, .events = (short)((reading ? POLLIN : 0) | (writing ? POLLOUT : 0))},
        {.fd = conn->wake_fd, .events = POLLIN},
    };
    int n = poll(fds, 2, -1);
    if (n < 0)
        return errno == EINTR;
    if (fds[1].revents != 0) {
        uint64_t ignored;
        ssize_t got = read(conn->wake_fd, &ignored, sizeof ignored);
        (void)got; /* it is non-blocking, and only there to wake */
    }
    *events = fds[0].revents;
    return true;
}

static void serve(struct hsm_conn *conn)
{
    for (;;) {
        bool stop = false;
        bool reading = may_read(conn, &stop);
        enum hsm_out_state out = hsm_out_flush(&conn->out);
        if (stop || out == HSM_OUT_BROKEN)
            return;
        short events = 0;
        if (!wait_for_events(conn, reading, out == HSM_OUT_WAITING, &events))
            return;
        if (!reading && (events & (POLLHUP | POLLERR | POLLNVAL)) != 0)
            return;
        if (!reading || (events & (POLLIN | POLLHUP | POLLERR)) == 0)
            continue;
        hsm_status status = HSM_OK;
        while (status == HSM_OK && may_read(conn, &stop) && !stop)
            status = read_frame(conn);
        if (status != HSM_OK && status != HSM_E_FULL)
            return;
    }
}

static void *reader_main(void *argument)
{
    struct hsm_conn *conn = argument;
    serve(conn);
    hsm_out_break(&conn->out);
    free(conn->incoming);
    conn->incoming = NULL;
    (void)pthread_mutex_lock(&conn->pool->lock);
    hsm_queue_close(&conn->pool->queue, &conn->lane);
    conn->finished = true;
    hsm_conn_retire(conn);
    (void)pthread_mutex_unlock(&conn->pool->lock);
    return NULL;
}

void hsm_conn_free(struct hsm_conn *conn)
{
    hsm_out_free(&conn->out);
    (void)close(conn->wake_fd);
    if (conn->fd >= 0)
        (void)close(conn->fd);
    free(conn);
}

static struct hsm_conn *conn_new(struct hsm_pool *pool, int fd)
{
    struct hsm_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        return NULL;
    conn->pool = pool;
    conn->fd = fd;
    hsm_lane_init(&conn->lane);
    conn->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (conn->wake_fd < 0 || hsm_out_init(&conn->out, fd) != 0) {
        if (conn->wake_fd >= 0)
            (void)close(conn->wake_fd);
        free(conn);
        return NULL;
    }
    return conn;
}

hsm_status hsm_conn_start(struct hsm_pool *pool, int fd)
{
    struct hsm_conn *conn = conn_new(pool, fd);
    if (conn == NULL) {
        (void)close(fd);
        return HSM_E_NO_MEMORY;
    }
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)pthread_mutex_lock(&pool->lock);
    hsm_conn_reap(pool);
    int failed = pthread_create(&conn->reader, NULL, reader_main, conn);
    if (failed == 0)
        TAILQ_INSERT_TAIL(&pool->conns, conn, link);
    (void)pthread_mutex_unlock(&pool->lock);
    if (failed != 0) {
        hsm_conn_free(conn);
        return HSM_E_NO_MEMORY;
    }
    return HSM_OK;
}

void hsm_conn_reap(struct hsm_pool *pool)
{
    struct hsm_conn *conn = TAILQ_FIRST(&pool->conns);
    while (conn != NULL) {
        struct hsm_conn *next = TAILQ_NEXT(conn, link);
        if (conn->finished && conn->lane.in_hand == 0) {
            TAILQ_REMOVE(&pool->conns, conn, link);
            /* its reader's last deed was to let go of the lock that is held here: this does not wait */
            (void)pthread_join(conn->reader, NULL);
            hsm_conn_free(conn);
        }
        conn = next;
    }
}
