/* Names in a ClientHello, and the context that a connection goes on with. */
#include "site.h"

#define GROUP ((const uint8_t *)"a group")

struct choice {
    SSL_CTX *context;
    int alert;
    size_t calls;
    size_t name_len;
    uint8_t name[64];
};

static struct holder web, shop;

static int choose(void *arg, SSL *ssl, const uint8_t *name, size_t name_len)
{
    struct choice *choice = arg;
    choice->calls++;
    choice->name_len = name_len;
    CHECK(name_len <= sizeof choice->name);
    if (name != NULL)
        memcpy(choice->name, name, name_len);
    if (choice->context != NULL)
        CHECK(hsm_hello_use(ssl, choice->context, GROUP, 7) == HSM_OK);
    return choice->alert;
}

static SSL_CTX *listening(struct choice *choice)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    CHECK(context != NULL && hsm_hello_install(context, choose, choice) == HSM_OK);
    CHECK(hsm_hello_install(context, choose, choice) == HSM_E_BAD_INPUT);
    return context;
}

static void the_chosen_context_makes_the_handshake(void)
{
    struct choice choice = {.context = server_of(&shop)};
    SSL_CTX *server = listening(&choice), *client = client_context();
    const struct ends ends = ends_of(server, client, "Shop.example.org");
    CHECK(shake(&ends));
    CHECK(choice.calls == 1 && choice.name_len == 16 && memcmp(choice.name, "Shop.example.org", 16) == 0);
    CHECK(X509_cmp(SSL_get0_peer_certificate(ends.client), shop.certificate) == 0);
    SSL_CTX_free(choice.context); /* the connection holds it */
    SSL_CTX_free(server);
    close_ends(&ends);
    SSL_CTX_free(client);
}

static void whoever_names_nobody_is_told_apart(void)
{
    struct choice choice = {.context = server_of(&web)};
    SSL_CTX *server = listening(&choice), *client = client_context();
    const struct ends ends = ends_of(server, client, NULL);
    CHECK(shake(&ends) && choice.name_len == 0);
    close_ends(&ends);
    SSL_CTX_free(choice.context);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

static void an_alert_ends_it(void)
{
    struct choice choice = {.alert = SSL_AD_UNRECOGNIZED_NAME};
    SSL_CTX *server = listening(&choice), *client = client_context();
    const struct ends ends = ends_of(server, client, "other.org");
    CHECK(!shake(&ends) && choice.calls == 1);
    close_ends(&ends);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

static void the_chosen_context_says_who_is_verified(void)
{
    struct choice choice = {.context = server_of(&web)};
    SSL_CTX_set_verify(choice.context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    CHECK(X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(choice.context), X509_V_FLAG_CRL_CHECK));
    SSL_CTX *server = listening(&choice), *client = client_context();
    const struct ends ends = ends_of(server, client, "web");
    CHECK(!shake(&ends));
    CHECK(SSL_get_verify_mode(ends.server) == SSL_CTX_get_verify_mode(choice.context));
    CHECK(X509_VERIFY_PARAM_get_flags(SSL_get0_param(ends.server)) & X509_V_FLAG_CRL_CHECK);
    close_ends(&ends);
    SSL_CTX_free(choice.context);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

/* A ClientHello whose server_name extension is `list`, and what the server makes of it: how often it chose. */
static size_t hello(const uint8_t *list, size_t len)
{
    struct choice choice = {.context = server_of(&web)};
    SSL_CTX *server = listening(&choice);
    SSL *ssl = SSL_new(server);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    CHECK(ssl != NULL && in != NULL && out != NULL);
    SSL_set_bio(ssl, in, out);
    SSL_set_accept_state(ssl);
    uint8_t head[60] = {0x16, 3, 1, 0, 0, 1, 0, 0, 0, 3, 3};
    const size_t body = 2 + 32 + 1 + 4 + 2 + 2 + 4 + len;
    head[4] = (uint8_t)(body + 4), head[8] = (uint8_t)body;
    uint8_t *at = head + 11 + 32 + 1;
    const uint8_t rest[] = {0, 2, 0xc0, 0x2b, 1, 0, 0, (uint8_t)(len + 4), 0, 0, 0, (uint8_t)len};
    memcpy(at, rest, sizeof rest);
    const int head_len = (int)(at + sizeof rest - head);
    CHECK(BIO_write(in, head, head_len) == head_len);
    CHECK(len == 0 || BIO_write(in, list, (int)len) == (int)len);
    (void)SSL_do_handshake(ssl);
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(server);
    SSL_CTX_free(choice.context);
    return choice.calls;
}

static void what_is_no_name_is_not_looked_up(void)
{
    const uint8_t good[] = {0, 6, 0, 0, 3, 'a', '.', 'b'};
    CHECK(hello(good, sizeof good) == 1);
    for (size_t cut = 0; cut < sizeof good; cut++)
        CHECK(hello(good, cut) == 0);
    for (size_t at = 0; at < 5; at++) {
        uint8_t changed[sizeof good];
        memcpy(changed, good, sizeof good);
        changed[at] = 0xff;
        CHECK(hello(changed, sizeof changed) == 0);
    }
    const uint8_t empty[] = {0, 3, 0, 0, 0};
    CHECK(hello(empty, sizeof empty) == 0);
}

static hsm_trust trust_of(SSL_CTX *context)
{
    hsm_trust trust;
    CHECK(hsm_tls_trust(context, &trust) == HSM_OK);
    return trust;
}

static uint8_t *make_crl(long begins, long ends, int *len)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, begins), *to = X509_gmtime_adj(NULL, ends);
    CHECK(crl != NULL && X509_CRL_set_version(crl, 1));
    CHECK(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca.certificate)));
    CHECK(X509_CRL_set1_lastUpdate(crl, from) && X509_CRL_set1_nextUpdate(crl, to));
    CHECK(X509_CRL_sign(crl, ca.key, EVP_sha256()));
    uint8_t *der = NULL;
    *len = i2d_X509_CRL(crl, &der);
    CHECK(*len > 0);
    X509_CRL_free(crl);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return der;
}

static void trust_is_other_where_its_parts_are(void)
{
    SSL_CTX *one = server_of(&web), *two = server_of(&shop);
    CHECK(memcmp(trust_of(one).digest, trust_of(two).digest, 32) == 0); /* their own certificates are no part of it */
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(one), ca.certificate));
    CHECK(memcmp(trust_of(one).digest, trust_of(two).digest, 32) != 0);
    CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(two), ca.certificate));
    CHECK(memcmp(trust_of(one).digest, trust_of(two).digest, 32) == 0);
    SSL_CTX_set_verify(two, SSL_VERIFY_PEER, NULL);
    CHECK(memcmp(trust_of(one).digest, trust_of(two).digest, 32) != 0);
    int len;
    uint8_t *old = make_crl(-600, -60, &len);
    const hsm_trust before = trust_of(one);
    CHECK(hsm_tls_add_crl(one, old, (size_t)len) == HSM_OK);
    CHECK(hsm_tls_add_crl(one, old, (size_t)len - 1) == HSM_E_BAD_INPUT && ERR_peek_error() == 0);
    OPENSSL_free(old);
    const hsm_trust after = trust_of(one);
    CHECK(after.crls == 1 && after.crls_until < (int64_t)time(NULL) && memcmp(before.digest, after.digest, 32) != 0);
    uint8_t *new = make_crl(-60, 600, &len);
    CHECK(hsm_tls_add_crl(one, new, (size_t)len) == HSM_OK);
    OPENSSL_free(new);
    CHECK(trust_of(one).crls == 2 && trust_of(one).crls_until > (int64_t)time(NULL));
    SSL_CTX_free(one);
    SSL_CTX_free(two);
}

static void another_openssl_is_told_apart(void)
{
    CHECK(hsm_tls_same_library(NULL));
    CHECK(!hsm_tls_same_library("/nonexistent"));
    CHECK(!hsm_tls_same_library("libm.so.6"));
}

int main(void)
{
    int passed = 0;
    ca = make("ca", NULL);
    web = make("web", &ca);
    shop = make("shop", &ca);
    RUN(the_chosen_context_makes_the_handshake);
    RUN(whoever_names_nobody_is_told_apart);
    RUN(an_alert_ends_it);
    RUN(the_chosen_context_says_who_is_verified);
    RUN(what_is_no_name_is_not_looked_up);
    RUN(trust_is_other_where_its_parts_are);
    RUN(another_openssl_is_told_apart);
    drop(&shop);
    drop(&web);
    drop(&ca);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
