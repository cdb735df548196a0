/* SPDX-License-Identifier: Apache-2.0 */
#include "client/plan_source.h"

#include <string.h>

#include "client/job_ranks.h"
#include "daemon/base/alloc.h"

/* The cut that stands: only the coordinator knows where a job is cut by measured times. */
static mr_status source_keep_cut(mr_plan_source *source) {
    mr_job *job = source->file.job;
    if (job->partition != MR_PARTITION_PROFILE || source->job->n_stages == 0)
        return MR_OK;
    size_t *bounds = mr_alloc_array(job->pipe + 1, sizeof(*bounds));
    if (bounds == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bounds", job->pipe + 1);
    for (size_t i = 0; i < source->job->n_stages; i++) {
        const Millrace__V1__JobStage *stage = source->job->stages[i];
        if (stage->stage >= job->pipe)
            continue; /* the plan will miss it */
        bounds[stage->stage] = stage->layer_first;
        bounds[stage->stage + 1] = stage->layer_end;
    }
    mr_status status = mr_job_set_bounds(job, bounds, job->pipe + 1);
    mr_free(bounds);
    return status;
}

/* The times that the coordinator predicts the job's steps by. */
static mr_status source_fetch_profile(mr_client *client, mr_plan_source *source) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = source->job->id;
    MR_TRY(mr_client_call(client, "GetProfile", &request.base, &response));
    const char *json = ((Millrace__V1__ProfileResponse *)response)->json;
    mr_status status = mr_profile_parse(json, strlen(json), &source->profile.profile);
    if (mr_status_is_ok(status))
        status = mr_profile_check(source->profile.profile, source->file.job);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static mr_status source_fetch(mr_client *client, const char *profile, mr_plan_source *source) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)source->label; /* only packed */
    MR_TRY(mr_client_call(client, "Get", &request.base, &response));
    Millrace__V1__Job *job = (Millrace__V1__Job *)response;
    source->job = job;
    if ((unsigned)job->mode >= MR_JOB_MODE_COUNT)
        return MR_ERROR(UNIMPLEMENTED, "job %s has mode %d, which this client does not know",
                        job->id, (int)job->mode);
    MR_TRY(mr_job_file_copy(source->label, job->job_file, job->base_directory, &source->file));
    mr_job_become(source->file.job, (mr_job_mode)job->mode);
    source->forward = mr_job_mode_is_forward((mr_job_mode)job->mode);
    MR_TRY(source_keep_cut(source));
    if (profile != NULL)
        return mr_profile_file_read(&source->file, profile, &source->profile);
    return job->predicted_step_seconds > 0 ? source_fetch_profile(client, source) : MR_OK;
}

mr_status mr_plan_source_read(mr_client *client, mr_plan_source *out_source) {
    const mr_invocation *invocation = client->invocation;
    const char *name = mr_invocation_text(invocation, "job");
    const char *profile = mr_invocation_text(invocation, "profile");
    *out_source = (mr_plan_source){.label = name};
    if ((name != NULL) == (invocation->argument_count > 0))
        return MR_ERROR(INVALID_ARGUMENT, "job plan needs either a job FILE or --job JOB");
    if (name != NULL && mr_invocation_given(invocation, "ranks"))
        return MR_ERROR(INVALID_ARGUMENT, "--ranks is for a job FILE; %.64s has its ranks", name);
    if (name != NULL)
        return source_fetch(client, profile, out_source);
    out_source->label = invocation->arguments[0];
    MR_TRY(mr_job_file_read(out_source->label, &out_source->file, NULL));
    MR_TRY(mr_job_ranks_apply(invocation, &out_source->file));
    return mr_profile_file_read(&out_source->file, profile, &out_source->profile);
}

void mr_plan_source_deinit(mr_plan_source *source) {
    mr_profile_file_deinit(&source->profile);
    mr_job_file_deinit(&source->file);
    if (source->job != NULL)
        protobuf_c_message_free_unpacked(&source->job->base, NULL);
    *source = (mr_plan_source){0};
}
