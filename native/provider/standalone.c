/* hsmsign.so: the provider with a client of its own, for programs that load it by openssl.cnf. */
#include <stdio.h>
#include <string.h>

#include "provider.h"
#include "remote/remote.h"

/* A key's own way to its daemon: connections are made at the first signature, by each process its own. */
struct opened {
    const struct hsm_reference *reference;
    hsm_remote *remote;
};

static hsm_status say(hsm_status status, const struct hsm_remote_trouble *trouble, struct hsm_words *words)
{
    memcpy(words->text, trouble->words, sizeof words->text);
    return status;
}

_Static_assert(sizeof((struct hsm_words *)0)->text == sizeof((struct hsm_remote_trouble *)0)->words, "one length");

static hsm_status open_remote(const struct hsm_reference *reference, void **out, struct hsm_words *words)
{
    struct hsm_remote_trouble trouble = {""};
    const hsm_remote_endpoint endpoint = {.target = reference->endpoint,
                                          .ca = reference->ca,
                                          .certificate = reference->certificate,
                                          .key = reference->key,
                                          .server_name = reference->server_name,
                                          .deadline_ms = reference->deadline_ms};
    struct opened *opened = OPENSSL_zalloc(sizeof *opened);
    if (opened == NULL)
        return HSM_E_NO_MEMORY;
    opened->reference = reference;
    const hsm_status status = hsm_remote_open(&endpoint, &opened->remote, &trouble);
    if (status == HSM_OK)
        *out = opened;
    else
        OPENSSL_free(opened);
    return say(status, &trouble, words);
}

static hsm_status sign_remote(void *context, const struct hsm_wish *wish, uint8_t *signature, size_t *len,
                              struct hsm_words *words)
{
    const struct opened *opened = context;
    struct hsm_remote_trouble trouble = {""};
    const hsm_remote_order order = {opened->reference->name, wish->scheme, wish->is_message, wish->input, wish->input_len};
    return say(hsm_remote_sign(opened->remote, &order, signature, len, &trouble), &trouble, words);
}

static hsm_status ask_public_key(void *context, uint8_t *der, size_t *len, struct hsm_version *version,
                                 struct hsm_words *words)
{
    const struct opened *opened = context;
    struct hsm_remote_trouble trouble = {""};
    return say(hsm_remote_public_key(opened->remote, opened->reference->name, der, len, version->name, &trouble), &trouble, words);
}

static void close_remote(void *context)
{
    struct opened *opened = context;
    hsm_remote_close(opened->remote);
    OPENSSL_free(opened);
}

static const struct hsm_signer remote_signer = {open_remote, sign_remote, ask_public_key, close_remote};

__attribute__((visibility("default"))) OSSL_provider_init_fn OSSL_provider_init;

int OSSL_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *from_core, const OSSL_DISPATCH **out,
                       void **context)
{
    return hsm_provider_init(core, from_core, out, context, &remote_signer);
}
