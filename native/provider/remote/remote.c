#include "remote.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "errors.h"
#include "grpc.h"
#include "native/core/clock.h"
#include "pool.h"

#define FIRST_PAUSE_MS 20u
#define LAST_PAUSE_MS 500u
#define TOO_LATE_MS 10u /* what is left then is not worth another attempt */

struct hsm_remote {
    struct hsm_target target;
    _Atomic(struct hsm_pool *) pool; /* of this process, or still of its parent; NULL: not used yet */
};

/* One signature, or public key, on its way. */
struct errand {
    struct hsm_remote *remote;
    struct hsm_pool *pool;
    const struct hsm_tls_home *home; /* NULL: this thread had no use for it */
    const hsm_remote_order *order;   /* NULL: its public key is wanted */
    const char *name;
    char *version; /* that the public key is of */
    uint64_t deadline_ns;
    uint8_t *message;
    size_t message_len;
    uint8_t *out; /* the signature, or the key */
    size_t room, len;
};

hsm_status hsm_remote_open(const hsm_remote_endpoint *endpoint, hsm_remote **out, struct hsm_remote_trouble *trouble)
{
    struct hsm_why why = {.status = HSM_OK};
    hsm_remote *remote = calloc(1, sizeof *remote);
    hsm_status status = remote != NULL ? hsm_target_read(endpoint, &remote->target, &why)
                                       : hsm_why_final(&why, HSM_E_NO_MEMORY, "out of memory");
    *trouble = why.trouble;
    *out = status == HSM_OK ? remote : NULL;
    if (status != HSM_OK)
        free(remote);
    return status;
}

void hsm_remote_close(hsm_remote *remote)
{
    if (remote == NULL)
        return;
    struct hsm_pool *pool = atomic_load(&remote->pool);
    struct hsm_errors_aside aside;
    hsm_errors_set_aside(&aside);
    if (pool != NULL && !hsm_pool_is_ours(pool))
        hsm_pool_abandon(pool);
    hsm_pool_free(pool);
    hsm_errors_put_back(&aside);
    hsm_target_free(&remote->target);
    free(remote);
}

/* The pool of this process; after fork() the first thread that comes makes it. No lock: one that was held in the
 * parent stays held in the child for good. */
static struct hsm_pool *own_pool(struct hsm_remote *remote)
{
    struct hsm_pool *pool = atomic_load(&remote->pool);
    while (pool == NULL || !hsm_pool_is_ours(pool)) {
        struct hsm_pool *made = hsm_pool_new(pool);
        if (made == NULL)
            return NULL;
        if (atomic_compare_exchange_strong(&remote->pool, &pool, made)) {
            if (pool != NULL)
                hsm_pool_abandon(pool);
            return made;
        }
        hsm_pool_free_one(made);
    }
    return pool;
}

static hsm_status connect_where_needed(struct errand *errand, struct hsm_connection *connection, struct hsm_why *why)
{
    const struct hsm_target *target = &errand->remote->target;
    const hsm_status status = target->path == NULL ? hsm_pool_home(errand->pool, &errand->home, why) : HSM_OK;
    if (status != HSM_OK || hsm_connection_is_usable(connection))
        return status;
    hsm_connection_close(connection);
    return hsm_connection_open(connection, target, errand->home, errand->deadline_ns, why);
}

static hsm_status ask(struct errand *errand, struct hsm_connection *connection, struct hsm_why *why)
{
    const struct hsm_target *target = &errand->remote->target;
    hsm_status status = connect_where_needed(errand, connection, why);
    if (status == HSM_OK)
        status = hsm_connection_call(connection, target, errand->order != NULL ? HSM_PATH_SIGN : HSM_PATH_PUBLIC_KEY,
                                     errand->message, errand->message_len, errand->deadline_ns, why);
    if (status != HSM_OK)
        return status;
    const struct hsm_answer *answer = hsm_http2_answer(connection->http2);
    status = hsm_grpc_judge(answer, errand->name, why);
    if (status != HSM_OK)
        return status;
    errand->len = errand->room;
    if (errand->order == NULL)
        return hsm_message_read_public_key(answer->body, answer->body_len, errand->name, errand->version, errand->out,
                                           &errand->len, why);
    return hsm_message_read(answer->body, answer->body_len, errand->order, errand->out, &errand->len, why);
}

static hsm_status attempt(struct errand *errand, bool fresh, struct hsm_why *why)
{
    struct hsm_connection *connection = NULL;
    hsm_status status = hsm_pool_take(errand->pool, fresh, errand->deadline_ns, &connection);
    if (status == HSM_E_DEADLINE)
        return hsm_why_final(why, status, "all %d connections to %.100s were in use for %u ms; is the daemon slow?",
                             HSM_POOL_MAX, errand->remote->target.words, (unsigned)errand->remote->target.deadline_ms);
    if (status != HSM_OK)
        return hsm_why_final(why, status, "out of memory");
    status = ask(errand, connection, why);
    const bool broken = why->again || status == HSM_E_FRAME || status == HSM_E_DEADLINE;
    if (connection->http2 != NULL && (broken || !hsm_http2_is_open(connection->http2)))
        hsm_connection_close(connection);
    hsm_pool_give(errand->pool, connection);
    return status;
}

static void sleep_ms(uint32_t ms)
{
    struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

/* A daemon that restarts is a delay; one that is not there an error, when the time is over. */
static hsm_status persist(struct errand *errand, struct hsm_why *why)
{
    uint32_t pause = FIRST_PAUSE_MS;
    for (bool fresh = false;; fresh = true) {
        why->again = false;
        const hsm_status status = attempt(errand, fresh, why);
        const uint32_t left = hsm_left_ms(errand->deadline_ns);
        if (status == HSM_OK || !why->again || left < TOO_LATE_MS)
            return status;
        sleep_ms(pause < left / 2 ? pause : left / 2);
        pause = pause * 2 < LAST_PAUSE_MS ? pause * 2 : LAST_PAUSE_MS;
    }
}

static hsm_status run(struct errand *errand, size_t *len, struct hsm_remote_trouble *trouble)
{
    struct hsm_why why = {.status = HSM_OK};
    struct hsm_errors_aside aside;
    errand->room = *len;
    errand->deadline_ns = hsm_now_ns() + (uint64_t)errand->remote->target.deadline_ms * 1000000u;
    *len = 0;
    hsm_errors_set_aside(&aside);
    hsm_status status = errand->order != NULL
                            ? hsm_message_write(errand->order, &errand->message, &errand->message_len, &why)
                            : hsm_message_write_lookup(errand->name, &errand->message, &errand->message_len, &why);
    if (status == HSM_OK && (errand->pool = own_pool(errand->remote)) == NULL)
        status = hsm_why_final(&why, HSM_E_NO_MEMORY, "out of memory");
    if (status == HSM_OK) {
        hsm_pool_enter(errand->pool);
        status = persist(errand, &why);
        if (errand->home != NULL)
            hsm_tls_home_leave(errand->home);
        hsm_pool_leave(errand->pool);
    }
    free(errand->message);
    hsm_errors_put_back(&aside);
    *len = errand->len;
    *trouble = why.trouble;
    if (status == HSM_OK)
        trouble->words[0] = '\0';
    return status == HSM_E_CLOSED ? HSM_E_IO : status;
}

hsm_status hsm_remote_sign(hsm_remote *remote, const hsm_remote_order *order, uint8_t *signature,
                           size_t *signature_len, struct hsm_remote_trouble *trouble)
{
    struct errand errand = {.remote = remote, .order = order, .name = order->name, .out = signature};
    return run(&errand, signature_len, trouble);
}

hsm_status hsm_remote_public_key(hsm_remote *remote, const char *name, uint8_t *der, size_t *len,
                                 char version[HSM_REMOTE_NAME_ROOM], struct hsm_remote_trouble *trouble)
{
    struct errand errand = {.remote = remote, .name = name, .version = version, .out = der};
    return run(&errand, len, trouble);
}
