/* Many full handshakes with hsmsign.so and a real daemon, as a web server makes them: a parent that loads keys and uses
 * them, children of fork() with threads, and OPENSSL_cleanup at the end of each, with keys that were closed and with
 * keys that were not. OPENSSL_CONF says where the provider is.
 *
 *   soak_handshakes HANDSHAKES CHILDREN THREADS REFERENCE.pem...
 *
 * Each reference is used in TLS 1.2 and 1.3 in turn. Prints "N handshakes", or what failed. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/provider.h>

#include "tests/native/provider/handshake.h"

#define KEYS_MAX 8
#define CHILDREN_MAX 16
#define THREADS_MAX 16

struct site {
    EVP_PKEY *key;
    X509 *certificate;
    SSL_CTX *servers[2], *client;
};

static struct site sites[KEYS_MAX]; /* where LeakSanitizer and valgrind find what was left open */
static int site_count;

static bool open_site(struct site *site, const char *path)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    FILE *file = fopen(path, "r");
    site->key = file != NULL ? PEM_read_PrivateKey_ex(file, NULL, NULL, NULL, NULL, NULL) : NULL;
    if (file != NULL)
        (void)fclose(file);
    if (site->key == NULL ||
        (site->certificate = certify(NULL, site->key, EVP_PKEY_is_a(site->key, "ED25519") ? NULL : EVP_sha256())) == NULL)
        return false;
    for (int i = 0; i < 2; i++)
        if ((site->servers[i] = tls_server(NULL, site->certificate, site->key, versions[i])) == NULL)
            return false;
    return (site->client = tls_client(site->certificate)) != NULL;
}

static void close_sites(void)
{
    for (int i = 0; i < site_count; i++) {
        SSL_CTX_free(sites[i].servers[0]);
        SSL_CTX_free(sites[i].servers[1]);
        SSL_CTX_free(sites[i].client);
        X509_free(sites[i].certificate);
        EVP_PKEY_free(sites[i].key);
        sites[i] = (struct site){.key = NULL};
    }
}

struct hand {
    pthread_t thread;
    int first, rounds, failures;
};

static void *work(void *argument)
{
    struct hand *hand = argument;
    for (int i = hand->first; i < hand->first + hand->rounds; i++) {
        const struct site *site = &sites[i / 2 % site_count];
        if (shake_hands(site->servers[i % 2], site->client))
            continue;
        hand->failures++;
        ERR_print_errors_fp(stderr);
    }
    return NULL;
}

/* How many failed. */
static int shake_many(int handshakes, int threads)
{
    struct hand hands[THREADS_MAX] = {{.first = 0}};
    int failures = 0, started = 0;
    for (; started < threads; started++) {
        hands[started].first = started;
        hands[started].rounds = handshakes / threads + (started < handshakes % threads);
        if (pthread_create(&hands[started].thread, NULL, work, &hands[started]) != 0)
            break;
    }
    for (int i = 0; i < started; i++) {
        (void)pthread_join(hands[i].thread, NULL);
        failures += hands[i].failures;
    }
    return failures + (started != threads);
}

/* Every other one leaves its keys to OPENSSL_cleanup, which runs in exit(). */
static void live(int number, int handshakes, int threads)
{
    const int failures = shake_many(handshakes, threads);
    if (number % 2 == 0)
        close_sites();
    exit(failures != 0);
}

static int soak(int handshakes, int children, int threads)
{
    pid_t ids[CHILDREN_MAX];
    const int each = handshakes / (children + 1);
    int failures = shake_many(2 * site_count, 1); /* connections that the children inherit, and are not to use */
    for (int i = 0; i < children; i++) {
        ids[i] = fork();
        if (ids[i] == 0)
            live(i, each, threads);
    }
    failures += shake_many(handshakes - each * children, threads);
    for (int i = 0; i < children; i++) {
        int status = 1;
        failures += ids[i] < 0 || waitpid(ids[i], &status, 0) != ids[i] || status != 0;
    }
    return failures;
}

int main(int argc, char **argv)
{
    if (argc < 5 || argc - 4 > KEYS_MAX)
        return 2;
    const int handshakes = atoi(argv[1]), children = atoi(argv[2]), threads = atoi(argv[3]);
    if (handshakes < 1 || children < 0 || children > CHILDREN_MAX || threads < 1 || threads > THREADS_MAX)
        return 2;
    for (; site_count < argc - 4; site_count++)
        if (!open_site(&sites[site_count], argv[4 + site_count])) {
            ERR_print_errors_fp(stderr);
            return 1;
        }
    const int failures = soak(handshakes, children, threads);
    if (getenv("SOAK_LEAVES_KEYS") == NULL)
        close_sites();
    (void)printf("%d handshakes, %d failed\n", handshakes, failures);
    return failures != 0;
}
