/* The ledger, between slots of one process and between processes. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native/front/front.h"
#include "tests/native/host/check.h"

#define SECOND UINT64_C(1000000000)
#define NOW (100 * SECOND)

static int memory;
static hsm_ledger *maker, *first, *second;
static hsm_no_entry why;

static hsm_ledger *worker(void)
{
    uint32_t slot;
    hsm_ledger *out;
    CHECK(hsm_ledger_take(maker, &slot) == HSM_OK && hsm_ledger_open(memory, slot, &out) == HSM_OK);
    return out;
}

static void set_up(void)
{
    CHECK(hsm_ledger_new(&memory, &maker) == HSM_OK);
    first = worker();
    second = worker();
}

static void tear_down(void)
{
    hsm_ledger_free(first);
    hsm_ledger_free(second);
    hsm_ledger_free(maker);
    (void)close(memory);
}

static hsm_claim at_a_time(uint64_t who, uint32_t most)
{
    return (hsm_claim){.tag = {who, 7}, .most = most};
}

static hsm_claim a_second(uint64_t who, double rate, double burst)
{
    return (hsm_claim){.tag = {who, 8},
                       .slack_ns = (uint64_t)((burst - 1) / rate * 1e9),
                       .interval_ns = 1e9 / rate};
}

static int enters(hsm_ledger *ledger, hsm_claim claim, uint32_t count, uint64_t now)
{
    const hsm_status status = hsm_ledger_enter(ledger, &claim, 1, count, now, &why);
    CHECK(status == HSM_OK || status == HSM_E_FULL);
    return status == HSM_OK;
}

static void leaves(hsm_ledger *ledger, hsm_claim claim, uint32_t count)
{
    hsm_ledger_leave(ledger, &claim, 1, count);
}

static void what_one_has_under_way_counts_for_the_other(void)
{
    set_up();
    CHECK(enters(first, at_a_time(1, 4), 3, NOW));
    CHECK(!enters(second, at_a_time(1, 4), 2, NOW) && why.under_way == 3 && why.wait_ns == 0);
    CHECK(enters(second, at_a_time(1, 4), 1, NOW));
    CHECK(!enters(first, at_a_time(1, 4), 1, NOW) && why.under_way == 4);
    CHECK(enters(first, at_a_time(2, 4), 4, NOW));
    leaves(first, at_a_time(1, 4), 3);
    CHECK(enters(second, at_a_time(1, 4), 3, NOW));
    tear_down();
}

static void what_is_more_than_all_gets_in_alone(void)
{
    set_up();
    CHECK(enters(first, at_a_time(1, 4), 9, NOW));
    CHECK(!enters(second, at_a_time(1, 4), 1, NOW));
    leaves(first, at_a_time(1, 4), 9);
    CHECK(enters(second, at_a_time(1, 4), 9, NOW));
    tear_down();
}

static void a_rate_is_one_for_all(void)
{
    set_up();
    const hsm_claim claim = a_second(1, 10, 3);
    CHECK(enters(first, claim, 1, NOW) && enters(second, claim, 1, NOW) && enters(first, claim, 1, NOW));
    CHECK(!enters(second, claim, 1, NOW) && why.wait_ns == SECOND / 10);
    CHECK(!enters(second, claim, 1, NOW + SECOND / 10 - 1));
    CHECK(enters(second, claim, 1, NOW + SECOND / 10) && !enters(first, claim, 1, NOW + SECOND / 10));
    CHECK(enters(first, claim, 23, NOW + SECOND)); /* more than the burst, and paid for */
    CHECK(!enters(second, claim, 1, NOW + SECOND + 2 * SECOND) && why.wait_ns == SECOND / 10);
    tear_down();
}

static void of_several_claims_all_are_counted_or_none(void)
{
    set_up();
    const hsm_claim both[2] = {at_a_time(1, 9), at_a_time(2, 1)};
    CHECK(hsm_ledger_enter(first, both, 2, 1, NOW, &why) == HSM_OK);
    CHECK(hsm_ledger_enter(second, both, 2, 1, NOW, &why) == HSM_E_FULL && why.claim == 1);
    CHECK(enters(second, at_a_time(1, 9), 8, NOW)); /* the refused one is not among the 9 */
    const hsm_claim paying[2] = {a_second(3, 1, 1), at_a_time(2, 1)};
    CHECK(hsm_ledger_enter(second, paying, 2, 1, NOW, &why) == HSM_E_FULL);
    CHECK(enters(second, paying[0], 1, NOW)); /* nor has it paid */
    tear_down();
}

static void what_a_dead_one_had_is_released_and_what_it_used_up_is_not(void)
{
    set_up();
    const uint64_t rung = hsm_ledger_rung(second, 0);
    CHECK(enters(first, at_a_time(1, 1), 1, NOW) && enters(first, a_second(2, 1, 1), 1, NOW));
    CHECK(!enters(second, at_a_time(1, 1), 1, NOW));
    CHECK(hsm_ledger_release(maker, 0) == HSM_OK);
    CHECK(enters(second, at_a_time(1, 1), 1, NOW) && !enters(second, a_second(2, 1, 1), 1, NOW));
    CHECK(hsm_ledger_rung(second, 0) == rung + 1);
    tear_down();
}

static void there_is_room_again_when_others_are_over(void)
{
    set_up();
    const uint64_t step = 16384; /* all in one set */
    uint32_t in = 0;
    for (uint64_t who = 1; who < 25; who++) {
        const hsm_claim claim = at_a_time(who * step, 1);
        const hsm_status status = hsm_ledger_enter(first, &claim, 1, 1, NOW, &why);
        CHECK(status == HSM_OK || status == HSM_E_BUSY);
        in += status == HSM_OK;
    }
    CHECK(in == 8); /* rather none than one that is not counted */
    leaves(first, at_a_time(step, 1), 1);
    CHECK(enters(first, at_a_time(30 * step, 1), 1, NOW));
    CHECK(!enters(second, at_a_time(2 * step, 1), 1, NOW));
    tear_down();
}

static void rates_that_are_paid_for_make_room_for_who_has_none(void)
{
    set_up();
    const uint64_t step = 16384; /* all in one set */
    for (uint64_t who = 1; who <= 8; who++) {
        const hsm_claim claim = {.tag = {who * step, 9}, .interval_ns = 1};
        CHECK(enters(first, claim, 1, 1));
        leaves(first, claim, 1);
    }
    CHECK(enters(first, at_a_time(9 * step, 1), 1, 0));
    tear_down();
}

static void who_is_killed_with_the_lock_holds_up_nobody(void)
{
    set_up();
    for (int round = 0; round < 20; round++) {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            for (;;) { /* killed in the midst of one, sooner or later */
                const hsm_claim claim = at_a_time(1, 1000000);
                (void)hsm_ledger_enter(first, &claim, 1, 1, NOW, &why);
                hsm_ledger_leave(first, &claim, 1, 1);
            }
        (void)usleep(2000);
        CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
        CHECK(enters(second, at_a_time(1, 1000000), 1, NOW));
        leaves(second, at_a_time(1, 1000000), 1);
        CHECK(hsm_ledger_release(maker, 0) == HSM_OK && enters(second, at_a_time(1, 1), 1, NOW));
        leaves(second, at_a_time(1, 1), 1);
        uint32_t slot;
        CHECK(hsm_ledger_take(maker, &slot) == HSM_OK && slot == 0);
    }
    tear_down();
}

static void who_is_stopped_with_the_lock_does_not_hold_up_the_maker(void)
{
    set_up();
    for (int round = 0; round < 10; round++) {
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            for (;;) {
                const hsm_claim claim = at_a_time(1, 1000000);
                (void)hsm_ledger_enter(first, &claim, 1, 1, NOW, &why);
                hsm_ledger_leave(first, &claim, 1, 1);
            }
        (void)usleep(2000);
        CHECK(kill(child, SIGSTOP) == 0 && waitpid(child, NULL, WUNTRACED) == child);
        CHECK(hsm_ledger_release(maker, 1) == HSM_OK); /* another worker's */
        CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
        uint32_t slot;
        CHECK(hsm_ledger_take(maker, &slot) == HSM_OK && slot == 1);
        CHECK(enters(second, at_a_time(2, 1), 1, NOW));
        leaves(second, at_a_time(2, 1), 1);
    }
    tear_down();
}

static atomic_int inside, worst;

static void *many_times(void *argument)
{
    hsm_ledger *mine = argument;
    const hsm_claim claim = at_a_time(5, 2);
    hsm_no_entry refused;
    for (int i = 0; i < 20000; i++) {
        if (hsm_ledger_enter(mine, &claim, 1, 1, NOW, &refused) != HSM_OK)
            continue;
        const int now = atomic_fetch_add(&inside, 1) + 1;
        int before = atomic_load(&worst);
        while (now > before && !atomic_compare_exchange_weak(&worst, &before, now))
            continue;
        (void)atomic_fetch_sub(&inside, 1);
        hsm_ledger_leave(mine, &claim, 1, 1);
    }
    return NULL;
}

static void never_more_are_inside_than_may_be(void)
{
    pthread_t threads[4];
    hsm_ledger *workers[4];
    set_up();
    for (int i = 0; i < 4; i++)
        workers[i] = worker();
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, many_times, workers[i]) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&worst) >= 1 && atomic_load(&worst) <= 2);
    CHECK(enters(first, at_a_time(5, 2), 2, NOW)); /* and everybody has left */
    for (int i = 0; i < 4; i++)
        hsm_ledger_free(workers[i]);
    tear_down();
}

static void slots_are_handed_out_once(void)
{
    uint32_t slot;
    set_up();
    for (uint32_t i = 2; i < HSM_LEDGER_SLOTS; i++)
        CHECK(hsm_ledger_take(maker, &slot) == HSM_OK && slot == i);
    CHECK(hsm_ledger_take(maker, &slot) == HSM_E_FULL);
    CHECK(hsm_ledger_release(maker, 5) == HSM_OK && hsm_ledger_take(maker, &slot) == HSM_OK && slot == 5);
    hsm_ledger *out;
    CHECK(hsm_ledger_open(memory, HSM_LEDGER_SLOTS, &out) == HSM_E_BAD_INPUT);
    CHECK(hsm_ledger_open(STDERR_FILENO, 0, &out) == HSM_E_BAD_INPUT);
    CHECK(ftruncate(memory, 0) != 0); /* nobody takes it away under the others */
    tear_down();
}

static void loads_and_bells(void)
{
    set_up();
    CHECK(!hsm_ledger_others_have_less(first));
    hsm_ledger_set_load(first, 1);
    CHECK(!hsm_ledger_others_have_less(first)); /* the other has no door yet */
    hsm_ledger_set_load(second, 0);
    CHECK(hsm_ledger_others_have_less(first) && !hsm_ledger_others_have_less(second));
    CHECK(hsm_ledger_ring(first, 1) == 1 && hsm_ledger_rung(second, 1) == 1 && hsm_ledger_rung(second, 0) == 0);
    CHECK(hsm_ledger_ring(first, HSM_LEDGER_BELLS) == 0 && hsm_ledger_rung(first, HSM_LEDGER_BELLS) == 0);
    tear_down();
}

int main(void)
{
    int passed = 0;
    RUN(what_one_has_under_way_counts_for_the_other);
    RUN(what_is_more_than_all_gets_in_alone);
    RUN(a_rate_is_one_for_all);
    RUN(of_several_claims_all_are_counted_or_none);
    RUN(what_a_dead_one_had_is_released_and_what_it_used_up_is_not);
    RUN(there_is_room_again_when_others_are_over);
    RUN(rates_that_are_paid_for_make_room_for_who_has_none);
    RUN(who_is_killed_with_the_lock_holds_up_nobody);
    RUN(who_is_stopped_with_the_lock_does_not_hold_up_the_maker);
    RUN(never_more_are_inside_than_may_be);
    RUN(slots_are_handed_out_once);
    RUN(loads_and_bells);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
