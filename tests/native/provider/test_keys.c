/* How keys come in (PEM, DER, URI), what can be seen of them, and what is refused. */
#include "tests/native/provider/world.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>

static const enum which kinds[] = {P256, P384, P521, RSA_2048, ED25519_KEY};

#define EACH_KIND(i) for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)

/* The key of another provider, as a certificate brings it. */
static EVP_PKEY *public_half(enum which which)
{
    unsigned char *der = NULL;
    const int len = i2d_PUBKEY(real_keys[which], &der);
    const unsigned char *at = der;
    EVP_PKEY *key = d2i_PUBKEY_ex(NULL, &at, len, world, "provider=default");
    OPENSSL_free(der);
    CHECK(key != NULL);
    return key;
}

static EVP_PKEY *load_pem(enum which which)
{
    uint8_t *der = NULL;
    const size_t len = write_reference(which, false, &der);
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(bio != NULL && PEM_write_bio(bio, HSM_REFERENCE_LABEL, "", der, (long)len) > 0);
    EVP_PKEY *key = PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, world, NULL);
    BIO_free(bio);
    OPENSSL_free(der);
    return key;
}

static EVP_PKEY *load_uri(const char *uri)
{
    EVP_PKEY *key = NULL;
    OSSL_STORE_CTX *store = OSSL_STORE_open_ex(uri, world, NULL, NULL, NULL, NULL, NULL, NULL);
    while (store != NULL && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);
        if (info != NULL && OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY) {
            CHECK(key == NULL);
            key = OSSL_STORE_INFO_get1_PKEY(info);
        }
        OSSL_STORE_INFO_free(info);
    }
    if (store != NULL)
        (void)OSSL_STORE_close(store);
    return key;
}

static void is_like(EVP_PKEY *key, enum which which)
{
    EVP_PKEY *half = public_half(which);
    CHECK(key != NULL && EVP_PKEY_eq(key, half) == 1 && EVP_PKEY_eq(half, key) == 1);
    CHECK(EVP_PKEY_eq(key, real_keys[which == OTHER_P256 ? P256 : OTHER_P256]) != 1);
    CHECK(EVP_PKEY_get_bits(key) == EVP_PKEY_get_bits(half));
    CHECK(EVP_PKEY_get_size(key) == EVP_PKEY_get_size(half));
    CHECK(EVP_PKEY_get_security_bits(key) == EVP_PKEY_get_security_bits(half));
    EVP_PKEY_free(half);
    ERR_clear_error();
}

static void each_kind_is_loaded_from_der_and_pem(void)
{
    EACH_KIND(i) {
        EVP_PKEY *from_der = load_key(kinds[i], false), *from_pem = load_pem(kinds[i]);
        is_like(from_der, kinds[i]);
        is_like(from_pem, kinds[i]);
        CHECK(EVP_PKEY_eq(from_der, from_pem) == 1);
        EVP_PKEY_free(from_der);
        EVP_PKEY_free(from_pem);
    }
}

static void each_kind_is_loaded_by_its_uri(void)
{
    char uri[128];
    EACH_KIND(i) {
        (void)snprintf(uri, sizeof uri, "hsmsign:%s?endpoint=unix:///nowhere", key_names[kinds[i]]);
        EVP_PKEY *key = load_uri(uri);
        is_like(key, kinds[i]);
        EVP_PKEY_free(key);
    }
    EVP_PKEY *key = load_uri("hsmsign:keys%2fp256?endpoint=unix%3a%2F%2F/nowhere&deadline-ms=100&verify=yes");
    is_like(key, P256);
    EVP_PKEY_free(key);
}

static void a_bad_uri_is_refused_in_words(void)
{
    static const char *const bad[] = {"hsmsign:", "hsmsign:keys/p256", "hsmsign:keys/p256?", "hsmsign:?endpoint=x",
                                      "hsmsign:keys/p256?endpoint=", "hsmsign:keys/p256?endpoint=x&endpoint=y",
                                      "hsmsign:keys/p256?endpoint=x&ca=y", "hsmsign:keys/p256?endpoint=x&server-name=y",
                                      "hsmsign:keys/p256?endpoint=%", "hsmsign:keys/p256?endpoint=%4",
                                      "hsmsign:keys/p256?endpoint=%00", "hsmsign:keys/p256%0a?endpoint=x",
                                      "hsmsign:keys/p256%7f?endpoint=x", "hsmsign:keys/p256?endpoint=%zz",
                                      "hsmsign:keys/p256?endpoint=x&deadline-ms=0",
                                      "hsmsign:keys/p256?endpoint=x&deadline-ms=600001",
                                      "hsmsign:keys/p256?endpoint=x&deadline-ms=1x",
                                      "hsmsign:keys/p256?endpoint=x&deadline-ms=-18446744073709551615",
                                      "hsmsign:keys/p256?endpoint=x&deadline-ms=%201",
                                      "hsmsign:keys/p256?endpoint=x&verify=maybe", "hsmsign:keys/p256?endpoint=x&other=y",
                                      "hsmsign:keys/p256?endpoint=x&verify", "hsmsign:keys/p256?&endpoint=x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        EVP_PKEY *key = load_uri(bad[i]);
        if (key != NULL || !was_said("it looks like hsmsign:"))
            (void)fprintf(stderr, "  %s\n", bad[i]);
        CHECK(key == NULL);
    }
}

static void what_the_daemon_says_of_a_key_is_checked(void)
{
    static const enum fault faults[] = {OPEN_FAILS, PUBLIC_FAILS, PUBLIC_IS_TOO_LONG, PUBLIC_IS_NOISE};
    static const char *const words[] = {"has no such key", "does not know it", "is none of EC", "is none of EC"};
    for (size_t i = 0; i < 4; i++) {
        fault = (int)faults[i];
        CHECK(load_uri("hsmsign:keys/p256?endpoint=unix:///nowhere") == NULL);
        CHECK(was_said(words[i]));
    }
    fault = NONE;
    CHECK(load_uri("hsmsign:keys/none?endpoint=unix:///nowhere") == NULL && was_said("keys/none"));
}

static void a_key_of_another_kind_is_refused(void)
{
    EVP_PKEY *dsa_like = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    EVP_PKEY *kept = real_keys[P256];
    uint8_t *der = NULL;
    real_keys[P256] = dsa_like;
    const size_t len = write_reference(P256, false, &der);
    CHECK(load_bytes(der, len) == NULL && was_said("is none of EC, RSA, Ed25519"));
    real_keys[P256] = kept;
    OPENSSL_free(der);
    EVP_PKEY_free(dsa_like);
}

/* The private part is not in this process: whoever asks for it gets an error, not a public key that looks private. */
static void nothing_private_comes_out(void)
{
    EACH_KIND(i) {
        EVP_PKEY *key = load_key(kinds[i], false);
        BIGNUM *number = NULL;
        unsigned char raw[256], *der = NULL;
        size_t len = sizeof raw;
        OSSL_PARAM *params = NULL;
        CHECK(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &number) != 1 && number == NULL);
        CHECK(EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_D, &number) != 1 && number == NULL);
        CHECK(EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PRIV_KEY, raw, sizeof raw, &len) != 1);
        len = sizeof raw;
        CHECK(EVP_PKEY_get_raw_private_key(key, raw, &len) != 1);
        CHECK(i2d_PrivateKey(key, &der) <= 0 && der == NULL);
        CHECK(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params) != 1 && params == NULL);
        BIO *bio = BIO_new(BIO_s_mem());
        CHECK(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1);
        CHECK(BIO_ctrl_pending(bio) == 0);
        BIO_free(bio);
        EVP_PKEY_free(key);
        ERR_clear_error();
    }
}

static void what_is_public_comes_out_as_that_of_the_certificate(void)
{
    EACH_KIND(i) {
        EVP_PKEY *key = load_key(kinds[i], false);
        unsigned char *ours = NULL, *theirs = NULL;
        const int ours_len = i2d_PUBKEY(key, &ours), theirs_len = i2d_PUBKEY(real_keys[kinds[i]], &theirs);
        CHECK(ours_len > 0 && ours_len == theirs_len && memcmp(ours, theirs, (size_t)ours_len) == 0);
        OPENSSL_free(ours);
        OPENSSL_free(theirs);
        EVP_PKEY_free(key);
    }
}

static void a_certificate_of_the_key_fits_and_another_does_not(void)
{
    EACH_KIND(i) {
        EVP_PKEY *key = load_key(kinds[i], false), *half = public_half(kinds[i]), *other = public_half(OTHER_P256);
        X509 *own = X509_new_ex(world, NULL), *strange = X509_new_ex(world, NULL);
        CHECK(X509_set_pubkey(own, half) == 1 && X509_set_pubkey(strange, other) == 1);
        CHECK(X509_check_private_key(own, key) == 1);
        CHECK(X509_check_private_key(strange, key) != 1);
        X509_free(own);
        X509_free(strange);
        EVP_PKEY_free(key);
        EVP_PKEY_free(half);
        EVP_PKEY_free(other);
        ERR_clear_error();
    }
}

static void two_keys_on_one_curve_have_the_same_parameters(void)
{
    EVP_PKEY *one = load_key(P256, false), *other = load_key(OTHER_P256, false), *far = load_key(P384, false);
    CHECK(EVP_PKEY_eq(one, other) == 0);
    CHECK(EVP_PKEY_parameters_eq(one, other) == 1);
    CHECK(EVP_PKEY_parameters_eq(one, far) != 1);
    EVP_PKEY_free(one);
    EVP_PKEY_free(other);
    EVP_PKEY_free(far);
    ERR_clear_error();
}

static void a_copy_of_a_key_outlives_it(void)
{
    EACH_KIND(i) {
        const int before = closed;
        uint8_t signature[512];
        size_t len = sizeof signature;
        EVP_PKEY *key = load_key(kinds[i], false), *copy = EVP_PKEY_dup(key);
        EVP_MD_CTX *signing = EVP_MD_CTX_new();
        EVP_PKEY_free(key);
        CHECK(copy != NULL && closed == before);
        is_like(copy, kinds[i]);
        CHECK(EVP_DigestSignInit_ex(signing, NULL, NULL, world, NULL, copy, NULL) == 1);
        CHECK(EVP_DigestSign(signing, signature, &len, (const uint8_t *)"x", 1) == 1);
        EVP_PKEY_free(copy);
        CHECK(closed == before); /* the context has it still */
        EVP_MD_CTX_free(signing);
        CHECK(closed == before + 1);
    }
}

static void other_keys_are_left_to_others(void)
{
    unsigned char *der = NULL;
    const int len = i2d_PrivateKey(real_keys[P256], &der);
    const int before = opened;
    EVP_PKEY *key = load_bytes(der, (size_t)len);
    CHECK(key != NULL && opened == before);
    CHECK(strcmp(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(key)), "default") == 0);
    OPENSSL_free(der);
    EVP_PKEY_free(key);
}

/* With a certificate beside it no change goes unnoticed: what is loaded has the public key, or fits nothing. */
static void try_changed(const uint8_t *bytes, size_t len, EVP_PKEY *certified, int *loaded, int *strange)
{
    EVP_PKEY *key = load_bytes(bytes, len);
    if (key == NULL) {
        ERR_clear_error();
        return;
    }
    *loaded += 1;
    if (EVP_PKEY_eq(key, certified) != 1)
        *strange += 1;
    EVP_PKEY_free(key);
    ERR_clear_error();
}

static void a_cut_reference_is_none(void)
{
    EACH_KIND(i) {
        uint8_t *der = NULL;
        int loaded = 0, strange = 0;
        const size_t len = write_reference(kinds[i], false, &der);
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *exact = OPENSSL_memdup(der, cut == 0 ? 1 : cut); /* so that a byte too far is seen */
            try_changed(exact, cut, real_keys[kinds[i]], &loaded, &strange);
            OPENSSL_free(exact);
        }
        CHECK(loaded == 0);
        OPENSSL_free(der);
    }
}

static void a_changed_reference_is_none_or_has_its_key_or_fits_nothing(void)
{
    EACH_KIND(i) {
        uint8_t *der = NULL;
        int loaded = 0, strange = 0;
        EVP_PKEY *half = public_half(kinds[i]);
        const size_t len = write_reference(kinds[i], false, &der);
        const uint8_t changes[] = {0x01, 0x80, 0xff};
        for (size_t at = 0; at < len; at++)
            for (size_t change = 0; change < sizeof changes; change++) {
                der[at] ^= changes[change];
                try_changed(der, len, half, &loaded, &strange);
                der[at] ^= changes[change];
            }
        CHECK(loaded > 0);                                                /* the deadline may be another */
        CHECK(strange == 0 || kinds[i] == RSA_2048 || kinds[i] == ED25519_KEY); /* not a point of the curve */
        OPENSSL_free(der);
        EVP_PKEY_free(half);
    }
}

/* They go into logs. */
static void words_with_control_characters_are_refused(void)
{
    char name[] = "keys/p256", endpoint[] = "unix:///nowhere";
    uint8_t public_key[] = {1}, *der = NULL;
    struct hsm_reference reference = {.name = name, .endpoint = endpoint, .deadline_ms = 1, .public_key = public_key,
                                      .public_key_len = sizeof public_key};
    const size_t len = hsm_reference_write(&reference, &der);
    struct hsm_reference *again = hsm_reference_read(der, len);
    CHECK(again != NULL);
    hsm_reference_free(again);
    for (size_t at = 0; at + strlen(name) <= len; at++)
        if (memcmp(der + at, name, strlen(name)) == 0)
            der[at] = '\n';
    CHECK(hsm_reference_read(der, len) == NULL);
    OPENSSL_free(der);
    name[3] = '\x1b';
    CHECK(hsm_reference_write(&reference, &der) == 0 && der == NULL);
}

static void a_reference_in_pem_that_is_cut_is_pointed_at(void)
{
    uint8_t *der = NULL;
    const size_t len = write_reference(P256, false, &der);
    BIO *bio = BIO_new(BIO_s_mem());
    struct hsm_words words;
    CHECK(PEM_write_bio(bio, HSM_REFERENCE_LABEL, "", der, (long)len - 1) > 0);
    hsm_take_last_words(&words);
    CHECK(PEM_read_bio_PrivateKey_ex(bio, NULL, NULL, NULL, world, NULL) == NULL);
    hsm_take_last_words(&words);
    CHECK(strstr(words.text, "is cut or altered") != NULL);
    hsm_take_last_words(&words);
    CHECK(words.text[0] == '\0');
    BIO_free(bio);
    OPENSSL_free(der);
    ERR_clear_error();
}

static void what_does_not_fit_is_refused(void)
{
    char group[32];
    unsigned char point[80];
    size_t len = 0;
    EVP_PKEY *key = load_pem(P256);
    CHECK(EVP_PKEY_get_group_name(key, group, strlen("prime256v1") + 1, &len) == 1 && strcmp(group, "prime256v1") == 0);
    memset(group, 'x', sizeof group);
    CHECK(EVP_PKEY_get_group_name(key, group, 8, &len) != 1 && group[8] == 'x' && group[10] == 'x');
    CHECK(EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, 65, &len) == 1 && len == 65);
    CHECK(EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, 64, &len) != 1);
    EVP_PKEY_free(key);
    ERR_clear_error();
}

int main(void)
{
    int passed = 0;
    open_world();
    RUN(each_kind_is_loaded_from_der_and_pem);
    RUN(each_kind_is_loaded_by_its_uri);
    RUN(a_bad_uri_is_refused_in_words);
    RUN(what_the_daemon_says_of_a_key_is_checked);
    RUN(a_key_of_another_kind_is_refused);
    RUN(nothing_private_comes_out);
    RUN(what_is_public_comes_out_as_that_of_the_certificate);
    RUN(a_certificate_of_the_key_fits_and_another_does_not);
    RUN(two_keys_on_one_curve_have_the_same_parameters);
    RUN(a_copy_of_a_key_outlives_it);
    RUN(other_keys_are_left_to_others);
    RUN(a_cut_reference_is_none);
    RUN(a_changed_reference_is_none_or_has_its_key_or_fits_nothing);
    RUN(words_with_control_characters_are_refused);
    RUN(a_reference_in_pem_that_is_cut_is_pointed_at);
    RUN(what_does_not_fit_is_refused);
    close_world();
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
