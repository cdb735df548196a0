/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.c: saving through the coordinator; listing from it or from a folder; verifying a
 * folder. A folder is the truth about itself, so it needs no server. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/job_view.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/checkpoint/catalog.h"

mr_status mr_command_checkpoint_save(mr_client *client) {
    const mr_invocation *invocation = client->invocation;
    ProtobufCMessage *response = NULL;
    Millrace__V1__SaveCheckpointRequest request = MILLRACE__V1__SAVE_CHECKPOINT_REQUEST__INIT;
    request.job = (char *)(uintptr_t)invocation->arguments[0]; /* only packed */
    if (invocation->argument_count > 1) {
        MR_TRY(mr_layout_user_tag_check(invocation->arguments[1]));
        request.tag = (char *)(uintptr_t)invocation->arguments[1];
    }
    MR_TRY(mr_client_call_within(client, "SaveCheckpoint", &request.base, MR_SAVE_TIMEOUT_MS,
                                 &response));
    const Millrace__V1__Checkpoint *checkpoint = (Millrace__V1__Checkpoint *)response;
    mr_status status = MR_OK;
    if (client->output == MR_OUTPUT_TABLE)
        puts(checkpoint->path);
    else
        status = mr_render_item(client, &mr_checkpoint_view, mr_job_view_checkpoint(checkpoint));
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static mr_status checkpoint_list_job(mr_client *client, const char *job) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__ListCheckpointsRequest request = MILLRACE__V1__LIST_CHECKPOINTS_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job; /* only packed */
    MR_TRY(mr_client_call(client, "ListCheckpoints", &request.base, &response));
    const Millrace__V1__ListCheckpointsResponse *list =
        (Millrace__V1__ListCheckpointsResponse *)response;
    json_t *items = json_array();
    for (size_t i = 0; i < list->n_checkpoints; i++)
        (void)json_array_append_new(items, mr_job_view_checkpoint(list->checkpoints[i]));
    if (list->n_checkpoints == 0)
        mr_client_say(client, "job %s has no checkpoint", job);
    protobuf_c_message_free_unpacked(response, NULL);
    return mr_render_list(client, &mr_checkpoint_view, items);
}

/* Tells a damaged checkpoint on stderr. */
static void checkpoint_report_damage(void *context, const char *tag, const char *file,
                                     mr_status why) {
    (void)context;
    mr_client_warn("millrace: %s%s%s is damaged: %s", tag, file[0] ? "/" : "", file, why.text);
}

static json_t *checkpoint_json(const char *dir, const mr_catalog_entry *entry, bool newest) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    if (!mr_status_is_ok(mr_layout_join(dir, entry->tag, path, sizeof(path))))
        path[0] = '\0';
    return json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:b, s:o, s:I, s:I, s:o}", "tag", mr_render_string(entry->tag),
        "path", mr_render_string(path), "step", (json_int_t)entry->step, "created_ms",
        (json_int_t)entry->committed_ms, "bytes", (json_int_t)entry->bytes, "newest", (int)newest,
        "job", mr_render_string(entry->job), "epoch", (json_int_t)entry->epoch, "files",
        (json_int_t)entry->file_count, "model_hash", mr_render_string(entry->model_hash));
}

static mr_status checkpoint_list_folder(mr_client *client, const char *dir) {
    mr_catalog_entry *entries = NULL;
    size_t count = 0;
    MR_TRY(mr_catalog_list(dir, NULL, checkpoint_report_damage, NULL, &entries, &count));
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(items, checkpoint_json(dir, &entries[i], i + 1 == count));
    mr_free(entries);
    if (count == 0)
        mr_client_say(client, "%s has no checkpoint", dir);
    return mr_render_list(client, &mr_checkpoint_view, items);
}

mr_status mr_command_checkpoint_list(mr_client *client) {
    const char *target = client->invocation->arguments[0];
    struct stat info;
    bool folder = stat(target, &info) == 0 && S_ISDIR(info.st_mode);
    if (folder || strchr(target, '/') != NULL)
        return checkpoint_list_folder(client, target);
    return checkpoint_list_job(client, target);
}

/* ---- verify -----------------------------------------------------------------------------------
 */

/* What one verification has found. */
typedef struct verify_findings {
    json_t *problems;
} verify_findings;

static void verify_report(void *context, const char *tag, const char *file, mr_status why) {
    verify_findings *findings = context;
    mr_client_warn("millrace: %s%s%s: %s", tag, file[0] ? "/" : "", file, why.text);
    (void)json_array_append_new(findings->problems,
                                json_pack("{s:o, s:o}", "file", mr_render_string(file), "error",
                                          mr_render_string(why.text)));
}

static void cell_bytes(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)json_integer_value(json_object_get(item, "bytes")), out, bytes);
}

static void cell_problems(const json_t *item, char *out, size_t bytes) {
    snprintf(out, bytes, "%zu", json_array_size(json_object_get(item, "problems")));
}

static const mr_column verify_columns[] = {
    {"PATH", "path", NULL},      {"SOUND", "sound", NULL},          {"FILES", "files", NULL},
    {"BYTES", NULL, cell_bytes}, {"PROBLEMS", NULL, cell_problems},
};
static const mr_view verify_view = {
    .singular = "checkpoint",
    .plural = "checkpoints",
    .name_key = "path",
    .columns = verify_columns,
    .column_count = sizeof(verify_columns) / sizeof(verify_columns[0]),
};

/* Verifies one checkpoint and adds its line; the first bad one's status is kept. */
static void verify_one(const char *path, json_t *items, mr_status *worst) {
    verify_findings findings = {.problems = json_array()};
    mr_catalog_verdict verdict = {0};
    mr_status status = mr_catalog_verify(path, verify_report, &findings, &verdict);
    if (!mr_status_is_ok(status) && mr_status_is_ok(*worst))
        *worst = mr_status_prefix(status, "%s", mr_path_shorten(path).text);
    (void)json_array_append_new(
        items, json_pack("{s:o, s:b, s:I, s:I, s:o}", "path", mr_render_string(path), "sound",
                         (int)mr_status_is_ok(status), "files", (json_int_t)verdict.files, "bytes",
                         (json_int_t)verdict.bytes, "problems", findings.problems));
}

/* All checkpoints of a folder, the damaged ones too. */
static mr_status verify_folder(const char *dir, json_t *items, mr_status *worst) {
    verify_findings findings = {.problems = json_array()};
    mr_catalog_entry *entries = NULL;
    size_t count = 0;
    mr_status status = mr_catalog_list(dir, NULL, verify_report, &findings, &entries, &count);
    if (mr_status_is_ok(status) && json_array_size(findings.problems) > 0)
        *worst = MR_ERROR(DATA_LOSS, "%s has %zu damaged checkpoints", mr_path_shorten(dir).text,
                          json_array_size(findings.problems));
    json_decref(findings.problems);
    for (size_t i = 0; mr_status_is_ok(status) && i < count; i++) {
        char path[MR_CHECKPOINT_PATH_BYTES];
        status = mr_layout_join(dir, entries[i].tag, path, sizeof(path));
        if (mr_status_is_ok(status))
            verify_one(path, items, worst);
    }
    mr_free(entries);
    if (mr_status_is_ok(status) && mr_status_is_ok(*worst) && count == 0)
        return MR_ERROR(NOT_FOUND, "%s is no checkpoint and holds none", mr_path_shorten(dir).text);
    return status;
}

mr_status mr_command_checkpoint_verify(mr_client *client) {
    const char *path = client->invocation->arguments[0];
    char manifest[MR_CHECKPOINT_PATH_BYTES];
    struct stat info;
    mr_status worst = MR_OK;
    if (stat(path, &info) != 0)
        return MR_ERROR(NOT_FOUND, "%s: no such folder", mr_path_shorten(path).text);
    MR_TRY(mr_layout_join(path, MR_LAYOUT_MANIFEST, manifest, sizeof(manifest)));
    json_t *items = json_array();
    mr_status status = MR_OK;
    if (lstat(manifest, &info) == 0)
        verify_one(path, items, &worst);
    else
        status = verify_folder(path, items, &worst);
    if (!mr_status_is_ok(status)) {
        json_decref(items);
        return status;
    }
    MR_TRY(mr_render_list(client, &verify_view, items));
    return worst;
}
