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

/* ---- ledger: what the front workers of one daemon count together ---------------------------------------
 * A piece of shared memory that the supervisor makes and every worker maps. Who is counted has a tag, and of each tag
 * every worker has a cell of its own for what it has under way: one that is killed leaves nothing counted once the
 * supervisor has released its slot. A rate is one number for all, the moment at which what was let in is paid for
 * (the generic cell rate algorithm, ITU-T I.371, annex A). The lock is held for a few loads and stores and never over
 * a system call; it is robust: who is killed while he holds it holds up nobody.
 */
typedef struct hsm_ledger hsm_ledger;

enum { HSM_LEDGER_SLOTS = 32, HSM_LEDGER_BELLS = 3 };

typedef struct hsm_claim {
    uint64_t tag[2];      /* the first is not 0; none of a call's claims is the same as another */
    uint32_t most;        /* under way at a time, 0: any; where nothing is, more than that gets in alone */
    uint64_t slack_ns;    /* how far ahead of its rate it may be: burst - 1 intervals */
    double interval_ns;   /* of its rate, 0: any */
} hsm_claim;

typedef struct hsm_no_entry {
    uint32_t claim;       /* which of them */
    uint32_t under_way;   /* of all workers */
    uint64_t wait_ns;     /* 0: it is `most` that is reached */
} hsm_no_entry;

/* Makes one; *fd is the caller's, for others to map. The maker has no slot, and may not enter. */
hsm_status hsm_ledger_new(int *fd, hsm_ledger **out);
/* Maps the one of another process, as the holder of `slot`. `fd` stays the caller's. */
hsm_status hsm_ledger_open(int fd, uint32_t slot, hsm_ledger **out);
void hsm_ledger_free(hsm_ledger *ledger); /* safe on NULL */

/* For the maker: hands out a slot that nobody has; HSM_E_FULL: there is none. */
hsm_status hsm_ledger_take(hsm_ledger *ledger, uint32_t *slot);
/* For the maker: its holder is dead. What it had under way is no longer counted, and all bells ring: it may have died
 * before it rang. */
hsm_status hsm_ledger_release(hsm_ledger *ledger, uint32_t slot);

/* Counts `count` for all claims, or for none: HSM_E_FULL and `*why`. HSM_E_BUSY: so many others are counted at the
 * moment that there is no room. `now_ns`: 0 where no claim has a rate. May be called from any thread, as
 * hsm_ledger_leave. */
hsm_status hsm_ledger_enter(hsm_ledger *ledger, const hsm_claim *claims, uint32_t claim_count, uint32_t count,
                            uint64_t now_ns, hsm_no_entry *why);
/* What was entered is over. */
void hsm_ledger_leave(hsm_ledger *ledger, const hsm_claim *claims, uint32_t claim_count, uint32_t count);

/* Bells: how often one was rung by anybody, and ringing it; gives the new number. */
uint64_t hsm_ledger_rung(const hsm_ledger *ledger, uint32_t bell);
uint64_t hsm_ledger_ring(hsm_ledger *ledger, uint32_t bell);

/* How much this worker has at its door; UINT32_MAX: it takes nothing. Whether another has less. */
void hsm_ledger_set_load(hsm_ledger *ledger, uint32_t load);
int hsm_ledger_others_have_less(const hsm_ledger *ledger);

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
    hsm_ledger *ledger;         /* borrowed: counts them with those of other workers; NULL: there are none */
    uint32_t shared_connections; /* of all workers that are counted together */
    uint32_t shared_of_a_uid;
    uint64_t generation;        /* of the workers that are counted together */
} hsm_doorman_config;

hsm_status hsm_doorman_start(const hsm_doorman_config *config, hsm_doorman **out);
/* Accepts no more; what is open goes on. */
void hsm_doorman_close_door(hsm_doorman *doorman);
uint32_t hsm_doorman_connections(hsm_doorman *doorman);
/* Ends the thread, closes all connections. Safe on NULL. */
void hsm_doorman_free(hsm_doorman *doorman);

#endif
