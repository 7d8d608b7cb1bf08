/* Staples: sent while they hold, swapped while others shake hands, gone with their contexts; and what they are worth. */
#include <pthread.h>
#include <stdatomic.h>

#include "site.h"

static struct holder web;

/* What the client is given, copied to `out`: its length, 0 for nothing. */
static size_t given(SSL_CTX *server, SSL_CTX *client, uint8_t *out, size_t room)
{
    const struct ends ends = ends_of(server, client, NULL);
    int owner;
    SSL_set_app_data(ends.client, &owner);
    CHECK(shake(&ends));
    size_t len = room;
    const hsm_status status = hsm_wish_granted(client, &owner, out, &len);
    CHECK(status == HSM_OK || status == HSM_E_KEY_NOT_FOUND);
    close_ends(&ends);
    if (status == HSM_OK) {
        size_t again = room;
        CHECK(hsm_wish_granted(client, &owner, out, &again) == HSM_E_KEY_NOT_FOUND);
    }
    return status == HSM_OK ? len : 0;
}

static hsm_status put(SSL_CTX *server, const char *text, int64_t until)
{
    return hsm_staple_put(server, (const uint8_t *)text, strlen(text), until, web.der, (size_t)web.der_len);
}

static void an_answer_is_sent_while_it_holds(void)
{
    SSL_CTX *server = server_of(&web), *client = client_context();
    uint8_t out[64];
    const int64_t now = (int64_t)time(NULL);
    CHECK(hsm_wish_staples(client) == HSM_OK && hsm_wish_staples(client) == HSM_OK);
    CHECK(given(server, client, out, sizeof out) == 0);
    CHECK(put(server, "first", now + 600) == HSM_OK);
    CHECK(given(server, client, out, sizeof out) == 5 && memcmp(out, "first", 5) == 0);
    CHECK(put(server, "second", now + 600) == HSM_OK);
    CHECK(given(server, client, out, sizeof out) == 6 && memcmp(out, "second", 6) == 0);
    CHECK(put(server, "late", now - 1) == HSM_OK && given(server, client, out, sizeof out) == 0);
    CHECK(put(server, "again", now + 600) == HSM_OK && put(server, "", 0) == HSM_OK);
    CHECK(given(server, client, out, sizeof out) == 0);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}

static void an_answer_goes_with_its_certificate_only(void)
{
    struct holder other = make("other", &ca);
    SSL_CTX *server = server_of(&web), *client = client_context();
    uint8_t out[64];
    CHECK(hsm_wish_staples(client) == HSM_OK);
    CHECK(hsm_staple_put(server, out, 5, INT64_MAX, other.der, (size_t)other.der_len) == HSM_OK);
    CHECK(given(server, client, out, sizeof out) == 0);
    CHECK(hsm_staple_put(server, out, 5, INT64_MAX, other.der, 7) == HSM_E_BAD_INPUT);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    drop(&other);
}

static void a_buffer_that_is_too_small_is_told_what_is_needed(void)
{
    SSL_CTX *server = server_of(&web), *client = client_context();
    CHECK(hsm_wish_staples(client) == HSM_OK && put(server, "an answer", INT64_MAX) == HSM_OK);
    const struct ends ends = ends_of(server, client, NULL);
    SSL_set_app_data(ends.client, client);
    CHECK(shake(&ends));
    uint8_t out[9];
    size_t len = 8;
    CHECK(hsm_wish_granted(client, client, out, &len) == HSM_E_BUFFER && len == 9);
    CHECK(hsm_wish_granted(client, client, out, &len) == HSM_OK && len == 9);
    CHECK(hsm_wish_granted(client, server, out, &len) == HSM_E_KEY_NOT_FOUND);
    SSL_CTX_free(server);
    close_ends(&ends);
    SSL_CTX_free(client);
    size_t der_len = 1;
    server = server_of(&web);
    CHECK(hsm_tls_certificate(server, out, &der_len) == HSM_E_BUFFER && der_len == (size_t)web.der_len);
    SSL_CTX_free(server);
}

static void what_a_connection_was_given_outlives_its_context(void)
{
    SSL_CTX *server = server_of(&web), *client = client_context();
    CHECK(hsm_wish_staples(client) == HSM_OK && put(server, "an answer", INT64_MAX) == HSM_OK);
    const struct ends first = ends_of(server, client, NULL), second = ends_of(server, client, NULL);
    CHECK(shake(&first) && shake(&second));
    SSL_CTX_free(client); /* the connections hold it */
    SSL_CTX_free(server);
    close_ends(&first);
    close_ends(&second);
}

static atomic_int over;

static void *swap(void *server)
{
    for (int i = 0; !atomic_load(&over); i++)
        CHECK(put(server, i % 2 ? "one answer" : "another", INT64_MAX) == HSM_OK);
    return NULL;
}

static void *shake_hands(void *server)
{
    SSL_CTX *client = client_context();
    CHECK(hsm_wish_staples(client) == HSM_OK);
    for (int i = 0; i < 40; i++) {
        uint8_t out[64];
        const size_t len = given(server, client, out, sizeof out);
        CHECK((len == 10 && memcmp(out, "one answer", 10) == 0) || (len == 7 && memcmp(out, "another", 7) == 0));
    }
    SSL_CTX_free(client);
    return NULL;
}

static void answers_change_while_others_shake_hands(void)
{
    SSL_CTX *server = server_of(&web);
    pthread_t swapper, clients[3];
    CHECK(put(server, "another", INT64_MAX) == HSM_OK);
    CHECK(pthread_create(&swapper, NULL, swap, server) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&clients[i], NULL, shake_hands, server) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(clients[i], NULL) == 0);
    atomic_store(&over, 1);
    CHECK(pthread_join(swapper, NULL) == 0);
    SSL_CTX_free(server);
}

static hsm_answer check(const uint8_t *der, int len)
{
    hsm_answer said;
    CHECK(hsm_answer_check(der, (size_t)len, web.der, (size_t)web.der_len, ca.der, (size_t)ca.der_len,
                           (int64_t)time(NULL), &said) == HSM_OK);
    return said;
}

static void answers_are_judged(void)
{
    struct holder stranger = make("stranger", &ca);
    int len;
    uint8_t *good = answer_about(&web, &ca, V_OCSP_CERTSTATUS_GOOD, &len);
    CHECK(check(good, len).verdict == HSM_ANSWER_GOOD);
    for (int cut = 0; cut < len; cut++) /* whatever is missing, it is no good answer */
        CHECK(check(good, cut).verdict == HSM_ANSWER_MALFORMED);
    for (int at = 0; at < len; at++) {
        good[at] ^= 0x55;
        (void)check(good, len); /* some changes do not matter: the responder's name is not what is trusted */
        good[at] ^= 0x55;
    }
    hsm_answer said;
    CHECK(hsm_answer_check(good, (size_t)len, web.der, 9, ca.der, (size_t)ca.der_len, 0, &said) == HSM_E_BAD_INPUT);
    OPENSSL_free(good);
    uint8_t *revoked = answer_about(&web, &ca, V_OCSP_CERTSTATUS_REVOKED, &len);
    CHECK(check(revoked, len).verdict == HSM_ANSWER_REVOKED);
    OPENSSL_free(revoked);
    uint8_t *other = answer_about(&stranger, &ca, V_OCSP_CERTSTATUS_GOOD, &len);
    CHECK(check(other, len).verdict == HSM_ANSWER_OTHER);
    OPENSSL_free(other);
    uint8_t *forged = answer_about(&web, &stranger, V_OCSP_CERTSTATUS_GOOD, &len);
    CHECK(check(forged, len).verdict == HSM_ANSWER_FORGED);
    OPENSSL_free(forged);
    CHECK(ERR_peek_error() == 0);
    drop(&stranger);
}

int main(void)
{
    int passed = 0;
    ca = make("ca", NULL);
    web = make("web", &ca);
    RUN(an_answer_is_sent_while_it_holds);
    RUN(an_answer_goes_with_its_certificate_only);
    RUN(a_buffer_that_is_too_small_is_told_what_is_needed);
    RUN(what_a_connection_was_given_outlives_its_context);
    RUN(answers_change_while_others_shake_hands);
    RUN(answers_are_judged);
    drop(&web);
    drop(&ca);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
