/* SPDX-License-Identifier: Apache-2.0 */
/* session_model.h: what a session does with the other ranks of its model axis besides running
 * layers: microbatches, the loss, logits, and the squares of the gradients' norm. With an axis of
 * one rank each of these is nothing, or what it is without the axis.
 * Owner: stage/session. Thread: EXEC. No allocation in a step.
 * Not here: sums inside layers (layers/, model_axis.h). */
#ifndef MR_STAGE_SESSION_MODEL_H
#define MR_STAGE_SESSION_MODEL_H

#include "daemon/stage/session_state.h"

/* Sizes everything; after the activations are made. RESOURCE_EXHAUSTED names the bytes. */
MR_MUST_CHECK mr_status mr_session_model_build(mr_session *session);
/* After the connections are open. */
MR_MUST_CHECK mr_status mr_session_model_open(mr_session *session);
void mr_session_model_close(mr_session *session);

/* The next microbatch of a first stage: of the feed; the rank that is fed hands it on. The message
 * stays until its slot is loaded again. */
MR_MUST_CHECK mr_status mr_session_model_load(mr_session *session, uint32_t micro_batch,
                                              mr_message *out_message);
/* Loss of the last stage's output, and its gradient unless doutput is NULL, as mr_loss_run. */
MR_MUST_CHECK mr_status mr_session_model_loss(mr_session *session, const mr_tensor *output,
                                              const mr_tensor *labels, mr_tensor *doutput);
/* Room for mr_session_model_share, on the last stage; once. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_session_model_want_logits(mr_session *session);
/* Where this rank's share of logits that the axis cuts is to be put, before the gather. */
float *mr_session_model_share(mr_session *session);
/* logits [rows, whole] = the shares of all ranks, side by side. */
MR_MUST_CHECK mr_status mr_session_model_logits(mr_session *session, size_t rows, size_t whole,
                                                float *logits);
/* squares [owned]: of this rank's parameters; a cut one's become the sum over the axis, in rank
 * order, so that they are equal on all ranks and count once. */
MR_MUST_CHECK mr_status mr_session_model_squares(mr_session *session, double *squares);

#endif
