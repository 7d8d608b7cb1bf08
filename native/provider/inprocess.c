#include "inprocess.h"

#include <dlfcn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <string.h>

#include "provider.h"

/* The one thing that outlives every context: OSSL_PROVIDER_add_builtin hands no argument on. */
static const struct hsm_signer *given;

bool hsm_inprocess_is_shared_with(const char *path)
{
    int (*ours)(uint64_t, const OPENSSL_INIT_SETTINGS *) = OPENSSL_init_crypto;
    void *library = dlopen(path[0] != '\0' ? path : NULL, RTLD_LAZY | RTLD_NOLOAD), *theirs = NULL;
    if (library == NULL)
        return false;
    theirs = dlsym(library, "OPENSSL_init_crypto");
    const bool same = theirs != NULL && memcmp(&theirs, &ours, sizeof theirs) == 0;
    (void)dlclose(library);
    return same;
}

const char *hsm_inprocess_openssl(void)
{
    return OpenSSL_version(OPENSSL_VERSION);
}

static int init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *from_core, const OSSL_DISPATCH **out,
                void **context)
{
    return hsm_provider_init(core, from_core, out, context, given);
}

static bool fail(struct hsm_words *words)
{
    ERR_error_string_n(ERR_peek_last_error(), words->text, sizeof words->text);
    return false;
}

bool hsm_inprocess_is_taken(void)
{
    return OSSL_PROVIDER_available(NULL, HSM_PROVIDER_NAME) == 1;
}

bool hsm_inprocess_load(const struct hsm_signer *signer, struct hsm_words *words)
{
    words->text[0] = '\0';
    given = signer;
    /* the application's own come first: what is not ours is never to be looked for here */
    (void)OSSL_PROVIDER_available(NULL, "default");
    if (OSSL_PROVIDER_add_builtin(NULL, HSM_PROVIDER_NAME, init) != 1)
        return fail(words);
    if (OSSL_PROVIDER_try_load(NULL, HSM_PROVIDER_NAME, 1) == NULL)
        return fail(words);
    return true;
}

void hsm_inprocess_trouble(struct hsm_words *words)
{
    hsm_take_last_words(words);
}
