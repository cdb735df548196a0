/* SPDX-License-Identifier: Apache-2.0 */
#include "client/roster.h"

#include "client/job_view.h"
#include "client/render.h"

mr_status mr_roster_jobs(mr_client *client, json_t **out_jobs) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__ListRequest request = MILLRACE__V1__LIST_REQUEST__INIT;
    MR_TRY(mr_client_call(client, "List", &request.base, &response));
    const Millrace__V1__ListResponse *list = (Millrace__V1__ListResponse *)response;
    json_t *jobs = json_array();
    for (size_t i = 0; i < list->n_jobs; i++)
        (void)json_array_append_new(jobs, mr_job_view_job(list->jobs[i], false));
    protobuf_c_message_free_unpacked(response, NULL);
    *out_jobs = jobs;
    return MR_OK;
}

mr_status mr_roster_job(mr_client *client, const char *name, json_t **out_job) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)name; /* only packed */
    MR_TRY(mr_client_call(client, "Get", &request.base, &response));
    *out_job = mr_job_view_job((Millrace__V1__Job *)response, false);
    protobuf_c_message_free_unpacked(response, NULL);
    return *out_job ? MR_OK : MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the job");
}

mr_status mr_roster_members(mr_client *client, json_t **out_members) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__ListStagesRequest request = MILLRACE__V1__LIST_STAGES_REQUEST__INIT;
    MR_TRY(mr_client_call(client, "ListStages", &request.base, &response));
    const Millrace__V1__ListStagesResponse *list = (Millrace__V1__ListStagesResponse *)response;
    json_t *members = json_array();
    for (size_t i = 0; i < list->n_members; i++)
        (void)json_array_append_new(members, mr_job_view_member(list->members[i]));
    protobuf_c_message_free_unpacked(response, NULL);
    *out_members = members;
    return MR_OK;
}

mr_status mr_roster_coordinator(mr_client *client, json_t **out_coordinator) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__ClusterInfoRequest request = MILLRACE__V1__CLUSTER_INFO_REQUEST__INIT;
    MR_TRY(mr_client_call(client, "ClusterInfo", &request.base, &response));
    const Millrace__V1__ClusterInfoResponse *info = (Millrace__V1__ClusterInfoResponse *)response;
    *out_coordinator =
        json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "address",
                  mr_render_string(info->address), "status_address",
                  mr_render_string(info->status_address), "version",
                  mr_render_string(info->version), "started_ms", (json_int_t)info->started_ms,
                  "members", (json_int_t)info->members, "members_idle",
                  (json_int_t)info->members_idle, "jobs_running", (json_int_t)info->jobs_running,
                  "jobs_queued", (json_int_t)info->jobs_queued);
    protobuf_c_message_free_unpacked(response, NULL);
    return *out_coordinator ? MR_OK
                            : MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the coordinator's state");
}
