/* Whatever bytes "the daemon" sends: HTTP/2, gRPC and the message are read within bounds, and a signature comes out
 * only where its checksum fits.
 *
 * With clang it is a libFuzzer target (-DHSM_LIBFUZZER). With gcc it drives itself: good answers, changed in ways
 * that depend on nothing but the seed: fuzz_answer SECONDS [SEED]. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "native/provider/remote/grpc.h"
#include "tests/native/remote/frames.h"

#define CHECK(what) \
    do { \
        if (!(what)) { \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            abort(); \
        } \
    } while (0)

static uint64_t signed_, refused, unfinished;

static void judge(const struct hsm_answer *answer, struct hsm_why *why)
{
    const hsm_remote_order order = {"keys/web-1", 1, false, (const uint8_t *)"", 0};
    uint8_t signature[100];
    size_t len = sizeof signature;
    CHECK(answer->body_len <= sizeof answer->body);
    hsm_status status = hsm_grpc_judge(answer, order.name, why);
    if (status == HSM_OK)
        status = hsm_message_read(answer->body, answer->body_len, &order, signature, &len, why);
    CHECK(status != HSM_OK || (len > 0 && len <= sizeof signature));
    CHECK(strlen(why->trouble.words) < sizeof why->trouble.words);
    signed_ += status == HSM_OK;
    refused += status != HSM_OK;
}

static void one(const uint8_t *data, size_t size)
{
    static const uint8_t message[5] = {0};
    const struct hsm_request request = {"http", "localhost", HSM_PATH_SIGN, 1000, message, sizeof message};
    struct hsm_http2 *http2 = NULL;
    struct hsm_why why = {.status = HSM_OK};
    const uint8_t *out = NULL;
    size_t len = 1;
    CHECK(hsm_http2_new(&http2) == HSM_OK);
    CHECK(hsm_http2_start(http2, &request, &why) == HSM_OK);
    while (len > 0)
        CHECK(hsm_http2_next(http2, &out, &len, &why) == HSM_OK);
    const size_t first = size / 2; /* in two pieces: a frame may be cut anywhere */
    hsm_status status = hsm_http2_receive(http2, data, first, &why);
    if (status == HSM_OK)
        status = hsm_http2_receive(http2, data + first, size - first, &why);
    for (len = 1; status == HSM_OK && len > 0;)
        status = hsm_http2_next(http2, &out, &len, &why);
    if (hsm_http2_answer(http2)->over)
        judge(hsm_http2_answer(http2), &why);
    else if (status != HSM_OK)
        refused++;
    else
        unfinished++;
    (void)hsm_http2_is_open(http2);
    hsm_http2_free(http2);
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

int main(int argc, char **argv)
{
    const time_t until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 1);
    static struct text answer;
    uint8_t signature[100];
    state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    do {
        for (int i = 0; i < 500; i++) {
            answer.len = 0;
            memset(signature, (int)(random32() & 255u), sizeof signature);
            put_good_answer(&answer, signature, random32() % sizeof signature);
            for (uint32_t changes = random32() % 4; changes > 0; changes--) {
                const size_t at = random32() % answer.len;
                const uint32_t change = random32() % 2 != 0 ? random32() : 1u << random32() % 8;
                answer.bytes[at] = (uint8_t)(answer.bytes[at] ^ change);
            }
            one(answer.bytes, random32() % 4 == 0 ? random32() % answer.len + 1 : answer.len);
        }
    } while (time(NULL) < until);
    CHECK(signed_ > 0 && refused > 0 && unfinished > 0);
    (void)printf("%llu signed, %llu refused, %llu unfinished; 1 passed, 0 failed\n", (unsigned long long)signed_,
                 (unsigned long long)refused, (unsigned long long)unfinished);
    return 0;
}
#endif
