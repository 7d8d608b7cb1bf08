#include "orders.h"

static const uint8_t locator[] = {3, 'a', 'b', 'c', 0};
static const struct hsm_order_head p256 = {0, HSM_ECDSA_P256_SHA256, HSM_INPUT_DIGEST, HSM_FORMAT_DER, 0, 0};

static void a_good_order_is_read(void)
{
    for (uint16_t locator_len = 1; locator_len <= sizeof locator; locator_len++) {
        size_t len;
        uint8_t *body;
        uint8_t *frame = order_frame(7, locator, locator_len, p256, 3, 32, 0x55, &len);
        struct hsm_order_view view;
        CHECK(parse_frame(frame, len, &view, &body) == HSM_OK);
        CHECK(view.count == 3 && view.inputs_len == 96 && view.head.locator_len == locator_len);
        CHECK(memcmp(view.locator, locator, locator_len) == 0);
        CHECK(hsm_order_length(&view, 0) == 32 && hsm_order_length(&view, 2) == 32);
        CHECK(view.inputs[0] == 0x55 && view.inputs[95] == 0x55);
        free(body);
        free(frame);
    }
}

/* Overwrites `size` bytes of a good frame at `at` with `value`; what the parser says. */
static hsm_status with_change(size_t at, size_t size, uint64_t value)
{
    size_t len;
    uint8_t *body;
    uint8_t *frame = order_frame(7, locator, sizeof locator, p256, 3, 32, 0x55, &len);
    struct hsm_order_view view;
    memcpy(frame + at, &value, size);
    hsm_status status = parse_frame(frame, len, &view, &body);
    free(body);
    free(frame);
    return status;
}

static void a_header_that_is_not_ours_is_refused(void)
{
    CHECK(with_change(0, 4, 0x32474d48) == HSM_E_FRAME); /* magic */
    CHECK(with_change(4, 2, HSM_FRAME_DONE) == HSM_E_FRAME);
    CHECK(with_change(4, 2, 0) == HSM_E_FRAME);
    CHECK(with_change(6, 2, 1) == HSM_E_FRAME);  /* reserved */
    CHECK(with_change(16, 4, 0) == HSM_E_FRAME); /* count */
    CHECK(with_change(16, 4, HSM_ORDER_MAX_ITEMS + 1) == HSM_E_FRAME);
    CHECK(with_change(16, 4, 0xffffffff) == HSM_E_FRAME);
    CHECK(with_change(20, 4, HSM_FRAME_MAX + 1) == HSM_E_FRAME);
    CHECK(with_change(20, 4, 0xffffffff) == HSM_E_FRAME);
    CHECK(with_change(20, 4, 31) == HSM_E_FRAME);
}

static void lengths_that_do_not_fit_the_body_are_refused(void)
{
    CHECK(with_change(16, 4, 4) == HSM_E_FRAME);      /* one more item than there is */
    CHECK(with_change(16, 4, 27) == HSM_E_FRAME);     /* lengths beyond the body */
    CHECK(with_change(24 + 12, 2, 0) == HSM_E_FRAME); /* locator_len */
    CHECK(with_change(24 + 12, 2, HSM_LOCATOR_MAX + 1) == HSM_E_FRAME);
    CHECK(with_change(24 + 12, 2, 400) == HSM_E_FRAME);
    CHECK(with_change(24 + 14, 2, HSM_FLOWS) == HSM_E_FRAME);
    CHECK(with_change(24 + 24, 4, 33) == HSM_E_FRAME);
    CHECK(with_change(24 + 24, 4, 31) == HSM_E_FRAME);
    CHECK(with_change(24 + 24, 4, 0xffffffff) == HSM_E_FRAME);
    CHECK(with_change(24 + 24, 8, 0x20ffffffe0) == HSM_E_FRAME); /* a sum that wraps 32 bits to 0 */
}

static void a_cancel_has_no_body(void)
{
    struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_CANCEL, 0, 1, 0, 0};
    CHECK(hsm_frame_check(&header) == HSM_OK);
    header.length = 1;
    CHECK(hsm_frame_check(&header) == HSM_E_FRAME);
    header.length = 0;
    header.count = 1;
    CHECK(hsm_frame_check(&header) == HSM_E_FRAME);
}

static void empty_inputs_are_allowed(void)
{
    size_t len;
    uint8_t *body;
    uint8_t *frame = order_frame(7, locator, sizeof locator, p256, 5, 0, 0, &len);
    struct hsm_order_view view;
    CHECK(parse_frame(frame, len, &view, &body) == HSM_OK);
    CHECK(view.count == 5 && view.inputs_len == 0);
    free(body);
    free(frame);
}

int main(void)
{
    int passed = 0;
    RUN(a_good_order_is_read);
    RUN(a_header_that_is_not_ours_is_refused);
    RUN(lengths_that_do_not_fit_the_body_are_refused);
    RUN(a_cancel_has_no_body);
    RUN(empty_inputs_are_allowed);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
