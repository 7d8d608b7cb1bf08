/* Whatever bytes come: the parser reads nothing beyond them, and what it accepts holds together.
 *
 * With clang it is a libFuzzer target (-DHSM_LIBFUZZER). With gcc it drives itself: good frames, changed in
 * ways that depend on nothing but the seed: fuzz_order SECONDS [SEED]. */
#include <time.h>

#include "orders.h"

static uint64_t accepted;

static void one(const uint8_t *data, size_t size)
{
    struct hsm_order_view view;
    uint8_t *body;
    if (parse_frame(data, size, &view, &body) == HSM_OK) {
        size_t sum = 0;
        unsigned touched = 0; /* reads every byte that it says is there: the sanitizer watches */
        for (uint32_t i = 0; i < view.count; i++)
            sum += hsm_order_length(&view, i);
        CHECK(sum == view.inputs_len);
        CHECK(view.count >= 1 && view.count <= HSM_ORDER_MAX_ITEMS);
        CHECK(view.head.locator_len >= 1 && view.head.locator_len <= HSM_LOCATOR_MAX);
        for (uint16_t i = 0; i < view.head.locator_len; i++)
            touched += view.locator[i];
        for (size_t i = 0; i < view.inputs_len; i++)
            touched += view.inputs[i];
        accepted += touched < 0xffffffff;
    }
    free(body);
}

#ifdef HSM_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    one(data, size);
    return 0;
}
#else
static uint64_t state;

static uint32_t random32(void) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static void mutate(uint8_t *frame, size_t *len)
{
    static const uint32_t edges[] = {0, 1, 3, 4, 31, 32, 33, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 65536};
    for (uint32_t changes = random32() % 4; changes > 0 && *len >= 8; changes--) {
        size_t at = random32() % 2 != 0 ? random32() % *len : random32() % (*len < 64 ? *len : 64);
        switch (random32() % 4) {
        case 0:
            frame[at] = (uint8_t)random32();
            break;
        case 1:
            frame[at] ^= (uint8_t)(1u << random32() % 8);
            break;
        case 2:
            at &= ~(size_t)3;
            if (at + 4 <= *len)
                memcpy(frame + at, &edges[random32() % (sizeof edges / sizeof edges[0])], 4);
            break;
        default:
            *len -= random32() % 8;
            if (*len > 24) { /* let the header agree half of the time */
                uint32_t body = (uint32_t)(*len - 24);
                if (random32() % 2 != 0)
                    memcpy(frame + 20, &body, 4);
            }
        }
    }
}

int main(int argc, char **argv)
{
    time_t until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 1);
    state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    uint64_t tried = 0;
    uint8_t locator[HSM_LOCATOR_MAX];
    memset(locator, 'x', sizeof locator);
    while (time(NULL) < until) {
        for (int i = 0; i < 1000; i++, tried++) {
            struct hsm_order_head head = {0, (uint16_t)(random32() % 12), (uint8_t)(random32() % 3), 0, 0, 0};
            size_t len;
            uint8_t *frame = order_frame(tried, locator, (uint16_t)(1 + random32() % 40), head, 1 + random32() % 9,
                                         random32() % 70, 7, &len);
            mutate(frame, &len);
            one(frame, len);
            free(frame);
        }
    }
    CHECK(accepted > 0 && accepted < tried);
    (void)printf("%llu frames, %llu accepted; 1 passed, 0 failed\n", (unsigned long long)tried,
                 (unsigned long long)accepted);
    return 0;
}
#endif
