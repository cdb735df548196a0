/* SPDX-License-Identifier: Apache-2.0 */
/* verify.h: the proof that the lists of one pipeline are a training or inference step (law 2).
 * Coordinator and stage run it on the same lists, whoever wrote them.
 * Owner: plan. Pure, any thread.
 * Not here: writing lists (schedule.h), time (simulate.h). */
#ifndef MR_PLAN_VERIFY_H
#define MR_PLAN_VERIFY_H

#include "daemon/base/status.h"
#include "daemon/plan/schedule.h"

/* What the lists are meant to be. With chunks above 1 a stage holds several parts of the model,
 * placed in turns: part (virtual stage) v = chunk * stage_count + stage. */
typedef struct mr_verify_shape {
    size_t stage_count;
    size_t micro_batches;
    size_t chunks;
    bool training; /* false: forward only */
} mr_verify_shape;

/* Proves, for stage_count lists:
 *   every (microbatch, chunk) has one F on each stage, and in training one B or one I then one W;
 *   L, only for the first part, or RA stands before F; RG before B or I; SA and SG after what they
 *   send; backward (B, I) and accumulation (B, W) ascend by microbatch;
 *   training ends with RT, RD, OP, inference has none of them;
 *   on each directed edge and kind, sends and receives come in the same order;
 *   all lists end even if every send blocks until it is received, every receive until it is sent.
 * out_peaks: NULL or stage_count values: the most (microbatch, chunk) pairs held at once, in
 * training from F to B or W, in inference from L or RA to SA or, on the last part, to F.
 * INVALID_ARGUMENT names the stage, the place in its list and the instructions.
 * RESOURCE_EXHAUSTED: no memory. O(instructions + stages * microbatches * chunks). */
MR_MUST_CHECK mr_status mr_verify(const mr_schedule *schedules, const mr_verify_shape *shape,
                                  size_t *out_peaks);

#endif
