/* SPDX-License-Identifier: Apache-2.0 */
/* From job to plan, top to bottom: topology, descriptions, lists, proof, bounds, stages, groups,
 * bubble, hash. Every step is a pure function of the job, so the coordinator, the stages and the
 * client that make the plan by themselves all make the same one; the hash lets them check. */
#include "daemon/plan/plan.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/plan/group_plan.h"
#include "daemon/plan/partition.h"
#include "daemon/plan/profile_cut.h"
#include "daemon/plan/simulate.h"
#include "daemon/plan/stage_plan.h"
#include "daemon/plan/verify.h"

enum { PLAN_HASH_BYTES = 32, PLAN_BOUND_BYTES = 24 };

/* What is possible at all, before anything is allocated. */
static mr_status plan_check(const mr_job *job) {
    if (job->pipe == 0 || job->pipe > MR_STAGES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "pipeline.stages is %zu; it must be 1 to %d", job->pipe,
                        MR_STAGES_MAX);
    if (job->layer_count < job->pipe)
        return MR_ERROR(INVALID_ARGUMENT, "pipeline.stages is %zu but the model has %zu layers",
                        job->pipe, job->layer_count);
    if (job->chunks != 1)
        return MR_ERROR(INVALID_ARGUMENT,
                        "pipeline.chunks is %zu; the schedules 1f1b and gpipe run 1", job->chunks);
    if (job->micro_batches == 0 || job->micro_batches > MR_MICRO_BATCHES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "batch.micro_batches is %zu; it must be 1 to %d",
                        job->micro_batches, MR_MICRO_BATCHES_MAX);
    size_t instructions = job->pipe * (6 * job->micro_batches + 3);
    if (instructions > MR_PLAN_INSTRUCTIONS_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "pipeline.stages %zu times batch.micro_batches %zu make a schedule of up "
                        "to %zu instructions; at most %d",
                        job->pipe, job->micro_batches, instructions, MR_PLAN_INSTRUCTIONS_MAX);
    return MR_OK;
}

static mr_status plan_make_topology(mr_plan *plan) {
    static const char *const axes[] = {"pipe", "data", "model"};
    size_t dims[] = {plan->job->pipe, plan->job->data, plan->job->model};
    mr_status status = mr_topology_make(axes, dims, 3, &plan->topology);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "pipeline.topology");
}

static mr_status plan_balance_parameters(mr_plan *plan) {
    size_t layers = plan->job->layer_count;
    double *weights = mr_alloc_array(layers, sizeof(*weights));
    if (weights == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu layers", layers);
    for (size_t layer = 0; layer < layers; layer++)
        weights[layer] = (double)plan->layers[layer].trainable_elements;
    mr_status status = mr_partition_balanced(weights, layers, plan->stage_count, plan->bounds);
    mr_free(weights);
    return status;
}

/* Layers that match weigh 1, others nothing. */
static mr_status plan_balance_matches(mr_plan *plan) {
    const mr_job *job = plan->job;
    double *weights = mr_alloc_array(job->layer_count, sizeof(*weights));
    if (weights == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu layers", job->layer_count);
    mr_status status =
        mr_layer_pattern_weigh(job->partition_pattern, job->layers, job->layer_count, weights);
    if (mr_status_is_ok(status))
        status = mr_partition_balanced(weights, job->layer_count, plan->stage_count, plan->bounds);
    mr_free(weights);
    return mr_status_is_ok(status) ? status : mr_status_prefix(status, "pipeline.partition");
}

/* Until the layers are measured, or where they never are (inference), operations stand for time. */
static mr_status plan_balance_flops(mr_plan *plan) {
    size_t layers = plan->job->layer_count;
    double *weights = mr_alloc_array(layers, sizeof(*weights));
    if (weights == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to cut %zu layers", layers);
    for (size_t i = 0; i < layers; i++)
        weights[i] = plan->layers[i].flops_forward + plan->layers[i].flops_backward_input +
                     plan->layers[i].flops_backward_weight;
    plan->provisional = true;
    mr_status status = mr_partition_balanced(weights, layers, plan->stage_count, plan->bounds);
    mr_free(weights);
    return status;
}

static mr_status plan_make_bounds(mr_plan *plan, const mr_profile *profile) {
    const mr_job *job = plan->job;
    switch (job->partition) {
    case MR_PARTITION_UNIFORM:
        mr_partition_uniform(job->layer_count, plan->stage_count, plan->bounds);
        return MR_OK;
    case MR_PARTITION_PARAMETERS:
        return plan_balance_parameters(plan);
    case MR_PARTITION_TYPE:
        return plan_balance_matches(plan);
    case MR_PARTITION_WEIGHTS:
        if (job->weight_count != job->layer_count)
            return MR_ERROR(INVALID_ARGUMENT,
                            "pipeline.layer_weights has %zu entries; the model has %zu layers",
                            job->weight_count, job->layer_count);
        mr_status status =
            mr_partition_balanced(job->weights, job->layer_count, plan->stage_count, plan->bounds);
        return mr_status_is_ok(status) ? status
                                       : mr_status_prefix(status, "pipeline.layer_weights");
    case MR_PARTITION_PROFILE:
        return profile != NULL ? mr_profile_cut(plan, profile) : plan_balance_flops(plan);
    case MR_PARTITION_BOUNDS:
        MR_TRY(
            mr_partition_check(job->bounds, job->bound_count, job->layer_count, plan->stage_count));
        memcpy(plan->bounds, job->bounds, job->bound_count * sizeof(*plan->bounds));
        return MR_OK;
    case MR_PARTITION_KIND_COUNT:
    default:
        return MR_ERROR(INVALID_ARGUMENT, "there is no partition of number %d",
                        (int)job->partition);
    }
}

static mr_verify_shape plan_shape(const mr_plan *plan) {
    return (mr_verify_shape){.stage_count = plan->stage_count,
                             .micro_batches = plan->job->micro_batches,
                             .chunks = 1,
                             .training = !plan->inference};
}

/* Generates and proves all lists; leaves each stage's peak. */
static mr_status plan_make_schedules(mr_plan *plan) {
    mr_schedule_kind kind = plan->inference ? MR_SCHEDULE_INFERENCE : plan->job->schedule;
    for (size_t stage = 0; stage < plan->stage_count; stage++)
        MR_TRY(mr_schedule_generate(kind, stage, plan->stage_count, plan->job->micro_batches,
                                    &plan->schedules[stage]));
    size_t *peaks = mr_alloc_array(plan->stage_count, sizeof(*peaks));
    if (peaks == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to verify %zu stages", plan->stage_count);
    mr_verify_shape shape = plan_shape(plan);
    mr_status status = mr_verify(plan->schedules, &shape, peaks);
    for (size_t stage = 0; mr_status_is_ok(status) && stage < plan->stage_count; stage++)
        plan->stages[stage].peak_in_flight = peaks[stage];
    mr_free(peaks);
    return status;
}

static mr_status plan_make_bubble(mr_plan *plan) {
    mr_verify_shape shape = plan_shape(plan);
    mr_simulation simulation = {0};
    mr_status status = MR_OK;
    mr_stage_cost *costs = mr_alloc_array(plan->stage_count, sizeof(*costs));
    if (costs == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to simulate %zu stages", plan->stage_count);
    for (size_t stage = 0; stage < plan->stage_count; stage++)
        costs[stage] = (mr_stage_cost){.forward = 1, .backward_input = 1, .backward_weight = 1};
    MR_TRY_GOTO(status, mr_simulate(plan->schedules, &shape, costs, &simulation), out);
    plan->bubble_ideal = simulation.bubble;
    mr_stage_plan_costs(plan, costs);
    MR_TRY_GOTO(status, mr_simulate(plan->schedules, &shape, costs, &simulation), out);
    plan->bubble_predicted = simulation.bubble;
out:
    mr_free(costs);
    return status;
}

/* The bounds in one line, then the texts of all ranks in rank order, each ended by a newline. The
 * pipe axis is the first, so the ranks of one stage follow each other. */
static mr_status plan_hash_texts(const mr_plan *plan, EVP_MD_CTX *digest) {
    size_t ranks_per_stage = plan->topology.world_size / plan->stage_count;
    for (size_t i = 0; i <= plan->stage_count; i++) {
        char bound[PLAN_BOUND_BYTES];
        int length = snprintf(bound, sizeof(bound), "%zu%c", plan->bounds[i],
                              i == plan->stage_count ? '\n' : ' ');
        if (EVP_DigestUpdate(digest, bound, (size_t)length) != 1)
            return MR_ERROR(INTERNAL, "SHA-256 of the bounds failed");
    }
    for (size_t stage = 0; stage < plan->stage_count; stage++) {
        char *text = NULL;
        MR_TRY(mr_schedule_text(&plan->schedules[stage], &text));
        size_t length = strlen(text);
        bool good = true;
        for (size_t i = 0; i < ranks_per_stage; i++)
            good = good && EVP_DigestUpdate(digest, text, length) == 1 &&
                   EVP_DigestUpdate(digest, "\n", 1) == 1;
        mr_free(text);
        if (!good)
            return MR_ERROR(INTERNAL, "SHA-256 of stage %zu's schedule failed", stage);
    }
    return MR_OK;
}

static mr_status plan_make_hash(mr_plan *plan) {
    unsigned char hash[EVP_MAX_MD_SIZE] = {0};
    unsigned int length = 0;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    mr_status status = MR_OK;
    if (digest == NULL || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1) {
        status = MR_ERROR(INTERNAL, "SHA-256 is not available");
        goto out;
    }
    MR_TRY_GOTO(status, plan_hash_texts(plan, digest), out);
    if (EVP_DigestFinal_ex(digest, hash, &length) != 1 || length != PLAN_HASH_BYTES) {
        status = MR_ERROR(INTERNAL, "SHA-256 of the schedules failed");
        goto out;
    }
    for (size_t i = 0; i < PLAN_HASH_BYTES; i++) {
        plan->schedule_hash[2 * i] = "0123456789abcdef"[hash[i] >> 4];
        plan->schedule_hash[2 * i + 1] = "0123456789abcdef"[hash[i] & 15];
    }
out:
    EVP_MD_CTX_free(digest);
    return status;
}

static mr_status plan_make_shards(mr_plan *plan) {
    const mr_job *job = plan->job;
    plan->shards = plan->layers;
    if (job->model == 1)
        return MR_OK;
    plan->shards = mr_alloc_array(job->layer_count, sizeof(*plan->shards));
    if (plan->shards == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the shards of %zu layers",
                        job->layer_count);
    return mr_job_describe_shards(job, 0, plan->shards);
}

static mr_status plan_fill(mr_plan *plan, const mr_profile *profile) {
    const mr_job *job = plan->job;
    MR_TRY(plan_make_topology(plan));
    plan->bounds = mr_alloc_array(job->pipe + 1, sizeof(*plan->bounds));
    plan->stages = mr_alloc_array(job->pipe, sizeof(*plan->stages));
    plan->schedules = mr_alloc_array(job->pipe, sizeof(*plan->schedules));
    plan->layers = mr_alloc_array(job->layer_count, sizeof(*plan->layers));
    if (plan->bounds == NULL || plan->stages == NULL || plan->schedules == NULL ||
        plan->layers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a plan of %zu stages, %zu layers",
                        job->pipe, job->layer_count);
    plan->stage_count = job->pipe;
    MR_TRY(mr_job_describe(job, plan->layers));
    plan->aside_count = mr_asides_of(job->layers, job->layer_count, plan->asides);
    MR_TRY(mr_side_loss_names_of(plan->layers, job->layer_count, &plan->side_losses));
    MR_TRY(plan_make_shards(plan));
    MR_TRY(plan_make_schedules(plan));
    MR_TRY(plan_make_bounds(plan, profile));
    MR_TRY(mr_stage_plan_fill(plan));
    MR_TRY(mr_group_plan_fill(plan));
    MR_TRY(plan_make_bubble(plan));
    if (profile != NULL)
        MR_TRY(mr_profile_predict(plan, profile));
    return plan_make_hash(plan);
}

mr_status mr_plan_make(const mr_job *job, bool inference, mr_plan **out_plan) {
    return mr_plan_make_profiled(job, inference, NULL, out_plan);
}

mr_status mr_plan_make_profiled(const mr_job *job, bool inference, const mr_profile *profile,
                                mr_plan **out_plan) {
    MR_TRY(plan_check(job));
    mr_plan *plan = mr_alloc(sizeof(*plan));
    if (plan == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a plan");
    plan->job = job;
    plan->inference = inference || job->loss == MR_LOSS_NONE;
    mr_status status = plan_fill(plan, profile);
    if (mr_status_is_ok(status))
        *out_plan = plan;
    else
        mr_plan_destroy(plan);
    return status;
}

void mr_plan_destroy(mr_plan *plan) {
    if (plan == NULL)
        return;
    for (size_t stage = 0; stage < plan->stage_count; stage++)
        mr_schedule_deinit(&plan->schedules[stage]);
    mr_group_plan_free(plan);
    mr_free(plan->schedules);
    mr_free(plan->stages);
    if (plan->shards != plan->layers)
        mr_free(plan->shards);
    mr_free(plan->layers);
    mr_free(plan->bounds);
    mr_free(plan);
}
