/* SPDX-License-Identifier: Apache-2.0 */
/* job_plan.c: what can be known of a job file without a server: is it good, and what would it do.
 * Of a job that the coordinator knows also what its ranks really hold. */
#include <stdio.h>
#include <string.h>

#include "client/job_file.h"
#include "client/job_view.h"
#include "client/nouns.h"
#include "client/path_text.h"
#include "client/plan_source.h"
#include "client/render.h"
#include "client/watch.h"
#include "daemon/base/alloc.h"
#include "daemon/plan/plan.h"

/* ---- validate ---------------------------------------------------------------------------------
 */

static void validate_print_errors(const char *path, const mr_job_errors *errors,
                                  const mr_status *status) {
    for (size_t i = 0; i < errors->count; i++) {
        if (errors->items[i].line > 0)
            mr_client_warn("%s:%zu: %s", path, errors->items[i].line, errors->items[i].text);
        else
            mr_client_warn("%s: %s", path, errors->items[i].text);
    }
    if (errors->count == 0)
        mr_client_warn("millrace: %s", status->text);
}

static json_t *validate_json(const char *path, const mr_job_errors *errors,
                             const mr_status *status) {
    json_t *list = json_array();
    for (size_t i = 0; i < errors->count; i++)
        (void)json_array_append_new(list, json_pack("{s:I, s:o}", "line",
                                                    (json_int_t)errors->items[i].line, "text",
                                                    mr_render_string(errors->items[i].text)));
    if (!mr_status_is_ok(*status) && errors->count == 0)
        (void)json_array_append_new(
            list, json_pack("{s:i, s:o}", "line", 0, "text", mr_render_string(status->text)));
    return json_pack("{s:o, s:b, s:o}", "file", mr_render_string(path), "valid",
                     (int)mr_status_is_ok(*status), "errors", list);
}

/* A file is good when it can be read, parsed, run by this version and planned. */
static mr_status validate_file(const char *path, mr_job_file *file, mr_job_errors *errors) {
    mr_plan *plan = NULL;
    MR_TRY(mr_job_file_read(path, file, errors));
    mr_status status = mr_job_check_runnable(
        file->job, file->job->loss == MR_LOSS_NONE ? MR_JOB_MODE_INFERENCE : MR_JOB_MODE_TRAIN);
    if (mr_status_is_ok(status))
        status = mr_plan_make(file->job, false, &plan);
    mr_plan_destroy(plan);
    return mr_status_is_ok(status) ? status
                                   : mr_status_prefix(status, "%s", mr_path_shorten(path).text);
}

mr_status mr_command_job_validate(mr_client *client) {
    const char *path = client->invocation->arguments[0];
    mr_job_file file = {0};
    mr_job_errors *errors = mr_alloc(sizeof(*errors));
    if (errors == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to check %s", mr_path_shorten(path).text);
    mr_status status = validate_file(path, &file, errors);
    bool json = client->output == MR_OUTPUT_JSON || client->output == MR_OUTPUT_JSONL;
    mr_status printed = MR_OK;
    if (json)
        printed = mr_render_document(client, "validation", validate_json(path, errors, &status));
    else if (!mr_status_is_ok(status))
        validate_print_errors(path, errors, &status);
    else if (client->output == MR_OUTPUT_NAME)
        puts(file.job->name);
    else
        printf("%s is valid: job %s, %zu layers, %zu %s\n", path, file.job->name,
               file.job->layer_count, file.job->pipe, file.job->pipe == 1 ? "stage" : "stages");
    mr_job_file_deinit(&file);
    mr_free(errors);
    /* The errors are told; only the exit code is left. */
    client->exit_code = mr_exit_code_of(status.code);
    return printed;
}

/* ---- plan -------------------------------------------------------------------------------------
 */

/* Adds "key": text to a row. */
static void plan_cell(json_t *row, const char *key, const char *text) {
    (void)json_object_set_new(row, key, json_string(text));
}

/* Of the stage's rank that holds the most; "-" where none has told. */
static void plan_held(const Millrace__V1__Job *job, size_t stage, char *out, size_t bytes) {
    double most = -1;
    for (size_t i = 0; i < job->n_stages; i++) {
        const Millrace__V1__MemoryBytes *held = job->stages[i]->memory_held;
        if (job->stages[i]->stage != stage || held == NULL)
            continue;
        double sum = (double)held->weights + (double)held->gradients + (double)held->optimizer +
                     (double)held->activations;
        most = sum > most ? sum : most;
    }
    if (most < 0)
        snprintf(out, bytes, "-");
    else
        mr_render_bytes(most, out, bytes);
}

static json_t *plan_row(const mr_plan *plan, const Millrace__V1__Job *job, size_t stage) {
    const mr_stage_plan *s = &plan->stages[stage];
    char text[64];
    json_t *row = json_object();
    (void)json_object_set_new(row, "stage", json_integer((json_int_t)stage));
    if (s->layer_end > s->layer_first)
        snprintf(text, sizeof(text), "%zu-%zu", s->layer_first, s->layer_end - 1);
    else
        snprintf(text, sizeof(text), "none");
    plan_cell(row, "layers", text);
    mr_render_count((double)s->parameters, text, sizeof(text));
    plan_cell(row, "parameters", text);
    mr_render_count(s->flops, text, sizeof(text));
    plan_cell(row, "flops", text);
    const struct {
        const char *key;
        size_t bytes;
    } memory[] = {
        {"weights", s->weights_bytes},
        {"gradients", s->gradients_bytes},
        {"optimizer", s->optimizer_bytes},
        {"activations", s->activations_bytes},
        {"memory",
         s->weights_bytes + s->gradients_bytes + s->optimizer_bytes + s->activations_bytes},
    };
    for (size_t i = 0; i < sizeof(memory) / sizeof(memory[0]); i++) {
        mr_render_bytes((double)memory[i].bytes, text, sizeof(text));
        plan_cell(row, memory[i].key, text);
    }
    if (job != NULL) {
        plan_held(job, stage, text, sizeof(text));
        plan_cell(row, "held", text);
    }
    (void)json_object_set_new(row, "in_flight", json_integer((json_int_t)s->peak_in_flight));
    snprintf(text, sizeof(text), "%.4f s", s->busy_seconds);
    plan_cell(row, "busy", text);
    return row;
}

static const mr_column plan_columns[] = {
    {"STAGE", "stage", NULL},           {"LAYERS", "layers", NULL},
    {"PARAMETERS", "parameters", NULL}, {"FLOPS/STEP", "flops", NULL},
    {"WEIGHTS", "weights", NULL},       {"GRADIENTS", "gradients", NULL},
    {"OPTIMIZER", "optimizer", NULL},   {"ACTIVATIONS", "activations", NULL},
    {"MEMORY", "memory", NULL},         {"IN FLIGHT", "in_flight", NULL},
};
static const mr_column plan_held_column = {"HELD", "held", NULL};      /* of a job, by memory */
static const mr_column plan_busy_column = {"BUSY/STEP", "busy", NULL}; /* needs a profile */

static void plan_print_stages(const mr_plan *plan, const Millrace__V1__Job *job) {
    enum { FIXED = sizeof(plan_columns) / sizeof(plan_columns[0]) };
    mr_column columns[FIXED + 2];
    mr_view view = {.singular = "stage", .plural = "stages", .name_key = "stage"};
    for (size_t i = 0; i < FIXED; i++) {
        columns[view.column_count++] = plan_columns[i];
        if (job != NULL && strcmp(plan_columns[i].key, "memory") == 0)
            columns[view.column_count++] = plan_held_column;
    }
    if (plan->step_seconds > 0)
        columns[view.column_count++] = plan_busy_column;
    view.columns = columns;
    json_t *rows = json_array();
    for (size_t s = 0; s < plan->stage_count; s++)
        (void)json_array_append_new(rows, plan_row(plan, job, s));
    mr_render_table(&view, rows);
    json_decref(rows);
}

static void plan_print_groups(const mr_plan *plan) {
    static const char *const kinds[MR_GROUP_KIND_COUNT] = {"tied", "data", "model", "pipe"};
    for (size_t i = 0; i < plan->group_count; i++) {
        const mr_group_plan *group = &plan->groups[i];
        if (group->rank_count < 2)
            continue;
        printf("group  %s%s%s: ranks", kinds[group->kind], group->key[0] ? " " : "", group->key);
        for (size_t r = 0; r < group->rank_count; r++)
            printf(" %u", group->ranks[r]);
        putchar('\n');
    }
}

/* What pipeline.zero_stage 1 spares each rank of a stage, the one that holds the most. */
static void plan_print_split(const mr_plan *plan) {
    char bytes[32];
    if (plan->job->zero_stage == 0)
        return;
    printf("optimizer state split over %zu replicas; less on each rank:", plan->job->data);
    for (size_t s = 0; s < plan->stage_count; s++) {
        mr_render_bytes((double)plan->stages[s].zero_saved_bytes, bytes, sizeof(bytes));
        printf("%s %s", s == 0 ? "" : ",", bytes);
    }
    putchar('\n');
}

/* Predicted and held of each rank of a job that has started. */
static void plan_print_ranks(const mr_client *client, const Millrace__V1__Job *job) {
    if (job == NULL || job->n_stages == 0)
        return;
    json_t *ranks = mr_job_view_stages(job);
    printf("\nmemory of job %s (%s, step %llu), by rank:\n", job->id,
           mr_watch_state_name(job->state), (unsigned long long)job->step);
    mr_render_rows(client, &mr_job_stage_view, ranks);
    json_decref(ranks);
}

static void plan_print_table(const mr_plan *plan, const Millrace__V1__Job *source) {
    const mr_job *job = plan->job;
    size_t parameters = 0;
    char count[32];
    for (size_t s = 0; s < plan->stage_count; s++)
        parameters += plan->stages[s].parameters;
    mr_render_count((double)parameters, count, sizeof(count));
    printf("job %s: %zu layers, %s parameters, %zu %s", job->name, job->layer_count, count,
           plan->topology.world_size, plan->topology.world_size == 1 ? "rank" : "ranks");
    for (size_t a = 0; a < plan->topology.axis_count; a++)
        printf("%s%s %zu", a == 0 ? " (" : ", ", plan->topology.axes[a], plan->topology.dims[a]);
    printf(")\nstep: %zu replicas x %zu microbatches x %zu x %zu tokens = %zu\n\n", job->data,
           job->micro_batches, job->micro_batch_size, job->sequence_length,
           job->data * job->micro_batches * job->micro_batch_size * job->sequence_length);
    plan_print_stages(plan, source);
    putchar('\n');
    plan_print_groups(plan);
    plan_print_split(plan);
    for (size_t s = 0; s < plan->stage_count; s++) {
        char *text = NULL;
        if (mr_status_is_ok(mr_schedule_text(&plan->schedules[s], &text)))
            printf("schedule of stage %zu: %s\n", s, text);
        mr_free(text);
    }
    printf("bubble: %.1f%% predicted, %.1f%% with equal stages\n", plan->bubble_predicted * 100,
           plan->bubble_ideal * 100);
    if (plan->step_seconds > 0)
        printf("step: %.4f s predicted, %.0f tokens/s\n", plan->step_seconds,
               (double)(job->data * job->micro_batches * job->micro_batch_size *
                        job->sequence_length) /
                   plan->step_seconds);
}

/* The plan's JSON; of a job with its id, and with what each rank holds. */
static mr_status plan_print_json(const mr_plan *plan, const Millrace__V1__Job *job) {
    char *text = NULL;
    MR_TRY(mr_plan_json(plan, &text));
    if (job == NULL) {
        puts(text);
        mr_free(text);
        return MR_OK;
    }
    json_t *value = json_loads(text, 0, NULL);
    mr_free(text);
    if (value == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to print the plan");
    json_t *ranks = json_object_get(value, "ranks");
    json_t *held = mr_job_view_stages(job);
    (void)json_object_set_new(value, "job",
                              json_pack("{s:o, s:s, s:I, s:I}", "id", mr_render_string(job->id),
                                        "state", mr_watch_state_name(job->state), "epoch",
                                        (json_int_t)job->epoch, "step",
                                        (json_int_t)job->step)); /* refuses NULL */
    for (size_t i = 0; i < json_array_size(held); i++) {
        const json_t *one = json_array_get(held, i);
        json_t *rank = json_array_get(ranks, i);
        (void)json_object_set(rank, "memory_predicted_bytes",
                              json_object_get(one, "memory_predicted_bytes"));
        (void)json_object_set(rank, "memory_held_bytes", json_object_get(one, "memory_held_bytes"));
    }
    json_decref(held);
    return mr_render_plain(value, false);
}

static mr_status plan_print(const mr_client *client, const mr_plan *plan,
                            const Millrace__V1__Job *job) {
    switch (client->output) {
    case MR_OUTPUT_JSON:
    case MR_OUTPUT_JSONL:
        return plan_print_json(plan, job);
    case MR_OUTPUT_NAME:
        puts(plan->job->name);
        return MR_OK;
    default:
        plan_print_table(plan, job);
        plan_print_ranks(client, job);
        return MR_OK;
    }
}

mr_status mr_command_job_plan(mr_client *client) {
    mr_plan_source source;
    mr_plan *plan = NULL;
    mr_status status = mr_plan_source_read(client, &source);
    if (mr_status_is_ok(status)) {
        status = mr_plan_make_profiled(source.file.job, source.forward, source.profile.profile,
                                       &plan);
        if (!mr_status_is_ok(status))
            status = mr_status_prefix(status, "%s", mr_path_shorten(source.label).text);
    }
    if (mr_status_is_ok(status) && plan->provisional)
        mr_client_say(client, "cut by operations: partition is profile, and no profile was given");
    if (mr_status_is_ok(status))
        status = plan_print(client, plan, source.job);
    mr_plan_destroy(plan);
    mr_plan_source_deinit(&source);
    return status;
}
