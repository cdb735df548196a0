/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_import.c: a folder of layers in safetensors becomes a committed checkpoint of a job,
 * on this machine, without a server. */
#include "client/checkpoint_target.h"
#include "client/job_file.h"
#include "client/nouns.h"
#include "client/render.h"
#include "daemon/checkpoint/import.h"

static void cell_bytes(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)json_integer_value(json_object_get(item, "bytes")), out, bytes);
}

static const mr_column import_columns[] = {
    {"PATH", "path", NULL},
    {"JOB", "job", NULL},
    {"FILES", "files", NULL},
    {"BYTES", NULL, cell_bytes},
};
static const mr_view import_view = {
    .singular = "checkpoint",
    .plural = "checkpoints",
    .name_key = "path",
    .columns = import_columns,
    .column_count = sizeof(import_columns) / sizeof(import_columns[0]),
};

mr_status mr_command_checkpoint_import(mr_client *client) {
    const char *const *arguments = client->invocation->arguments;
    const char *job = mr_invocation_text(client->invocation, "job");
    mr_checkpoint_target target;
    mr_job_file file = {0};
    mr_import_result result = {0};
    if (job == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "--job FILE is missing: the job whose layers these are");
    MR_TRY(mr_checkpoint_target_split(arguments[1], &target));
    mr_status status = mr_job_file_read(job, &file, NULL);
    if (mr_status_is_ok(status)) {
        const mr_import_options options = {
            .source = arguments[0], .dir = target.dir, .tag = target.tag, .job = file.job};
        status = mr_import(&options, &result);
    }
    if (mr_status_is_ok(status))
        status = mr_render_item(client, &import_view,
                                json_pack("{s:o, s:o, s:I, s:I}", "path",
                                          mr_render_string(arguments[1]), "job",
                                          mr_render_string(file.job->name), "files",
                                          (json_int_t)result.file_count, "bytes",
                                          (json_int_t)result.bytes));
    mr_job_file_deinit(&file);
    return status;
}
