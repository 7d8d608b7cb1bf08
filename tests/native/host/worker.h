/* The front worker's end of a signing connection, for tests. */
#ifndef HSMSIGN_TEST_WORKER_H
#define HSMSIGN_TEST_WORKER_H

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "native/host/host.h"
#include "orders.h"

#define ITEMS_MAX 4096

struct answers {
    uint32_t seen[ITEMS_MAX];
    uint32_t status[ITEMS_MAX];
    size_t length[ITEMS_MAX];
    uint8_t signature[ITEMS_MAX][HSM_SIGNATURE_MAX];
    uint32_t count;
};

static inline int connect_to(hsm_pool *pool)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(hsm_pool_serve(pool, pair[1]) == HSM_OK);
    return pair[0];
}

static inline void send_all(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        CHECK(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

static inline int receive_all(int fd, void *into, size_t len)
{
    uint8_t *at = into;
    while (len > 0) {
        ssize_t n = recv(fd, at, len, 0);
        if (n <= 0)
            return 0;
        at += n;
        len -= (size_t)n;
    }
    return 1;
}

static inline void order(int fd, uint64_t id, const uint8_t *locator, uint16_t locator_len, struct hsm_order_head head,
                  uint32_t count, uint32_t each)
{
    size_t len;
    uint8_t *frame = order_frame(id, locator, locator_len, head, count, each, (int)(id & 0xff), &len);
    send_all(fd, frame, len);
    free(frame);
}

static inline void cancel(int fd, uint64_t id)
{
    struct hsm_frame_header header = {HSM_FRAME_MAGIC, HSM_FRAME_CANCEL, 0, id, 0, 0};
    send_all(fd, &header, sizeof header);
}

/* Reads DONE frames until `count` items of order `id` are there. Any item twice is an error. */
static inline struct answers *answers_to(int fd, uint64_t id, uint32_t count)
{
    struct answers *answers = calloc(1, sizeof *answers);
    CHECK(answers != NULL && count <= ITEMS_MAX);
    while (answers->count < count) {
        struct hsm_frame_header header;
        CHECK(receive_all(fd, &header, sizeof header));
        CHECK(header.magic == HSM_FRAME_MAGIC && header.type == HSM_FRAME_DONE && header.order_id == id);
        uint8_t *body = malloc(header.length);
        CHECK(body != NULL && receive_all(fd, body, header.length));
        size_t at = header.count * sizeof(struct hsm_result);
        for (uint32_t i = 0; i < header.count; i++) {
            struct hsm_result result;
            memcpy(&result, body + i * sizeof result, sizeof result);
            CHECK(result.index < count && answers->seen[result.index]++ == 0);
            CHECK(result.length <= HSM_SIGNATURE_MAX && at + result.length <= header.length);
            answers->status[result.index] = result.status;
            answers->length[result.index] = result.length;
            memcpy(answers->signature[result.index], body + at, result.length);
            at += result.length;
            answers->count++;
        }
        CHECK(at == header.length);
        free(body);
    }
    return answers;
}

static inline void all_have(const struct answers *answers, hsm_status status)
{
    for (uint32_t i = 0; i < answers->count; i++) {
        if (answers->status[i] != (uint32_t)status)
            (void)fprintf(stderr, "answer %u of %u: status %u\n", i, answers->count, answers->status[i]);
        CHECK(answers->status[i] == (uint32_t)status);
    }
}

#endif
