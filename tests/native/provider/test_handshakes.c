/* libssl with our keys, both sides in memory. */
#include "tests/native/provider/handshake.h"
#include "tests/native/provider/world.h"

static const enum which kinds[] = {P256, P384, P521, RSA_2048, ED25519_KEY};
static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

#define EACH_KIND(i) for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)

static const EVP_MD *digest_of(enum which which)
{
    return which == ED25519_KEY ? NULL : which == P384 ? EVP_sha384() : which == P521 ? EVP_sha512() : EVP_sha256();
}

struct pair {
    EVP_PKEY *key;
    X509 *certificate;
    SSL_CTX *server, *client;
};

static struct pair make_pair(enum which which, int version, bool verify)
{
    struct pair pair = {.key = load_key(which, verify)};
    CHECK((pair.certificate = certify(world, pair.key, digest_of(which))) != NULL);
    CHECK((pair.server = tls_server(world, pair.certificate, pair.key, version)) != NULL);
    CHECK((pair.client = tls_client(pair.certificate)) != NULL);
    return pair;
}

static void free_pair(struct pair *pair)
{
    SSL_CTX_free(pair->server);
    SSL_CTX_free(pair->client);
    X509_free(pair->certificate);
    EVP_PKEY_free(pair->key);
    ERR_clear_error();
}

static void each_kind_of_key_serves_in_both_versions(void)
{
    EACH_KIND(i) for (int version = 0; version < 2; version++) {
        struct pair pair = make_pair(kinds[i], versions[version], version == 0);
        const int before = messages, digests_before = digests;
        CHECK(shake_hands(pair.server, pair.client));
        CHECK(shake_hands(pair.server, pair.client));
        CHECK(messages == before + 2 && digests == digests_before); /* the daemon reads what a handshake signs */
        free_pair(&pair);
    }
}

static void each_kind_of_key_proves_who_a_client_is(void)
{
    EACH_KIND(i) for (int version = 0; version < 2; version++) {
        struct pair pair = make_pair(kinds[i], versions[version], true);
        EVP_PKEY *other = real_keys[OTHER_P256];
        X509 *of_server = certify(NULL, other, EVP_sha256());
        SSL_CTX *server = tls_server(NULL, of_server, other, versions[version]);
        SSL_CTX *client = SSL_CTX_new_ex(world, NULL, TLS_client_method());
        SSL_CTX_set_verify(server, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(server), pair.certificate) == 1);
        CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(client), of_server) == 1);
        CHECK(!shake_hands(server, client)); /* it has no certificate yet */
        CHECK(SSL_CTX_use_certificate(client, pair.certificate) == 1 && SSL_CTX_use_PrivateKey(client, pair.key) == 1);
        CHECK(shake_hands(server, client));
        SSL_CTX_free(server);
        SSL_CTX_free(client);
        X509_free(of_server);
        free_pair(&pair);
    }
}

static void rsa_signs_by_either_padding_in_tls_1_2(void)
{
    static const char *const algorithms[] = {"RSA+SHA256", "RSA+SHA512", "RSA-PSS+SHA256", "RSA-PSS+SHA384"};
    for (int i = 0; i < 4; i++) {
        struct pair pair = make_pair(RSA_2048, TLS1_2_VERSION, true);
        CHECK(SSL_CTX_set1_sigalgs_list(pair.client, algorithms[i]) == 1);
        CHECK(shake_hands(pair.server, pair.client));
        free_pair(&pair);
    }
}

static void a_client_that_wants_another_digest_gets_no_handshake(void)
{
    struct pair pair = make_pair(P256, TLS1_3_VERSION, false);
    CHECK(SSL_CTX_set1_sigalgs_list(pair.client, "ECDSA+SHA384:RSA-PSS+SHA256") == 1);
    CHECK(!shake_hands(pair.server, pair.client));
    free_pair(&pair);
}

static void a_daemon_that_fails_or_lies_fails_the_handshake_and_no_other(void)
{
    static const enum fault faults[] = {SIGN_FAILS, SIGN_IS_EMPTY, SIGN_IS_TOO_LONG, SIGN_IS_NOISE, SIGN_BY_ANOTHER};
    for (int version = 0; version < 2; version++)
        for (int verify = 0; verify < 2; verify++) {
            struct pair pair = make_pair(P256, versions[version], verify == 1);
            for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
                fault = (int)faults[i];
                CHECK(!shake_hands(pair.server, pair.client)); /* where it is not checked here, the client does */
                fault = NONE;
                CHECK(shake_hands(pair.server, pair.client));
            }
            free_pair(&pair);
        }
}

static void a_certificate_of_another_key_is_not_taken(void)
{
    EACH_KIND(i) {
        EVP_PKEY *key = load_key(kinds[i], false);
        X509 *certificate = certify(NULL, real_keys[OTHER_P256], EVP_sha256());
        CHECK(tls_server(world, certificate, key, TLS1_3_VERSION) == NULL);
        X509_free(certificate);
        EVP_PKEY_free(key);
        ERR_clear_error();
    }
}

static void a_file_key_and_a_device_key_are_served_by_one_context(void)
{
    struct pair pair = make_pair(P256, TLS1_3_VERSION, false);
    EVP_PKEY *rsa = EVP_PKEY_Q_keygen(world, NULL, "RSA", (size_t)2048);
    X509 *certificate = certify(world, rsa, EVP_sha256());
    CHECK(SSL_CTX_use_certificate(pair.server, certificate) == 1 && SSL_CTX_use_PrivateKey(pair.server, rsa) == 1);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(pair.client), certificate) == 1);
    const int before = messages;
    CHECK(SSL_CTX_set1_sigalgs_list(pair.client, "RSA-PSS+SHA256") == 1 && shake_hands(pair.server, pair.client));
    CHECK(messages == before);
    CHECK(SSL_CTX_set1_sigalgs_list(pair.client, "ECDSA+SHA256") == 1 && shake_hands(pair.server, pair.client));
    CHECK(messages == before + 1);
    X509_free(certificate);
    EVP_PKEY_free(rsa);
    free_pair(&pair);
}

static void a_context_that_is_freed_in_the_middle_leaves_nothing(void)
{
    struct pair pair = make_pair(P256, TLS1_3_VERSION, true);
    SSL *server = SSL_new(pair.server), *client = SSL_new(pair.client);
    BIO *ours = NULL, *theirs = NULL;
    CHECK(BIO_new_bio_pair(&ours, 0, &theirs, 0) == 1);
    SSL_set_bio(server, ours, ours);
    SSL_set_bio(client, theirs, theirs);
    free_pair(&pair); /* the SSLs have the key still */
    CHECK(SSL_connect(client) != 1 && SSL_accept(server) != 1);
    CHECK(opened == closed + 1);
    SSL_free(server);
    SSL_free(client);
    CHECK(opened == closed);
    ERR_clear_error();
}

int main(void)
{
    int passed = 0;
    open_world();
    RUN(each_kind_of_key_serves_in_both_versions);
    RUN(each_kind_of_key_proves_who_a_client_is);
    RUN(rsa_signs_by_either_padding_in_tls_1_2);
    RUN(a_client_that_wants_another_digest_gets_no_handshake);
    RUN(a_daemon_that_fails_or_lies_fails_the_handshake_and_no_other);
    RUN(a_certificate_of_another_key_is_not_taken);
    RUN(a_file_key_and_a_device_key_are_served_by_one_context);
    RUN(a_context_that_is_freed_in_the_middle_leaves_nothing);
    close_world();
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
