/* SPDX-License-Identifier: Apache-2.0 */
/* up.c: a cluster on this machine in one command, and its end. up makes a context for it and takes
 * that into use, so that every later command finds it; down puts back what was in use before. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/config.h"
#include "client/confirm.h"
#include "client/environment.h"
#include "client/interrupt.h"
#include "client/local_cluster.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/render.h"
#include "client/roster.h"
#include "daemon/base/limits.h"
#include "millrace/v1/jobs.pb-c.h"

enum { DOWN_ASK_TIMEOUT_MS = 5000 };

/* ---- common to both -------------------------------------------------------------------------- */

/* --dir, else the state folder of that name. */
static mr_status up_folder(const mr_invocation *invocation, char *out) {
    const char *dir = mr_invocation_text(invocation, "dir");
    char here[MR_CHECKPOINT_PATH_BYTES];
    if (dir == NULL)
        return mr_environment_path(MR_ENVIRONMENT_STATE, mr_invocation_text(invocation, "name"),
                                   out);
    if (dir[0] == '/' || getcwd(here, sizeof(here)) == NULL)
        here[0] = '\0';
    int length = snprintf(out, MR_ENVIRONMENT_PATH_BYTES, "%s%s%s", here, here[0] ? "/" : "", dir);
    if (length < 0 || length >= MR_ENVIRONMENT_PATH_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "--dir has %d bytes; at most %d are allowed", length,
                        MR_ENVIRONMENT_PATH_BYTES - 1);
    return MR_OK;
}

static void cell_stage_count(const json_t *item, char *out, size_t bytes) {
    snprintf(out, bytes, "%zu", json_array_size(json_object_get(item, "stages")));
}

static const mr_column local_columns[] = {
    {"coordinator", "address", NULL}, {"status page", "status_address", NULL},
    {"stages", NULL, cell_stage_count}, {"context", "context", NULL},
    {"folder", "folder", NULL},
};
static const mr_view local_view = {
    .singular = "cluster",
    .plural = "clusters",
    .name_key = "address",
    .columns = local_columns,
    .column_count = sizeof(local_columns) / sizeof(local_columns[0]),
};

/* ---- up -------------------------------------------------------------------------------------- */

/* millraced: named, or beside this program, or as a build or an archive has it, or in PATH. */
static mr_status up_program(const mr_invocation *invocation, char *out, size_t bytes) {
    static const char *const places[] = {"millraced", "../daemon/millraced",
                                         "../sbin/millraced"};
    const char *named = mr_invocation_text(invocation, "millraced");
    char own[MR_CHECKPOINT_PATH_BYTES];
    if (named != NULL) {
        snprintf(out, bytes, "%s", named);
        return MR_OK;
    }
    ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
    own[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(own, '/');
    for (size_t i = 0; slash != NULL && i < sizeof(places) / sizeof(places[0]); i++) {
        int used = snprintf(out, bytes, "%.*s/%s", (int)(slash - own), own, places[i]);
        if (used > 0 && (size_t)used < bytes && access(out, X_OK) == 0)
            return MR_OK;
    }
    const char *path = mr_environment_get("PATH");
    while (path != NULL && *path != '\0') {
        size_t part = strcspn(path, ":");
        int used = snprintf(out, bytes, "%.*s/millraced", (int)part, path);
        if (used > 0 && (size_t)used < bytes && access(out, X_OK) == 0)
            return MR_OK;
        path += part + (path[part] == ':');
    }
    return MR_ERROR(NOT_FOUND, "millraced is neither beside millrace nor in PATH; --millraced "
                               "names it");
}

/* Puts the cluster's address into a context and takes that into use. */
static mr_status up_configure(mr_client *client, mr_local_cluster *cluster) {
    mr_config_file *file = &client->config->files[MR_CONFIG_USER];
    const size_t chooser = mr_setting_find("context");
    mr_config_context *context = NULL;
    if (file->path == NULL) {
        mr_client_say(client, "no folder for a configuration; use --server %s",
                      cluster->coordinator.address);
        return MR_OK;
    }
    MR_TRY(mr_config_file_context(file, cluster->context, &context));
    MR_TRY(mr_config_values_set(&context->values, mr_setting_find("server"), "server",
                                cluster->coordinator.address));
    MR_TRY(mr_config_values_set(&file->values, chooser, "context", cluster->context));
    MR_TRY(mr_config_file_write(file));
    mr_config_found found;
    mr_status status = mr_config_find(client->config, mr_setting_find("server"), &found);
    if (mr_status_is_ok(status) && strcmp(found.value, cluster->coordinator.address) != 0)
        mr_client_say(client, "another setting chooses %s; millrace config show --origin tells, "
                              "and --context %s means this cluster",
                      found.value, cluster->context);
    return MR_OK;
}

/* Which context down will put back. */
static void up_note_context(const mr_client *client, mr_local_cluster *cluster) {
    const char *name = mr_invocation_text(client->invocation, "name");
    const char *before =
        client->config->files[MR_CONFIG_USER].values.text[mr_setting_find("context")];
    snprintf(cluster->context, sizeof(cluster->context), "%s", name);
    if (before != NULL && strcmp(before, name) != 0)
        snprintf(cluster->context_before, sizeof(cluster->context_before), "%s", before);
}

static mr_status up_start(mr_client *client, mr_local_cluster *cluster) {
    const mr_invocation *invocation = client->invocation;
    char program[MR_CHECKPOINT_PATH_BYTES];
    mr_status before = mr_local_read(cluster);
    if (mr_status_is_ok(before) && mr_local_is_running(cluster))
        return MR_ERROR(FAILED_PRECONDITION,
                        "a cluster runs in %s already, at %s; millrace down ends it",
                        mr_path_shorten(cluster->folder).text, cluster->coordinator.address);
    MR_TRY(up_program(invocation, program, sizeof(program)));
    mr_local_options options = {
        .program = program,
        .device = mr_invocation_text(invocation, "device"),
        .stages = (size_t)mr_invocation_integer(invocation, "stages"),
        .threads = (size_t)mr_invocation_integer(invocation, "threads"),
    };
    if (!mr_invocation_given(invocation, "threads")) {
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        size_t share = processors > 0 ? (size_t)processors / options.stages : 1;
        options.threads = share > 0 ? share : 1;
    }
    up_note_context(client, cluster);
    MR_TRY(mr_local_start(cluster, &options));
    mr_status status = up_configure(client, cluster);
    if (!mr_status_is_ok(status)) {
        mr_status ended = mr_local_stop(cluster, NULL);
        (void)ended; /* the first error is the cause */
    }
    return status;
}

static mr_status up_check_name(const char *name) {
    mr_config_file scratch = {0};
    mr_config_context *context = NULL;
    mr_status status = mr_config_file_context(&scratch, name, &context);
    mr_config_file_deinit(&scratch);
    return mr_status_prefix(status, "--name");
}

mr_status mr_command_up(mr_client *client) {
    static mr_local_cluster cluster; /* large; one process starts one */
    char folder[MR_ENVIRONMENT_PATH_BYTES];
    MR_TRY(up_check_name(mr_invocation_text(client->invocation, "name")));
    MR_TRY(up_folder(client->invocation, folder));
    mr_interrupt_catch();
    MR_TRY(mr_local_open(folder, true, &cluster));
    mr_status status = up_start(client, &cluster);
    mr_local_close(&cluster);
    if (status.code == MR_CODE_CANCELLED && mr_interrupt_came()) {
        mr_client_warn("millrace: interrupted; nothing was left running");
        client->exit_code = MR_EXIT_CODE_INTERRUPTED;
        return MR_OK;
    }
    MR_TRY(status);
    mr_client_say(client, "millrace down ends it");
    return mr_render_item(client, &local_view, mr_local_json(&cluster));
}

/* ---- down ------------------------------------------------------------------------------------ */

static bool down_job_is_over(const json_t *job) {
    return json_integer_value(json_object_get(job, "ended_ms")) > 0;
}

/* Jobs that would lose their stages end as cancelled, so that their state says what happened. */
static mr_status down_cancel_jobs(mr_client *client, const json_t *jobs) {
    size_t active = 0;
    for (size_t i = 0; i < json_array_size(jobs); i++)
        active += !down_job_is_over(json_array_get(jobs, i));
    if (active == 0)
        return MR_OK;
    MR_TRY(mr_confirm(client, "end the cluster and cancel %zu %s", active,
                      active == 1 ? "job" : "jobs"));
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        const json_t *job = json_array_get(jobs, i);
        const char *id = json_string_value(json_object_get(job, "id"));
        ProtobufCMessage *response = NULL;
        Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
        if (down_job_is_over(job) || id == NULL)
            continue;
        request.job = (char *)(uintptr_t)id; /* only packed */
        mr_status status = mr_client_call_within(client, "Cancel", &request.base,
                                                 DOWN_ASK_TIMEOUT_MS, &response);
        if (mr_status_is_ok(status))
            protobuf_c_message_free_unpacked(response, NULL);
        else
            mr_client_warn("millrace: job %s: %s", id, status.text); /* it ends with the stages */
    }
    return MR_OK;
}

/* Asks the cluster itself what still runs on it; one that does not answer is ended as it is. */
static mr_status down_ask(mr_client *client, const mr_local_cluster *cluster) {
    json_t *jobs = NULL;
    if (!mr_process_is_running(&cluster->coordinator.process))
        return MR_OK;
    client->server = cluster->coordinator.address;
    client->credentials = (mr_rpc_credentials){0}; /* it speaks plain text, on loopback */
    client->timeout_ms = DOWN_ASK_TIMEOUT_MS;
    mr_status status = mr_roster_jobs(client, &jobs);
    if (!mr_status_is_ok(status)) {
        mr_client_warn("millrace: %s; ending it nevertheless", status.text);
        return MR_OK;
    }
    status = down_cancel_jobs(client, jobs);
    json_decref(jobs);
    return status;
}

/* The user's configuration as it was before up. */
static mr_status down_configure(mr_client *client, const mr_local_cluster *cluster) {
    mr_config_file *file = &client->config->files[MR_CONFIG_USER];
    const size_t chooser = mr_setting_find("context");
    mr_config_context *context = file->path ? mr_config_file_find(file, cluster->context) : NULL;
    if (context == NULL)
        return MR_OK;
    const char *server = context->values.text[mr_setting_find("server")];
    if (server == NULL || strcmp(server, cluster->coordinator.address) != 0)
        return MR_OK; /* somebody made it mean something else */
    mr_config_file_remove(file, context);
    const char *in_use = file->values.text[chooser];
    if (in_use != NULL && strcmp(in_use, cluster->context) == 0) {
        const char *before = cluster->context_before[0] ? cluster->context_before : NULL;
        MR_TRY(mr_config_values_set(&file->values, chooser, "context", before));
    }
    return mr_config_file_write(file);
}

static mr_status down_stop(mr_client *client, mr_local_cluster *cluster) {
    size_t killed = 0;
    MR_TRY(mr_local_read(cluster));
    MR_TRY(down_ask(client, cluster));
    MR_TRY(mr_local_stop(cluster, &killed));
    if (killed > 0)
        mr_client_warn("millrace: %zu %s did not end in time and had to be killed", killed,
                       killed == 1 ? "daemon" : "daemons");
    return down_configure(client, cluster);
}

mr_status mr_command_down(mr_client *client) {
    static mr_local_cluster cluster; /* large; one process ends one */
    char folder[MR_ENVIRONMENT_PATH_BYTES];
    MR_TRY(up_folder(client->invocation, folder));
    MR_TRY(mr_local_open(folder, false, &cluster));
    mr_status status = down_stop(client, &cluster);
    mr_local_close(&cluster);
    MR_TRY(status);
    mr_client_say(client, "the cluster in %s has ended; its state and logs stay there",
                  cluster.folder);
    return mr_render_item(client, &local_view, mr_local_json(&cluster));
}
