/* The link, with the test in the place of the device host at the other end of a socket pair. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native/core/frame.h"
#include "native/front/front.h"
#include "tests/native/host/check.h"

static hsm_link *link_;
static int host; /* the other end */
static const uint8_t locator[] = {1, 'k', 0};
static uint8_t inputs[64 * 32];

static void connect_link(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    host = pair[1];
    CHECK(hsm_link_attach(link_, pair[0]) == HSM_OK);
}

static void set_up(uint32_t max_jobs, uint32_t attempts)
{
    const hsm_link_config config = {max_jobs, 1u << 20, attempts};
    CHECK(hsm_link_new(&config, &link_) == HSM_OK);
    connect_link();
}

static void tear_down(void)
{
    hsm_link_free(link_);
    (void)close(host);
}

static uint64_t submit(uint32_t count)
{
    const hsm_order order = {.scheme = HSM_ECDSA_P256_SHA256, .locator = locator, .locator_len = sizeof locator,
                             .count = count, .inputs = inputs, .inputs_len = (size_t)count * 32};
    uint64_t id = 0;
    CHECK(hsm_link_submit(link_, &order, &id) == HSM_OK);
    return id;
}

static void host_reads(uint16_t type, uint64_t id)
{
    struct hsm_frame_header header;
    static uint8_t body[1 << 16];
    CHECK(recv(host, &header, sizeof header, MSG_WAITALL) == (ssize_t)sizeof header);
    CHECK(header.magic == HSM_FRAME_MAGIC && header.type == type && header.order_id == id);
    CHECK(header.length <= sizeof body);
    CHECK(header.length == 0 || recv(host, body, header.length, MSG_WAITALL) == (ssize_t)header.length);
}

static void host_answers(uint64_t id, uint32_t index, uint32_t status, uint32_t length)
{
    const struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_DONE, 0, id, 1,
                                            (uint32_t)sizeof(struct hsm_result) + length};
    const struct hsm_result result = {index, status, status == HSM_E_DEVICE ? 0x30u : 0u, length, 0};
    uint8_t signature[HSM_SIGNATURE_MAX];
    memset(signature, (int)(index + 1), sizeof signature);
    CHECK(send(host, &header, sizeof header, 0) == (ssize_t)sizeof header);
    CHECK(send(host, &result, sizeof result, 0) == (ssize_t)sizeof result);
    CHECK(length == 0 || send(host, signature, length, 0) == (ssize_t)length);
}

static void answers_come_in_any_order(void)
{
    set_up(100, 3);
    const uint64_t id = submit(3);
    host_reads(HSM_FRAME_ORDER, id);
    host_answers(id, 2, HSM_OK, 70);
    host_answers(id, 0, HSM_E_DEVICE, 0);
    CHECK(hsm_link_pump(link_) == HSM_OK);
    hsm_done done;
    CHECK(!hsm_link_reap(link_, &done));
    host_answers(id, 1, HSM_OK, 72);
    CHECK(hsm_link_pump(link_) == HSM_OK && hsm_link_reap(link_, &done));
    CHECK(done.order_id == id && done.count == 3 && done.failed == 1 && done.signatures_len == 142);
    CHECK(done.statuses[0] == HSM_E_DEVICE && done.ckrs[0] == 0x30 && done.lengths[0] == 0);
    CHECK(done.lengths[1] == 72 && done.signatures[done.offsets[1]] == 2);
    CHECK(done.lengths[2] == 70 && done.signatures[done.offsets[2]] == 3);
    hsm_link_release(link_, id);
    CHECK(hsm_link_jobs(link_) == 0);
    tear_down();
}

static void a_lost_host_is_asked_again_and_then_given_up(void)
{
    set_up(100, 2);
    const uint64_t id = submit(2);
    host_reads(HSM_FRAME_ORDER, id);
    host_answers(id, 0, HSM_OK, 70);
    CHECK(hsm_link_pump(link_) == HSM_OK);
    (void)close(host);
    CHECK(hsm_link_pump(link_) == HSM_E_CLOSED);
    hsm_link_detach(link_);
    connect_link();
    host_reads(HSM_FRAME_ORDER, id);
    host_answers(id, 0, HSM_OK, 71); /* the whole order is asked again: this is no second answer */
    CHECK(hsm_link_pump(link_) == HSM_OK);
    (void)close(host);
    hsm_link_detach(link_);
    connect_link();
    hsm_done done;
    CHECK(hsm_link_reap(link_, &done));
    CHECK(done.failed == 2 && done.statuses[0] == HSM_E_HOST_LOST && done.statuses[1] == HSM_E_HOST_LOST);
    hsm_link_release(link_, id);
    tear_down();
}

static void what_was_submitted_without_a_host_waits_for_one(void)
{
    set_up(100, 1);
    hsm_link_detach(link_);
    (void)close(host);
    const uint64_t id = submit(1);
    connect_link();
    host_reads(HSM_FRAME_ORDER, id);
    tear_down();
}

static void a_cancelled_order_is_gone_and_the_host_is_told(void)
{
    set_up(100, 3);
    const uint64_t id = submit(2);
    host_reads(HSM_FRAME_ORDER, id);
    hsm_link_cancel(link_, id);
    host_reads(HSM_FRAME_CANCEL, id);
    CHECK(hsm_link_jobs(link_) == 0);
    host_answers(id, 0, HSM_E_CANCELLED, 0);
    hsm_done done;
    CHECK(hsm_link_pump(link_) == HSM_OK && !hsm_link_reap(link_, &done));
    tear_down();
}

static void every_status_of_a_frame_is_taken(void)
{
    static const hsm_status statuses[] = {HSM_E_DEADLINE,   HSM_E_CANCELLED, HSM_E_KEY_NOT_FOUND, HSM_E_DEVICE,
                                          HSM_E_NOT_PRESENT, HSM_E_PIN_REFUSED, HSM_E_PIN_LOCKED, HSM_E_HOST_LOST,
                                          HSM_E_BAD_INPUT,   HSM_E_UNSUPPORTED, HSM_E_NO_MEMORY,  HSM_E_BROKEN,
                                          HSM_E_BUSY};
    set_up(100, 1);
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        const uint64_t id = submit(1);
        host_reads(HSM_FRAME_ORDER, id);
        host_answers(id, 0, statuses[i], 0);
        hsm_done done;
        CHECK(hsm_link_pump(link_) == HSM_OK);
        CHECK(hsm_link_reap(link_, &done) && done.statuses[0] == statuses[i]);
        hsm_link_release(link_, id);
    }
    tear_down();
}

static void a_host_that_does_not_read_blocks_nobody(void)
{
    set_up(60000, 3);
    uint64_t first = 0, last = 0;
    for (int i = 0; i < 400; i++) {
        last = submit(64);
        first = first ? first : last;
    }
    CHECK(hsm_link_wants_write(link_));
    for (uint64_t id = first; id <= last; id++)
        hsm_link_cancel(link_, id); /* also the one that is half sent */
    CHECK(hsm_link_jobs(link_) == 0);
    tear_down();
}

static void orders_half_sent_arrive_whole(void)
{
    set_up(60000, 3);
    uint64_t ids[200];
    for (int i = 0; i < 200; i++)
        ids[i] = submit(64);
    CHECK(fcntl(host, F_SETFL, 0) == 0);
    for (int i = 0; i < 200; i++) {
        CHECK(hsm_link_flush(link_) == HSM_OK);
        host_reads(HSM_FRAME_ORDER, ids[i]);
    }
    CHECK(!hsm_link_wants_write(link_));
    tear_down();
}

static void limits_hold(void)
{
    set_up(10, 3);
    const uint64_t id = submit(8);
    const hsm_order more = {.scheme = 1, .locator = locator, .locator_len = sizeof locator, .count = 3,
                            .inputs = inputs, .inputs_len = 96};
    uint64_t ignored;
    CHECK(hsm_link_submit(link_, &more, &ignored) == HSM_E_FULL);
    hsm_link_fail_all(link_, HSM_E_BROKEN);
    hsm_done done;
    CHECK(hsm_link_reap(link_, &done) && done.order_id == id && done.failed == 8);
    hsm_link_release(link_, id);
    CHECK(hsm_link_submit(link_, &more, &ignored) == HSM_OK);
    hsm_order wrong = more;
    wrong.inputs_len = 95;
    CHECK(hsm_link_submit(link_, &wrong, &ignored) == HSM_E_BAD_INPUT);
    const uint32_t lengths[3] = {1, 2, 4000000000u};
    wrong.lengths = lengths;
    CHECK(hsm_link_submit(link_, &wrong, &ignored) == HSM_E_BAD_INPUT);
    tear_down();
}

static void garbage_from_the_host_ends_the_connection(void)
{
    const uint32_t cases[][3] = {{5, HSM_OK, 70}, {0, 99, 0}, {0, HSM_OK, 0}, {0, HSM_E_DEVICE, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_up(100, 3);
        const uint64_t id = submit(2);
        host_reads(HSM_FRAME_ORDER, id);
        host_answers(id, cases[i][0], cases[i][1], cases[i][2]);
        CHECK(hsm_link_pump(link_) == HSM_E_FRAME);
        tear_down();
    }
    set_up(100, 3);
    const uint64_t id = submit(2);
    host_reads(HSM_FRAME_ORDER, id);
    host_answers(id, 1, HSM_OK, 70);
    host_answers(id, 1, HSM_OK, 70);
    CHECK(hsm_link_pump(link_) == HSM_E_FRAME);
    tear_down();
    set_up(100, 3);
    CHECK(send(host, "this is no frame of anybody's", 29, 0) == 29);
    CHECK(hsm_link_pump(link_) == HSM_E_FRAME);
    tear_down();
}

int main(void)
{
    int passed = 0;
    RUN(answers_come_in_any_order);
    RUN(a_lost_host_is_asked_again_and_then_given_up);
    RUN(what_was_submitted_without_a_host_waits_for_one);
    RUN(a_cancelled_order_is_gone_and_the_host_is_told);
    RUN(every_status_of_a_frame_is_taken);
    RUN(a_host_that_does_not_read_blocks_nobody);
    RUN(orders_half_sent_arrive_whole);
    RUN(limits_hold);
    RUN(garbage_from_the_host_ends_the_connection);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
