/* One key, many threads; and children of fork(), as web servers make them. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/native/provider/handshake.h"
#include "tests/native/provider/world.h"

#define THREADS 8
#define ROUNDS 20

static EVP_PKEY *shared[2];
static SSL_CTX *server, *client;
static X509 *certificate;

static void sign_and_verify(EVP_PKEY *key, EVP_PKEY *real)
{
    uint8_t signature[512], message[100] = {7};
    size_t len = sizeof signature;
    EVP_MD_CTX *signing = EVP_MD_CTX_new(), *copy = EVP_MD_CTX_new(), *verifying = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignInit_ex(signing, NULL, "SHA256", world, NULL, key, NULL) == 1);
    CHECK(EVP_DigestSignUpdate(signing, message, sizeof message) == 1);
    CHECK(EVP_MD_CTX_copy_ex(copy, signing) == 1);
    EVP_MD_CTX_free(signing);
    CHECK(EVP_DigestSignFinal(copy, signature, &len) == 1);
    EVP_MD_CTX_free(copy);
    CHECK(EVP_DigestVerifyInit_ex(verifying, NULL, "SHA256", NULL, NULL, real, NULL) == 1);
    CHECK(EVP_DigestVerify(verifying, signature, len, message, sizeof message) == 1);
    EVP_MD_CTX_free(verifying);
}

static void *sign_often(void *argument)
{
    (void)argument;
    for (int round = 0; round < ROUNDS; round++) {
        sign_and_verify(shared[0], real_keys[P256]);
        sign_and_verify(shared[1], real_keys[RSA_2048]);
    }
    return NULL;
}

static void *load_often(void *argument)
{
    (void)argument;
    for (int round = 0; round < ROUNDS; round++) {
        EVP_PKEY *key = load_key(P256, true), *copy = EVP_PKEY_dup(key);
        CHECK(copy != NULL && EVP_PKEY_eq(copy, shared[0]) == 1);
        EVP_PKEY_free(key);
        sign_and_verify(copy, real_keys[P256]);
        EVP_PKEY_free(copy);
    }
    return NULL;
}

static void *shake_often(void *argument)
{
    (void)argument;
    for (int round = 0; round < ROUNDS; round++)
        CHECK(shake_hands(server, client));
    return NULL;
}

static void *fail_often(void *argument)
{
    (void)argument;
    struct hsm_words words;
    for (int round = 0; round < ROUNDS; round++) {
        EVP_MD_CTX *signing = EVP_MD_CTX_new();
        hsm_take_last_words(&words);
        CHECK(EVP_DigestSignInit_ex(signing, NULL, "SHA384", world, NULL, shared[0], NULL) != 1);
        hsm_take_last_words(&words); /* this thread's own */
        CHECK(strstr(words.text, "signs by SHA256 alone") != NULL);
        EVP_MD_CTX_free(signing);
        ERR_clear_error();
    }
    return NULL;
}

static void run_together(void *(*const work[])(void *), size_t kinds)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work[i % kinds], NULL) == 0);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void threads_share_a_key(void)
{
    void *(*const work[])(void *) = {sign_often, load_often, shake_often, fail_often};
    run_together(work, 4);
}

/* Children of a process without threads, as those of nginx are. */
static void children_use_the_key_of_their_parent(void)
{
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            void *(*const work[])(void *) = {sign_often, shake_often};
            sign_and_verify(shared[0], real_keys[P256]);
            run_together(work, 2);
            _exit(0);
        }
    }
    sign_and_verify(shared[0], real_keys[P256]);
    for (int i = 0; i < 4; i++) {
        int status = 1;
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
}

int main(void)
{
    int passed = 0;
    open_world();
    shared[0] = load_key(P256, false);
    shared[1] = load_key(RSA_2048, true);
    CHECK((certificate = certify(world, shared[0], EVP_sha256())) != NULL);
    CHECK((server = tls_server(world, certificate, shared[0], TLS1_3_VERSION)) != NULL);
    CHECK((client = tls_client(certificate)) != NULL);
    RUN(children_use_the_key_of_their_parent);
    RUN(threads_share_a_key);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    X509_free(certificate);
    EVP_PKEY_free(shared[0]);
    EVP_PKEY_free(shared[1]);
    close_world();
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
