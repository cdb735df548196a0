/* SPDX-License-Identifier: Apache-2.0 */
/* stage.c: the stage daemons that are attached to the coordinator. */
#include "client/job_view.h"
#include "client/nouns.h"

mr_status mr_command_stage_list(mr_client *client) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__ListStagesRequest request = MILLRACE__V1__LIST_STAGES_REQUEST__INIT;
    MR_TRY(mr_client_call(client, "ListStages", &request.base, &response));
    const Millrace__V1__ListStagesResponse *list = (Millrace__V1__ListStagesResponse *)response;
    json_t *stages = json_array();
    for (size_t i = 0; i < list->n_members; i++)
        (void)json_array_append_new(stages, mr_job_view_member(list->members[i]));
    if (list->n_members == 0)
        mr_client_say(client, "no stage is attached");
    protobuf_c_message_free_unpacked(response, NULL);
    return mr_render_list(client, &mr_member_view, stages);
}

mr_status mr_command_stage_drain(mr_client *client) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__DrainStageRequest request = MILLRACE__V1__DRAIN_STAGE_REQUEST__INIT;
    request.member_id = (char *)(uintptr_t)client->invocation->arguments[0]; /* only packed */
    MR_TRY(mr_client_call(client, "DrainStage", &request.base, &response));
    json_t *stage = mr_job_view_member((Millrace__V1__Member *)response);
    protobuf_c_message_free_unpacked(response, NULL);
    return mr_render_item(client, &mr_member_view, stage);
}
