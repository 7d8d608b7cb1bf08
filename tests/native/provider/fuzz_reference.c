/* Whatever stands where a reference should: DER, a URI, or a file of PEM that OpenSSL hands to the decoders. It is read
 * within bounds, and what is taken is whole.
 *
 * With clang it is a libFuzzer target (-DHSM_LIBFUZZER); the first byte says which of the three follows. With gcc it
 * drives itself: good ones, changed in ways that depend on nothing but the seed: fuzz_reference SECONDS [SEED]. */
#include <time.h>

#include "native/provider/reference.h"
#include "tests/native/provider/world.h"

enum form { DER, URI, PEM, FORMS };

static uint64_t taken[FORMS], refused[FORMS];

static bool is_whole(const struct hsm_reference *reference)
{
    const int files = (reference->ca != NULL) + (reference->certificate != NULL) + (reference->key != NULL);
    return reference->name != NULL && reference->name[0] != '\0' && reference->endpoint != NULL &&
           reference->endpoint[0] != '\0' && reference->deadline_ms >= 1 &&
           reference->deadline_ms <= HSM_REFERENCE_DEADLINE_MAX_MS && (files == 0 || files == 3) &&
           (reference->server_name == NULL || files == 3);
}

static bool is_same_text(const char *one, const char *other)
{
    return one == NULL ? other == NULL : other != NULL && strcmp(one, other) == 0;
}

/* What was read is written, and read again as the same. */
static void check_written_again(const struct hsm_reference *reference)
{
    uint8_t *der = NULL;
    const size_t len = hsm_reference_write(reference, &der);
    CHECK(len > 0 && len <= 2 * HSM_REFERENCE_MAX);
    struct hsm_reference *again = hsm_reference_read(der, len);
    CHECK(again != NULL || len > HSM_REFERENCE_MAX);
    if (again != NULL)
        CHECK(is_same_text(again->name, reference->name) && is_same_text(again->endpoint, reference->endpoint) &&
              is_same_text(again->ca, reference->ca) && is_same_text(again->certificate, reference->certificate) &&
              is_same_text(again->key, reference->key) && is_same_text(again->server_name, reference->server_name) &&
              again->deadline_ms == reference->deadline_ms && again->verify == reference->verify &&
              again->public_key_len == reference->public_key_len &&
              memcmp(again->public_key, reference->public_key, again->public_key_len) == 0);
    hsm_reference_free(again);
    OPENSSL_free(der);
}

static bool try_der(const uint8_t *data, size_t size)
{
    struct hsm_reference *reference = hsm_reference_read(data, size);
    if (reference == NULL)
        return false;
    CHECK(is_whole(reference) && reference->public_key != NULL && reference->public_key_len > 0);
    check_written_again(reference);
    hsm_reference_free(reference);
    return true;
}

static bool try_uri(const uint8_t *data, size_t size)
{
    char *uri = OPENSSL_strndup((const char *)data, size);
    CHECK(uri != NULL);
    struct hsm_reference *reference = hsm_reference_of_uri(uri);
    OPENSSL_free(uri);
    if (reference == NULL)
        return false;
    CHECK(is_whole(reference) && reference->public_key == NULL);
    hsm_reference_free(reference);
    return true;
}

static bool try_pem(const uint8_t *data, size_t size)
{
    EVP_PKEY *key = load_bytes(data, size);
    ERR_clear_error();
    if (key == NULL)
        return false;
    CHECK(EVP_PKEY_get_bits(key) > 0);
    EVP_PKEY_free(key);
    CHECK(opened == closed);
    return true;
}

static void one(enum form form, const uint8_t *data, size_t size)
{
    static bool (*const tries[FORMS])(const uint8_t *, size_t) = {try_der, try_uri, try_pem};
    if (world == NULL)
        open_world();
    uint8_t *exact = malloc(size > 0 ? size : 1); /* so that a byte too far is seen */
    CHECK(exact != NULL);
    memcpy(exact, data, size);
    const bool was_taken = tries[form](exact, size);
    taken[form] += was_taken;
    refused[form] += !was_taken;
    free(exact);
}

#ifdef HSM_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0)
        one((enum form)(data[0] % FORMS), data + 1, size - 1);
    return 0;
}
#else
#define ROOM 8192u

static uint64_t state;

static uint32_t random32(void) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static size_t good_der(uint8_t bytes[ROOM])
{
    static const enum which kinds[] = {P256, P521, RSA_2048, ED25519_KEY};
    char name[32], endpoint[] = "dns:///localhost:7443", file[] = "/etc/file.pem", host[] = "host.example";
    struct hsm_reference reference = {.name = name, .endpoint = endpoint, .deadline_ms = random32() % 600000u + 1,
                                      .verify = random32() % 2 != 0};
    const enum which which = kinds[random32() % 4];
    uint8_t *der = NULL;
    (void)snprintf(name, sizeof name, "%s", key_names[which]);
    if (random32() % 2 != 0) {
        reference.ca = reference.certificate = reference.key = file;
        reference.server_name = random32() % 2 != 0 ? host : NULL;
    }
    const int public_len = i2d_PUBKEY(real_keys[which], &reference.public_key);
    CHECK(public_len > 0);
    reference.public_key_len = (size_t)public_len;
    const size_t len = hsm_reference_write(&reference, &der);
    CHECK(len > 0 && len < ROOM);
    memcpy(bytes, der, len);
    OPENSSL_free(der);
    OPENSSL_free(reference.public_key);
    return len;
}

static size_t good_uri(uint8_t bytes[ROOM])
{
    static const char *const uris[] = {
        "hsmsign:keys/p256?endpoint=unix:///run/hsmsign.sock", "hsmsign:keys%2Fp256?deadline-ms=100&endpoint=unix%3a/x",
        "hsmsign:keys/rsa?endpoint=dns:///h:1&ca=a%20b&certificate=c&key=k&server-name=s&deadline-ms=600000&verify=yes"};
    const char *uri = uris[random32() % 3];
    memcpy(bytes, uri, strlen(uri));
    return strlen(uri);
}

static size_t good_pem(uint8_t bytes[ROOM])
{
    uint8_t der[ROOM];
    char *text = NULL;
    const size_t len = good_der(der);
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(bio != NULL && PEM_write_bio(bio, HSM_REFERENCE_LABEL, "", der, (long)len) > 0);
    const long text_len = BIO_get_mem_data(bio, &text);
    CHECK(text_len > 0 && (size_t)text_len < ROOM);
    memcpy(bytes, text, (size_t)text_len);
    BIO_free(bio);
    return (size_t)text_len;
}

int main(int argc, char **argv)
{
    static size_t (*const good[FORMS])(uint8_t[ROOM]) = {good_der, good_uri, good_pem};
    const time_t until = time(NULL) + (argc > 1 ? atoi(argv[1]) : 1);
    static uint8_t bytes[ROOM];
    state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    open_world();
    do {
        for (uint32_t i = 0; i < 300; i++) {
            const enum form form = i % 16 == 0 ? PEM : (enum form)(i % 2); /* the decoders are slow */
            const size_t len = good[form](bytes);
            for (uint32_t changes = random32() % 4; changes > 0; changes--) {
                const size_t at = random32() % len;
                const uint32_t change = random32() % 2 != 0 ? random32() : 1u << random32() % 8;
                bytes[at] = (uint8_t)(bytes[at] ^ change);
            }
            one(form, bytes, random32() % 4 == 0 ? random32() % len + 1 : len);
        }
    } while (time(NULL) < until);
    for (int form = 0; form < FORMS; form++)
        CHECK(taken[form] > 0 && refused[form] > 0);
    close_world();
    (void)printf("DER %llu of %llu taken, URIs %llu of %llu, PEM %llu of %llu; 1 passed, 0 failed\n",
                 (unsigned long long)taken[DER], (unsigned long long)(taken[DER] + refused[DER]),
                 (unsigned long long)taken[URI], (unsigned long long)(taken[URI] + refused[URI]),
                 (unsigned long long)taken[PEM], (unsigned long long)(taken[PEM] + refused[PEM]));
    return 0;
}
#endif
