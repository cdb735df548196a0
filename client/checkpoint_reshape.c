/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint_reshape.c: a checkpoint written anew for another number of model ranks, on this
 * machine, without a server; `merge` is the same for one. */
#include <string.h>

#include "client/checkpoint_target.h"
#include "client/job_file.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/render.h"
#include "daemon/base/alloc.h"
#include "daemon/checkpoint/reshape.h"

static void cell_bytes(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)json_integer_value(json_object_get(item, "bytes")), out, bytes);
}

static const mr_column reshape_columns[] = {
    {"PATH", "path", NULL},
    {"MODEL RANKS", "model_ranks", NULL},
    {"BEFORE", "model_ranks_before", NULL},
    {"FILES", "files", NULL},
    {"BYTES", NULL, cell_bytes},
};
static const mr_view reshape_view = {
    .singular = "checkpoint",
    .plural = "checkpoints",
    .name_key = "path",
    .columns = reshape_columns,
    .column_count = sizeof(reshape_columns) / sizeof(reshape_columns[0]),
};

/* The job's layers, as far as they belong to the checkpoint's model. */
static mr_status job_describe(const char *path, const char *source, mr_job_file *file,
                              mr_layer_description **out_layers) {
    mr_manifest manifest = {0};
    MR_TRY(mr_job_file_read(path, file, NULL));
    MR_TRY(mr_manifest_read(source, &manifest));
    bool same = strcmp(manifest.model_hash, file->job->model_hash) == 0;
    mr_manifest_deinit(&manifest);
    if (!same)
        return MR_ERROR(FAILED_PRECONDITION, "%s describes another model than the checkpoint's",
                        mr_path_shorten(path).text);
    mr_layer_description *layers = mr_alloc_array(file->job->layer_count, sizeof(*layers));
    if (layers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu layers", file->job->layer_count);
    *out_layers = layers;
    return mr_job_describe(file->job, layers);
}

static mr_status reshape_print(const mr_client *client, const char *path, size_t width,
                               const mr_reshape_result *result) {
    return mr_render_item(
        client, &reshape_view,
        json_pack("{s:o, s:I, s:I, s:I, s:I}", "path", mr_render_string(path), "model_ranks",
                  (json_int_t)width, "model_ranks_before", (json_int_t)result->from_width, "files",
                  (json_int_t)result->file_count, "bytes", (json_int_t)result->bytes));
}

static mr_status reshape(mr_client *client, size_t width) {
    const char *const *arguments = client->invocation->arguments;
    const char *job = mr_invocation_text(client->invocation, "job");
    mr_checkpoint_target target;
    mr_job_file file = {0};
    mr_layer_description *layers = NULL;
    mr_reshape_result result = {0};
    mr_reshape_options options = {.source = arguments[0], .dir = target.dir, .width = width};
    mr_status status = mr_checkpoint_target_split(arguments[1], &target);
    options.tag = target.tag;
    if (mr_status_is_ok(status) && job != NULL)
        status = job_describe(job, arguments[0], &file, &layers);
    if (mr_status_is_ok(status)) {
        options.descriptions = layers;
        options.layer_count = layers == NULL ? 0 : file.job->layer_count;
        status = mr_reshape(&options, &result);
    }
    mr_free(layers);
    mr_job_file_deinit(&file);
    MR_TRY(status);
    return reshape_print(client, arguments[1], width, &result);
}

mr_status mr_command_checkpoint_reshape(mr_client *client) {
    if (!mr_invocation_given(client->invocation, "model"))
        return MR_ERROR(INVALID_ARGUMENT, "--model N is missing: the model ranks to write for");
    return reshape(client, (size_t)mr_invocation_integer(client->invocation, "model"));
}

mr_status mr_command_checkpoint_merge(mr_client *client) {
    return reshape(client, 1);
}
