#include "cache.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_FIRST 256u

struct hsm_cache_entry {
    struct hsm_cache_entry *next;
    struct hsm_object object;
    uint64_t hash;
    size_t len;
    uint8_t locator[];
};

static uint64_t hash_of(const uint8_t *bytes, size_t len) /* FNV-1a; locators are the daemon's own choice */
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* The place of the pointer to the entry, or of the NULL at the end of its bucket. */
static struct hsm_cache_entry **place(const struct hsm_cache *cache, const uint8_t *locator, size_t len, uint64_t hash)
{
    struct hsm_cache_entry **at = &cache->buckets[hash & (cache->bucket_count - 1)];
    while (*at != NULL && ((*at)->hash != hash || (*at)->len != len || memcmp((*at)->locator, locator, len) != 0))
        at = &(*at)->next;
    return at;
}

struct hsm_object hsm_cache_get(const struct hsm_cache *cache, const uint8_t *locator, size_t len)
{
    const struct hsm_object none = {CK_INVALID_HANDLE, 0};
    if (cache->buckets == NULL)
        return none;
    const struct hsm_cache_entry *entry = *place(cache, locator, len, hash_of(locator, len));
    return entry == NULL ? none : entry->object;
}

static int grow(struct hsm_cache *cache)
{
    uint32_t count = cache->buckets == NULL ? BUCKETS_FIRST : cache->bucket_count * 2;
    struct hsm_cache_entry **buckets = calloc(count, sizeof(struct hsm_cache_entry *));
    if (buckets == NULL)
        return 0;
    for (uint32_t i = 0; i < cache->bucket_count; i++) {
        struct hsm_cache_entry *entry = cache->buckets[i];
        while (entry != NULL) {
            struct hsm_cache_entry *next = entry->next;
            struct hsm_cache_entry **at = &buckets[entry->hash & (count - 1)];
            entry->next = *at;
            *at = entry;
            entry = next;
        }
    }
    free(cache->buckets);
    cache->buckets = buckets;
    cache->bucket_count = count;
    return 1;
}

void hsm_cache_put(struct hsm_cache *cache, const uint8_t *locator, size_t len, struct hsm_object object)
{
    if (cache->entries >= HSM_CACHE_MAX)
        hsm_cache_clear(cache);
    if (cache->entries >= cache->bucket_count && !grow(cache) && cache->buckets == NULL)
        return;
    uint64_t hash = hash_of(locator, len);
    struct hsm_cache_entry **at = place(cache, locator, len, hash);
    if (*at != NULL) {
        (*at)->object = object;
        return;
    }
    struct hsm_cache_entry *entry = malloc(sizeof *entry + len);
    if (entry == NULL)
        return;
    entry->next = NULL;
    entry->object = object;
    entry->hash = hash;
    entry->len = len;
    memcpy(entry->locator, locator, len);
    *at = entry;
    cache->entries++;
}

void hsm_cache_drop(struct hsm_cache *cache, const uint8_t *locator, size_t len)
{
    if (cache->buckets == NULL)
        return;
    struct hsm_cache_entry **at = place(cache, locator, len, hash_of(locator, len));
    struct hsm_cache_entry *entry = *at;
    if (entry == NULL)
        return;
    *at = entry->next;
    free(entry);
    cache->entries--;
}

void hsm_cache_clear(struct hsm_cache *cache)
{
    for (uint32_t i = 0; i < cache->bucket_count; i++) {
        while (cache->buckets[i] != NULL) {
            struct hsm_cache_entry *entry = cache->buckets[i];
            cache->buckets[i] = entry->next;
            free(entry);
        }
    }
    free(cache->buckets);
    memset(cache, 0, sizeof *cache);
}
