/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h: the pure result of (job, devices): topology, bounds, groups, schedules, memory, bubble.
 * Coordinator, every stage and the client compute the same plan from the same job file.
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_PLAN_H
#define MR_PLAN_PLAN_H

#include "daemon/base/status.h"
#include "daemon/model/aside.h"
#include "daemon/model/side_loss.h"
#include "daemon/model/job.h"
#include "daemon/plan/profile.h"
#include "daemon/plan/schedule.h"
#include "daemon/plan/topology.h"

typedef struct mr_stage_plan {
    size_t layer_first;
    size_t layer_end;
    size_t parameters; /* elements on this stage, a tied parameter once per stage */
    double flops;      /* of one step, forward and backward */
    size_t weights_bytes;
    size_t gradients_bytes;
    size_t optimizer_bytes;  /* of the replica that holds the most of it */
    size_t state_bytes;      /* of the layout of one state tensor, which zero_stage 1 splits */
    size_t zero_saved_bytes; /* what that replica would hold more of with zero_stage 0 */
    size_t activations_bytes;
    size_t peak_in_flight; /* microbatches whose activations are held at once */
    double busy_seconds;   /* of one step, predicted; 0 without a profile */
} mr_stage_plan;

/* Bytes on one rank's device, by what they are for. */
typedef struct mr_memory_bytes {
    uint64_t weights;
    uint64_t gradients;
    uint64_t optimizer;
    uint64_t activations;
} mr_memory_bytes;

typedef enum mr_group_kind {
    MR_GROUP_TIED,
    MR_GROUP_DATA,
    MR_GROUP_MODEL,
    MR_GROUP_PIPE,
    MR_GROUP_KIND_COUNT
} mr_group_kind;

typedef struct mr_group_plan {
    mr_group_kind kind;
    char key[MR_NAME_BYTES]; /* of a tied group */
    size_t rank_count;
    uint32_t *ranks; /* ascending */
} mr_group_plan;

typedef struct mr_plan {
    const mr_job *job; /* borrowed */
    mr_topology topology;
    bool inference; /* forward only: no gradients, no optimizer */
    size_t stage_count;
    size_t *bounds; /* stage_count + 1 */
    mr_stage_plan *stages;
    mr_layer_description *layers; /* job->layer_count: of the whole layers */
    /* Of what one rank holds of each: the shards of model rank 0, which are never smaller than
     * another's. A stage puts its own rank's there (stage/assignment.c). layers itself where the
     * model axis has one rank. */
    mr_layer_description *shards;
    size_t aside_count; /* what layers put aside for later ones */
    mr_aside asides[MR_ASIDES_MAX];
    mr_side_loss_names side_losses; /* that layers add to the model's */
    mr_schedule *schedules;       /* one per stage; equal for all data and model ranks of it */
    size_t group_count;
    mr_group_plan *groups; /* in one canonical order: tied by key, data, model, pipe */
    double bubble_ideal;
    double bubble_predicted;
    double step_seconds; /* predicted; 0 without a profile */
    bool provisional;    /* partition: profile, without one: cut by operations meanwhile */
    char schedule_hash[65]; /* SHA-256 of all ranks' schedule texts and the bounds */
} mr_plan;

/* inference: the forward-only schedule instead of the job's. Verifies every schedule (law 2).
 * INVALID_ARGUMENT: what is impossible, by field ("pipeline.stages is 9 but the model has 8
 * layers").
 * Owner frees with mr_plan_destroy before the job. */
MR_MUST_CHECK mr_status mr_plan_make(const mr_job *job, bool inference, mr_plan **out_plan);
/* The same with what the layers really cost: predicts the step's time, and cuts a job with
 * partition: profile (profile_cut.h). profile: NULL for none; borrowed for the call.
 * Also FAILED_PRECONDITION: the profile is of another key; RESOURCE_EXHAUSTED: no cut fits. */
MR_MUST_CHECK mr_status mr_plan_make_profiled(const mr_job *job, bool inference,
                                              const mr_profile *profile, mr_plan **out_plan);
void mr_plan_destroy(mr_plan *plan);
/* Bytes of optimizer state on data coordinate replica of a stage. */
size_t mr_plan_optimizer_bytes(const mr_plan *plan, size_t stage, size_t replica);
/* What a rank of data coordinate replica of a stage holds. */
mr_memory_bytes mr_plan_memory(const mr_plan *plan, size_t stage, size_t replica);
/* The millrace.plan/v1 JSON of DESIGN section 5; owner frees with mr_free. */
MR_MUST_CHECK mr_status mr_plan_json(const mr_plan *plan, char **out_json);

#endif
