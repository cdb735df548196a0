/* SPDX-License-Identifier: Apache-2.0 */
/* session.h: all that EXEC holds for one assignment: parameters, activations, links, groups, and
 * the execution of one step's instruction list over them.
 * Owner: stage/executor. Thread: EXEC, unless said.
 * Not here: what happens between steps (executor.c). */
#ifndef MR_STAGE_SESSION_H
#define MR_STAGE_SESSION_H

#include <stdatomic.h>

#include "daemon/stage/executor.h"
#include "daemon/stage/pass.h"

typedef struct mr_session mr_session;

/* Instruction in work, packed for one atomic store (see mr_session_progress). */
typedef struct mr_session_progress {
    _Atomic uint64_t step;
    _Atomic uint64_t instruction; /* 0: idle; else 1 + opcode, micro_batch, chunk packed */
    _Atomic int64_t since_ns;
} mr_session_progress;

typedef struct mr_session_options {
    mr_device *device;
    mr_transport transport;
    mr_feed *feed;
    mr_trace_track *track;
    mr_trace_track *reduce_track; /* of the reducer's thread */
    mr_session_progress *progress;
    _Atomic bool *stop; /* true: give up at the next instruction */
} mr_session_options;

/* Builds everything that needs no peer, draws or loads the weights, and stands ready for the peers'
 * links. The assignment is borrowed until destroy. */
MR_MUST_CHECK mr_status mr_session_create(const mr_session_options *options,
                                          const mr_assignment *assignment,
                                          mr_session **out_session);
/* Links, groups (ids: of all ranks), and one broadcast of each tied weight from its first rank. */
MR_MUST_CHECK mr_status mr_session_connect(mr_session *session, const mr_group_ids *ids);
/* The ids that this rank made while it was created; they are the caller's, who deinits them. */
mr_group_ids mr_session_take_ids(mr_session *session);
/* NULL is fine. */
void mr_session_destroy(mr_session *session);

/* Before a step: how many microbatches of each replica it has, from 1 to the job's. Errors: as
 * mr_schedule_shelf_get. */
MR_MUST_CHECK mr_status mr_session_set_micro_batches(mr_session *session, size_t micro_batches);
/* Runs the rank's list for the next step. On success the step counter has moved. wants_logits:
 * an evaluated step's logits are kept, too (inference: always). */
MR_MUST_CHECK mr_status mr_session_step(mr_session *session, bool wants_logits,
                                        mr_step_result *out_result);
/* Writes this rank's files under tag: its share of its stage's layers. On all ranks at once. */
MR_MUST_CHECK mr_status mr_session_save(mr_session *session, const char *tag,
                                        mr_layer_save_files *out_files);
/* Between steps: the bytes at record, which rank 0 has filled, on every rank of the job: from rank
 * 0 to the first stages of all replicas, from each of them over its model axis, and from each of
 * those down its pipeline. */
MR_MUST_CHECK mr_status mr_session_agree(mr_session *session, void *record, size_t bytes);
const mr_assignment *mr_session_assignment(const mr_session *session);
/* How far the optimizer is. */
mr_applied mr_session_applied(const mr_session *session);
/* The step that comes next, from 0. */
uint64_t mr_session_next_step(const mr_session *session);
/* Between steps: keeps activations each interval layers from now on. Bits do not change (law 1).
 * Where the device has no memory for it the old interval stays, with a line in the log. Errors: as
 * create, and of the waits for what is still being sent. */
MR_MUST_CHECK mr_status mr_session_set_interval(mr_session *session, size_t interval);
/* The interval in use. */
size_t mr_session_interval(const mr_session *session);
/* What its parameters and activations take of the device's memory. */
mr_memory_held mr_session_memory(const mr_session *session);
/* Without training: logits of the step just done, on every rank, borrowed until the next step; NULL
 * where they were not wanted. */
const float *mr_session_logits(const mr_session *session, mr_shape *out_shape);
/* Any thread, after connect: ends every wait. */
void mr_session_interrupt(mr_session *session, const char *reason);

#endif
