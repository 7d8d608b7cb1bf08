/* A pool on a real token, spoken to as a front worker does. */
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native/core/clock.h"
#include "token.h"
#include "worker.h"

static const uint8_t p256_key[] = {1, 1, 0};
static const uint8_t gone_key[] = {1, 77, 0};
static const struct hsm_order_head digests = {0, HSM_ECDSA_P256_SHA256, HSM_INPUT_DIGEST, HSM_FORMAT_DER, 0, 0};
static EVP_PKEY *p256;

static hsm_pool *pool_with(uint32_t sessions, uint32_t max_queued_bytes, uint8_t exclusion)
{
    hsm_pool_config config = {slot, sessions, max_queued_bytes, exclusion};
    hsm_pool *pool = NULL;
    CHECK(hsm_pool_new(&config, &pool) == HSM_OK);
    return pool;
}

static void signatures_fit_what_was_to_be_signed(void)
{
    hsm_pool *pool = pool_with(2, 1 << 24, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    order(fd, 5, p256_key, sizeof p256_key, digests, 300, 32);
    struct answers *answers = answers_to(fd, 5, 300);
    uint8_t digest[32];
    memset(digest, 5, sizeof digest);
    all_have(answers, HSM_OK);
    for (uint32_t i = 0; i < 300; i++)
        CHECK(ecdsa_fits(p256, digest, sizeof digest, answers->signature[i], answers->length[i]));
    free(answers);

    struct hsm_order_head messages = digests;
    messages.kind = HSM_INPUT_MESSAGE;
    order(fd, 6, p256_key, sizeof p256_key, messages, 3, 100000);
    answers = answers_to(fd, 6, 3);
    all_have(answers, HSM_OK);
    uint8_t *message = malloc(100000);
    CHECK(message != NULL);
    memset(message, 6, 100000);
    CHECK(EVP_Digest(message, 100000, digest, NULL, EVP_sha256(), NULL) == 1);
    CHECK(ecdsa_fits(p256, digest, sizeof digest, answers->signature[2], answers->length[2]));
    free(message);
    free(answers);
    close(fd);
    hsm_pool_free(pool);
}

static void what_cannot_be_signed_says_why(void)
{
    hsm_pool *pool = pool_with(1, 1 << 20, HSM_EXCLUDE_LOOKUPS);
    int fd = connect_to(pool);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    static const uint8_t broken_locator[] = {200, 1};
    struct hsm_order_head pss = digests, none = digests, p384 = digests, past = digests, kind = digests;
    pss.scheme = HSM_RSA_PSS_SHA256; /* SoftHSM itself would crash */
    none.scheme = 99;
    p384.scheme = HSM_ECDSA_P384_SHA384;
    past.deadline_ns = 1;
    kind.kind = 7;
    struct {
        const uint8_t *locator;
        uint16_t locator_len;
        struct hsm_order_head head;
        uint32_t each;
        hsm_status expected;
    } cases[] = {
        {gone_key, sizeof gone_key, digests, 32, HSM_E_KEY_NOT_FOUND},
        {broken_locator, sizeof broken_locator, digests, 32, HSM_E_KEY_NOT_FOUND},
        {p256_key, sizeof p256_key, digests, 31, HSM_E_BAD_INPUT},
        {p256_key, sizeof p256_key, none, 32, HSM_E_BAD_INPUT},
        {p256_key, sizeof p256_key, kind, 32, HSM_E_BAD_INPUT},
        {p256_key, sizeof p256_key, pss, 32, HSM_E_DEVICE},
        {p256_key, sizeof p256_key, p384, 48, HSM_E_DEVICE},
        {p256_key, sizeof p256_key, past, 32, HSM_E_DEADLINE},
        {p256_key, sizeof p256_key, digests, 32, HSM_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        order(fd, i, cases[i].locator, cases[i].locator_len, cases[i].head, 2, cases[i].each);
        struct answers *answers = answers_to(fd, i, 2);
        all_have(answers, cases[i].expected);
        free(answers);
    }
    close(fd);
    hsm_pool_free(pool);
}

static void a_healing_pool_keeps_jobs_to_their_deadline(void)
{
    hsm_pool *pool = pool_with(2, 1 << 20, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    struct hsm_order_head soon = digests;
    soon.deadline_ns = hsm_now_ns() + 1000000;
    order(fd, 1, p256_key, sizeof p256_key, digests, 10, 32);
    order(fd, 2, p256_key, sizeof p256_key, soon, 10, 32);
    struct answers *answers = answers_to(fd, 2, 10);
    all_have(answers, HSM_E_DEADLINE);
    free(answers);
    hsm_pool_stats stats;
    hsm_pool_get_stats(pool, &stats);
    CHECK(stats.queued == 10 && stats.mode == HSM_POOL_HEALING && stats.connections == 1);
    CHECK(hsm_pool_drain(pool, 10) == HSM_E_DEADLINE);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    answers = answers_to(fd, 1, 10);
    all_have(answers, HSM_OK);
    free(answers);
    CHECK(hsm_pool_drain(pool, 10000) == HSM_OK);
    close(fd);
    hsm_pool_free(pool);
}

static void a_failing_pool_answers_with_what_it_was_told(void)
{
    hsm_pool *pool = pool_with(2, 1 << 20, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    order(fd, 1, p256_key, sizeof p256_key, digests, 100, 32);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_FAILING, HSM_OK) == HSM_E_BAD_INPUT);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_FAILING, HSM_E_PIN_REFUSED) == HSM_OK);
    struct answers *answers = answers_to(fd, 1, 100);
    all_have(answers, HSM_E_PIN_REFUSED);
    free(answers);
    close(fd);
    hsm_pool_free(pool);
}

static void a_cancelled_order_is_answered_at_once_and_in_full(void)
{
    hsm_pool *pool = pool_with(2, 1 << 20, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    order(fd, 1, p256_key, sizeof p256_key, digests, 500, 32);
    cancel(fd, 1);
    cancel(fd, 1);
    cancel(fd, 12345);
    struct answers *answers = answers_to(fd, 1, 500);
    all_have(answers, HSM_E_CANCELLED);
    free(answers);

    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    for (uint64_t id = 10; id < 30; id++) { /* while it is being signed */
        order(fd, id, p256_key, sizeof p256_key, digests, 500, 32);
        cancel(fd, id);
        answers = answers_to(fd, id, 500);
        for (uint32_t i = 0; i < 500; i++)
            CHECK(answers->status[i] == HSM_OK || answers->status[i] == HSM_E_CANCELLED);
        free(answers);
    }
    close(fd);
    hsm_pool_free(pool);
}

/* RSA is slow enough that a thread has some items of its chunk yet to sign when the cancel comes. */
static void a_cancel_reaches_what_a_thread_has_in_hand(void)
{
    static const uint8_t rsa_key[] = {1, 9, 0};
    struct hsm_order_head pss = digests;
    pss.scheme = HSM_RSA_PSS_SHA256;
    token_rsa_key(9, 3072);
    hsm_pool *pool = pool_with(1, 1 << 20, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    order(fd, 1, rsa_key, sizeof rsa_key, pss, 64, 32);
    cancel(fd, 1);
    struct answers *answers = answers_to(fd, 1, 64);
    uint32_t signatures = 0;
    for (uint32_t i = 0; i < 64; i++) {
        CHECK(answers->status[i] == HSM_OK || answers->status[i] == HSM_E_CANCELLED);
        signatures += answers->status[i] == HSM_OK;
    }
    CHECK(signatures < 32); /* a whole chunk */
    free(answers);
    close(fd);
    hsm_pool_free(pool);
    token_destroy_key(9);
}

static void bytes_that_are_no_frame_end_the_connection_and_no_other(void)
{
    hsm_pool *pool = pool_with(1, 1 << 20, HSM_EXCLUDE_NOTHING);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    int good = connect_to(pool);
    int bad = connect_to(pool);
    char byte;
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    send_all(bad, http, sizeof http);
    CHECK(!receive_all(bad, &byte, 1));
    order(good, 1, p256_key, sizeof p256_key, digests, 4, 32);
    struct answers *answers = answers_to(good, 1, 4);
    all_have(answers, HSM_OK);
    free(answers);
    close(good);
    close(bad);
    hsm_pool_free(pool);
}

static void a_connection_with_too_much_waiting_is_not_read(void)
{
    hsm_pool *pool = pool_with(1, 4096, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    size_t len;
    uint8_t *frame = order_frame(1, p256_key, sizeof p256_key, digests, 100, 32, 1, &len);
    uint32_t sent = 0;
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    while (sent < 1000 && poll(&writable, 1, 200) == 1) { /* a blocking send would wait for ever */
        ssize_t n = send(fd, frame, len, MSG_DONTWAIT);
        if (n < 0)
            break;
        if ((size_t)n < len)
            send_all(fd, frame + n, 0); /* the rest is cut off: it does not matter any more */
        sent++;
        memcpy(frame + 8, &(uint64_t){sent + 1}, 8);
        if ((size_t)n < len)
            break;
    }
    hsm_pool_stats stats;
    hsm_pool_get_stats(pool, &stats);
    CHECK(sent < 1000 && stats.queued <= 200);
    free(frame);
    close(fd);
    hsm_pool_free(pool);
}

/* Sends orders for a key that does not exist and never reads. */
static void a_peer_that_does_not_read_holds_nobody_up(void)
{
    hsm_pool *pool = pool_with(1, 1 << 22, HSM_EXCLUDE_NOTHING);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_FAILING, HSM_E_BROKEN) == HSM_OK);
    int deaf = connect_to(pool);
    int good = connect_to(pool);
    size_t len;
    uint8_t *frame = order_frame(1, p256_key, sizeof p256_key, digests, 60000, 0, 1, &len);
    int cut_off = 0;
    for (int i = 0; i < 200 && !cut_off; i++) { /* 60,000 answers are 1.4 MB: 64 MiB are soon full */
        for (size_t at = 0; at < len && !cut_off;) {
            ssize_t n = send(deaf, frame + at, len - at, MSG_NOSIGNAL);
            cut_off = n < 0;
            at += n > 0 ? (size_t)n : 0;
        }
        if (i % 10 == 0) {
            order(good, (uint64_t)i, p256_key, sizeof p256_key, digests, 2, 32);
            struct answers *answers = answers_to(good, (uint64_t)i, 2);
            all_have(answers, HSM_E_BROKEN);
            free(answers);
        }
    }
    CHECK(cut_off);
    free(frame);
    close(deaf);
    close(good);
    hsm_pool_free(pool);
}

static void *destroy_and_forget(void *argument)
{
    static const uint8_t other[] = {1, 3, 0};
    for (int i = 0; i < 20; i++) {
        hsm_manage_begin(argument);
        EVP_PKEY_free(token_ec_key(3, "prime256v1"));
        token_destroy_key(3);
        hsm_manage_end(argument);
        hsm_pool_forget(argument, other, sizeof other);
        hsm_pool_forget(argument, p256_key, sizeof p256_key);
    }
    return NULL;
}

static void keys_may_come_and_go_while_others_sign(void)
{
    for (uint8_t exclusion = HSM_EXCLUDE_ALL; exclusion <= HSM_EXCLUDE_LOOKUPS; exclusion++) {
        hsm_pool *pool = pool_with(3, 1 << 24, exclusion);
        int fd = connect_to(pool);
        CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
        pthread_t management;
        CHECK(pthread_create(&management, NULL, destroy_and_forget, pool) == 0);
        for (uint64_t id = 1; id <= 20; id++) {
            order(fd, id, p256_key, sizeof p256_key, digests, 100, 32);
            struct answers *answers = answers_to(fd, id, 100);
            all_have(answers, HSM_OK);
            free(answers);
        }
        CHECK(pthread_join(management, NULL) == 0);
        close(fd);
        hsm_pool_free(pool);
    }
}

/* A session that is opened when the login is lost already has lost nothing. */
static void sessions_are_open(hsm_pool *pool, uint32_t number)
{
    hsm_pool_stats stats;
    for (int i = 0; i < 10000; i++) {
        hsm_pool_get_stats(pool, &stats);
        if (stats.sessions == number)
            return;
        (void)poll(NULL, 0, 1);
    }
    CHECK(stats.sessions == number);
}

static void a_lost_login_asks_for_healing_and_nothing_is_lost(void)
{
    hsm_pool *pool = pool_with(2, 1 << 20, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    order(fd, 1, p256_key, sizeof p256_key, digests, 8, 32);
    struct answers *answers = answers_to(fd, 1, 8);
    free(answers);
    sessions_are_open(pool, 2);
    CHECK(p11->C_Logout(manager) == CKR_OK);
    order(fd, 2, p256_key, sizeof p256_key, digests, 50, 32);
    struct pollfd fault = {.fd = hsm_pool_fault_fd(pool), .events = POLLIN};
    CHECK(poll(&fault, 1, 10000) == 1);
    hsm_pool_stats stats;
    hsm_pool_get_stats(pool, &stats);
    CHECK(stats.mode == HSM_POOL_HEALING && stats.last_fault_ckr == CKR_USER_NOT_LOGGED_IN);
    char *pin = getenv("HSMSIGN_PIN");
    CHECK(p11->C_Login(manager, CKU_USER, (CK_BYTE_PTR)pin, strlen(pin)) == CKR_OK);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    CHECK(poll(&fault, 1, 0) == 0);
    answers = answers_to(fd, 2, 50);
    all_have(answers, HSM_OK);
    free(answers);
    close(fd);
    hsm_pool_free(pool);
}

static void sessions_closed_behind_the_pools_back_are_opened_again(void)
{
    hsm_pool *pool = pool_with(2, 1 << 20, HSM_EXCLUDE_NOTHING);
    int fd = connect_to(pool);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    order(fd, 1, p256_key, sizeof p256_key, digests, 64, 32);
    free(answers_to(fd, 1, 64));
    CHECK(hsm_pool_drain(pool, 10000) == HSM_OK);
    CHECK(p11->C_CloseAllSessions(slot) == CKR_OK); /* which logs out, too */
    CHECK(p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &manager) == CKR_OK);
    char *pin = getenv("HSMSIGN_PIN");
    CHECK(p11->C_Login(manager, CKU_USER, (CK_BYTE_PTR)pin, strlen(pin)) == CKR_OK);
    order(fd, 2, p256_key, sizeof p256_key, digests, 64, 32);
    struct answers *answers = answers_to(fd, 2, 64);
    all_have(answers, HSM_OK);
    free(answers);
    close(fd);
    hsm_pool_free(pool);
}

static void a_pool_ends_with_work_waiting_and_connections_open(void)
{
    for (int running = 0; running < 2; running++) {
        hsm_pool *pool = pool_with(2, 1 << 24, HSM_EXCLUDE_NOTHING);
        int fds[3];
        for (int i = 0; i < 3; i++) {
            fds[i] = connect_to(pool);
            order(fds[i], 1, p256_key, sizeof p256_key, digests, 2000, 32);
        }
        if (running)
            CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
        close(fds[0]); /* one goes away in the middle */
        hsm_pool_free(pool);
        close(fds[1]);
        close(fds[2]);
    }
    hsm_pool_free(NULL);
}

int main(void)
{
    int passed = 0;
    token_open();
    p256 = token_ec_key(1, "prime256v1");
    RUN(signatures_fit_what_was_to_be_signed);
    RUN(what_cannot_be_signed_says_why);
    RUN(a_healing_pool_keeps_jobs_to_their_deadline);
    RUN(a_failing_pool_answers_with_what_it_was_told);
    RUN(a_cancelled_order_is_answered_at_once_and_in_full);
    RUN(a_cancel_reaches_what_a_thread_has_in_hand);
    RUN(bytes_that_are_no_frame_end_the_connection_and_no_other);
    RUN(a_connection_with_too_much_waiting_is_not_read);
    RUN(a_peer_that_does_not_read_holds_nobody_up);
    RUN(keys_may_come_and_go_while_others_sign);
    RUN(a_lost_login_asks_for_healing_and_nothing_is_lost);
    RUN(sessions_closed_behind_the_pools_back_are_opened_again);
    RUN(a_pool_ends_with_work_waiting_and_connections_open);
    EVP_PKEY_free(p256);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
