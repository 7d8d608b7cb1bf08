/* What an answer means: gRPC's status, or what stands in its place where a proxy or a dying daemon answered. */
#ifndef HSMSIGN_REMOTE_GRPC_H
#define HSMSIGN_REMOTE_GRPC_H

#include "http2.h"

/* HSM_OK: the call succeeded, and `body` of the answer is the message. `name` is the key's, for the words. */
hsm_status hsm_grpc_judge(const struct hsm_answer *answer, const char *name, struct hsm_why *why);

#endif
