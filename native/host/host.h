/* What the device host's Python sees of the native core (native/build_host.py exposes exactly this).
 *
 * The extension module built from this is itself a PKCS #11 module: it exports C_GetFunctionList (and
 * C_GetInterface where the real module has one), which forward to the module opened with
 * hsm_module_open. python-pkcs11 is given the extension's own path, so that both share one initialised
 * module: python-pkcs11 calls C_Initialize(NULL), which would promise single-threaded use; the forwarder
 * initialises the real module with CKF_OS_LOCKING_OK and counts.
 */
#ifndef HSMSIGN_HOST_H
#define HSMSIGN_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "../core/status.h"

/* Loads the PKCS #11 module at `path` and initialises it. Once a process. On failure writes a sentence
 * without a secret to `error` (at most `error_size` bytes, always terminated) and, for HSM_E_MODULE from
 * a PKCS #11 call, the CK_RV to *ckr. */
hsm_status hsm_module_open(const char *path, char *error, size_t error_size, uint64_t *ckr);

typedef struct hsm_pool hsm_pool;

/* Some modules cannot make or destroy keys while other sessions do something else. SoftHSM 2.6.1 fails to make
 * a key (CKR_GENERAL_ERROR, CKR_TEMPLATE_INCOMPLETE) while another session looks for objects, and leaves half
 * of it behind; signatures with handles that were found before do no harm. */
typedef enum hsm_exclusion {
    HSM_EXCLUDE_NOTHING = 0,
    HSM_EXCLUDE_ALL = 1,     /* signatures and lookups wait for management, and it for them */
    HSM_EXCLUDE_LOOKUPS = 2  /* only looking for keys and opening sessions does */
} hsm_exclusion;

typedef struct hsm_pool_config {
    uint64_t slot_id;
    uint32_t sessions;          /* threads, each with its own session; 1..1024. Where the token gives fewer, that many
                                   work. 0: no thread and no PKCS #11 module, who signs calls hsm_turn_begin */
    uint32_t max_queued_bytes;  /* of orders a connection may have waiting before it is no longer read */
    uint8_t exclusive_management; /* hsm_exclusion: what hsm_manage_begin..end keeps out */
} hsm_pool_config;

/* How the pool treats jobs. Python decides; the pool itself only ever goes from RUNNING to HEALING. */
typedef enum hsm_pool_mode {
    HSM_POOL_RUNNING = 0,
    HSM_POOL_HEALING = 1,  /* jobs wait (to their deadline) */
    HSM_POOL_FAILING = 2   /* jobs are answered at once with the status given */
} hsm_pool_mode;

typedef struct hsm_pool_stats {
    uint32_t mode;             /* hsm_pool_mode */
    uint32_t queued;           /* jobs waiting */
    uint32_t active;           /* jobs inside the module now */
    uint32_t sessions;         /* sessions open */
    uint32_t resting;          /* threads without a session, because the token had no more (CKR_SESSION_COUNT) */
    uint32_t connections;
    uint64_t oldest_active_ms; /* how long the oldest job has been inside the module; 0 if none */
    uint64_t signed_total;
    uint64_t failed_total;
    uint64_t last_fault_ckr;   /* why the pool went to HEALING or refused to be RUNNING */
} hsm_pool_stats;

/* Makes a pool in mode HEALING with no session open: a job waits until hsm_pool_set_mode says RUNNING.
 * The pool belongs to the caller until hsm_pool_free. */
hsm_status hsm_pool_new(const hsm_pool_config *config, hsm_pool **out);

/* Going to RUNNING drops every session and cached object handle and opens sessions anew: the caller has
 * logged in before (a login is the token's, not the session's); HSM_E_DEVICE where the token gives no
 * session: the mode stays, and the CK_RV is last_fault_ckr. For FAILING, `status` is what jobs get. Any mode
 * that is set takes back what fault_fd says. */
hsm_status hsm_pool_set_mode(hsm_pool *pool, hsm_pool_mode mode, hsm_status status);

/* Takes over `fd`, a connected stream socket whose hsm_hello (HSM_HELLO_SIGN) has been read, and serves
 * it until its other side closes it. Closes `fd` also on failure. */
hsm_status hsm_pool_serve(hsm_pool *pool, int fd);

/* Readable (an eventfd, owned by the pool) when the pool went from RUNNING to HEALING by itself:
 * CKR_USER_NOT_LOGGED_IN, CKR_TOKEN_NOT_PRESENT, CKR_DEVICE_REMOVED, CKR_DEVICE_ERROR, or a session that
 * could not be opened again. CKR_SESSION_HANDLE_INVALID and _CLOSED are healed in place first. */
int hsm_pool_fault_fd(const hsm_pool *pool);

void hsm_pool_get_stats(hsm_pool *pool, hsm_pool_stats *out);

/* Tells how long a signature takes at the moment: an order that cannot be served by its deadline is answered at
 * once, with HSM_E_BUSY. 0, as in the beginning: nothing is refused. */
void hsm_pool_pace(hsm_pool *pool, uint64_t pace_ns);

/* ---- Signatures that are made outside of this library, one at a time, by one thread (a TPM's, through its own
 * software stack): the pool queues, digests, answers, and keeps deadlines. For a pool with sessions = 0. */
typedef struct hsm_turn {
    const uint8_t *locator; /* valid until the turn ends, as is all of this */
    uint16_t locator_len;
    uint16_t scheme;        /* enum hsm_scheme */
    uint32_t digest_len;
    uint8_t digest[64];
} hsm_turn;

/* Waits for something to be signed, at most `timeout_ms`. HSM_OK: it is in *turn, and hsm_turn_end or
 * hsm_turn_put_off must follow before the next hsm_turn_begin. HSM_E_DEADLINE: nothing came. */
hsm_status hsm_turn_begin(hsm_pool *pool, uint32_t timeout_ms, hsm_turn *turn);

/* The signature (ECDSA: r || s, each as long as the curve's order), or why there is none: then `code` is the device's own
 * (HSM_TPM_CODE | TPM_RC). HSM_E_BAD_INPUT where the signature's length is impossible: the caller is told DEVICE. */
hsm_status hsm_turn_end(hsm_pool *pool, hsm_status status, uint64_t code, const uint8_t *raw, size_t raw_len);

/* The device was lost under this turn: it goes back to the queue, and the pool to HEALING. */
void hsm_turn_put_off(hsm_pool *pool, uint64_t code);

/* Brackets a management call (python-pkcs11) where the configuration says exclusive_management. */
void hsm_manage_begin(hsm_pool *pool);
void hsm_manage_end(hsm_pool *pool);

/* Forgets the cached object handles for a locator, in every session (after a destroy). */
void hsm_pool_forget(hsm_pool *pool, const uint8_t *locator, size_t locator_len);

/* Waits up to `timeout_ms` for queued and active jobs to end. */
hsm_status hsm_pool_drain(hsm_pool *pool, uint32_t timeout_ms);

/* Stops the threads, closes connections and sessions. Safe on NULL. */
void hsm_pool_free(hsm_pool *pool);

/* ECDSA r || s -> DER ECDSA-Sig-Value. Writes at most *out_len bytes and sets *out_len to the length
 * written. HSM_E_BAD_INPUT for an odd or unknown length, or r or s of zero. */
hsm_status hsm_ecdsa_raw_to_der(const uint8_t *raw, size_t raw_len, uint8_t *out, size_t *out_len);

#endif
