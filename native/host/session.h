/* One PKCS #11 session and what it has found. Belongs to one thread. Every function returns a CK_RV. */
#ifndef HSMSIGN_SESSION_H
#define HSMSIGN_SESSION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache.h"
#include "module.h"

struct hsm_session {
    CK_FUNCTION_LIST *module; /* borrowed */
    CK_SLOT_ID slot;
    pthread_rwlock_t *lookups; /* held shared while sessions come and go and objects are looked for; or NULL */
    _Atomic uint64_t *active_since; /* the thread's clock, stopped while it waits for `lookups` */
    CK_SESSION_HANDLE handle;
    bool open;
    bool logged_in; /* the token was, when a session was opened first: one opened in its place expects the same */
    struct hsm_cache cache;
};

/* Closes what is open and opens anew, read-only. CKR_OK or why not: then it is closed. */
CK_RV hsm_session_open(struct hsm_session *session);
/* Closes the session (also one that the token has closed already) and forgets all handles. */
void hsm_session_close(struct hsm_session *session);

/* The private key object that fits the locator, from the cache or from the token; CK_INVALID_HANDLE in
 * out->handle (and CKR_OK) where none or several fit. CKR_USER_NOT_LOGGED_IN where none fits because the login
 * was lost: tokens hide private objects then, they do not complain. */
CK_RV hsm_session_find(struct hsm_session *session, const uint8_t *locator, size_t len, struct hsm_object *out);

#endif
