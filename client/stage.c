/* SPDX-License-Identifier: Apache-2.0 */
/* stage.c: the stage daemons that are attached to the coordinator. */
#include <string.h>

#include "client/job_view.h"
#include "client/nouns.h"
#include "client/repeat.h"
#include "client/roster.h"
#include "client/suggest.h"

static mr_status stage_list_fetch(mr_client *client, json_t **out_value) {
    MR_TRY(mr_roster_members(client, out_value));
    if (json_array_size(*out_value) == 0)
        mr_client_say(client, "no stage is attached");
    return MR_OK;
}

static mr_status stage_list_print(mr_client *client, json_t *owned_value) {
    return mr_render_list(client, &mr_member_view, owned_value);
}

mr_status mr_command_stage_list(mr_client *client) {
    return mr_repeat_run(client, stage_list_fetch, stage_list_print);
}

/* The member of that id or address. */
static mr_status stage_get_fetch(mr_client *client, json_t **out_value) {
    const char *wanted = client->invocation->arguments[0];
    const char *near = NULL;
    size_t best = SIZE_MAX;
    json_t *stages = NULL;
    MR_TRY(mr_roster_members(client, &stages));
    for (size_t i = 0; i < json_array_size(stages); i++) {
        json_t *stage = json_array_get(stages, i);
        const char *id = json_string_value(json_object_get(stage, "id"));
        const char *address = json_string_value(json_object_get(stage, "address"));
        if ((id != NULL && strcmp(id, wanted) == 0) ||
            (address != NULL && strcmp(address, wanted) == 0)) {
            *out_value = json_incref(stage);
            json_decref(stages);
            return MR_OK;
        }
        if (id != NULL && mr_suggest_better(wanted, id, &best))
            near = id;
    }
    mr_status status = MR_ERROR(NOT_FOUND, "no stage %.64s is attached%s%.64s%s", wanted,
                                near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    json_decref(stages);
    return status;
}

static mr_status stage_get_print(mr_client *client, json_t *owned_value) {
    return mr_render_item(client, &mr_member_item_view, owned_value);
}

mr_status mr_command_stage_get(mr_client *client) {
    return mr_repeat_run(client, stage_get_fetch, stage_get_print);
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
