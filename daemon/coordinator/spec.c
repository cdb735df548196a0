/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/spec.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/plan.h"

bool mr_job_spec_saves(const mr_job_spec *spec) {
    return mr_job_mode_trains(spec->mode) && spec->checkpoint_dir[0] != '\0';
}

void mr_job_spec_destroy(mr_job_spec *spec) {
    if (spec == NULL)
        return;
    for (size_t i = 0; i < spec->group_count; i++)
        mr_free(spec->groups[i].ranks);
    mr_free(spec->groups);
    mr_free(spec->ranks);
    mr_job_destroy(spec->job);
    mr_profile_destroy(spec->profile);
    mr_free(spec->bounds);
    mr_free(spec->profile_text);
    mr_free(spec->job_file);
    mr_free(spec->base_directory);
    mr_free(spec);
}

mr_status mr_job_spec_ended(const char *name, const char *job_file, const char *base_directory,
                            mr_job_mode mode, mr_job_spec **out_spec) {
    mr_job_spec *spec = mr_alloc(sizeof(*spec));
    if (spec == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the job");
    (void)snprintf(spec->name, sizeof(spec->name), "%s", name); /* cut where it is too long */
    spec->mode = mode;
    spec->job_file = mr_strdup(job_file);
    spec->base_directory = mr_strdup(base_directory);
    if (spec->job_file == NULL || spec->base_directory == NULL) {
        mr_job_spec_destroy(spec);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the text of job %s", name);
    }
    *out_spec = spec;
    return MR_OK;
}

mr_status mr_job_spec_keep_profile(mr_job_spec *spec, const char *profile) {
    if (profile == NULL || profile[0] == '\0')
        return MR_OK;
    spec->profile_text = mr_strdup(profile);
    if (spec->profile_text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the profile of job %s", spec->name);
    return MR_OK;
}

/* Coordinates of rank on the axes that the plan has. */
static mr_status spec_add_rank(mr_job_spec *spec, const mr_plan *plan, uint32_t rank) {
    size_t coordinates[MR_AXES_MAX];
    MR_TRY(mr_topology_coordinates(&plan->topology, rank, coordinates));
    size_t pipe = 0;
    size_t data = 0;
    bool model_first = true;
    for (size_t axis = 0; axis < plan->topology.axis_count; axis++) {
        if (strcmp(plan->topology.axes[axis], "pipe") == 0)
            pipe = coordinates[axis];
        else if (strcmp(plan->topology.axes[axis], "data") == 0)
            data = coordinates[axis];
        else if (strcmp(plan->topology.axes[axis], "model") == 0)
            model_first = coordinates[axis] == 0;
    }
    spec->ranks[rank] = (mr_spec_rank){
        .stage = (uint32_t)pipe,
        .layer_first = (uint32_t)plan->bounds[pipe],
        .layer_end = (uint32_t)plan->bounds[pipe + 1],
        .first = pipe == 0 && model_first,
        .memory = mr_plan_memory(plan, pipe, data),
    };
    return MR_OK;
}

static mr_status spec_add_group(mr_spec_group *group, const mr_group_plan *plan) {
    static const char *const kinds[MR_GROUP_KIND_COUNT] = {
        [MR_GROUP_TIED] = "tied",
        [MR_GROUP_DATA] = "data",
        [MR_GROUP_MODEL] = "model",
        [MR_GROUP_PIPE] = "pipe",
    };
    group->kind = kinds[plan->kind];
    memcpy(group->key, plan->key, sizeof(group->key));
    group->ranks = mr_alloc_array(plan->rank_count, sizeof(*group->ranks));
    if (group->ranks == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a group of %zu ranks", plan->rank_count);
    memcpy(group->ranks, plan->ranks, plan->rank_count * sizeof(*group->ranks));
    group->rank_count = plan->rank_count;
    return MR_OK;
}

static mr_status spec_take_plan(mr_job_spec *spec, const mr_plan *plan) {
    spec->rank_count = plan->topology.world_size;
    spec->ranks = mr_alloc_array(spec->rank_count, sizeof(*spec->ranks));
    spec->groups = mr_alloc_array(plan->group_count, sizeof(*spec->groups));
    if (spec->ranks == NULL || spec->groups == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the plan of job %s", spec->name);
    for (uint32_t rank = 0; rank < spec->rank_count; rank++)
        MR_TRY(spec_add_rank(spec, plan, rank));
    spec->group_count = plan->group_count;
    for (size_t i = 0; i < plan->group_count; i++)
        MR_TRY(spec_add_group(&spec->groups[i], &plan->groups[i]));
    for (size_t layer = 0; layer < plan->job->layer_count; layer++)
        spec->saved_layers += mr_job_saves_layer(plan->job, &plan->layers[layer]);
    memcpy(spec->schedule_hash, plan->schedule_hash, sizeof(spec->schedule_hash));
    spec->bubble_planned = plan->bubble_predicted;
    return MR_OK;
}

static mr_status spec_take_job(mr_job_spec *spec, const mr_job *job) {
    spec->total_steps = mr_job_mode_trains(spec->mode) ? job->total_steps : 0;
    memcpy(spec->model_hash, job->model_hash, sizeof(spec->model_hash));
    spec->checkpoint_keep = job->checkpoint_keep;
    spec->checkpoint_every_steps = job->checkpoint_every_steps;
    spec->samples_per_step = (uint64_t)job->micro_batch_size * job->micro_batches * job->data;
    if (job->tensorboard_dir[0] != '\0' && mr_job_mode_trains(spec->mode))
        MR_TRY(mr_job_resolve_path(spec->base_directory, job->tensorboard_dir,
                                   spec->tensorboard_dir));
    if (job->checkpoint_dir[0] == '\0')
        return MR_OK;
    return mr_job_resolve_path(spec->base_directory, job->checkpoint_dir, spec->checkpoint_dir);
}

/* The profile of a job that trains, or measures: read, and of this job. */
static mr_status spec_take_profile(const mr_spec_source *source, const mr_job *job,
                                   mr_profile **out_profile) {
    mr_profile *profile = NULL;
    if (source->profile == NULL || source->profile[0] == '\0')
        return MR_OK;
    MR_TRY(mr_profile_parse(source->profile, strlen(source->profile), &profile));
    mr_status status = mr_profile_check(profile, job);
    if (mr_status_is_ok(status))
        *out_profile = profile;
    else
        mr_profile_destroy(profile);
    return status;
}

/* The cut that stands: it does not change with the job's settings. */
static mr_status spec_keep_cut(const mr_spec_source *source, mr_job *job) {
    if (source->bounds == NULL)
        return MR_OK;
    size_t *bounds = mr_alloc_array(source->bound_count, sizeof(*bounds));
    if (bounds == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bounds", source->bound_count);
    for (size_t i = 0; i < source->bound_count; i++)
        bounds[i] = source->bounds[i];
    mr_status status = mr_job_set_bounds(job, bounds, source->bound_count);
    mr_free(bounds);
    return status;
}

static mr_status spec_take_bounds(mr_job_spec *spec, const mr_plan *plan) {
    size_t count = plan->stage_count + 1;
    spec->bounds = mr_alloc_array(count, sizeof(*spec->bounds));
    if (spec->bounds == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bounds", count);
    for (size_t i = 0; i < count; i++)
        spec->bounds[i] = (uint32_t)plan->bounds[i];
    spec->bound_count = count;
    return MR_OK;
}

/* What follows from how the job is profiled. */
static mr_status spec_take_prediction(mr_job_spec *spec, const mr_spec_source *source,
                                      const mr_job *job, const mr_plan *plan) {
    bool by_profile =
        job->partition == MR_PARTITION_PROFILE && !mr_job_mode_is_forward(source->mode);
    spec->profiles = !source->cut && (by_profile || source->mode == MR_JOB_MODE_PROFILE);
    if (plan->step_seconds > 0) {
        spec->predicted_step_seconds = plan->step_seconds;
        spec->predicted_bubble = plan->bubble_predicted;
    }
    bool bound = source->bounds != NULL || (source->cut && by_profile);
    return bound ? spec_take_bounds(spec, plan) : MR_OK;
}

/* Before its members' times are known, a job that is cut by them is planned provisionally: how many
 * ranks it has does not depend on the bounds. */
static mr_status spec_plan(const mr_spec_source *source, const mr_job *job,
                           const mr_profile *profile, mr_plan **out_plan) {
    bool forward = mr_job_mode_is_forward(source->mode);
    bool waits = job->partition == MR_PARTITION_PROFILE && !source->cut;
    return mr_plan_make_profiled(job, forward, forward || waits ? NULL : profile, out_plan);
}

mr_status mr_job_spec_read(const mr_spec_source *source, mr_job_spec **out_spec) {
    const char *base_directory = source->base_directory;
    mr_job_mode mode = source->mode;
    mr_status status = MR_OK;
    mr_job *job = NULL;
    mr_plan *plan = NULL;
    mr_profile *profile = NULL;
    mr_job_spec *spec = NULL;
    if ((unsigned)mode >= MR_JOB_MODE_COUNT)
        return MR_ERROR(INVALID_ARGUMENT, "mode is %d; it must be 0 to %d", (int)mode,
                        MR_JOB_MODE_COUNT - 1);
    if (base_directory[0] != '\0' && base_directory[0] != '/')
        return MR_ERROR(INVALID_ARGUMENT, "base_directory is \"%.100s\"; it must be absolute",
                        base_directory);
    MR_TRY_GOTO(status, mr_job_parse(source->job_file, strlen(source->job_file), &job, NULL), out);
    MR_TRY_GOTO(status, mr_job_check_runnable(job, mode), out);
    mr_job_become(job, mode);
    if (!mr_job_mode_is_forward(mode))
        MR_TRY_GOTO(status, spec_take_profile(source, job, &profile), out);
    MR_TRY_GOTO(status, spec_keep_cut(source, job), out);
    MR_TRY_GOTO(status, spec_plan(source, job, profile, &plan), out);
    MR_TRY_GOTO(status,
                mr_job_spec_ended(job->name, source->job_file, base_directory, mode, &spec),
                out);
    MR_TRY_GOTO(status, spec_take_plan(spec, plan), out);
    MR_TRY_GOTO(status, spec_take_job(spec, job), out);
    MR_TRY_GOTO(status, spec_take_prediction(spec, source, job, plan), out);
    MR_TRY_GOTO(status, mr_job_spec_keep_profile(spec, profile == NULL ? NULL : source->profile),
                out);
    spec->job = job;
    spec->profile = profile;
    job = NULL;
    profile = NULL;
    *out_spec = spec;
    spec = NULL;
out:
    mr_plan_destroy(plan);
    mr_profile_destroy(profile);
    mr_job_spec_destroy(spec);
    mr_job_destroy(job);
    return status;
}

mr_status mr_job_spec_make(const char *job_file, const char *base_directory, mr_job_mode mode,
                           mr_job_spec **out_spec) {
    const mr_spec_source source = {
        .job_file = job_file, .base_directory = base_directory, .mode = mode};
    return mr_job_spec_read(&source, out_spec);
}
