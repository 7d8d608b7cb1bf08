#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../core/clock.h"
#include "front.h"

#define SETS 16384u /* a tag has its place in one of them */
#define WAYS 8u     /* in which so many can be counted at a time */
#define ENTRIES (SETS * WAYS)
#define PAGE 4096 /* with larger ones, madvise refuses */
#define SLOTS ((uint32_t)HSM_LEDGER_SLOTS)
#define BELLS ((uint32_t)HSM_LEDGER_BELLS)
#define NOBODY UINT32_MAX
#define PATIENCE_NS 100000000L
#define LONGEST_NS (UINT64_C(1) << 63) /* nobody waits so long */

/* Who is counted. What nothing is under way of, and whose rate is paid for, makes room for another. */
struct entry {
    uint64_t tag[2];
    uint64_t paid_at_ns; /* CLOCK_MONOTONIC */
};

struct shared {
    pthread_mutex_t lock; /* of entries and cells */
    _Atomic uint64_t bells[BELLS];
    _Atomic uint32_t taken[SLOTS];
    _Atomic uint32_t loads[SLOTS];
    struct entry entries[ENTRIES];
    _Alignas(PAGE) uint32_t cells[SLOTS][ENTRIES]; /* of slots that are taken: pages of others are never touched */
};

struct hsm_ledger {
    struct shared *shared;
    uint32_t slot;
};

static hsm_status map(int fd, uint32_t slot, hsm_ledger **out)
{
    hsm_ledger *ledger = malloc(sizeof *ledger);
    if (ledger == NULL)
        return HSM_E_NO_MEMORY;
    void *shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) {
        free(ledger);
        return HSM_E_IO;
    }
    ledger->shared = shared;
    ledger->slot = slot;
    *out = ledger;
    return HSM_OK;
}

static hsm_status make_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    if (pthread_mutexattr_init(&attributes) != 0)
        return HSM_E_NO_MEMORY;
    const int failed = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) != 0 ||
                       pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) != 0 ||
                       pthread_mutex_init(lock, &attributes) != 0;
    (void)pthread_mutexattr_destroy(&attributes);
    return failed ? HSM_E_UNSUPPORTED : HSM_OK;
}

/* Memory that no holder can shorten under the others. */
static int make_memory(void)
{
    const int fd = memfd_create("hsmsign-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)sizeof(struct shared)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

hsm_status hsm_ledger_new(int *fd, hsm_ledger **out)
{
    *out = NULL;
    *fd = make_memory();
    if (*fd < 0)
        return HSM_E_IO;
    hsm_status status = map(*fd, NOBODY, out);
    if (status == HSM_OK)
        status = make_lock(&(*out)->shared->lock);
    if (status != HSM_OK) {
        hsm_ledger_free(*out);
        *out = NULL;
        (void)close(*fd);
        *fd = -1;
    }
    return status;
}

hsm_status hsm_ledger_open(int fd, uint32_t slot, hsm_ledger **out)
{
    struct stat is;
    *out = NULL;
    if (slot >= SLOTS)
        return HSM_E_BAD_INPUT;
    if (fstat(fd, &is) != 0)
        return HSM_E_IO;
    if (is.st_size != (off_t)sizeof(struct shared))
        return HSM_E_BAD_INPUT;
    return map(fd, slot, out);
}

void hsm_ledger_free(hsm_ledger *ledger)
{
    if (ledger == NULL)
        return;
    (void)munmap(ledger->shared, sizeof *ledger->shared);
    free(ledger);
}

/* Who died with the lock left no half a number: each is one store, and its own cells are released later. */
static int is_ours(struct shared *shared, int failed)
{
    if (failed == EOWNERDEAD)
        return pthread_mutex_consistent(&shared->lock) == 0;
    return failed == 0;
}

static int lock(struct shared *shared)
{
    return is_ours(shared, pthread_mutex_lock(&shared->lock));
}

/* For the maker, who waits for nobody: a worker that was stopped, or means harm, may have it for as long as it likes. */
static int lock_soon(struct shared *shared)
{
    struct timespec end = {0, 0};
    (void)clock_gettime(CLOCK_REALTIME, &end); /* cannot fail with this clock and a valid pointer */
    end.tv_nsec += PATIENCE_NS;
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    return is_ours(shared, pthread_mutex_timedlock(&shared->lock, &end));
}

static void unlock(struct shared *shared)
{
    (void)pthread_mutex_unlock(&shared->lock);
}

hsm_status hsm_ledger_take(hsm_ledger *ledger, uint32_t *slot)
{
    struct shared *shared = ledger->shared;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (atomic_load(&shared->taken[i]))
            continue;
        atomic_store(&shared->loads[i], NOBODY); /* until it has a door */
        atomic_store(&shared->taken[i], 1u);
        *slot = i;
        return HSM_OK;
    }
    return HSM_E_FULL;
}

hsm_status hsm_ledger_release(hsm_ledger *ledger, uint32_t slot)
{
    struct shared *shared = ledger->shared;
    if (slot >= SLOTS)
        return HSM_E_BAD_INPUT;
    const int locked = lock_soon(shared); /* without it, too: nobody else writes a dead one's cells */
    if (madvise(shared->cells[slot], sizeof shared->cells[slot], MADV_REMOVE) != 0) /* zeros, and no memory */
        memset(shared->cells[slot], 0, sizeof shared->cells[slot]);
    if (locked)
        unlock(shared);
    atomic_store(&shared->loads[slot], NOBODY);
    atomic_store(&shared->taken[slot], 0u);
    for (uint32_t i = 0; i < BELLS; i++)
        (void)atomic_fetch_add(&shared->bells[i], 1u);
    return HSM_OK;
}

/* What all workers together have under way. */
static uint64_t under_way(const struct shared *shared, uint32_t at)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        if (atomic_load(&shared->taken[i]))
            sum += shared->cells[i][at];
    return sum;
}

/* Where the tag is counted, or ENTRIES. */
static uint32_t find(const struct shared *shared, const uint64_t *tag)
{
    const uint32_t first = (uint32_t)(tag[0] % SETS) * WAYS;
    for (uint32_t at = first; at < first + WAYS; at++)
        if (shared->entries[at].tag[0] == tag[0] && shared->entries[at].tag[1] == tag[1])
            return at;
    return ENTRIES;
}

/* Room for a tag that is not there, or ENTRIES. Rates of others may be there, also where the caller has none. */
static uint32_t make_room(struct shared *shared, const uint64_t *tag, uint64_t now_ns)
{
    const uint32_t first = (uint32_t)(tag[0] % SETS) * WAYS;
    if (now_ns == 0)
        now_ns = hsm_now_ns();
    for (uint32_t at = first; at < first + WAYS; at++) {
        struct entry *entry = &shared->entries[at];
        if (entry->paid_at_ns > now_ns || under_way(shared, at) > 0)
            continue;
        entry->tag[0] = entry->tag[1] = 0; /* never one's first half with another's second, should we die here */
        entry->paid_at_ns = 0;
        entry->tag[1] = tag[1];
        entry->tag[0] = tag[0];
        return at;
    }
    return ENTRIES;
}

/* Whether the claim lets `count` in; else *why says why not. */
static int lets_in(const struct shared *shared, uint32_t at, const hsm_claim *claim, uint32_t count, uint64_t now_ns,
                   hsm_no_entry *why)
{
    const uint64_t there = under_way(shared, at);
    why->under_way = there < UINT32_MAX ? (uint32_t)there : UINT32_MAX;
    why->wait_ns = 0;
    if (claim->most > 0 && there > 0 && there + count > claim->most)
        return 0;
    const uint64_t paid_at = shared->entries[at].paid_at_ns;
    if (!(claim->interval_ns > 0) || paid_at <= now_ns || paid_at - now_ns <= claim->slack_ns)
        return 1;
    why->wait_ns = paid_at - now_ns - claim->slack_ns;
    return 0;
}

static void pay(struct entry *entry, const hsm_claim *claim, uint32_t count, uint64_t now_ns)
{
    if (!(claim->interval_ns > 0))
        return;
    const double cost = claim->interval_ns * (double)count + 0.5;
    const uint64_t from = entry->paid_at_ns > now_ns ? entry->paid_at_ns : now_ns;
    const uint64_t room = LONGEST_NS - (from < LONGEST_NS ? from : LONGEST_NS);
    entry->paid_at_ns = from + (cost < (double)room ? (uint64_t)cost : room);
}

static void leave(struct shared *shared, uint32_t slot, const hsm_claim *claims, uint32_t claim_count, uint32_t count)
{
    for (uint32_t i = 0; i < claim_count; i++) {
        const uint32_t at = find(shared, claims[i].tag);
        if (at == ENTRIES)
            continue; /* cannot be: what is counted makes room for nobody */
        uint32_t *cell = &shared->cells[slot][at];
        *cell = *cell > count ? *cell - count : 0;
    }
}

static hsm_status enter(struct shared *shared, uint32_t slot, const hsm_claim *claims, uint32_t claim_count,
                        uint32_t count, uint64_t now_ns, hsm_no_entry *why)
{
    for (uint32_t i = 0; i < claim_count; i++) {
        uint32_t at = find(shared, claims[i].tag);
        if (at == ENTRIES)
            at = make_room(shared, claims[i].tag, now_ns);
        why->claim = i;
        if (at == ENTRIES || !lets_in(shared, at, &claims[i], count, now_ns, why)) {
            leave(shared, slot, claims, i, count);
            return at == ENTRIES ? HSM_E_BUSY : HSM_E_FULL;
        }
        shared->cells[slot][at] += count; /* at once, so that the next makes no room here */
    }
    for (uint32_t i = 0; i < claim_count; i++)
        pay(&shared->entries[find(shared, claims[i].tag)], &claims[i], count, now_ns);
    return HSM_OK;
}

hsm_status hsm_ledger_enter(hsm_ledger *ledger, const hsm_claim *claims, uint32_t claim_count, uint32_t count,
                            uint64_t now_ns, hsm_no_entry *why)
{
    memset(why, 0, sizeof *why);
    if (ledger->slot >= SLOTS)
        return HSM_E_BAD_INPUT;
    if (!lock(ledger->shared))
        return HSM_E_IO;
    const hsm_status status = enter(ledger->shared, ledger->slot, claims, claim_count, count, now_ns, why);
    unlock(ledger->shared);
    return status;
}

void hsm_ledger_leave(hsm_ledger *ledger, const hsm_claim *claims, uint32_t claim_count, uint32_t count)
{
    if (ledger->slot >= SLOTS || !lock(ledger->shared))
        return;
    leave(ledger->shared, ledger->slot, claims, claim_count, count);
    unlock(ledger->shared);
}

uint64_t hsm_ledger_rung(const hsm_ledger *ledger, uint32_t bell)
{
    return bell < BELLS ? atomic_load(&ledger->shared->bells[bell]) : 0;
}

uint64_t hsm_ledger_ring(hsm_ledger *ledger, uint32_t bell)
{
    return bell < BELLS ? atomic_fetch_add(&ledger->shared->bells[bell], 1u) + 1 : 0;
}

void hsm_ledger_set_load(hsm_ledger *ledger, uint32_t load)
{
    if (ledger->slot < HSM_LEDGER_SLOTS)
        atomic_store(&ledger->shared->loads[ledger->slot], load);
}

int hsm_ledger_others_have_less(const hsm_ledger *ledger)
{
    const struct shared *shared = ledger->shared;
    if (ledger->slot >= SLOTS)
        return 0;
    const uint32_t mine = atomic_load(&shared->loads[ledger->slot]);
    for (uint32_t i = 0; i < SLOTS; i++)
        if (atomic_load(&shared->taken[i]) && atomic_load(&shared->loads[i]) < mine)
            return 1;
    return 0;
}
