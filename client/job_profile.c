/* SPDX-License-Identifier: Apache-2.0 */
/* job_profile.c: what a job's layers cost on its stages: of a job that the coordinator knows, or of
 * a job file, whose layers are then timed by as many stages as the job would have. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/job_run.h"
#include "client/nouns.h"
#include "client/render.h"
#include "daemon/base/alloc.h"
#include "daemon/plan/profile.h"

/* ---- print ----------------------------------------------------------------------------------- */

static void cell_seconds(const json_t *item, const char *key, char *out, size_t bytes) {
    snprintf(out, bytes, "%.3f ms", json_real_value(json_object_get(item, key)) * 1e3);
}

static void cell_forward(const json_t *item, char *out, size_t bytes) {
    cell_seconds(item, "forward", out, bytes);
}
static void cell_backward_input(const json_t *item, char *out, size_t bytes) {
    cell_seconds(item, "backward_input", out, bytes);
}
static void cell_backward_weight(const json_t *item, char *out, size_t bytes) {
    cell_seconds(item, "backward_weight", out, bytes);
}
static void cell_saved(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)json_integer_value(json_object_get(item, "saved_bytes")), out, bytes);
}

static const mr_column cost_columns[] = {
    {"FIRST", "layer", NULL},
    {"LAYERS", "layers", NULL},
    {"TYPE", "type", NULL},
    {"FORWARD", NULL, cell_forward},
    {"BACKWARD INPUT", NULL, cell_backward_input},
    {"BACKWARD WEIGHT", NULL, cell_backward_weight},
    {"SAVED", NULL, cell_saved},
};
static const mr_view cost_view = {
    .singular = "class",
    .plural = "classes",
    .name_key = "layer",
    .columns = cost_columns,
    .column_count = sizeof(cost_columns) / sizeof(cost_columns[0]),
};

static json_t *cost_row(const mr_profile_class *class, const mr_profile_cost *cost) {
    return json_pack("{s:I, s:I, s:s, s:f, s:f, s:f, s:I}", "layer", (json_int_t)class->layer,
                     "layers", (json_int_t)class->layer_count, "type", class->type, "forward",
                     cost->forward, "backward_input", cost->backward_input, "backward_weight",
                     cost->backward_weight, "saved_bytes", (json_int_t)cost->saved_bytes);
}

static void profile_print_device(const mr_profile *profile, const mr_profile_device *device) {
    json_t *rows = json_array();
    char memory[32];
    for (size_t i = 0; i < profile->class_count; i++)
        (void)json_array_append_new(rows, cost_row(&profile->classes[i], &device->costs[i]));
    mr_render_bytes((double)device->memory_bytes, memory, sizeof(memory));
    printf("\ndevice %s, %u threads, %s, at %s\n", device->device, device->threads, memory,
           device->address);
    mr_render_table(&cost_view, rows);
    printf("loss %.3f ms; an element: zero %.3f ns, norm %.3f ns, optimizer %.3f ns\n",
           device->loss * 1e3, device->zero * 1e9, device->norm * 1e9, device->optimizer * 1e9);
    if (device->link > 0 || device->link_byte > 0)
        printf("link (loopback) %.3f ms a message and %.3f ms a MiB\n", device->link * 1e3,
               device->link_byte * 1048576e3);
    json_decref(rows);
}

static mr_status profile_print(const mr_client *client, const char *job_id, const char *text) {
    mr_profile *profile = NULL;
    if (client->output != MR_OUTPUT_TABLE) {
        puts(client->output == MR_OUTPUT_NAME ? job_id : text);
        return MR_OK;
    }
    MR_TRY(mr_profile_parse(text, strlen(text), &profile));
    printf("microbatch of %zu x %zu tokens, %s, %s: %zu layers, %zu that differ\n",
           profile->micro_batch_size, profile->sequence_length, profile->precision,
           profile->optimizer, profile->layer_count, profile->class_count);
    for (size_t i = 0; i < profile->device_count; i++)
        profile_print_device(profile, profile->devices[i]);
    mr_profile_destroy(profile);
    return MR_OK;
}

static mr_status profile_fetch(mr_client *client, const char *job) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job; /* only packed */
    MR_TRY(mr_client_call(client, "GetProfile", &request.base, &response));
    mr_status status =
        profile_print(client, job, ((Millrace__V1__ProfileResponse *)response)->json);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

/* ---- measure --------------------------------------------------------------------------------- */

/* Submits a job that only measures, and follows it to its end. */
static mr_status profile_measure(mr_client *client, const mr_job_file *file,
                                 char job_id[MR_NAME_BYTES]) {
    const mr_output output = client->output;
    const mr_job_run_submit submit = {.file = file, .mode = MR_JOB_MODE_PROFILE};
    mr_job_run run;
    mr_status status = mr_job_run_init(&run, client);
    client->output = MR_OUTPUT_TABLE; /* the id is printed once, at the end */
    if (mr_status_is_ok(status))
        status = mr_job_run_start(&run, &submit);
    client->output = output;
    while (mr_status_is_ok(status) && !mr_job_run_over(&run)) {
        mr_event event;
        const Millrace__V1__StepResult *step = NULL;
        if (mr_job_run_next(&run, &event, &step))
            mr_event_deinit(&event);
    }
    if (mr_status_is_ok(status))
        status = mr_job_run_result(&run);
    memcpy(job_id, run.watch.job_id, MR_NAME_BYTES);
    mr_job_run_deinit(&run);
    return status;
}

static mr_status profile_of_file(mr_client *client, const char *path) {
    char job_id[MR_NAME_BYTES];
    mr_job_file file = {0};
    mr_status status = mr_job_file_read(path, &file, NULL);
    if (mr_status_is_ok(status))
        status = profile_measure(client, &file, job_id);
    mr_job_file_deinit(&file);
    MR_TRY(status);
    return client->exit_code == MR_EXIT_CODE_DONE ? profile_fetch(client, job_id) : MR_OK;
}

mr_status mr_command_job_profile(mr_client *client) {
    const char *subject = client->invocation->arguments[0];
    struct stat found;
    if (stat(subject, &found) == 0 && !S_ISDIR(found.st_mode))
        return profile_of_file(client, subject);
    return profile_fetch(client, subject);
}
