/* Whatever bytes a host sends: the link reads nothing beyond them, and what it takes for a finished order
 * holds together.
 *
 * With clang it is a libFuzzer target (-DHSM_LIBFUZZER). With gcc it drives itself: good DONE frames, changed
 * in ways that depend on nothing but the seed: fuzz_done SECONDS [SEED]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "native/core/frame.h"
#include "native/front/front.h"

#define ITEMS 4u
#define CHECK(what) \
    do { \
        if (!(what)) { \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            abort(); \
        } \
    } while (0)

static uint64_t finished, refused;

static void check_done(const hsm_done *done)
{
    uint32_t failed = 0;
    unsigned touched = 0; /* reads every byte that it says is there: the sanitizer watches */
    CHECK(done->order_id == 1 && done->count == ITEMS);
    for (uint32_t i = 0; i < done->count; i++) {
        CHECK(done->statuses[i] <= HSM_E_LAST_IN_FRAME);
        CHECK((done->statuses[i] == HSM_OK) == (done->lengths[i] > 0));
        CHECK(done->lengths[i] <= HSM_SIGNATURE_MAX);
        CHECK((size_t)done->offsets[i] + done->lengths[i] <= done->signatures_len);
        for (uint32_t at = 0; at < done->lengths[i]; at++)
            touched += done->signatures[done->offsets[i] + at];
        failed += done->statuses[i] != HSM_OK;
    }
    CHECK(failed == done->failed);
    finished += touched < 0xffffffff;
}

/* One connection: an order of ITEMS digests goes out, `data` comes back. */
static void one(const uint8_t *data, size_t size)
{
    static const uint8_t locator[] = {1, 'k', 0}, inputs[ITEMS * 32u] = {0};
    const hsm_link_config config = {.max_jobs = ITEMS, .max_bytes = sizeof inputs, .max_attempts = 1};
    const hsm_order order = {.scheme = HSM_ECDSA_P256_SHA256, .locator = locator, .locator_len = sizeof locator,
                             .count = ITEMS, .inputs = inputs, .inputs_len = sizeof inputs};
    hsm_link *link = NULL;
    hsm_done done;
    uint64_t id = 0;
    int ends[2];
    if (size > 65536)
        return; /* what a socket takes at once */
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    CHECK(hsm_link_new(&config, &link) == HSM_OK && hsm_link_attach(link, ends[0]) == HSM_OK);
    CHECK(hsm_link_submit(link, &order, &id) == HSM_OK && id == 1);
    CHECK(send(ends[1], data, size, MSG_NOSIGNAL) == (ssize_t)size);
    refused += hsm_link_pump(link) == HSM_E_FRAME;
    hsm_link_fail_all(link, HSM_E_HOST_LOST); /* what has no answer yet: half answered orders hold together too */
    CHECK(hsm_link_jobs(link) == 0);
    CHECK(hsm_link_reap(link, &done) == 1);
    check_done(&done);
    hsm_link_release(link, done.order_id);
    CHECK(hsm_link_reap(link, &done) == 0);
    (void)close(ends[1]);
    hsm_link_free(link);
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

static size_t done_frame(uint8_t *frame, uint32_t first, uint32_t count)
{
    const struct hsm_frame_header blank = {.magic = HSM_FRAME_MAGIC, .type = HSM_FRAME_DONE, .order_id = 1};
    struct hsm_frame_header header = blank;
    size_t at = sizeof header, signatures = at + count * sizeof(struct hsm_result);
    for (uint32_t i = 0; i < count; i++, at += sizeof(struct hsm_result)) {
        const uint32_t status = random32() % 4 == 0 ? 1 + random32() % 12 : HSM_OK;
        const uint32_t length = status == HSM_OK ? 1 + random32() % 80 : 0;
        const struct hsm_result result = {.index = first + i, .status = status, .length = length};
        memcpy(frame + at, &result, sizeof result);
        memset(frame + signatures, 's', length);
        signatures += length;
    }
    header.count = count;
    header.length = (uint32_t)(signatures - sizeof header);
    memcpy(frame, &header, sizeof header);
    return signatures;
}

static void mutate(uint8_t *frame, size_t len)
{
    static const uint32_t edges[] = {0, 1, 2, 3, 4, 13, 512, 513, 0x7fffffff, 0x80000000, 0xffffffff};
    for (uint32_t changes = random32() % 4; changes > 0; changes--) {
        const size_t at = random32() % (random32() % 2 != 0 || len < 128 ? len : 128);
        if (random32() % 2 != 0)
            frame[at] ^= (uint8_t)(1u << random32() % 8);
        else if ((at & ~(size_t)3) + 4 <= len)
            memcpy(frame + (at & ~(size_t)3), &edges[random32() % (sizeof edges / sizeof edges[0])], 4);
    }
}

int main(int argc, char **argv)
{
    const time_t until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 1);
    state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    uint64_t tried = 0;
    do {
        for (int i = 0; i < 500; i++, tried++) {
            uint8_t frames[2048];
            const uint32_t split = random32() % (ITEMS + 1); /* an order answered in two frames, or in one */
            size_t len = done_frame(frames, 0, split);
            len += done_frame(frames + len, split, ITEMS - split);
            mutate(frames, len);
            one(frames, random32() % 4 == 0 ? random32() % len + 1 : len);
        }
    } while (time(NULL) < until);
    CHECK(finished == tried && refused > 0 && refused < tried);
    (void)printf("%llu connections, %llu refused; 1 passed, 0 failed\n", (unsigned long long)tried,
                 (unsigned long long)refused);
    return 0;
}
#endif
