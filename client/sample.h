/* SPDX-License-Identifier: Apache-2.0 */
/* sample.h: draws the next token from a model's scores. A pure function of scores, settings, seed
 * and the token's number, so that a text can be drawn again. Owner: client. Thread: any. */
#ifndef MR_CLIENT_SAMPLE_H
#define MR_CLIENT_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"

typedef struct mr_sample_settings {
    double temperature; /* >= 0; 0: the likeliest token, the lowest of equals */
    size_t top_k;       /* draw among the k likeliest; 0: all */
    uint64_t seed;
} mr_sample_settings;

/* Draws one of V tokens: softmax(logits / temperature) over the top_k likeliest (of equal scores
 * the lower token counts as likelier), taken at a number of stream (seed, index). order: room for V
 * indices, overwritten. INVALID_ARGUMENT: a score that is not finite, named with its token. */
MR_MUST_CHECK mr_status mr_sample_token(const mr_sample_settings *settings, const float *logits,
                                        size_t V, uint64_t index, uint32_t *order,
                                        uint32_t *out_token);

#endif
