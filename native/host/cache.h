/* Object handles that a session has found, by locator. Not thread-safe: each session has its own. */
#ifndef HSMSIGN_CACHE_H
#define HSMSIGN_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "module.h"

#define HSM_CACHE_MAX 65536u /* entries; one more and the cache begins anew */

/* A private key that was found. */
struct hsm_object {
    CK_OBJECT_HANDLE handle; /* CK_INVALID_HANDLE: there is none */
    CK_KEY_TYPE type;
};

struct hsm_cache_entry;

struct hsm_cache {
    struct hsm_cache_entry **buckets; /* NULL while empty */
    uint32_t bucket_count;            /* a power of two */
    uint32_t entries;
};

/* A cache of zeros is empty and ready. The handle is CK_INVALID_HANDLE where there is none. */
struct hsm_object hsm_cache_get(const struct hsm_cache *cache, const uint8_t *locator, size_t len);
/* Copies the locator. Where memory is short it remembers nothing: the handle is found again next time. */
void hsm_cache_put(struct hsm_cache *cache, const uint8_t *locator, size_t len, struct hsm_object object);
void hsm_cache_drop(struct hsm_cache *cache, const uint8_t *locator, size_t len);
/* Empties it and frees everything. */
void hsm_cache_clear(struct hsm_cache *cache);

#endif
