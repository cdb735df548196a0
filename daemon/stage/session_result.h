/* SPDX-License-Identifier: Apache-2.0 */
/* session_result.h: what a step without training gives back. Inference: the scores (logits) of row
 * 0 at the asked position. Evaluation: the mean loss of the step and, on request, all its logits,
 * in order of the microbatches. Both are f32 on the last stage first and on every rank in the end.
 * Without a backward pass a microbatch's input is let go when the same slot is used again, or at
 * the step's end.
 * Owner: stage/executor. Thread: EXEC. Internal to session.c and session_step.c. */
#ifndef MR_STAGE_SESSION_RESULT_H
#define MR_STAGE_SESSION_RESULT_H

#include "daemon/stage/session_state.h"

/* The largest piece in which logits go round the pipe group. */
enum { MR_SESSION_LOGIT_PIECE_BYTES = 1 << 20 };

/* Sizes the logits; inference has its memory from here on, evaluation from the first step that
 * wants them. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_session_result_init(mr_session *session);
/* Makes the memory for a step's logits, if it is not there yet. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_session_result_want(mr_session *session);
/* The tensor of that name in a message; NULL where there is none. */
const mr_tensor *mr_session_tensor(const mr_message *message, const char *name);
/* Last stage: takes the logits of a microbatch's output where they are wanted. INVALID_ARGUMENT: no
 * position came along. */
MR_MUST_CHECK mr_status mr_session_result_take(mr_session *session, const session_slot *slot,
                                               uint32_t micro_batch);
/* Before slot takes another input: lets go of the one before. Nothing to do in training. */
MR_MUST_CHECK mr_status mr_session_result_reuse(mr_session *session, session_slot *slot);
/* At the step's end, on every rank: lets all inputs go; loss and logits go round. */
MR_MUST_CHECK mr_status mr_session_result_share(mr_session *session);

#endif
