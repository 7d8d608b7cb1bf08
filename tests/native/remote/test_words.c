/* What is checked before anything is sent: endpoints, orders, checksums, words. */
#include <string.h>

#include <openssl/err.h>

#include "native/provider/remote/crc32c.h"
#include "native/provider/remote/errors.h"
#include "native/provider/remote/message.h"
#include "tests/native/host/check.h"

static struct hsm_remote_trouble trouble;

/* RFC 3720, appendix B.4 */
static void checksums_are_those_of_the_rfc(void)
{
    uint8_t bytes[32] = {0};
    CHECK(hsm_crc32c(bytes, 32) == 0x8a9136aau);
    memset(bytes, 0xff, 32);
    CHECK(hsm_crc32c(bytes, 32) == 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    CHECK(hsm_crc32c(bytes, 32) == 0x46dd794eu);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    CHECK(hsm_crc32c(bytes, 32) == 0x113fdb5cu);
    CHECK(hsm_crc32c((const uint8_t *)"123456789", 9) == 0xe3069283u);
}

static hsm_status open_(const char *target, const char *file, const char *server_name, uint32_t deadline_ms)
{
    const hsm_remote_endpoint endpoint = {target, file, file, file, server_name, deadline_ms};
    hsm_remote *remote = NULL;
    const hsm_status status = hsm_remote_open(&endpoint, &remote, &trouble);
    CHECK((status == HSM_OK) == (remote != NULL));
    CHECK((status == HSM_OK) == (trouble.words[0] == '\0'));
    hsm_remote_close(remote);
    return status;
}

static void endpoints_that_cannot_work_are_refused_in_words(void)
{
    static char deep[200] = "unix:///";
    CHECK(open_("unix:///run/hsmsign/hsmsign.sock", NULL, NULL, 1) == HSM_OK);
    CHECK(open_("dns:///sign.internal:7443", "x.pem", NULL, 1) == HSM_OK);
    CHECK(open_("dns:///[::1]:7443", "x.pem", "sign.internal", 1) == HSM_OK);
    CHECK(open_(NULL, NULL, NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("", NULL, NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("unix:///", NULL, NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("unix:///a", NULL, NULL, 0) == HSM_E_BAD_INPUT);
    CHECK(open_("unix:///a", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("http://a:1", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///a:1", NULL, NULL, 1) == HSM_E_BAD_INPUT && strstr(trouble.words, "PEM") != NULL);
    CHECK(open_("dns:///a", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///a:0", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///a:65536", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///:1", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///::1:1", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///a b:1", "x.pem", NULL, 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///a:1", "x.pem", "a b", 1) == HSM_E_BAD_INPUT);
    CHECK(open_("dns:///a:1", "", NULL, 1) == HSM_E_BAD_INPUT);
    memset(deep + 8, 'd', 107);
    CHECK(open_(deep, NULL, NULL, 1) == HSM_E_BAD_INPUT && strstr(trouble.words, "107") != NULL);
    deep[8 + 106] = '\0'; /* with its slash 107 bytes */
    CHECK(open_(deep, NULL, NULL, 1) == HSM_OK);
}

static void an_order_without_a_name_is_refused(void)
{
    struct hsm_why why;
    uint8_t *message = NULL;
    size_t len = 0;
    char name[129] = "";
    hsm_remote_order order = {name, 1, false, (const uint8_t *)"x", 1};
    CHECK(hsm_message_write(&order, &message, &len, &why) == HSM_E_BAD_INPUT && message == NULL);
    memset(name, 'k', 128);
    CHECK(hsm_message_write(&order, &message, &len, &why) == HSM_E_BAD_INPUT);
    order.name = NULL;
    CHECK(hsm_message_write(&order, &message, &len, &why) == HSM_E_BAD_INPUT);
}

static void a_request_is_what_the_proto_says(void)
{
    static const uint8_t wanted[] = {0, 0, 0, 0, 25, 0x0a, 6, 'k', 'e', 'y', 's', '/', 'a', 0x10, 1, 0x22, 9,
                                     '1', '2', '3', '4', '5', '6', '7', '8', '9', 0x2d, 0x83, 0x92, 0x06, 0xe3};
    struct hsm_why why;
    uint8_t *message = NULL;
    size_t len = 0;
    const hsm_remote_order order = {"keys/a", 1, true, (const uint8_t *)"123456789", 9};
    CHECK(hsm_message_write(&order, &message, &len, &why) == HSM_OK);
    CHECK(len == sizeof wanted + (size_t)0 && message[4] == len - 5);
    CHECK(memcmp(message + 5, wanted + 5, len - 5) == 0);
    free(message);
}

static void words_are_cut_at_a_whole_character(void)
{
    struct hsm_why why;
    char words[8];
    hsm_words_decode("abcdef%C3%A9", 12, words, sizeof words);
    CHECK(strcmp(words, "abcdef") == 0);
    hsm_words_decode("a%C3%A9%00%0a%zz%4", 18, words, sizeof words);
    CHECK(strcmp(words, "a\xc3\xa9??%z") == 0);
    CHECK(hsm_why_final(&why, HSM_E_IO, "%300s", "\n") == HSM_E_IO);
    CHECK(strlen(why.trouble.words) == sizeof why.trouble.words - 1);
}

static void the_applications_errors_stay_as_they_were(void)
{
    struct hsm_errors_aside aside;
    const char *data = NULL;
    int flags = 0;
    ERR_clear_error();
    ERR_raise_data(ERR_LIB_USER, 7, "mine");
    ERR_raise(ERR_LIB_USER, 8);
    hsm_errors_set_aside(&aside);
    CHECK(ERR_peek_error() == 0);
    ERR_raise(ERR_LIB_USER, 9);
    hsm_errors_put_back(&aside);
    CHECK(ERR_GET_REASON(ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) == 7 && strcmp(data, "mine") == 0);
    CHECK(ERR_GET_REASON(ERR_get_error()) == 8 && ERR_get_error() == 0);
}

int main(void)
{
    int passed = 0;
    RUN(checksums_are_those_of_the_rfc);
    RUN(endpoints_that_cannot_work_are_refused_in_words);
    RUN(an_order_without_a_name_is_refused);
    RUN(a_request_is_what_the_proto_says);
    RUN(words_are_cut_at_a_whole_character);
    RUN(the_applications_errors_stay_as_they_were);
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
