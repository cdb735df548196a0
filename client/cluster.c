/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.c: the coordinator, where it listens and what it runs, with its members. */
#include <stdio.h>

#include "client/job_view.h"
#include "client/nouns.h"

static void cell_started(const json_t *item, char *out, size_t bytes) {
    mr_render_time(json_integer_value(json_object_get(item, "started_ms")), out, bytes);
}

static const mr_column cluster_columns[] = {
    {"coordinator", "address", NULL},  {"status page", "status_address", NULL},
    {"version", "version", NULL},      {"started", NULL, cell_started},
    {"members", "members", NULL},      {"idle", "members_idle", NULL},
    {"running", "jobs_running", NULL}, {"queued", "jobs_queued", NULL},
};
static const mr_view cluster_view = {
    .singular = "cluster",
    .plural = "clusters",
    .name_key = "address",
    .columns = cluster_columns,
    .column_count = sizeof(cluster_columns) / sizeof(cluster_columns[0]),
};

static mr_status cluster_members(mr_client *client, json_t **out_stages) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__ListStagesRequest request = MILLRACE__V1__LIST_STAGES_REQUEST__INIT;
    MR_TRY(mr_client_call(client, "ListStages", &request.base, &response));
    const Millrace__V1__ListStagesResponse *list = (Millrace__V1__ListStagesResponse *)response;
    json_t *stages = json_array();
    for (size_t i = 0; i < list->n_members; i++)
        (void)json_array_append_new(stages, mr_job_view_member(list->members[i]));
    protobuf_c_message_free_unpacked(response, NULL);
    *out_stages = stages;
    return MR_OK;
}

static json_t *cluster_json(const Millrace__V1__ClusterInfoResponse *info, json_t *owned_stages) {
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "address",
                     mr_render_string(info->address), "status_address",
                     mr_render_string(info->status_address), "version",
                     mr_render_string(info->version), "started_ms", (json_int_t)info->started_ms,
                     "members", (json_int_t)info->members, "members_idle",
                     (json_int_t)info->members_idle, "jobs_running", (json_int_t)info->jobs_running,
                     "jobs_queued", (json_int_t)info->jobs_queued, "stages", owned_stages);
}

mr_status mr_command_cluster(mr_client *client) {
    json_t *stages = NULL;
    MR_TRY(cluster_members(client, &stages));
    ProtobufCMessage *response = NULL;
    Millrace__V1__ClusterInfoRequest request = MILLRACE__V1__CLUSTER_INFO_REQUEST__INIT;
    mr_status status = mr_client_call(client, "ClusterInfo", &request.base, &response);
    if (mr_status_is_ok(status)) {
        status = mr_render_item(
            client, &cluster_view,
            cluster_json((Millrace__V1__ClusterInfoResponse *)response, json_incref(stages)));
        protobuf_c_message_free_unpacked(response, NULL);
    }
    if (mr_status_is_ok(status) && client->output == MR_OUTPUT_TABLE &&
        json_array_size(stages) > 0) {
        putchar('\n');
        mr_render_table(&mr_member_view, stages);
    }
    json_decref(stages);
    return status;
}
