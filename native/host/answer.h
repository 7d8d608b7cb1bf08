/* The DONE frame of a chunk, being made: results in their place, signatures behind room for all results. */
#ifndef HSMSIGN_ANSWER_H
#define HSMSIGN_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/frame.h"
#include "host.h"
#include "queue.h"

struct hsm_answer {
    struct hsm_result results[HSM_CHUNK_MAX];
    uint8_t signatures[HSM_CHUNK_MAX * HSM_SIGNATURE_MAX];
    size_t signatures_len;
    uint32_t count;
};

#define HSM_ANSWER_FRAME_MAX                                                                                          \
    (sizeof(struct hsm_frame_header) + HSM_CHUNK_MAX * (sizeof(struct hsm_result) + HSM_SIGNATURE_MAX))

void hsm_answer_clear(struct hsm_answer *answer);

/* Where the next signature is to be written: HSM_SIGNATURE_MAX bytes. */
uint8_t *hsm_answer_room(struct hsm_answer *answer);

/* Item `index` is signed: `length` bytes were written to hsm_answer_room. */
void hsm_answer_add(struct hsm_answer *answer, uint32_t index, size_t length);
void hsm_answer_fail(struct hsm_answer *answer, uint32_t index, hsm_status status, uint64_t code);

/* Sends what is in the answer, if anything; `frame` is room for HSM_ANSWER_FRAME_MAX bytes. */
void hsm_answer_flush(struct hsm_pool *pool, const struct hsm_order *order, const struct hsm_answer *answer,
                      uint8_t *frame);

/* What of a chunk is not done goes back to the queue; or fails here where the queue does not take it. */
void hsm_answer_give_back(struct hsm_pool *pool, const struct hsm_chunk *part, struct hsm_answer *answer);

/* The device failed under item `chunk->first`: it and the rest go back, but none for ever: an item that
 * failed too often is answered with the code, or KEY_NOT_FOUND where there is none. The caller has had the pool go to HEALING. */
void hsm_answer_put_off(struct hsm_pool *pool, struct hsm_chunk chunk, uint64_t code, struct hsm_answer *answer);

#endif
