/* SPDX-License-Identifier: Apache-2.0 */
/* stage_meter.h: what EXEC counts of its own time: each instruction's share that was work and the
 * share that was waiting, for whom, microbatches, and what went over the links. The series are
 * found when an assignment begins and when its links stand, so that a step only adds to them.
 * Owner: stage/executor. Thread: EXEC, unless said; the series may be read by any.
 * Not here: what a finished step was (stage_metrics.h), single spans (observe/trace.h). */
#ifndef MR_STAGE_STAGE_METER_H
#define MR_STAGE_STAGE_METER_H

#include "daemon/link/link.h"
#include "daemon/observe/metrics.h"
#include "daemon/stage/assignment.h"

/* What a stage worked at. */
typedef enum mr_meter_phase {
    MR_METER_FORWARD,
    MR_METER_BACKWARD,
    MR_METER_SEND,
    MR_METER_REDUCE, /* sums over ranks, with the wait for the slowest of them */
    MR_METER_OPTIMIZER,
    MR_METER_PHASE_COUNT
} mr_meter_phase;

/* Why a stage did not train. */
typedef enum mr_meter_reason {
    MR_METER_WAIT_PREV,
    MR_METER_WAIT_NEXT,
    MR_METER_NO_WORK, /* between steps: the feed, a pause, or rank 0's decision */
    MR_METER_CHECKPOINT,
    MR_METER_REASON_COUNT
} mr_meter_reason;

/* The two neighbours that a stage sends to. */
typedef enum mr_meter_peer { MR_METER_PREV, MR_METER_NEXT, MR_METER_PEER_COUNT } mr_meter_peer;

typedef struct mr_stage_meter mr_stage_meter; /* opaque */

/* RESOURCE_EXHAUSTED: no memory. The table is borrowed until destroy. LOOP. */
MR_MUST_CHECK mr_status mr_stage_meter_create(mr_metrics *table, mr_stage_meter **out_meter);
/* NULL is fine. LOOP. */
void mr_stage_meter_destroy(mr_stage_meter *meter);
/* LOOP, before EXEC hears of the assignment: its stage's series appear. */
void mr_stage_meter_assign(mr_stage_meter *meter, const mr_assignment *assignment);

/* In all of the following NULL is fine: nothing is counted. */

/* The link to this neighbour stands; transport: its implementation's name. */
void mr_stage_meter_connect(mr_stage_meter *meter, mr_meter_peer peer, const char *transport);
/* What measures the messages on their way to this neighbour; the meter's. */
mr_link_watch *mr_stage_meter_watch(mr_stage_meter *meter, mr_meter_peer peer);
/* A step begins: nothing is in flight. */
void mr_stage_meter_begin(mr_stage_meter *meter);
/* An instruction of training took total_ns, of which work_ns was computing; for the others it is
 * not looked at. */
void mr_stage_meter_instruction(mr_stage_meter *meter, mr_opcode opcode, int64_t total_ns,
                                int64_t work_ns);
/* Payload bytes that the link to this neighbour has sent since it stands. */
void mr_stage_meter_sent(mr_stage_meter *meter, mr_meter_peer peer, uint64_t bytes);
void mr_stage_meter_idle(mr_stage_meter *meter, mr_meter_reason reason, int64_t ns);
/* One checkpoint operation of this stage: "save" or "load". */
void mr_stage_meter_checkpoint(mr_stage_meter *meter, const char *operation, int64_t ns);
/* A number that must be finite was not; loss, or else the gradients' norm. */
void mr_stage_meter_nonfinite(mr_stage_meter *meter, bool loss);

#endif
