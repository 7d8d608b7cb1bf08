/* What a front worker's Python sees of the native core (native/build_front.py exposes exactly this). */
#ifndef HSMSIGN_FRONT_H
#define HSMSIGN_FRONT_H

#include <stddef.h>
#include <stdint.h>

#include "../core/status.h"

/* ---- link: a front worker's connection to one device host ----------------------------------------
 * Not thread-safe and never blocking: one event loop owns it. The loop watches the socket that it gave
 * to hsm_link_attach: readable -> hsm_link_pump, and, while hsm_link_wants_write says so, writable ->
 * hsm_link_flush. What was submitted outlives the connection: when the host is lost the orders stay, and
 * hsm_link_attach with a new connection sends what is not yet answered again. An item that was with
 * `max_attempts` hosts which went away is answered with HSM_E_HOST_LOST.
 */
typedef struct hsm_link hsm_link;

typedef struct hsm_link_config {
    uint32_t max_jobs;      /* waiting and under way; more gives HSM_E_FULL */
    uint64_t max_bytes;     /* of inputs, likewise */
    uint32_t max_attempts;  /* 1.. */
} hsm_link_config;

typedef struct hsm_order {
    uint64_t deadline_ns;   /* CLOCK_MONOTONIC, 0: none */
    uint16_t scheme;
    uint8_t kind;
    uint8_t format;
    uint16_t locator_len;
    uint16_t flow;          /* whose work it is: flows take turns. 0..HSM_FLOWS - 1 */
    const uint8_t *locator;
    uint32_t count;
    const uint32_t *lengths; /* count of them; or NULL, then each input has inputs_len / count bytes */
    const uint8_t *inputs;   /* without gaps */
    size_t inputs_len;
} hsm_order;

/* A finished order. Everything is the link's, good until hsm_link_release. */
typedef struct hsm_done {
    uint64_t order_id;
    uint32_t count;
    uint32_t failed;             /* how many statuses are not HSM_OK */
    const uint32_t *statuses;    /* hsm_status, count of them */
    const uint64_t *ckrs;
    const uint32_t *offsets;     /* count of them, into signatures */
    const uint32_t *lengths;     /* 0 where failed */
    const uint8_t *signatures;
    size_t signatures_len;
} hsm_done;

hsm_status hsm_link_new(const hsm_link_config *config, hsm_link **out);
void hsm_link_free(hsm_link *link); /* closes the socket; safe on NULL */

/* Takes over `fd`, a connected non-blocking stream socket on which hsm_hello has been sent. */
hsm_status hsm_link_attach(hsm_link *link, int fd);
/* Closes the socket, keeps the orders. */
void hsm_link_detach(hsm_link *link);

/* Copies the order and sends as much as the socket takes. HSM_E_FULL, HSM_E_BAD_INPUT, HSM_E_NO_MEMORY:
 * nothing was taken. Works without a connection: the order waits for one. */
hsm_status hsm_link_submit(hsm_link *link, const hsm_order *order, uint64_t *order_id);
/* Nobody waits any more: the order is forgotten, the host is told. */
void hsm_link_cancel(hsm_link *link, uint64_t order_id);
/* Answers every order that waits, with `status`, as if the host had. */
void hsm_link_fail_all(hsm_link *link, hsm_status status);

/* Reads what the socket has. HSM_OK, or HSM_E_CLOSED, HSM_E_IO, HSM_E_FRAME: then detach and attach anew. */
hsm_status hsm_link_pump(hsm_link *link);
hsm_status hsm_link_flush(hsm_link *link);
int hsm_link_wants_write(const hsm_link *link);

/* Takes the next finished order, 1, or 0 if there is none. At most one `hsm_done` is out at a time. */
int hsm_link_reap(hsm_link *link, hsm_done *out);
void hsm_link_release(hsm_link *link, uint64_t order_id);

uint32_t hsm_link_jobs(const hsm_link *link);

/* ---- doorman: who is on the other side of a Unix socket ------------------------------------------
 * gRPC tells a service nothing of a Unix peer's credentials, but does tell it the peer's address. The
 * doorman accepts on the public socket, reads SO_PEERCRED, connects to gRPC's private socket from an
 * abstract address that says who it is, "<prefix>/<uid>/<gid>/<pid>/<64 random bits>", and carries the bytes
 * both ways, in a thread of its own. Who can reach the private socket could lie: it lies in a folder
 * that only the daemon's user can enter, and the prefix holds a nonce.
 */
typedef struct hsm_doorman hsm_doorman;

typedef struct hsm_doorman_config {
    int listen_fd;              /* bound and listening; borrowed, shared with other workers */
    const char *inner_path;     /* gRPC's private socket; copied */
    const char *prefix;         /* of the abstract address, at most 50 bytes; copied */
    uint32_t max_connections;   /* more are closed at once */
    uint32_t max_of_a_uid;      /* likewise, of the connections of one user */
} hsm_doorman_config;

hsm_status hsm_doorman_start(const hsm_doorman_config *config, hsm_doorman **out);
/* Accepts no more; what is open goes on. */
void hsm_doorman_close_door(hsm_doorman *doorman);
uint32_t hsm_doorman_connections(hsm_doorman *doorman);
/* Ends the thread, closes all connections. Safe on NULL. */
void hsm_doorman_free(hsm_doorman *doorman);

#endif
