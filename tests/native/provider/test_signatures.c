/* Signatures through EVP: every algorithm and padding, in one piece, in pieces, of digests, by copied contexts; and
 * what happens where the daemon fails or lies. All are verified with OpenSSL's own keys. */
#include "tests/native/provider/world.h"

#include <openssl/core_names.h>

#define LONG (3u << 20) /* of which the daemon is told the digest alone */

struct kind {
    enum which which;
    const char *digest;
    bool pss;
};

static const struct kind kinds[] = {
    {P256, "SHA256", false},     {P384, "SHA384", false},     {P521, "SHA512", false},     {RSA_2048, "SHA256", false},
    {RSA_2048, "SHA384", false}, {RSA_2048, "SHA512", false}, {RSA_2048, "SHA256", true},  {RSA_2048, "SHA384", true},
    {RSA_2048, "SHA512", true},  {ED25519_KEY, NULL, false}};

#define EACH_KIND(kind) for (const struct kind *kind = kinds; kind < kinds + sizeof kinds / sizeof kinds[0]; kind++)

static uint8_t *text; /* of LONG bytes */

static bool set_pss(EVP_PKEY_CTX *context, int salt)
{
    return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(context, salt) == 1;
}

static bool is_signature(const struct kind *kind, const uint8_t *message, size_t len, const uint8_t *signature,
                         size_t signature_len)
{
    EVP_PKEY_CTX *context = NULL;
    EVP_MD_CTX *verifying = EVP_MD_CTX_new();
    CHECK(EVP_DigestVerifyInit_ex(verifying, &context, kind->digest, NULL, NULL, real_keys[kind->which], NULL) == 1);
    CHECK(!kind->pss || set_pss(context, RSA_PSS_SALTLEN_DIGEST));
    const bool ok = EVP_DigestVerify(verifying, signature, signature_len, message, len) == 1;
    EVP_MD_CTX_free(verifying);
    return ok;
}

static EVP_MD_CTX *start(const struct kind *kind, EVP_PKEY *key)
{
    EVP_PKEY_CTX *context = NULL;
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignInit_ex(signing, &context, kind->digest, world, NULL, key, NULL) == 1);
    CHECK(!kind->pss || set_pss(context, RSA_PSS_SALTLEN_DIGEST));
    return signing;
}

static void each_algorithm_signs_a_message_in_one_piece(void)
{
    static const size_t lengths[] = {0, 1, 1000, 1u << 20};
    EACH_KIND(kind) {
        EVP_PKEY *key = load_key(kind->which, kind->which == P384);
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            uint8_t signature[512];
            size_t len = 0;
            const int before = messages;
            EVP_MD_CTX *signing = start(kind, key);
            CHECK(EVP_DigestSign(signing, NULL, &len, text, lengths[i]) == 1);
            CHECK(len == (size_t)EVP_PKEY_get_size(key) && len <= sizeof signature && messages == before);
            CHECK(EVP_DigestSign(signing, signature, &len, text, lengths[i]) == 1);
            CHECK(is_signature(kind, text, lengths[i], signature, len));
            CHECK(messages == before + 1); /* the daemon saw the message */
            EVP_MD_CTX_free(signing);
        }
        EVP_PKEY_free(key);
    }
}

static void sign_in_pieces(const struct kind *kind, size_t len, size_t piece, bool verify)
{
    uint8_t signature[512];
    size_t signature_len = sizeof signature, at = 0;
    EVP_PKEY *key = load_key(kind->which, verify);
    EVP_MD_CTX *signing = start(kind, key);
    for (; at < len; at += piece)
        CHECK(EVP_DigestSignUpdate(signing, text + at, len - at < piece ? len - at : piece) == 1);
    CHECK(EVP_DigestSignFinal(signing, signature, &signature_len) == 1);
    CHECK(is_signature(kind, text, len, signature, signature_len));
    EVP_MD_CTX_free(signing);
    EVP_PKEY_free(key);
}

static void each_algorithm_but_ed25519_signs_in_pieces(void)
{
    EACH_KIND(kind) {
        if (kind->which == ED25519_KEY)
            continue;
        sign_in_pieces(kind, 1025, 1, false);
        sign_in_pieces(kind, 1u << 20, 1u << 18, true);
    }
}

static void of_a_long_message_the_digest_is_signed(void)
{
    EACH_KIND(kind) {
        if (kind->which == ED25519_KEY)
            continue;
        const int before = digests, messages_before = messages;
        sign_in_pieces(kind, LONG, 700001, false);
        sign_in_pieces(kind, LONG, LONG, true);
        sign_in_pieces(kind, (1u << 20) + 1, 1u << 20, true);
        CHECK(digests == before + 3 && messages == messages_before);
    }
}

static void a_long_message_in_one_piece_is_signed_and_checked(void)
{
    EACH_KIND(kind) {
        uint8_t signature[512];
        size_t len = sizeof signature;
        EVP_PKEY *key = load_key(kind->which, true);
        EVP_MD_CTX *signing = start(kind, key);
        const int ok = EVP_DigestSign(signing, signature, &len, text, LONG);
        if (kind->which == ED25519_KEY)
            CHECK(ok != 1 && was_said("Ed25519 signs messages of up to 1048576 bytes"));
        else
            CHECK(ok == 1 && is_signature(kind, text, LONG, signature, len));
        EVP_MD_CTX_free(signing);
        EVP_PKEY_free(key);
    }
}

/* At `at` bytes the context is copied: both go on, each its own way. */
static void copy_at(const struct kind *kind, size_t at, size_t len)
{
    uint8_t one[512], other[512];
    size_t one_len = sizeof one, other_len = sizeof other;
    EVP_PKEY *key = load_key(kind->which, true);
    EVP_MD_CTX *signing = start(kind, key), *copy = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignUpdate(signing, text, at) == 1);
    CHECK(EVP_MD_CTX_copy_ex(copy, signing) == 1);
    CHECK(EVP_DigestSignUpdate(signing, text + at, len - at) == 1);
    CHECK(EVP_DigestSignFinal(signing, one, &one_len) == 1);
    EVP_MD_CTX_free(signing);
    CHECK(EVP_DigestSignFinal(copy, other, &other_len) == 1);
    EVP_MD_CTX_free(copy);
    CHECK(is_signature(kind, text, len, one, one_len));
    CHECK(is_signature(kind, text, at, other, other_len));
    EVP_PKEY_free(key);
}

static void a_copied_context_goes_on_by_itself(void)
{
    EACH_KIND(kind) {
        if (kind->which == ED25519_KEY)
            continue;
        copy_at(kind, 0, 10);
        copy_at(kind, 100, 5000);
        copy_at(kind, 1000000, LONG);
        copy_at(kind, 2000000, LONG);
    }
}

static void each_algorithm_but_ed25519_signs_digests(void)
{
    EACH_KIND(kind) {
        uint8_t signature[512], digest[EVP_MAX_MD_SIZE];
        size_t digest_len = 0, len = 0;
        EVP_PKEY *key = load_key(kind->which, true);
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(world, key, NULL), *copy = NULL;
        if (kind->which == ED25519_KEY) {
            CHECK(EVP_PKEY_sign_init(context) != 1);
        } else {
            const EVP_MD *algorithm = EVP_get_digestbyname(kind->digest);
            CHECK(EVP_Q_digest(NULL, kind->digest, NULL, text, 1000, digest, &digest_len) == 1);
            CHECK(EVP_PKEY_sign_init(context) == 1 && EVP_PKEY_CTX_set_signature_md(context, algorithm) == 1);
            CHECK(!kind->pss || set_pss(context, RSA_PSS_SALTLEN_AUTO));
            CHECK((copy = EVP_PKEY_CTX_dup(context)) != NULL);
            CHECK(EVP_PKEY_sign(copy, NULL, &len, digest, digest_len) == 1 && len <= sizeof signature);
            CHECK(EVP_PKEY_sign(copy, signature, &len, digest, digest_len) == 1);
            CHECK(is_signature(kind, text, 1000, signature, len));
            len = sizeof signature;
            CHECK(EVP_PKEY_sign(context, signature, &len, digest, digest_len) == 1);
            CHECK(is_signature(kind, text, 1000, signature, len));
        }
        EVP_PKEY_CTX_free(copy);
        EVP_PKEY_CTX_free(context);
        EVP_PKEY_free(key);
        ERR_clear_error();
    }
}

static void the_key_verifies_what_it_signed_and_nothing_else(void)
{
    EACH_KIND(kind) {
        uint8_t signature[512];
        size_t len = sizeof signature;
        EVP_PKEY_CTX *context = NULL;
        EVP_PKEY *key = load_key(kind->which, false);
        EVP_MD_CTX *signing = start(kind, key);
        CHECK(EVP_DigestSign(signing, signature, &len, text, 100) == 1);
        for (int changed = 0; changed < 2; changed++) {
            EVP_MD_CTX *verifying = EVP_MD_CTX_new();
            CHECK(EVP_DigestVerifyInit_ex(verifying, &context, kind->digest, world, NULL, key, NULL) == 1);
            CHECK(!kind->pss || set_pss(context, RSA_PSS_SALTLEN_DIGEST));
            CHECK((EVP_DigestVerify(verifying, signature, len, text + changed, 100) == 1) == (changed == 0));
            EVP_MD_CTX_free(verifying);
        }
        EVP_MD_CTX_free(signing);
        EVP_PKEY_free(key);
        ERR_clear_error();
    }
}

static bool can_start(enum which which, const char *digest)
{
    EVP_PKEY *key = load_key(which, false);
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    const bool ok = EVP_DigestSignInit_ex(signing, NULL, digest, world, NULL, key, NULL) == 1;
    EVP_MD_CTX_free(signing);
    EVP_PKEY_free(key);
    return ok;
}

static void another_digest_is_refused_in_words(void)
{
    CHECK(!can_start(P256, "SHA384") && was_said("prime256v1 signs by SHA256 alone, not by SHA2-384"));
    CHECK(!can_start(P384, "SHA1") && was_said("alone, not by SHA1"));
    CHECK(!can_start(RSA_2048, "SHA1") && was_said("SHA-256, SHA-384 or SHA-512, not by SHA1"));
    CHECK(!can_start(RSA_2048, "SHA3-256") && was_said("not by SHA3-256"));
    CHECK(!can_start(ED25519_KEY, "SHA256"));
    CHECK(!can_start(SECP256K1, "SHA256") && was_said("the curve is secp256k1; it may be P-256, P-384 or P-521"));
    CHECK(can_start(P256, NULL) && can_start(RSA_2048, NULL));
    CHECK(can_start(P384, NULL));
    CHECK(can_start(P521, "sha2-512"));
    ERR_clear_error();
}

static bool can_sign(int padding, int salt, const char *mgf1)
{
    uint8_t signature[512];
    size_t len = sizeof signature;
    EVP_PKEY_CTX *context = NULL;
    EVP_PKEY *key = load_key(RSA_2048, true);
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignInit_ex(signing, &context, "SHA256", world, NULL, key, NULL) == 1);
    bool ok = EVP_PKEY_CTX_set_rsa_padding(context, padding) == 1;
    if (ok && padding == RSA_PKCS1_PSS_PADDING)
        ok = EVP_PKEY_CTX_set_rsa_pss_saltlen(context, salt) == 1 &&
             (mgf1 == NULL || EVP_PKEY_CTX_set_rsa_mgf1_md_name(context, mgf1, NULL) == 1);
    ok = ok && EVP_DigestSign(signing, signature, &len, text, 5) == 1;
    EVP_MD_CTX_free(signing);
    EVP_PKEY_free(key);
    return ok;
}

static void another_padding_is_refused_in_words(void)
{
    CHECK(can_sign(RSA_PKCS1_PADDING, 0, NULL));
    CHECK(can_sign(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, "SHA256"));
    CHECK(can_sign(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_AUTO, NULL));
    CHECK(can_sign(RSA_PKCS1_PSS_PADDING, 32, NULL));
    CHECK(!can_sign(RSA_PKCS1_PSS_PADDING, 20, NULL) && was_said("the salt of PSS is as long as the digest"));
    CHECK(!can_sign(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_MAX, NULL) && was_said("the salt of PSS"));
    CHECK(!can_sign(RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, "SHA512") && was_said("MGF1 hashes as"));
    CHECK(!can_sign(RSA_X931_PADDING, 0, NULL));
    CHECK(!can_sign(RSA_NO_PADDING, 0, NULL));
    ERR_clear_error();
}

/* In one piece, in pieces, of a digest. */
static bool signs(enum which which, bool verify, int way, size_t room)
{
    uint8_t *signature = malloc(room); /* of its exact size: so that a byte too far is seen */
    uint8_t digest[32] = {1};
    size_t len = room;
    EVP_PKEY *key = load_key(which, verify);
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(world, key, NULL);
    CHECK(signature != NULL && EVP_DigestSignInit_ex(signing, NULL, "SHA256", world, NULL, key, NULL) == 1);
    CHECK(EVP_PKEY_sign_init(context) == 1 && EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) == 1);
    bool ok = false;
    if (way == 0)
        ok = EVP_DigestSign(signing, signature, &len, text, 5) == 1;
    else if (way == 1)
        ok = EVP_DigestSignUpdate(signing, text, LONG) == 1 && EVP_DigestSignFinal(signing, signature, &len) == 1;
    else
        ok = EVP_PKEY_sign(context, signature, &len, digest, sizeof digest) == 1;
    CHECK(!ok || (len > 0 && len <= room));
    EVP_PKEY_CTX_free(context);
    EVP_MD_CTX_free(signing);
    EVP_PKEY_free(key);
    free(signature);
    return ok;
}

static void a_daemon_that_fails_or_lies_makes_no_signature(void)
{
    for (int way = 0; way < 3; way++) {
        fault = SIGN_FAILS;
        CHECK(!signs(P256, false, way, 80) && was_said("keys/p256: the test's daemon does not sign"));
        fault = SIGN_IS_EMPTY;
        CHECK(!signs(P256, false, way, 80) && was_said("is no signature by the key of the reference"));
        fault = SIGN_IS_TOO_LONG;
        CHECK(!signs(P256, false, way, 80) && was_said("is no signature by the key of the reference"));
        fault = SIGN_IS_NOISE;
        CHECK(!signs(P256, true, way, 80) && was_said("is no signature by the key of the reference"));
        fault = SIGN_BY_ANOTHER;
        CHECK(!signs(P256, true, way, 80) && was_said("was the key made anew? write the reference again"));
        CHECK(signs(P256, false, way, 80)); /* unless it is not asked for */
        fault = NONE;
        CHECK(signs(P256, true, way, 80) && signs(P256, false, way, 72) && signs(RSA_2048, true, way, 256));
        ERR_clear_error();
    }
}

static void too_little_room_is_an_error(void)
{
    for (int way = 0; way < 3; way++) {
        const int before = messages + digests;
        CHECK(!signs(P256, false, way, 71) && !signs(RSA_2048, false, way, 255));
        CHECK(messages + digests == before); /* nobody was asked */
        ERR_clear_error();
    }
}

static void a_public_key_alone_does_not_sign(void)
{
    EVP_PKEY *key = load_key(P256, false), *half = NULL;
    OSSL_PARAM *params = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(world, "EC", "provider=hsmsign");
    CHECK(EVP_PKEY_todata(key, EVP_PKEY_PUBLIC_KEY, &params) == 1);
    CHECK(EVP_PKEY_fromdata_init(context) == 1);
    CHECK(EVP_PKEY_fromdata(context, &half, EVP_PKEY_PUBLIC_KEY, params) == 1);
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    CHECK(EVP_DigestSignInit_ex(signing, NULL, "SHA256", world, "provider=hsmsign", half, NULL) != 1);
    CHECK(was_said("this is a public key alone"));
    uint8_t signature[128];
    size_t len = sizeof signature; /* an application that does not look at what the start said */
    CHECK(EVP_DigestSign(signing, signature, &len, text, 7) != 1);
    CHECK(EVP_DigestSignUpdate(signing, text, 7) != 1 || EVP_DigestSignFinal(signing, signature, &len) != 1);
    EVP_MD_CTX_free(signing);
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(half);
    EVP_PKEY_free(key);
    ERR_clear_error();
}

static void a_context_is_used_again_and_again(void)
{
    EVP_PKEY *keys[] = {load_key(P256, true), load_key(RSA_2048, true)};
    const struct kind *of[] = {&kinds[0], &kinds[3]};
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    for (int i = 0; i < 4; i++) {
        uint8_t signature[512];
        size_t len = sizeof signature;
        CHECK(EVP_MD_CTX_reset(signing) == 1);
        CHECK(EVP_DigestSignInit_ex(signing, NULL, "SHA256", world, NULL, keys[i % 2], NULL) == 1);
        CHECK(EVP_DigestSignUpdate(signing, text, i == 3 ? LONG : 7) == 1);
        CHECK(EVP_DigestSignInit_ex(signing, NULL, NULL, NULL, NULL, NULL, NULL) == 1); /* from the start */
        CHECK(EVP_DigestSignUpdate(signing, text, 9) == 1 && EVP_DigestSignFinal(signing, signature, &len) == 1);
        CHECK(is_signature(of[i % 2], text, 9, signature, len));
    }
    EVP_MD_CTX_free(signing);
    EVP_PKEY_free(keys[0]);
    EVP_PKEY_free(keys[1]);
}

int main(void)
{
    int passed = 0;
    open_world();
    text = malloc(LONG);
    CHECK(text != NULL);
    for (size_t i = 0; i < LONG; i++)
        text[i] = (uint8_t)(i * 7 + i / 251);
    RUN(each_algorithm_signs_a_message_in_one_piece);
    RUN(each_algorithm_but_ed25519_signs_in_pieces);
    RUN(of_a_long_message_the_digest_is_signed);
    RUN(a_long_message_in_one_piece_is_signed_and_checked);
    RUN(a_copied_context_goes_on_by_itself);
    RUN(each_algorithm_but_ed25519_signs_digests);
    RUN(the_key_verifies_what_it_signed_and_nothing_else);
    RUN(another_digest_is_refused_in_words);
    RUN(another_padding_is_refused_in_words);
    RUN(a_daemon_that_fails_or_lies_makes_no_signature);
    RUN(too_little_room_is_an_error);
    RUN(a_public_key_alone_does_not_sign);
    RUN(a_context_is_used_again_and_again);
    free(text);
    close_world();
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
