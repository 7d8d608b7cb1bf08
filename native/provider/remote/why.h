/* Why something failed, on its way up: status, whether the same may succeed a moment later, and words. */
#ifndef HSMSIGN_REMOTE_WHY_H
#define HSMSIGN_REMOTE_WHY_H

#include "remote.h"

struct hsm_why {
    hsm_status status;
    bool again; /* worth a new attempt on a new connection */
    struct hsm_remote_trouble trouble;
};

/* Both write a sentence (cut and made printable), and return `status`. */
hsm_status hsm_why_final(struct hsm_why *why, hsm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
hsm_status hsm_why_passing(struct hsm_why *why, hsm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The text of a grpc-message: percent-decoded, what is not printable replaced, cut to `room` with its end mark.
 * (gRPC over HTTP/2, "Percent-Encoded".) Bytes beyond ASCII stay: the text is UTF-8. */
void hsm_words_decode(const char *encoded, size_t len, char *words, size_t room);

#endif
