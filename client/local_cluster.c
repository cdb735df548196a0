/* SPDX-License-Identifier: Apache-2.0 */
#include "client/local_cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/path_text.h"

enum { LOCAL_FOLDER_MODE = 0700, LOCAL_ARGUMENTS_MAX = 20, LOCAL_NUMBER_BYTES = 16 };

#define LOCAL_LOOPBACK "127.0.0.1:0"

/* ---- folder ---------------------------------------------------------------------------------- */

static mr_status local_path(const mr_local_cluster *cluster, const char *name,
                            char out[MR_CHECKPOINT_PATH_BYTES]) {
    char whole[MR_CHECKPOINT_PATH_BYTES]; /* out may lie in the cluster, too */
    int length = snprintf(whole, sizeof(whole), "%s/%s", cluster->folder, name);
    if (length < 0 || (size_t)length >= sizeof(whole))
        return MR_ERROR(INVALID_ARGUMENT, "%s: the path has %d bytes; at most %d are allowed",
                        mr_path_shorten(cluster->folder).text, length,
                        MR_CHECKPOINT_PATH_BYTES - 1);
    memcpy(out, whole, (size_t)length + 1);
    return MR_OK;
}

static mr_status local_error(const char *path, const char *what) {
    int error = errno;
    if (error == EACCES || error == EPERM || error == EROFS)
        return MR_ERROR(PERMISSION_DENIED, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                        strerror(error));
    return MR_ERROR(UNKNOWN, "%s: cannot %s: %s", mr_path_shorten(path).text, what,
                    strerror(error));
}

static mr_status local_make_folder(const char *folder) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/", folder);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, LOCAL_FOLDER_MODE) != 0 && errno != EEXIST)
            return local_error(path, "make the folder");
        *slash = '/';
    }
    return MR_OK;
}

mr_status mr_local_open(const char *folder, bool make, mr_local_cluster *out_cluster) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    *out_cluster = (mr_local_cluster){.lock_fd = -1};
    snprintf(out_cluster->folder, sizeof(out_cluster->folder), "%s", folder);
    MR_TRY(local_path(out_cluster, "lock", path));
    if (make)
        MR_TRY(local_make_folder(folder));
    out_cluster->lock_fd = open(path, O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600);
    if (out_cluster->lock_fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return MR_ERROR(NOT_FOUND, "no cluster was started in %s", mr_path_shorten(folder).text);
    if (out_cluster->lock_fd < 0)
        return local_error(path, "open");
    if (flock(out_cluster->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        mr_local_close(out_cluster);
        return MR_ERROR(FAILED_PRECONDITION, "%s: another millrace up or down is at work there",
                        mr_path_shorten(folder).text);
    }
    return MR_OK;
}

void mr_local_close(mr_local_cluster *cluster) {
    if (cluster->lock_fd >= 0)
        (void)close(cluster->lock_fd); /* the lock goes with it */
    cluster->lock_fd = -1;
}

/* ---- cluster.json ---------------------------------------------------------------------------- */

static json_t *local_daemon_json(const mr_local_daemon *daemon) {
    return json_pack("{s:I, s:I, s:s, s:s, s:s, s:s}", "process_id",
                     (json_int_t)daemon->process.id, "start_ticks",
                     (json_int_t)daemon->process.start_ticks, "address", daemon->address,
                     "status_address", daemon->status_address, "device", daemon->device, "log",
                     daemon->log);
}

json_t *mr_local_json(const mr_local_cluster *cluster) {
    json_t *stages = json_array();
    for (size_t i = 0; i < cluster->stage_count; i++)
        (void)json_array_append_new(stages, local_daemon_json(&cluster->stages[i]));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "folder", cluster->folder, "context",
                     cluster->context, "context_before", cluster->context_before, "address",
                     cluster->coordinator.address, "status_address",
                     cluster->coordinator.status_address, "coordinator",
                     local_daemon_json(&cluster->coordinator), "stages", stages);
}

static mr_status local_write(const mr_local_cluster *cluster) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    char part[MR_CHECKPOINT_PATH_BYTES];
    MR_TRY(local_path(cluster, "cluster.json", path));
    MR_TRY(local_path(cluster, "cluster.json.part", part));
    json_t *document = json_pack("{s:s, s:o}", "schema", MR_LOCAL_SCHEMA, "cluster",
                                 mr_local_json(cluster));
    if (document == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %s", mr_path_shorten(path).text);
    int written = json_dump_file(document, part, JSON_INDENT(2));
    json_decref(document);
    if (written != 0 || rename(part, path) != 0)
        return local_error(path, "write");
    return MR_OK;
}

static void local_copy(const json_t *object, const char *key, char *out, size_t bytes) {
    const char *text = json_string_value(json_object_get(object, key));
    snprintf(out, bytes, "%s", text ? text : "");
}

static void local_daemon_read(const json_t *object, mr_local_daemon *daemon) {
    daemon->process.id = json_integer_value(json_object_get(object, "process_id"));
    daemon->process.start_ticks =
        (uint64_t)json_integer_value(json_object_get(object, "start_ticks"));
    local_copy(object, "address", daemon->address, sizeof(daemon->address));
    local_copy(object, "status_address", daemon->status_address, sizeof(daemon->status_address));
    local_copy(object, "device", daemon->device, sizeof(daemon->device));
    local_copy(object, "log", daemon->log, sizeof(daemon->log));
}

mr_status mr_local_read(mr_local_cluster *cluster) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    json_error_t error;
    MR_TRY(local_path(cluster, "cluster.json", path));
    if (access(path, F_OK) != 0)
        return MR_ERROR(NOT_FOUND, "no cluster was started in %s",
                        mr_path_shorten(cluster->folder).text);
    json_t *document = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    const char *schema = json_string_value(json_object_get(document, "schema"));
    const json_t *object = json_object_get(document, "cluster");
    const json_t *stages = json_object_get(object, "stages");
    if (schema == NULL || strcmp(schema, MR_LOCAL_SCHEMA) != 0 ||
        json_array_size(stages) > MR_LOCAL_STAGES_MAX) {
        json_decref(document);
        return MR_ERROR(DATA_LOSS, "%s is not what millrace up writes",
                        mr_path_shorten(path).text);
    }
    local_copy(object, "context", cluster->context, sizeof(cluster->context));
    local_copy(object, "context_before", cluster->context_before,
               sizeof(cluster->context_before));
    local_daemon_read(json_object_get(object, "coordinator"), &cluster->coordinator);
    cluster->stage_count = json_array_size(stages);
    for (size_t i = 0; i < cluster->stage_count; i++)
        local_daemon_read(json_array_get(stages, i), &cluster->stages[i]);
    json_decref(document);
    return MR_OK;
}

bool mr_local_is_running(const mr_local_cluster *cluster) {
    bool running = mr_process_is_running(&cluster->coordinator.process);
    for (size_t i = 0; i < cluster->stage_count; i++)
        running = running || mr_process_is_running(&cluster->stages[i].process);
    return running;
}

/* ---- start ----------------------------------------------------------------------------------- */

/* Starts one daemon with these words and notes it. */
static mr_status local_spawn(mr_local_daemon *daemon, const char *program,
                             const char *const *words) {
    char *argv[LOCAL_ARGUMENTS_MAX] = {(char *)(uintptr_t)program}; /* only read */
    size_t count = 1;
    for (; words[count - 1] != NULL; count++) {
        MR_ASSERT(count + 1 < LOCAL_ARGUMENTS_MAX);
        argv[count] = (char *)(uintptr_t)words[count - 1]; /* only read */
    }
    return mr_process_start(argv, daemon->log, &daemon->process);
}

/* Waits for a line of the daemon's log; takes its addresses where it has some. */
static mr_status local_wait(mr_local_daemon *daemon, const char *message) {
    json_t *line = NULL;
    mr_status status = mr_process_wait_message(&daemon->process, daemon->log, message,
                                               MR_LOCAL_START_MS, &line);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "%s", mr_path_shorten(daemon->log).text);
    if (json_object_get(line, "status_address") != NULL) {
        local_copy(line, "address", daemon->address, sizeof(daemon->address));
        local_copy(line, "status_address", daemon->status_address,
                   sizeof(daemon->status_address));
    }
    json_decref(line);
    return MR_OK;
}

static mr_status local_start_coordinator(mr_local_cluster *cluster, const char *program) {
    char state[MR_CHECKPOINT_PATH_BYTES];
    MR_TRY(local_path(cluster, "state", state));
    MR_TRY(local_path(cluster, "coordinator.log", cluster->coordinator.log));
    const char *const words[] = {"coordinator",  "--listen", LOCAL_LOOPBACK, "--status",
                                 LOCAL_LOOPBACK, "--state",  state,          NULL};
    MR_TRY(local_spawn(&cluster->coordinator, program, words));
    return local_wait(&cluster->coordinator, "coordinator ready");
}

static mr_status local_start_stage(mr_local_cluster *cluster, const mr_local_options *options) {
    mr_local_daemon *stage = &cluster->stages[cluster->stage_count];
    const bool each = strcmp(options->device, "cuda") == 0;
    char name[32];
    char threads[LOCAL_NUMBER_BYTES];
    snprintf(name, sizeof(name), "stage-%zu.log", cluster->stage_count);
    snprintf(threads, sizeof(threads), "%zu", options->threads);
    MR_TRY(local_path(cluster, name, stage->log));
    if (each)
        snprintf(stage->device, sizeof(stage->device), "cuda:%zu", cluster->stage_count);
    else
        snprintf(stage->device, sizeof(stage->device), "%s", options->device);
    const char *const words[] = {"stage",        "--coordinator", cluster->coordinator.address,
                                 "--listen",     LOCAL_LOOPBACK,  "--status",
                                 LOCAL_LOOPBACK, "--device",      stage->device,
                                 "--threads",    threads,         NULL};
    MR_TRY(local_spawn(stage, options->program, words));
    cluster->stage_count++;
    return MR_OK;
}

static mr_status local_start_all(mr_local_cluster *cluster, const mr_local_options *options) {
    MR_TRY(local_start_coordinator(cluster, options->program));
    while (cluster->stage_count < options->stages)
        MR_TRY(local_start_stage(cluster, options));
    for (size_t i = 0; i < cluster->stage_count; i++) {
        MR_TRY(local_wait(&cluster->stages[i], "stage ready"));
        MR_TRY(local_wait(&cluster->stages[i], "attached"));
    }
    return local_write(cluster);
}

mr_status mr_local_start(mr_local_cluster *cluster, const mr_local_options *options) {
    MR_ASSERT(cluster->lock_fd >= 0);
    MR_ASSERT(options->stages >= 1 && options->stages <= MR_LOCAL_STAGES_MAX);
    cluster->stage_count = 0;
    mr_status status = local_start_all(cluster, options);
    if (!mr_status_is_ok(status)) {
        mr_status ended = mr_local_stop(cluster, NULL);
        if (!mr_status_is_ok(ended))
            status = mr_status_prefix(status, "%s", ended.text);
    }
    return status;
}

mr_status mr_local_stop(mr_local_cluster *cluster, size_t *out_killed) {
    char path[MR_CHECKPOINT_PATH_BYTES];
    bool killed = false;
    size_t count = 0;
    mr_status status = mr_process_stop(&cluster->coordinator.process, MR_LOCAL_STOP_MS, &killed);
    count += killed;
    for (size_t i = 0; i < cluster->stage_count; i++) {
        mr_status one =
            mr_process_stop(&cluster->stages[i].process, MR_LOCAL_STOP_MS, &killed);
        count += killed;
        if (!mr_status_is_ok(one) && mr_status_is_ok(status))
            status = one;
    }
    if (out_killed != NULL)
        *out_killed = count;
    MR_TRY(status);
    MR_TRY(local_path(cluster, "cluster.json", path));
    if (unlink(path) != 0 && errno != ENOENT)
        return local_error(path, "remove");
    return MR_OK;
}
