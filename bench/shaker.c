/* Full TLS 1.3 handshakes over TCP, as many as go, each on a new connection, never resumed, the certificate checked:
 *
 *   shaker PORT CA.pem THREADS SECONDS
 *
 * Prints the rate and the time of each, from connect() to the end of the handshake, in microseconds, as JSON. */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define ROOM 200000 /* handshakes of a thread */

struct hand {
    pthread_t thread;
    int done, failed;
    float *times;
};

static SSL_CTX *context;
static struct sockaddr_in address = {.sin_family = AF_INET};
static double seconds, began;

static double now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* When it was over; 0 where it failed. */
static double shake(void)
{
    bool good = false;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SSL *ssl = SSL_new(context);
    if (fd >= 0 && ssl != NULL && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        SSL_set_fd(ssl, fd) == 1 && SSL_set_tlsext_host_name(ssl, "localhost") == 1)
        good = SSL_connect(ssl) == 1 && SSL_session_reused(ssl) == 0;
    const double at_end = now();
    SSL_free(ssl);
    if (fd >= 0) {
        /* so that no port is kept for a minute after each */
        const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
        char rest = 0;
        if (shutdown(fd, SHUT_WR) == 0)
            (void)recv(fd, &rest, 1, 0); /* the server has come to its end, too */
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        (void)close(fd);
    }
    return good ? at_end : 0;
}

static void *work(void *argument)
{
    struct hand *hand = argument;
    for (double start = now(); start < began + seconds && hand->done < ROOM; start = now()) {
        const double at_end = shake();
        if (at_end > 0)
            hand->times[hand->done++] = (float)((at_end - start) * 1e6);
        else if (++hand->failed > 100)
            break;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct hand hands[THREADS_MAX];
    const int threads = argc == 5 ? atoi(argv[3]) : 0;
    int done = 0, failed = 0;
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    seconds = atof(argv[4]);
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_load_verify_file(context, argv[2]) != 1 ||
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1)
        return 2;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    began = now();
    for (int i = 0; i < threads; i++)
        if ((hands[i].times = malloc(ROOM * sizeof *hands[i].times)) == NULL ||
            pthread_create(&hands[i].thread, NULL, work, &hands[i]) != 0)
            return 2;
    for (int i = 0; i < threads; i++) {
        (void)pthread_join(hands[i].thread, NULL);
        done += hands[i].done;
        failed += hands[i].failed;
    }
    (void)printf("{\"rate\": %.1f, \"failed\": %d, \"times\": [", done / (now() - began), failed);
    for (int i = 0, first = 1; i < threads; i++)
        for (int j = 0; j < hands[i].done; j++, first = 0)
            (void)printf("%s%.0f", first ? "" : ",", (double)hands[i].times[j]);
    (void)printf("]}\n");
    return failed != 0;
}
