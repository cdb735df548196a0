/* SPDX-License-Identifier: Apache-2.0 */
/* assignment.h: what a Prepare order asks of this stage: one rank of one epoch of one job, with the
 * job read and the plan computed anew, so that nothing is believed that can be checked.
 * Owner: stage. Immutable; LOOP makes it, and frees it when EXEC has let go of it. */
#ifndef MR_STAGE_ASSIGNMENT_H
#define MR_STAGE_ASSIGNMENT_H

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/plan/plan.h"
#include "millrace/v1/control.pb-c.h"

enum { MR_JOB_ID_BYTES = 64, MR_ADDRESS_BYTES = 128 };

typedef struct mr_assignment {
    char job_id[MR_JOB_ID_BYTES];
    uint64_t epoch;
    mr_job_mode mode;
    bool inference; /* the mode runs forward alone: there are no gradients */
    uint32_t rank;
    uint32_t stage;
    uint32_t replica; /* data coordinate */
    uint32_t model_rank; /* model coordinate: job and plan->shards are of its shards */
    size_t rank_count;
    char (*addresses)[MR_ADDRESS_BYTES]; /* by rank */
    mr_job *job;
    mr_plan *plan;
    char checkpoint_dir[MR_PATH_BYTES];  /* absolute; "" for none */
    char checkpoint_path[MR_PATH_BYTES]; /* to load from; "" for fresh weights */
    char load_path[MR_PATH_BYTES]; /* the job's checkpoint.load, absolute; "" for none */
    bool weights_only; /* of it: the job starts with them (job's checkpoint.load) */
} mr_assignment;

/* Reads the order. INVALID_ARGUMENT: a job file or rank that cannot be; FAILED_PRECONDITION: this
 * stage's schedule hash differs from the coordinator's. */
MR_MUST_CHECK mr_status mr_assignment_make(const Millrace__V1__Prepare *order,
                                           mr_assignment **out_assignment);
/* NULL is fine. */
void mr_assignment_destroy(mr_assignment *assignment);

/* Do microbatches come to this rank from the client? To the first stage of each replica, there to
 * the first rank of the model axis, which hands them on to the others. */
bool mr_assignment_is_fed(const mr_assignment *assignment);
/* This rank's part of the plan. */
const mr_stage_plan *mr_assignment_stage(const mr_assignment *assignment);
/* The shape that enters layer index (layer_count: the last layer's output). */
mr_shape mr_assignment_boundary(const mr_assignment *assignment, size_t layer);
/* Bytes of the largest message that crosses the boundary before layer, labels included. */
size_t mr_assignment_message_bytes(const mr_assignment *assignment, size_t layer);

#endif
