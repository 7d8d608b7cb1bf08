#include "target.h"

#include <stdlib.h>
#include <string.h>

#define PATH_ROOM 107 /* of sockaddr_un */
#define HOST_ROOM 253
#define WORDS_ROOM 4096
#define FORMS "an endpoint is unix:///path/to/socket or dns:///host:port"

static bool fits(const char *text, size_t room)
{
    if (text == NULL || text[0] == '\0' || strnlen(text, room + 1) > room)
        return false;
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static bool copy(const char *from, char **to)
{
    *to = from != NULL ? strdup(from) : NULL;
    return from == NULL || *to != NULL;
}

static bool is_port(const char *text)
{
    const size_t len = strlen(text);
    if (len == 0 || len > 5 || strspn(text, "0123456789") != len)
        return false;
    const long port = strtol(text, NULL, 10);
    return port >= 1 && port <= 65535;
}

static bool is_host(const char *host, size_t len)
{
    static const char known[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    return len > 0 && len <= HOST_ROOM && strspn(host, known) >= len;
}

static bool is_ipv6(const char *host, size_t len)
{
    return len > 0 && len <= 45 && strspn(host, "0123456789abcdefABCDEF:.") >= len;
}

static hsm_status read_unix(const hsm_remote_endpoint *endpoint, struct hsm_target *target, struct hsm_why *why)
{
    target->path = target->words + strlen("unix://");
    if (strlen(target->path) > PATH_ROOM || target->path[1] == '\0')
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the socket's path in %.120s must have 1 to %d bytes",
                             target->words, PATH_ROOM);
    if (endpoint->ca != NULL || endpoint->certificate != NULL || endpoint->key != NULL ||
        endpoint->server_name != NULL)
        return hsm_why_final(why, HSM_E_BAD_INPUT,
                             "a Unix socket takes no ca, certificate, key or server name; the kernel says who calls");
    target->authority = strdup("localhost");
    return target->authority != NULL ? HSM_OK : hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
}

static hsm_status read_host(struct hsm_target *target, struct hsm_why *why)
{
    const char *rest = target->words + strlen("dns:///"), *colon = strrchr(rest, ':');
    if (colon == NULL || !is_port(colon + 1))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "%.120s has no host and port; " FORMS, target->words);
    const char *host = rest;
    size_t len = (size_t)(colon - rest);
    const bool bracketed = len >= 2 && host[0] == '[' && host[len - 1] == ']';
    if (bracketed ? !is_ipv6(host + 1, len - 2) : !is_host(host, len))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "%.120s names no host that could be; " FORMS, target->words);
    if (bracketed) {
        host++;
        len -= 2;
    }
    target->host = strndup(host, len);
    target->port = strdup(colon + 1);
    target->authority = strdup(target->server_name != NULL ? target->server_name : rest);
    if (target->host == NULL || target->port == NULL || target->authority == NULL)
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    return HSM_OK;
}

static hsm_status read_network(const hsm_remote_endpoint *endpoint, struct hsm_target *target, struct hsm_why *why)
{
    if (!fits(endpoint->ca, WORDS_ROOM) || !fits(endpoint->certificate, WORDS_ROOM) || !fits(endpoint->key, WORDS_ROOM))
        return hsm_why_final(why, HSM_E_BAD_INPUT,
                             "%.120s is reached over mutual TLS, which takes three PEM files: ca, certificate, key",
                             target->words);
    const char *name = endpoint->server_name;
    if (name != NULL && !is_host(name, strlen(name)) && !is_ipv6(name, strlen(name)))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "the server name %.100s is no host's name", name);
    if (!copy(endpoint->ca, &target->ca) || !copy(endpoint->certificate, &target->certificate) ||
        !copy(endpoint->key, &target->key) || !copy(name, &target->server_name))
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    return read_host(target, why);
}

hsm_status hsm_target_read(const hsm_remote_endpoint *endpoint, struct hsm_target *target, struct hsm_why *why)
{
    memset(target, 0, sizeof *target);
    hsm_status status = HSM_OK;
    if (!fits(endpoint->target, WORDS_ROOM))
        return hsm_why_final(why, HSM_E_BAD_INPUT, "no endpoint was given; " FORMS);
    if (endpoint->deadline_ms == 0)
        return hsm_why_final(why, HSM_E_BAD_INPUT, "a deadline of 0 ms leaves no time to sign; give some seconds");
    target->deadline_ms = endpoint->deadline_ms;
    if (!copy(endpoint->target, &target->words))
        return hsm_why_final(why, HSM_E_NO_MEMORY, "out of memory");
    if (strncmp(target->words, "unix:///", strlen("unix:///")) == 0)
        status = read_unix(endpoint, target, why);
    else if (strncmp(target->words, "dns:///", strlen("dns:///")) == 0)
        status = read_network(endpoint, target, why);
    else
        status = hsm_why_final(why, HSM_E_BAD_INPUT, "%.120s is no endpoint; " FORMS, target->words);
    if (status != HSM_OK)
        hsm_target_free(target);
    return status;
}

void hsm_target_free(struct hsm_target *target)
{
    char *const owned[] = {target->words, target->host,        target->port, target->authority,
                           target->ca,    target->certificate, target->key,  target->server_name};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    memset(target, 0, sizeof *target);
}
