#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../core/clock.h"
#include "front.h"
#include "relay.h"

#define EVENTS_A_WAIT 64
#define PREFIX_MAX 50 /* with four numbers behind it, it fits sun_path */
#define ADDRESSES_TRIED 8
#define DOOR_TAG UINT64_C(0x646f6f72736d616e)
#define STEP_BACK_MS 1 /* for others who have less to do */
#define STEP_BACK_NS (STEP_BACK_MS * 1000000u)

struct hsm_doorman {
    int listen_fd; /* borrowed */
    int epoll_fd;
    int wake_fd;
    char prefix[PREFIX_MAX + 1];
    struct sockaddr_un inner;
    uint32_t max_connections;
    uint32_t max_of_a_uid;
    uint32_t shared_connections;
    uint32_t shared_of_a_uid;
    hsm_ledger *ledger; /* borrowed, or NULL */
    uint64_t generation;
    uint64_t back_until_ns; /* 0: at the door */
    struct relay *relays;
    pthread_t thread;
    atomic_uint connections;
    atomic_int door_closed;
    atomic_int stopping;
};

/* Binds to an address that says who `who` is, with 64 random bits: anybody on the machine may bind to abstract
 * addresses, and who could tell the next one would keep callers out by taking it first. False where it cannot. */
static int bind_as(const hsm_doorman *doorman, int fd, const struct ucred *who)
{
    for (int i = 0; i < ADDRESSES_TRIED; i++) {
        struct sockaddr_un from = {.sun_family = AF_UNIX};
        uint64_t chance;
        if (getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
            return 0;
        const int length = snprintf(from.sun_path + 1, sizeof from.sun_path - 1, "%s/%u/%u/%d/%llu", doorman->prefix,
                                    (unsigned)who->uid, (unsigned)who->gid, (int)who->pid, (unsigned long long)chance);
        const size_t size = offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length;
        if (length < 0 || size > sizeof from)
            return 0;
        if (bind(fd, (struct sockaddr *)&from, (socklen_t)size) == 0)
            return 1;
        if (errno != EADDRINUSE)
            return 0;
    }
    return 0;
}

/* A socket connected to the inner path from an address that says who `who` is, or -1. */
static int connect_inner(const hsm_doorman *doorman, const struct ucred *who)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (!bind_as(doorman, fd, who) ||
        connect(fd, (struct sockaddr *)&doorman->inner, sizeof doorman->inner) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* Whether one more connection of this user is too many. */
static int has_enough(const hsm_doorman *doorman, uint32_t uid)
{
    uint32_t count = 0;
    for (const struct relay *relay = doorman->relays; relay != NULL; relay = relay->next)
        count += relay->uid == uid;
    return count >= doorman->max_of_a_uid;
}

/* What is counted with the other workers' connections: all of them, and those of one user. */
static void claims_of(const hsm_doorman *doorman, uint32_t uid, hsm_claim *claims)
{
    const uint64_t all = UINT64_C(1) << 32; /* no user's number */
    memset(claims, 0, 2 * sizeof *claims);
    claims[0].tag[0] = claims[1].tag[0] = DOOR_TAG ^ doorman->generation;
    claims[0].tag[1] = all;
    claims[1].tag[1] = uid;
    claims[0].most = doorman->shared_connections;
    claims[1].most = doorman->shared_of_a_uid;
}

/* Whether the connections of all workers leave room for one of this user, which is then counted. */
static int others_leave_room(const hsm_doorman *doorman, uint32_t uid)
{
    hsm_claim claims[2];
    hsm_no_entry why;
    if (doorman->ledger == NULL)
        return 1;
    claims_of(doorman, uid, claims);
    return hsm_ledger_enter(doorman->ledger, claims, 2, 1, hsm_now_ns(), &why) == HSM_OK;
}

static void count_out(const hsm_doorman *doorman, uint32_t uid)
{
    hsm_claim claims[2];
    if (doorman->ledger == NULL)
        return;
    claims_of(doorman, uid, claims);
    hsm_ledger_leave(doorman->ledger, claims, 2, 1);
}

static void tell_load(hsm_doorman *doorman)
{
    if (doorman->ledger != NULL)
        hsm_ledger_set_load(doorman->ledger,
                            atomic_load(&doorman->door_closed) ? UINT32_MAX : atomic_load(&doorman->connections));
}

/* The relay of a caller, or NULL: then `outer` is closed, and the caller sees an unavailable daemon and comes again. */
static struct relay *admit(hsm_doorman *doorman, int outer)
{
    struct ucred who;
    socklen_t size = sizeof who;
    if (atomic_load(&doorman->connections) >= doorman->max_connections ||
        getsockopt(outer, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || has_enough(doorman, who.uid) ||
        !others_leave_room(doorman, who.uid)) {
        (void)close(outer);
        return NULL;
    }
    const int inner = connect_inner(doorman, &who);
    struct relay *relay = NULL;
    if (inner < 0)
        (void)close(outer);
    else
        relay = hsm_relay_new(doorman->epoll_fd, outer, inner);
    if (relay == NULL)
        count_out(doorman, who.uid);
    else
        relay->uid = who.uid;
    return relay;
}

static void let_in(hsm_doorman *doorman, int outer)
{
    struct relay *relay = admit(doorman, outer);
    if (relay == NULL)
        return;
    relay->next = doorman->relays;
    if (relay->next != NULL)
        relay->next->previous = relay;
    doorman->relays = relay;
    (void)atomic_fetch_add(&doorman->connections, 1u);
    tell_load(doorman);
}

static void watch_door(hsm_doorman *doorman, uint32_t events)
{
    struct epoll_event door = {.events = events, .data = {.ptr = &doorman->listen_fd}};
    (void)epoll_ctl(doorman->epoll_fd, EPOLL_CTL_MOD, doorman->listen_fd, &door); /* cannot fail: it is there */
}

/* Another worker has fewer connections: it is given a moment to take those that wait. */
static void step_back(hsm_doorman *doorman)
{
    watch_door(doorman, 0);
    doorman->back_until_ns = hsm_now_ns() + STEP_BACK_NS;
}

static int others_should(const hsm_doorman *doorman)
{
    return doorman->ledger != NULL && hsm_ledger_others_have_less(doorman->ledger);
}

static void accept_all(hsm_doorman *doorman)
{
    for (int i = 0; i < EVENTS_A_WAIT; i++) {
        const int outer = accept4(doorman->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (outer >= 0) {
            let_in(doorman, outer);
            if (others_should(doorman))
                return; /* what still waits rings again */
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            const struct timespec moment = {0, 10000000}; /* readiness stays: do not spin on it */
            (void)nanosleep(&moment, NULL);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void unlink_relay(hsm_doorman *doorman, struct relay *relay)
{
    if (relay->previous != NULL)
        relay->previous->next = relay->next;
    else
        doorman->relays = relay->next;
    if (relay->next != NULL)
        relay->next->previous = relay->previous;
}

static void bury(hsm_doorman *doorman, struct relay *relay)
{
    unlink_relay(doorman, relay);
    count_out(doorman, relay->uid);
    hsm_relay_free(relay);
    (void)atomic_fetch_sub(&doorman->connections, 1u);
    tell_load(doorman);
}

/* Whenever it rings, whatever for: it would ring for ever, and the thread never sleep again. */
static void answer_bell(hsm_doorman *doorman)
{
    uint64_t ignored;
    (void)!read(doorman->wake_fd, &ignored, sizeof ignored);
}

static void handle(hsm_doorman *doorman, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        void *what = events[i].data.ptr;
        if (what == &doorman->listen_fd && others_should(doorman))
            step_back(doorman);
        else if (what == &doorman->listen_fd)
            accept_all(doorman);
        else if (what == &doorman->wake_fd)
            answer_bell(doorman);
        else if (!((struct relay_end *)what)->relay->dead)
            hsm_relay_event(doorman->epoll_fd, what, events[i].events);
    }
    /* only now: both ends of a relay may stand in one list of events */
    for (int i = 0; i < count; i++) {
        void *what = events[i].data.ptr;
        if (what == &doorman->listen_fd || what == &doorman->wake_fd)
            continue;
        struct relay *relay = ((struct relay_end *)what)->relay;
        int again = 0;
        for (int j = i + 1; j < count; j++) {
            void *later = events[j].data.ptr;
            again |= later == &relay->ends[0] || later == &relay->ends[1];
        }
        if (relay->dead && !again)
            bury(doorman, relay);
    }
}

static void *run(void *argument)
{
    hsm_doorman *doorman = argument;
    int door_open = 1;
    while (!atomic_load(&doorman->stopping)) {
        struct epoll_event events[EVENTS_A_WAIT];
        const int patience = doorman->back_until_ns != 0 ? STEP_BACK_MS : -1;
        const int count = epoll_wait(doorman->epoll_fd, events, EVENTS_A_WAIT, patience);
        if (door_open && atomic_load(&doorman->door_closed)) {
            door_open = 0;
            doorman->back_until_ns = 0;
            (void)epoll_ctl(doorman->epoll_fd, EPOLL_CTL_DEL, doorman->listen_fd, NULL);
            tell_load(doorman);
        }
        if (count > 0)
            handle(doorman, events, count);
        if (door_open && doorman->back_until_ns != 0 && hsm_now_ns() >= doorman->back_until_ns) {
            doorman->back_until_ns = 0;
            accept_all(doorman); /* whoever has less to do had his moment */
            watch_door(doorman, EPOLLIN);
        }
    }
    return NULL;
}

static void wake(hsm_doorman *doorman)
{
    const uint64_t one = 1;
    (void)!write(doorman->wake_fd, &one, sizeof one); /* cannot fail short of 2^64 wakes */
}

static hsm_status prepare(hsm_doorman *doorman)
{
    const int flags = fcntl(doorman->listen_fd, F_GETFL);
    if (flags < 0 || fcntl(doorman->listen_fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return HSM_E_IO;
    doorman->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    doorman->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (doorman->epoll_fd < 0 || doorman->wake_fd < 0)
        return HSM_E_IO;
    struct epoll_event door = {.events = EPOLLIN, .data = {.ptr = &doorman->listen_fd}};
    struct epoll_event bell = {.events = EPOLLIN, .data = {.ptr = &doorman->wake_fd}};
    if (epoll_ctl(doorman->epoll_fd, EPOLL_CTL_ADD, doorman->listen_fd, &door) != 0 ||
        epoll_ctl(doorman->epoll_fd, EPOLL_CTL_ADD, doorman->wake_fd, &bell) != 0)
        return HSM_E_IO;
    return pthread_create(&doorman->thread, NULL, run, doorman) == 0 ? HSM_OK : HSM_E_NO_MEMORY;
}

static void release(hsm_doorman *doorman)
{
    if (doorman->epoll_fd >= 0)
        (void)close(doorman->epoll_fd);
    if (doorman->wake_fd >= 0)
        (void)close(doorman->wake_fd);
    free(doorman);
}

hsm_status hsm_doorman_start(const hsm_doorman_config *config, hsm_doorman **out)
{
    *out = NULL;
    hsm_doorman *doorman = calloc(1, sizeof *doorman);
    if (doorman == NULL)
        return HSM_E_NO_MEMORY;
    doorman->listen_fd = config->listen_fd;
    doorman->epoll_fd = doorman->wake_fd = -1;
    doorman->max_connections = config->max_connections;
    doorman->max_of_a_uid = config->max_of_a_uid;
    doorman->shared_connections = config->shared_connections;
    doorman->shared_of_a_uid = config->shared_of_a_uid;
    doorman->ledger = config->ledger;
    doorman->generation = config->generation;
    doorman->inner.sun_family = AF_UNIX;
    if (strlen(config->prefix) > PREFIX_MAX || strlen(config->inner_path) >= sizeof doorman->inner.sun_path) {
        release(doorman);
        return HSM_E_BAD_INPUT;
    }
    memcpy(doorman->prefix, config->prefix, strlen(config->prefix));
    memcpy(doorman->inner.sun_path, config->inner_path, strlen(config->inner_path));
    const hsm_status status = prepare(doorman);
    if (status != HSM_OK) {
        release(doorman);
    } else {
        *out = doorman;
        tell_load(doorman);
    }
    return status;
}

void hsm_doorman_close_door(hsm_doorman *doorman)
{
    atomic_store(&doorman->door_closed, 1);
    wake(doorman);
}

uint32_t hsm_doorman_connections(hsm_doorman *doorman)
{
    return atomic_load(&doorman->connections);
}

void hsm_doorman_free(hsm_doorman *doorman)
{
    if (doorman == NULL)
        return;
    atomic_store(&doorman->stopping, 1);
    wake(doorman);
    (void)pthread_join(doorman->thread, NULL);
    while (doorman->relays != NULL)
        bury(doorman, doorman->relays);
    release(doorman);
}
