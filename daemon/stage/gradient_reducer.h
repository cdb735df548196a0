/* SPDX-License-Identifier: Apache-2.0 */
/* gradient_reducer.h: the thread that sums a stage's gradients over its replicas while EXEC goes
 * on: in the last backward of a step each layer is handed over as soon as it is done, from the last
 * layer to the first, and summed while the layers before it are computed and while other stages
 * drain. RD hands over the tied parameters, which RT has summed over the stages, and waits.
 *
 *   EXEC:     B..., ready(2) ready(1) ready(0), SG, RT, finish ----waits---> OP
 *   reducer:               sum 2    sum 1    sum 0        sum ties
 *
 * Order and bits (law 1): layers are summed in the order of the hand-overs, one order for all
 * replicas, since their instruction lists are equal. Neighbouring untied gradients of a layer lie
 * one behind the other and are one vector, with the zeros between them; each tied one is another.
 * Vectors are summed element by element in rank order. A gradient is the reducer's from its
 * hand-over until finish returns.
 * A group that only EXEC may work (NCCL's, whose streams overlap by themselves) gets no thread:
 * finish does all its sums, in the same order.
 * Owner: stage/session. Thread: EXEC. The group given to start is the reducer's own while a step is
 * between its first hand-over and the end of finish; at other times EXEC may use it.
 * Limits: MR_STEP_WAIT_TIMEOUT_MS for each sum; the queue holds a step's layers. */
#ifndef MR_STAGE_GRADIENT_REDUCER_H
#define MR_STAGE_GRADIENT_REDUCER_H

#include "daemon/group/group.h"
#include "daemon/observe/trace.h"
#include "daemon/stage/parameters.h"

typedef struct mr_gradient_reducer mr_gradient_reducer;

/* How long the sums of a step took, and how much of that EXEC waited for. */
typedef struct mr_reduction_time {
    int64_t sum_ns;
    int64_t exposed_ns;
} mr_reduction_time;

/* All memory; no thread yet. parameters and track (may be NULL) are borrowed until destroy. */
MR_MUST_CHECK mr_status mr_gradient_reducer_create(const mr_parameters *parameters,
                                                   mr_trace_track *track,
                                                   mr_gradient_reducer **out_reducer);
/* Takes the group, borrowed until destroy, and starts the thread. RESOURCE_EXHAUSTED: no thread. */
MR_MUST_CHECK mr_status mr_gradient_reducer_start(mr_gradient_reducer *reducer, mr_group *group);
/* The untied gradients of layer (its index within the stage) have their last addend in step. Once a
 * step for each layer. Never blocks, cannot fail: an error of its sum is finish's. */
void mr_gradient_reducer_ready(mr_gradient_reducer *reducer, uint64_t step, size_t layer);
/* After the ready calls of all layers and the sums over ties: hands over the tied gradients, and
 * waits for all. The first error, with the layer or tie, else OK. */
MR_MUST_CHECK mr_status mr_gradient_reducer_finish(mr_gradient_reducer *reducer, uint64_t step,
                                                   mr_reduction_time *out_time);
/* Interrupts a sum under way, ends the thread, frees. What is left undone stays so. NULL is
 * fine. */
void mr_gradient_reducer_destroy(mr_gradient_reducer *reducer);

#endif
