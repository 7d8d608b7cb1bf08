/* The inside of a pool: who holds which lock, who owns what. For native/host only.
 *
 * pool->lock guards everything that is not said to be otherwise. It is never held during a call into the
 * module, nor while something is sent. */
#ifndef HSMSIGN_POOL_H
#define HSMSIGN_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "../core/frame.h"
#include "digest.h"
#include "host.h"
#include "module.h"
#include "out.h"
#include "queue.h"
#include "sign.h"

#define HSM_ATTEMPTS_MAX 3u     /* how often an item may bring the pool to HEALING */
#define HSM_SLICE_NS 5000000u   /* a thread goes on to somebody else's order after this long */
#define HSM_FORGET_RING 64u     /* forgotten locators that a thread may have missed before it forgets all */

/* A served connection. Made by hsm_conn_start; its reader thread reads and, where a peer was slow, writes.
 * Belongs to the pool; freed when its reader has ended and no chunk of it is in hand. */
struct hsm_conn {
    struct hsm_lane lane; /* first: lane and connection are one address */
    TAILQ_ENTRY(hsm_conn) link;
    struct hsm_pool *pool;
    struct hsm_out out;
    pthread_t reader;
    int fd;
    int wake_fd;    /* an eventfd: look again */
    bool paused;    /* does not read: too much waits */
    bool stop;
    bool finished;  /* the reader has nothing more to do with it */
    /* the reader's own */
    struct hsm_frame_header header;
    size_t header_have;
    struct hsm_order *incoming;
    size_t incoming_have;
};

struct hsm_thread {
    struct hsm_pool *pool;
    pthread_t thread;
    struct hsm_signer signer;      /* the thread's own */
    uint64_t generation;           /* of the mode it opened its session in; the thread's own */
    bool resting;                  /* the token has no session for it in this generation; the thread's own */
    uint64_t forgotten;            /* how far it has read the ring; the thread's own */
    _Atomic uint64_t active_since; /* ns; 0: not inside the module */
    _Atomic bool session_open;
    uint8_t *frame;                /* room for the DONE frame of a chunk */
};

struct hsm_forgotten {
    size_t len;
    uint8_t locator[HSM_LOCATOR_MAX];
};

struct hsm_pool {
    hsm_pool_config config;   /* constant */
    CK_FUNCTION_LIST *module; /* constant */
    struct hsm_digests digests; /* constant */
    int fault_fd;             /* constant */

    pthread_mutex_t lock;
    pthread_cond_t work;      /* CLOCK_MONOTONIC; there is work, another mode, or the end */
    struct hsm_queue queue;
    TAILQ_HEAD(, hsm_conn) conns;
    hsm_pool_mode mode;
    hsm_status failing_with;
    uint64_t generation;      /* counts each time the mode became RUNNING */
    uint64_t last_fault_ckr;
    pthread_cond_t rest;      /* another mode, or the end: what threads without a session wait for */
    uint32_t idle;            /* threads that wait for work */
    uint32_t resting;         /* threads for which the token had no session in this generation */
    bool sweeping;            /* one of them looks for deadlines meanwhile */
    bool stop;

    struct hsm_forgotten ring[HSM_FORGET_RING];
    _Atomic uint64_t forgotten; /* written under the lock: locators put into the ring so far */

    pthread_rwlock_t manage;  /* threads shared, management alone: see hsm_exclusion */
    _Atomic uint64_t signed_total;
    _Atomic uint64_t failed_total;

    uint64_t pace_ns;         /* what a signature takes at the moment; 0: nobody knows */
    struct hsm_outside *outside; /* constant; where sessions is 0: see outside.c */

    uint32_t thread_count;    /* started; constant after hsm_pool_new */
    struct hsm_thread *threads;
};

/* ---- pool.c */
/* The device needs help from outside: RUNNING becomes HEALING, unless it was RUNNING anew since `generation`. */
void hsm_pool_fault(struct hsm_pool *pool, uint64_t generation, uint64_t ckr);

/* ---- signer.c */
/* The main function of a signing thread; `argument` is its struct hsm_thread. */
void *hsm_signer_main(void *argument);
/* Waits a little, then answers orders whose deadline is over. With the lock held; it lets go of it meanwhile. */
void hsm_pool_sweep(struct hsm_pool *pool);

/* ---- outside.c */
/* Memory for what one who signs outside has in hand, or NULL. */
struct hsm_outside *hsm_outside_new(void);
void hsm_outside_free(struct hsm_outside *outside);
/* Lets go of what it has in hand, unanswered: the pool ends. Nobody signs any more. */
void hsm_outside_drop(struct hsm_pool *pool);

/* ---- answer.c, beside what answer.h has */
/* Answers the items of withdrawn spans with `status`, frees the spans and ends the chunk they counted as.
 * Without the lock held. */
void hsm_answer_withdrawn(struct hsm_pool *pool, struct hsm_order *order, struct hsm_spans *spans, hsm_status status);
/* Sends a frame and has the reader woken where something is left. */
void hsm_answer_send(struct hsm_conn *conn, const uint8_t *frame, size_t len);
/* Ends a chunk, and wakes a reader that waited for room. With the lock held. */
void hsm_answer_finish(struct hsm_pool *pool, const struct hsm_chunk *chunk);

/* ---- conn.c */
/* Takes over `fd`, also on failure. */
hsm_status hsm_conn_start(struct hsm_pool *pool, int fd);
/* Frees connections that are over. With the lock held. */
void hsm_conn_reap(struct hsm_pool *pool);
/* Frees a connection whose reader was joined, and closes its socket. */
void hsm_conn_free(struct hsm_conn *conn);
void hsm_conn_wake(struct hsm_conn *conn);
/* Closes the socket of a connection that is over. With the lock held. */
void hsm_conn_retire(struct hsm_conn *conn);

#endif
