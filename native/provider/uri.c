#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"

#define SCHEME "hsmsign:"
#define LONGEST 4096u

static int digit(char hex)
{
    if (hex >= '0' && hex <= '9')
        return hex - '0';
    const int low = hex | 0x20;
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* Percent-encoding undone, for OPENSSL_free; NULL: a bad one, a NUL within, or nothing at all. */
static char *decoded(const char *text, size_t len)
{
    char *out = len > 0 ? OPENSSL_zalloc(len + 1) : NULL;
    for (size_t i = 0, at = 0; out != NULL && i < len; i++, at++) {
        int byte = (unsigned char)text[i];
        if (byte == '%') {
            const int high = i + 2 < len ? digit(text[i + 1]) : -1, low = i + 2 < len ? digit(text[i + 2]) : -1;
            byte = high < 0 || low < 0 ? 0 : high << 4 | low;
            i += 2;
        }
        out[at] = (char)byte;
        if (byte == 0) {
            OPENSSL_free(out);
            return NULL;
        }
    }
    return out;
}

/* Each may be said once. */
static bool set(char **field, char *value)
{
    if (*field != NULL || value == NULL) {
        OPENSSL_free(value);
        return false;
    }
    *field = value;
    return true;
}

static bool set_deadline(struct hsm_reference *reference, const char *value)
{
    char *end = NULL;
    const unsigned long ms = value != NULL ? strtoul(value, &end, 10) : 0;
    if (ms < 1 || ms > HSM_REFERENCE_DEADLINE_MAX_MS || *end != '\0')
        return false;
    reference->deadline_ms = (uint32_t)ms;
    return true;
}

static bool set_verify(struct hsm_reference *reference, const char *value)
{
    reference->verify = value != NULL && strcmp(value, "yes") == 0;
    return reference->verify || (value != NULL && strcmp(value, "no") == 0);
}

static bool take(struct hsm_reference *reference, const char *name, size_t name_len, const char *text, size_t len)
{
    const struct {
        const char *name;
        char **field;
    } fields[] = {{"endpoint", &reference->endpoint},       {"ca", &reference->ca},   {"certificate", &reference->certificate},
                  {"server-name", &reference->server_name}, {"key", &reference->key}};
    char *value = decoded(text, len);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strlen(fields[i].name) == name_len && memcmp(fields[i].name, name, name_len) == 0)
            return set(fields[i].field, value);
    bool ok = false;
    if (name_len == strlen("deadline-ms") && memcmp(name, "deadline-ms", name_len) == 0)
        ok = set_deadline(reference, value);
    else if (name_len == strlen("verify") && memcmp(name, "verify", name_len) == 0)
        ok = set_verify(reference, value);
    OPENSSL_free(value);
    return ok;
}

static bool take_all(struct hsm_reference *reference, const char *query)
{
    while (*query != '\0') {
        const size_t len = strcspn(query, "&"), name_len = strcspn(query, "=");
        if (name_len >= len || !take(reference, query, name_len, query + name_len + 1, len - name_len - 1))
            return false;
        query += len + (query[len] == '&');
    }
    const int files = (reference->ca != NULL) + (reference->certificate != NULL) + (reference->key != NULL);
    return reference->endpoint != NULL && (files == 3 || (files == 0 && reference->server_name == NULL));
}

struct hsm_reference *hsm_reference_of_uri(const char *uri)
{
    if (strncmp(uri, SCHEME, strlen(SCHEME)) != 0 || strlen(uri) > LONGEST)
        return NULL;
    uri += strlen(SCHEME);
    const size_t name_len = strcspn(uri, "?");
    struct hsm_reference *reference = OPENSSL_zalloc(sizeof *reference);
    if (reference == NULL)
        return NULL;
    reference->deadline_ms = HSM_REFERENCE_DEADLINE_MS;
    reference->name = decoded(uri, name_len);
    if (reference->name != NULL && uri[name_len] == '?' && take_all(reference, uri + name_len + 1))
        return reference;
    hsm_reference_free(reference);
    return NULL;
}
