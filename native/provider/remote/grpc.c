#include "grpc.h"

#include <nghttp2/nghttp2.h>

enum { OK = 0, CANCELLED = 1, UNKNOWN = 2, UNIMPLEMENTED = 12, UNAVAILABLE = 14 };

/* The codes of gRPC (statuscodes.md), 0 to 16. A key that one may not use looks like one that is not there. */
static const struct {
    hsm_status status;
    const char *does;
} meanings[] = {
    {HSM_OK, "signed"},
    {HSM_E_CANCELLED, "gave up signing"},
    {HSM_E_BROKEN, "failed to sign"},
    {HSM_E_BAD_INPUT, "does not take the request to sign"},
    {HSM_E_DEADLINE, "could not sign in time"},
    {HSM_E_KEY_NOT_FOUND, "found nothing to sign"},
    {HSM_E_BROKEN, "failed to sign"},
    {HSM_E_KEY_NOT_FOUND, "gives no permission to sign"},
    {HSM_E_BUSY, "is too busy to sign"},
    {HSM_E_UNSUPPORTED, "may not sign"},
    {HSM_E_BROKEN, "gave up signing"},
    {HSM_E_BROKEN, "failed to sign"},
    {HSM_E_UNSUPPORTED, "does not know how to sign"},
    {HSM_E_DEVICE, "failed to sign"},
    {HSM_E_NOT_PRESENT, "is not available to sign"},
    {HSM_E_BROKEN, "lost a signature"},
    {HSM_E_KEY_NOT_FOUND, "does not know who asks to sign"},
};

/* gRPC's http-grpc-status-mapping.md: what a proxy means */
static int from_http(int status)
{
    switch (status) {
    case 401:
        return 16;
    case 403:
        return 7;
    case 404:
        return UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return UNAVAILABLE;
    default:
        return UNKNOWN;
    }
}

static hsm_status refuse(int code, const char *words, const char *name, struct hsm_why *why)
{
    const hsm_status status = meanings[code].status;
    const char *said = words[0] != '\0' ? words : "it says no more";
    /* CANCELLED: what a gRPC server that stops says to calls that reach it in the last moment */
    if (code == UNAVAILABLE || code == CANCELLED)
        return hsm_why_passing(why, status, "the daemon %s with %.70s: %s", meanings[code].does, name, said);
    return hsm_why_final(why, status, "the daemon %s with %.70s: %s", meanings[code].does, name, said);
}

static hsm_status judge_reset(const struct hsm_answer *answer, struct hsm_why *why)
{
    const char *code = nghttp2_http2_strerror(answer->reset_code);
    if (answer->refused || answer->reset_code == NGHTTP2_CANCEL)
        return hsm_why_passing(why, HSM_E_NOT_PRESENT, "the daemon turned the call away (%s)", code);
    return hsm_why_final(why, HSM_E_FRAME, "the daemon broke off the call (%s); its log says more", code);
}

static hsm_status judge_http(int status, struct hsm_why *why)
{
    const int code = from_http(status);
    if (status < 100)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer has no status at all");
    if (code == UNAVAILABLE)
        return hsm_why_passing(why, HSM_E_NOT_PRESENT, "something before the daemon answers with HTTP status %d",
                               status);
    return hsm_why_final(why, meanings[code].status, "what answers is no daemon: HTTP status %d; is a proxy between?",
                         status);
}

hsm_status hsm_grpc_judge(const struct hsm_answer *answer, const char *name, struct hsm_why *why)
{
    if (answer->reset)
        return judge_reset(answer, why);
    if (answer->grpc_statuses == 0 && answer->http_status != 200)
        return judge_http(answer->http_status, why);
    if (!answer->is_grpc)
        return hsm_why_final(why, HSM_E_FRAME, "what answers does not speak gRPC; does the endpoint name its port?");
    if (answer->grpc_statuses != 1 || answer->grpc_status < 0)
        return hsm_why_final(why, HSM_E_FRAME, "the daemon's answer has no gRPC status that can be read");
    return answer->grpc_status == OK ? HSM_OK : refuse(answer->grpc_status, answer->words, name, why);
}
