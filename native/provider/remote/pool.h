/* A few connections that threads share: each carries one thread's call at a time. A child of fork() makes a pool of
 * its own; nothing of its parent's is spoken on. */
#ifndef HSMSIGN_REMOTE_POOL_H
#define HSMSIGN_REMOTE_POOL_H

#include "connection.h"

#define HSM_POOL_MAX 16 /* connections */

struct hsm_pool;

/* `before` is the pool of the parent process, or NULL: it stays readable as long as the new one. NULL: no memory. */
struct hsm_pool *hsm_pool_new(struct hsm_pool *before);

/* Whether this process made it. */
bool hsm_pool_is_ours(const struct hsm_pool *pool);

/* In a child: closes the parent's descriptors, and frees what no thread of the parent was in the middle of. */
void hsm_pool_abandon(struct hsm_pool *pool);

/* Closes all connections, and frees this pool and those before it. */
void hsm_pool_free(struct hsm_pool *pool);

/* This one alone, which nobody has used. */
void hsm_pool_free_one(struct hsm_pool *pool);

/* Every call of the others stands between these two. */
void hsm_pool_enter(struct hsm_pool *pool);
void hsm_pool_leave(struct hsm_pool *pool);

/* Lends out a connection, which may be closed; waits for one. `fresh`: one that is open is closed first, as are all
 * that nobody uses. HSM_E_DEADLINE, HSM_E_NO_MEMORY. */
hsm_status hsm_pool_take(struct hsm_pool *pool, bool fresh, uint64_t deadline_ns, struct hsm_connection **out);
void hsm_pool_give(struct hsm_pool *pool, struct hsm_connection *connection);

/* OpenSSL's part, made at the first use. */
hsm_status hsm_pool_home(struct hsm_pool *pool, const struct hsm_tls_home **home, struct hsm_why *why);

#endif
