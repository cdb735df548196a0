/* SPDX-License-Identifier: Apache-2.0 */
#include "client/job_ranks.h"

#include <stdio.h>

#include "daemon/base/alloc.h"
#include "daemon/model/yaml_edit.h"
#include "daemon/plan/grid.h"

enum { TOPOLOGY_TEXT_BYTES = 128, LABEL_BYTES = 48 };

/* The mapping of the topology; stages stays in the file where it gives the pipe axis. */
static void topology_text(const mr_job *job, const mr_grid *grid, const char *before,
                          const char *after, char out[TOPOLOGY_TEXT_BYTES]) {
    char pipe[32] = "";
    if (!job->stages_given)
        (void)snprintf(pipe, sizeof(pipe), "pipe: %zu, ", grid->pipe);
    (void)snprintf(out, TOPOLOGY_TEXT_BYTES, "%s{%sdata: %zu, model: %zu}%s", before, pipe,
                   grid->data, grid->model, after);
}

static mr_status ranks_edit(const mr_job_file *file, const mr_grid *grid, char **out_text) {
    char value[TOPOLOGY_TEXT_BYTES];
    topology_text(file->job, grid, "", "", value);
    const mr_yaml_change change = {.path = "/pipeline/topology", .value = value};
    mr_status status = mr_yaml_edit(file->text, &change, 1, out_text);
    if (status.code != MR_CODE_INVALID_ARGUMENT)
        return status;
    topology_text(file->job, grid, "{topology: ", "}", value); /* the file has no pipeline */
    const mr_yaml_change section = {.path = "/pipeline", .value = value};
    return mr_yaml_edit(file->text, &section, 1, out_text);
}

mr_status mr_job_ranks_apply(const mr_invocation *invocation, mr_job_file *file) {
    const mr_job *job = file->job;
    char label[LABEL_BYTES];
    char *text = NULL;
    mr_job_file edited = {0};
    if (!mr_invocation_given(invocation, "ranks"))
        return MR_OK;
    size_t ranks = (size_t)mr_invocation_integer(invocation, "ranks");
    mr_grid grid = {.pipe = job->pipe_given ? job->pipe : 0,
                    .data = job->data_given ? job->data : 0,
                    .model = job->model};
    mr_status status = mr_grid_fit(ranks, &grid);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "--ranks");
    (void)snprintf(label, sizeof(label), "with --ranks %zu", ranks);
    MR_TRY(ranks_edit(file, &grid, &text));
    status = mr_job_file_copy(label, text, file->base_directory, &edited);
    mr_free(text);
    if (!mr_status_is_ok(status)) {
        mr_job_file_deinit(&edited);
        return status;
    }
    mr_job_file_deinit(file);
    *file = edited;
    return MR_OK;
}
