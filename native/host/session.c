#include "session.h"

#include "../core/clock.h"

static void begin_lookup(struct hsm_session *session)
{
    if (session->lookups == NULL)
        return;
    /* making a large RSA key may take longer than the host's watchdog allows a signature */
    atomic_store_explicit(session->active_since, 0, memory_order_relaxed);
    (void)pthread_rwlock_rdlock(session->lookups);
    atomic_store_explicit(session->active_since, hsm_now_ns(), memory_order_relaxed);
}

static void end_lookup(struct hsm_session *session)
{
    if (session->lookups != NULL)
        (void)pthread_rwlock_unlock(session->lookups);
}

static bool token_logged_in(struct hsm_session *session)
{
    CK_SESSION_INFO info;
    if (session->module->C_GetSessionInfo(session->handle, &info) != CKR_OK)
        return false;
    return info.state == CKS_RO_USER_FUNCTIONS || info.state == CKS_RW_USER_FUNCTIONS;
}

CK_RV hsm_session_open(struct hsm_session *session)
{
    hsm_session_close(session);
    begin_lookup(session);
    CK_RV rv = session->module->C_OpenSession(session->slot, CKF_SERIAL_SESSION, NULL, NULL, &session->handle);
    session->open = rv == CKR_OK;
    const bool was_logged_in = session->logged_in;
    if (session->open)
        session->logged_in = token_logged_in(session);
    if (session->open && was_logged_in && !session->logged_in) {
        /* the login went with the old session: without it the token only hides its keys */
        (void)session->module->C_CloseSession(session->handle);
        session->open = false;
        session->logged_in = true; /* still what is to be expected */
        rv = CKR_USER_NOT_LOGGED_IN;
    }
    end_lookup(session);
    return rv;
}

void hsm_session_close(struct hsm_session *session)
{
    if (session->open) {
        begin_lookup(session);
        (void)session->module->C_CloseSession(session->handle); /* it may be gone already, which is as good */
        end_lookup(session);
    }
    session->open = false;
    hsm_cache_clear(&session->cache);
}

/* Splits "id_len, CKA_ID, label_len, CKA_LABEL" into search attributes behind `attributes`. The number
 * of them, or 0 where the locator says nothing or cannot be read. */
static CK_ULONG locator_attributes(const uint8_t *locator, size_t len, CK_ATTRIBUTE attributes[2])
{
    CK_ULONG count = 0;
    const CK_ATTRIBUTE_TYPE types[2] = {CKA_ID, CKA_LABEL};
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        if (at >= len || len - at - 1 < locator[at])
            return 0;
        size_t part = locator[at];
        if (part > 0) {
            attributes[count].type = types[i];
            attributes[count].pValue = (void *)(uintptr_t)&locator[at + 1]; /* modules only read it */
            attributes[count].ulValueLen = part;
            count++;
        }
        at += 1 + part;
    }
    return at == len ? count : 0;
}

/* The objects that fit, at most two of them. */
static CK_RV search(struct hsm_session *session, CK_ATTRIBUTE *attributes, CK_ULONG named, CK_OBJECT_HANDLE found[2],
                    CK_ULONG *count)
{
    CK_RV rv = session->module->C_FindObjectsInit(session->handle, attributes, named);
    if (rv != CKR_OK)
        return rv;
    rv = session->module->C_FindObjects(session->handle, found, 2, count);
    if (rv == CKR_OK && *count == 1) { /* some modules give fewer than asked for at a time */
        CK_ULONG more = 0;
        rv = session->module->C_FindObjects(session->handle, &found[1], 1, &more);
        *count += more;
    }
    CK_RV final = session->module->C_FindObjectsFinal(session->handle);
    return rv == CKR_OK ? final : rv;
}

static CK_RV look_up(struct hsm_session *session, const uint8_t *locator, size_t len, struct hsm_object *out)
{
    CK_OBJECT_CLASS private_key = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE attributes[3] = {{CKA_CLASS, &private_key, sizeof private_key}, {0, NULL, 0}, {0, NULL, 0}};
    CK_ULONG named = locator_attributes(locator, len, &attributes[1]);
    if (named == 0)
        return CKR_OK;

    CK_OBJECT_HANDLE found[2] = {CK_INVALID_HANDLE, CK_INVALID_HANDLE};
    CK_ULONG count = 0;
    CK_RV rv = search(session, attributes, 1 + named, found, &count);
    if (rv != CKR_OK)
        return rv;
    if (count == 0 && session->logged_in && !token_logged_in(session))
        return CKR_USER_NOT_LOGGED_IN;
    if (count != 1)
        return CKR_OK;

    CK_ATTRIBUTE type = {CKA_KEY_TYPE, &out->type, sizeof out->type};
    rv = session->module->C_GetAttributeValue(session->handle, found[0], &type, 1);
    if (rv != CKR_OK)
        return rv;
    out->handle = found[0];
    hsm_cache_put(&session->cache, locator, len, *out);
    return CKR_OK;
}

CK_RV hsm_session_find(struct hsm_session *session, const uint8_t *locator, size_t len, struct hsm_object *out)
{
    *out = hsm_cache_get(&session->cache, locator, len);
    if (out->handle != CK_INVALID_HANDLE)
        return CKR_OK;
    begin_lookup(session);
    CK_RV rv = look_up(session, locator, len, out);
    end_lookup(session);
    return rv;
}
