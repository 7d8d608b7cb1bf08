/* A pool whose signatures are made outside, spoken to as a front worker does. */
#include <openssl/evp.h>
#include <poll.h>

#include "native/core/clock.h"
#include "worker.h"

static const uint8_t key[] = "a wrapped blob";
static const struct hsm_order_head digests = {0, HSM_ECDSA_P256_SHA256, HSM_INPUT_DIGEST, HSM_FORMAT_DER, 0, 0};
static const struct hsm_order_head raw_messages = {0, HSM_ECDSA_P256_SHA256, HSM_INPUT_MESSAGE, HSM_FORMAT_RAW, 0, 0};
static hsm_pool *pool;
static int fd;
static uint8_t signature[64];

static void set_up(void)
{
    hsm_pool_config config = {0, 0, 1 << 20, 0};
    CHECK(hsm_pool_new(&config, &pool) == HSM_OK);
    fd = connect_to(pool);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    memset(signature, 0x81, sizeof signature);
}

static void tear_down(void)
{
    hsm_pool_free(pool);
    (void)close(fd);
}

static void begin(hsm_turn *turn)
{
    CHECK(hsm_turn_begin(pool, 10000, turn) == HSM_OK);
    CHECK(turn->locator_len == sizeof key && memcmp(turn->locator, key, sizeof key) == 0);
}

static void sign(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        hsm_turn turn;
        begin(&turn);
        CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, sizeof signature) == HSM_OK);
    }
}

static void one_gets_digests_and_the_caller_its_form(void)
{
    set_up();
    hsm_turn turn;
    order(fd, 7, key, sizeof key, digests, 1, 32);
    begin(&turn);
    CHECK(turn.scheme == HSM_ECDSA_P256_SHA256 && turn.digest_len == 32 && turn.digest[31] == 7);
    CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 64) == HSM_OK);
    struct answers *answers = answers_to(fd, 7, 1);
    CHECK(answers->status[0] == HSM_OK && answers->length[0] == 72 && answers->signature[0][0] == 0x30);
    free(answers);

    uint8_t wanted[32], message[1000];
    memset(message, 8, sizeof message);
    CHECK(EVP_Digest(message, sizeof message, wanted, NULL, EVP_sha256(), NULL) == 1);
    order(fd, 8, key, sizeof key, raw_messages, 1, sizeof message);
    begin(&turn);
    CHECK(memcmp(turn.digest, wanted, 32) == 0);
    CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 64) == HSM_OK);
    answers = answers_to(fd, 8, 1);
    CHECK(answers->length[0] == 64 && memcmp(answers->signature[0], signature, 64) == 0);
    free(answers);
    CHECK(hsm_turn_begin(pool, 5, &turn) == HSM_E_DEADLINE);
    tear_down();
}

static void what_nobody_could_sign_never_gets_a_turn(void)
{
    set_up();
    hsm_turn turn;
    struct hsm_order_head ed25519 = digests, late = digests, odd = digests;
    ed25519.scheme = HSM_ED25519;
    late.deadline_ns = 1;
    odd.scheme = 99;
    order(fd, 1, key, sizeof key, digests, 1, 31);
    order(fd, 2, key, sizeof key, ed25519, 1, 32);
    order(fd, 3, key, sizeof key, late, 1, 32);
    order(fd, 4, key, sizeof key, odd, 1, 32);
    CHECK(hsm_turn_begin(pool, 200, &turn) == HSM_E_DEADLINE);
    static const hsm_status wanted[] = {HSM_E_BAD_INPUT, HSM_E_UNSUPPORTED, HSM_E_DEADLINE, HSM_E_BAD_INPUT};
    for (uint32_t i = 0; i < 4; i++) {
        struct answers *answers = answers_to(fd, i + 1, 1);
        all_have(answers, wanted[i]);
        free(answers);
    }
    tear_down();
}

static void a_failure_and_an_impossible_signature_are_told_with_their_code(void)
{
    set_up();
    hsm_turn turn;
    order(fd, 1, key, sizeof key, digests, 2, 32);
    begin(&turn);
    CHECK(hsm_turn_end(pool, HSM_E_DEVICE, HSM_TPM_CODE | 0x9a2, NULL, 0) == HSM_OK);
    begin(&turn);
    CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 63) == HSM_E_BAD_INPUT);
    struct answers *answers = answers_to(fd, 1, 2);
    all_have(answers, HSM_E_DEVICE);
    free(answers);
    CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 64) == HSM_E_BAD_INPUT); /* nobody's turn */
    tear_down();
}

static void a_cancel_takes_out_what_has_no_turn_yet(void)
{
    set_up();
    hsm_turn turn;
    order(fd, 1, key, sizeof key, digests, 50, 32);
    begin(&turn);
    cancel(fd, 1);
    const uint64_t until = hsm_now_ns() + 10000000000u;
    hsm_pool_stats stats;
    do {
        hsm_pool_get_stats(pool, &stats);
        CHECK(hsm_now_ns() < until);
    } while (stats.queued > 0);
    CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 64) == HSM_OK);
    CHECK(hsm_turn_begin(pool, 5, &turn) == HSM_E_DEADLINE);
    struct answers *answers = answers_to(fd, 1, 50);
    CHECK(answers->status[0] == HSM_OK);
    for (uint32_t i = 1; i < 50; i++)
        CHECK(answers->status[i] == HSM_E_CANCELLED);
    free(answers);
    tear_down();
}

static void a_lost_device_costs_nothing_but_is_not_tried_for_ever(void)
{
    set_up();
    hsm_turn turn;
    order(fd, 1, key, sizeof key, digests, 10, 32);
    sign(3);
    begin(&turn);
    hsm_turn_put_off(pool, HSM_TPM_CODE | 1);
    CHECK(hsm_turn_begin(pool, 5, &turn) == HSM_E_DEADLINE); /* it heals */
    struct pollfd fault = {hsm_pool_fault_fd(pool), POLLIN, 0};
    CHECK(poll(&fault, 1, 0) == 1);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    sign(7);
    struct answers *answers = answers_to(fd, 1, 10);
    all_have(answers, HSM_OK);
    free(answers);

    order(fd, 2, key, sizeof key, digests, 1, 32);
    for (int i = 0; i < 3; i++) {
        begin(&turn);
        hsm_turn_put_off(pool, HSM_TPM_CODE | 1);
        CHECK(hsm_pool_set_mode(pool, HSM_POOL_RUNNING, HSM_OK) == HSM_OK);
    }
    answers = answers_to(fd, 2, 1);
    all_have(answers, HSM_E_DEVICE);
    free(answers);
    tear_down();
}

static void a_healing_pool_keeps_deadlines_and_a_failing_one_answers(void)
{
    set_up();
    hsm_turn turn;
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_HEALING, HSM_OK) == HSM_OK);
    struct hsm_order_head soon = digests;
    soon.deadline_ns = hsm_now_ns() + 30000000;
    order(fd, 1, key, sizeof key, soon, 3, 32);
    CHECK(hsm_turn_begin(pool, 300, &turn) == HSM_E_DEADLINE);
    struct answers *answers = answers_to(fd, 1, 3);
    all_have(answers, HSM_E_DEADLINE);
    free(answers);
    CHECK(hsm_pool_set_mode(pool, HSM_POOL_FAILING, HSM_E_PIN_REFUSED) == HSM_OK);
    order(fd, 2, key, sizeof key, digests, 100, 32);
    CHECK(hsm_turn_begin(pool, 100, &turn) == HSM_E_DEADLINE);
    answers = answers_to(fd, 2, 100);
    all_have(answers, HSM_E_PIN_REFUSED);
    free(answers);
    tear_down();
}

static void what_cannot_be_served_in_time_is_refused_at_once(void)
{
    set_up();
    hsm_pool_pace(pool, 1000000000); /* one a second */
    struct hsm_order_head in_ten_seconds = digests, whenever = digests;
    in_ten_seconds.deadline_ns = hsm_now_ns() + 10000000000u;
    order(fd, 1, key, sizeof key, in_ten_seconds, 20, 32);
    struct answers *answers = answers_to(fd, 1, 20);
    all_have(answers, HSM_E_BUSY);
    free(answers);
    in_ten_seconds.deadline_ns = hsm_now_ns() + 10000000000u;
    order(fd, 4, key, sizeof key, in_ten_seconds, 1, 32);
    sign(1);
    answers = answers_to(fd, 4, 1);
    all_have(answers, HSM_OK);
    free(answers);
    order(fd, 2, key, sizeof key, whenever, 20, 32);
    in_ten_seconds.deadline_ns = hsm_now_ns() + 10000000000u;
    order(fd, 3, key, sizeof key, in_ten_seconds, 8, 32); /* takes turns with the twenty */
    answers = answers_to(fd, 3, 8);
    all_have(answers, HSM_E_BUSY);
    free(answers);
    const int another = connect_to(pool);
    order(another, 5, key, sizeof key, in_ten_seconds, 3, 32); /* does so too, but is done in six turns */
    hsm_pool_stats stats;
    do
        hsm_pool_get_stats(pool, &stats);
    while (stats.queued < 23);
    sign(23);
    answers = answers_to(another, 5, 3);
    all_have(answers, HSM_OK);
    free(answers);
    answers = answers_to(fd, 2, 20);
    all_have(answers, HSM_OK);
    free(answers);
    (void)close(another);
    tear_down();
}

static void a_pool_ends_in_the_middle_of_a_turn(void)
{
    set_up();
    hsm_turn turn;
    order(fd, 1, key, sizeof key, digests, 50, 32);
    begin(&turn);
    tear_down();
    set_up();
    order(fd, 1, key, sizeof key, digests, 50, 32);
    begin(&turn);
    CHECK(shutdown(fd, SHUT_RDWR) == 0); /* the worker is gone */
    CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 64) == HSM_OK);
    while (hsm_turn_begin(pool, 20, &turn) == HSM_OK)
        CHECK(hsm_turn_end(pool, HSM_OK, 0, signature, 64) == HSM_OK);
    tear_down();
}

int main(void)
{
    int passed = 0;
    RUN(one_gets_digests_and_the_caller_its_form);
    RUN(what_nobody_could_sign_never_gets_a_turn);
    RUN(a_failure_and_an_impossible_signature_are_told_with_their_code);
    RUN(a_cancel_takes_out_what_has_no_turn_yet);
    RUN(a_lost_device_costs_nothing_but_is_not_tried_for_ever);
    RUN(a_healing_pool_keeps_deadlines_and_a_failing_one_answers);
    RUN(what_cannot_be_served_in_time_is_refused_at_once);
    RUN(a_pool_ends_in_the_middle_of_a_turn);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
