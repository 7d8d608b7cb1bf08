/* Signs digests with a real daemon, for tests/integration/test_provider_remote.py:
 *
 *   driver TARGET DEADLINE_MS KEY SCHEME THREADS ROUNDS how[,how] [CA CERTIFICATE KEYFILE [SERVER_NAME]]
 *
 * `how` is "plain"; "fork": signs once, forks while another thread signs, and parent and child go on; "close": closes
 * all descriptors that it does not know after the first signature. Digest n of thread t is 32 bytes of t * 16 + n.
 * A line for each: "ok T N HEX", or "failed T N STATUS WORDS". Ends with 0 where all were "ok". */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native/provider/remote/remote.h"

struct hand {
    pthread_t thread;
    int number, rounds;
    hsm_remote *remote;
    const char *name;
    uint32_t scheme;
};

static atomic_int failures;
static pthread_mutex_t printing = PTHREAD_MUTEX_INITIALIZER;

static void sign(const struct hand *hand, int round)
{
    uint8_t digest[32], signature[1024];
    size_t len = sizeof signature;
    struct hsm_remote_trouble trouble;
    memset(digest, hand->number * 16 + round % 16, sizeof digest);
    const hsm_remote_order order = {hand->name, hand->scheme, false, digest, sizeof digest};
    const hsm_status status = hsm_remote_sign(hand->remote, &order, signature, &len, &trouble);
    char line[2200];
    int at = 0;
    if (status == HSM_OK) {
        at = snprintf(line, sizeof line, "ok %d %d ", hand->number, round % 16);
        for (size_t i = 0; i < len; i++)
            at += snprintf(line + at, sizeof line - (size_t)at, "%02x", signature[i]);
    } else {
        failures++;
        at = snprintf(line, sizeof line, "failed %d %d %d %s", hand->number, round % 16, (int)status, trouble.words);
    }
    line[at++] = '\n';
    (void)pthread_mutex_lock(&printing);
    if (write(STDOUT_FILENO, line, (size_t)at) != at)
        failures++;
    (void)pthread_mutex_unlock(&printing);
}

static void *work(void *argument)
{
    const struct hand *hand = argument;
    for (int round = 0; round < hand->rounds; round++)
        sign(hand, round);
    return NULL;
}

static int work_all(hsm_remote *remote, char **argv)
{
    static struct hand hands[64];
    const int threads = atoi(argv[5]);
    if (threads < 1 || threads > 64)
        return 2;
    for (int i = 0; i < threads; i++) {
        hands[i] = (struct hand){.number = i % 16, .rounds = atoi(argv[6]), .remote = remote, .name = argv[3],
                                 .scheme = (uint32_t)atoi(argv[4])};
        if (pthread_create(&hands[i].thread, NULL, work, &hands[i]) != 0)
            return 2;
    }
    for (int i = 0; i < threads; i++)
        (void)pthread_join(hands[i].thread, NULL);
    return 0;
}

/* Forks while another thread is in the middle of it: the child signs by itself. */
static int fork_and_work(hsm_remote *remote, char **argv)
{
    struct hand first = {.rounds = 1, .remote = remote, .name = argv[3], .scheme = (uint32_t)atoi(argv[4])};
    struct hand busy = first;
    int result = 0;
    sign(&first, 0);
    busy.rounds = atoi(argv[6]);
    if (pthread_create(&busy.thread, NULL, work, &busy) != 0)
        return 2;
    const pid_t child = fork();
    if (child == 0) {
        (void)pthread_mutex_init(&printing, NULL); /* the other thread may have held it */
        failures = 0;
        result = work_all(remote, argv);
        hsm_remote_close(remote);
        _exit(result != 0 || failures != 0);
    }
    (void)pthread_join(busy.thread, NULL);
    result = work_all(remote, argv);
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        failures++;
    return result;
}

int main(int argc, char **argv)
{
    if (argc < 8)
        return 2;
    const hsm_remote_endpoint endpoint = {.target = argv[1],
                                          .deadline_ms = (uint32_t)atoi(argv[2]),
                                          .ca = argc > 8 ? argv[8] : NULL,
                                          .certificate = argc > 9 ? argv[9] : NULL,
                                          .key = argc > 10 ? argv[10] : NULL,
                                          .server_name = argc > 11 ? argv[11] : NULL};
    struct hsm_remote_trouble trouble;
    hsm_remote *remote = NULL;
    const hsm_status opened = hsm_remote_open(&endpoint, &remote, &trouble);
    if (opened != HSM_OK) {
        (void)printf("failed 0 0 %d %s\n", (int)opened, trouble.words);
        return 1;
    }
    struct hand first = {.rounds = 1, .remote = remote, .name = argv[3], .scheme = (uint32_t)atoi(argv[4])};
    if (strcmp(argv[7], "close") == 0) {
        sign(&first, 0);
        for (int fd = 3; fd < 64; fd++)
            (void)close(fd);
    }
    const int result = strcmp(argv[7], "fork") == 0 ? fork_and_work(remote, argv) : work_all(remote, argv);
    hsm_remote_close(remote);
    return result != 0 ? result : failures != 0;
}
