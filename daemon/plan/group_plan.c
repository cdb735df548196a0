/* SPDX-License-Identifier: Apache-2.0 */
/* The one canonical order, the same in every process, since groups are made by all ranks in this
 * order: tied groups by key (bytewise), for each data coordinate, for each model coordinate; data
 * groups for each pipe, model; model groups for each pipe, data; pipe groups for each data, model.
 * A tied group exists even when one rank holds all its layers: the uses are summed there all the
 * same. A data or model axis of one rank has no group; a pipe group always exists (the norm is
 * summed over it). Reference: deepspeed.md 30, 64. */
#include "daemon/plan/group_plan.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

const char *mr_group_kind_name(mr_group_kind kind) {
    static const char *const names[MR_GROUP_KIND_COUNT] = {"tied", "data", "model", "pipe"};
    MR_ASSERT((unsigned)kind < MR_GROUP_KIND_COUNT);
    return names[kind];
}

/* Appends a group with room for rank_max ranks and none in it. */
static mr_status group_append(mr_plan *plan, mr_group_kind kind, size_t rank_max,
                              mr_group_plan **out_group) {
    mr_group_plan *group = &plan->groups[plan->group_count];
    group->kind = kind;
    group->ranks = mr_alloc_array(rank_max, sizeof(*group->ranks));
    if (group->ranks == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group of %zu ranks", rank_max);
    plan->group_count++;
    *out_group = group;
    return MR_OK;
}

/* The ranks of one (data, model) coordinate whose stage holds a layer of the tie. Layers and bounds
 * both ascend, so one walk over the layers meets each stage once. */
static mr_status group_add_tied(mr_plan *plan, const mr_tie *tie, size_t data, size_t model) {
    mr_group_plan *group = NULL;
    size_t rank_max = tie->layer_count < plan->stage_count ? tie->layer_count : plan->stage_count;
    MR_TRY(group_append(plan, MR_GROUP_TIED, rank_max, &group));
    memcpy(group->key, tie->key, sizeof(group->key));
    size_t stage = 0;
    for (size_t i = 0; i < tie->layer_count; i++) {
        if (i > 0 && tie->layers[i] < plan->bounds[stage + 1])
            continue;
        while (tie->layers[i] >= plan->bounds[stage + 1])
            stage++;
        size_t coordinates[] = {stage, data, model};
        MR_TRY(mr_topology_rank(&plan->topology, coordinates, &group->ranks[group->rank_count]));
        group->rank_count++;
    }
    return MR_OK;
}

static mr_status group_add_axis(mr_plan *plan, mr_group_kind kind) {
    const char *axis = mr_group_kind_name(kind);
    size_t dim = mr_topology_dim(&plan->topology, axis);
    for (size_t i = 0; i < mr_topology_comm_list_count(&plan->topology, axis); i++) {
        mr_group_plan *group = NULL;
        MR_TRY(group_append(plan, kind, dim, &group));
        mr_topology_comm_list(&plan->topology, axis, i, group->ranks);
        group->rank_count = dim;
    }
    return MR_OK;
}

static mr_status group_fill(mr_plan *plan, const mr_tie *ties, size_t tie_count) {
    const mr_job *job = plan->job;
    size_t replicas = job->data * job->model;
    size_t count = 0;
    if (!mr_size_mul(tie_count, replicas, &count) || count > MR_PLAN_GROUPS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%zu tied keys in %zu replicas make more than %d groups",
                        tie_count, replicas, MR_PLAN_GROUPS_MAX);
    /* The other three kinds: at most one group per rank each. */
    plan->groups = mr_alloc_array(count + 3 * plan->topology.world_size, sizeof(*plan->groups));
    if (plan->groups == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the groups of %zu ranks",
                        plan->topology.world_size);
    for (size_t tie = 0; tie < tie_count; tie++)
        for (size_t data = 0; data < job->data; data++)
            for (size_t model = 0; model < job->model; model++)
                MR_TRY(group_add_tied(plan, &ties[tie], data, model));
    if (job->data > 1)
        MR_TRY(group_add_axis(plan, MR_GROUP_DATA));
    if (job->model > 1)
        MR_TRY(group_add_axis(plan, MR_GROUP_MODEL));
    return group_add_axis(plan, MR_GROUP_PIPE);
}

mr_status mr_group_plan_fill(mr_plan *plan) {
    mr_tie *ties = NULL;
    size_t tie_count = 0;
    MR_TRY(mr_job_ties(plan->job, &ties, &tie_count));
    mr_status status = group_fill(plan, ties, tie_count);
    mr_job_ties_free(ties, tie_count);
    return status;
}

void mr_group_plan_free(mr_plan *plan) {
    for (size_t i = 0; i < plan->group_count; i++)
        mr_free(plan->groups[i].ranks);
    mr_free(plan->groups);
    plan->groups = NULL;
    plan->group_count = 0;
}
