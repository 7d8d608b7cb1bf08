/* Where the daemon is and how it is spoken to: the endpoint, checked and copied. */
#ifndef HSMSIGN_REMOTE_TARGET_H
#define HSMSIGN_REMOTE_TARGET_H

#include "why.h"

struct hsm_target {
    char *words;         /* the target as it was given */
    const char *path;    /* of a Unix socket; NULL: TCP with TLS */
    char *host, *port;   /* NULL for a Unix socket */
    char *authority;     /* :authority */
    char *ca, *certificate, *key, *server_name;
    uint32_t deadline_ms;
};

/* HSM_OK: the target's strings are freed by hsm_target_free; else it is empty. */
hsm_status hsm_target_read(const hsm_remote_endpoint *endpoint, struct hsm_target *target, struct hsm_why *why);
void hsm_target_free(struct hsm_target *target);

#endif
