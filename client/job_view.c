/* SPDX-License-Identifier: Apache-2.0 */
#include "client/job_view.h"

#include <stdio.h>
#include <string.h>

#include "client/watch.h"
#include "daemon/model/job.h"

/* ---- cells of tables that join several values ------------------------------------------------ */

static json_int_t view_integer(const json_t *item, const char *key) {
    return json_integer_value(json_object_get(item, key));
}

/* Only training counts steps towards an end and has a loss. */
static bool view_trains(const json_t *item) {
    return strcmp(json_string_value(json_object_get(item, "mode")), "train") == 0;
}

static void cell_steps(const json_t *item, char *out, size_t bytes) {
    if (!view_trains(item)) {
        snprintf(out, bytes, "%" JSON_INTEGER_FORMAT, view_integer(item, "step"));
        return;
    }
    snprintf(out, bytes, "%" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT,
             view_integer(item, "step"), view_integer(item, "total_steps"));
}

static void cell_loss(const json_t *item, char *out, size_t bytes) {
    const json_t *loss = json_object_get(item, "loss");
    if (view_trains(item) && view_integer(item, "step") > 0 && json_is_real(loss))
        snprintf(out, bytes, "%.4f", json_real_value(loss));
    else
        snprintf(out, bytes, "-");
}

static void cell_rate(const json_t *item, char *out, size_t bytes) {
    double rate = json_real_value(json_object_get(item, "tokens_per_second"));
    if (rate > 0)
        mr_render_count(rate, out, bytes);
    else
        snprintf(out, bytes, "-");
}

static void cell_bubble(const json_t *item, char *out, size_t bytes) {
    double bubble = json_real_value(json_object_get(item, "bubble"));
    if (view_trains(item) && view_integer(item, "step") > 0)
        snprintf(out, bytes, "%.1f%%", bubble * 100);
    else
        snprintf(out, bytes, "-");
}

/* Measured beside predicted. */
static void cell_step_time(const json_t *item, char *out, size_t bytes) {
    double measured = json_real_value(json_object_get(item, "step_seconds"));
    double predicted = json_real_value(json_object_get(item, "predicted_step_seconds"));
    if (measured > 0 && predicted > 0)
        snprintf(out, bytes, "%.4f s (%.4f s predicted)", measured, predicted);
    else if (measured > 0)
        snprintf(out, bytes, "%.4f s", measured);
    else if (predicted > 0)
        snprintf(out, bytes, "%.4f s predicted", predicted);
    else
        snprintf(out, bytes, "-");
}

static void cell_queue(const json_t *item, char *out, size_t bytes) {
    if (view_integer(item, "queue_position") > 0)
        snprintf(out, bytes, "%" JSON_INTEGER_FORMAT, view_integer(item, "queue_position"));
    else
        snprintf(out, bytes, "-");
}

static void cell_created(const json_t *item, char *out, size_t bytes) {
    mr_render_time(view_integer(item, "created_ms"), out, bytes);
}

static void cell_started(const json_t *item, char *out, size_t bytes) {
    mr_render_time(view_integer(item, "started_ms"), out, bytes);
}

static void cell_ended(const json_t *item, char *out, size_t bytes) {
    mr_render_time(view_integer(item, "ended_ms"), out, bytes);
}

static void cell_layers(const json_t *item, char *out, size_t bytes) {
    const json_t *layers = json_object_get(item, "layers");
    snprintf(out, bytes, "%" JSON_INTEGER_FORMAT "-%" JSON_INTEGER_FORMAT,
             json_integer_value(json_array_get(layers, 0)),
             json_integer_value(json_array_get(layers, 1)) - 1);
}

static void cell_stages(const json_t *item, char *out, size_t bytes) {
    snprintf(out, bytes, "%zu", json_array_size(json_object_get(item, "stages")));
}

static void cell_rank(const json_t *item, char *out, size_t bytes) {
    const json_t *rank = json_object_get(item, "rank");
    if (json_is_integer(rank))
        snprintf(out, bytes, "%" JSON_INTEGER_FORMAT, json_integer_value(rank));
    else
        snprintf(out, bytes, "-");
}

static void cell_heartbeat(const json_t *item, char *out, size_t bytes) {
    snprintf(out, bytes, "%.1f s", (double)view_integer(item, "heartbeat_age_ms") / 1000);
}

static void cell_bytes(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)view_integer(item, "bytes"), out, bytes);
}

static void cell_memory(const json_t *item, char *out, size_t bytes) {
    mr_render_bytes((double)view_integer(item, "memory_bytes"), out, bytes);
}

/* The bytes of one kind (NULL: of all) that a rank holds, by the plan or really; -1: not known. */
static double view_memory(const json_t *item, const char *which, const char *kind) {
    const json_t *memory = json_object_get(item, which);
    if (!json_is_object(memory))
        return -1;
    if (kind != NULL)
        return (double)view_integer(memory, kind);
    return (double)view_integer(memory, "weights") + (double)view_integer(memory, "gradients") +
           (double)view_integer(memory, "optimizer") + (double)view_integer(memory, "activations");
}

static void cell_memory_of(double memory, char *out, size_t bytes) {
    if (memory >= 0)
        mr_render_bytes(memory, out, bytes);
    else
        snprintf(out, bytes, "-");
}

static void cell_predicted(const json_t *item, char *out, size_t bytes) {
    cell_memory_of(view_memory(item, "memory_predicted_bytes", NULL), out, bytes);
}

static void cell_held(const json_t *item, char *out, size_t bytes) {
    cell_memory_of(view_memory(item, "memory_held_bytes", NULL), out, bytes);
}

/* Predicted, then held. */
static void cell_kind(const json_t *item, const char *kind, char *out, size_t bytes) {
    char predicted[32];
    char held[32];
    cell_memory_of(view_memory(item, "memory_predicted_bytes", kind), predicted, sizeof(predicted));
    cell_memory_of(view_memory(item, "memory_held_bytes", kind), held, sizeof(held));
    snprintf(out, bytes, "%s, %s", predicted, held);
}

static void cell_weights(const json_t *item, char *out, size_t bytes) {
    cell_kind(item, "weights", out, bytes);
}

static void cell_gradients(const json_t *item, char *out, size_t bytes) {
    cell_kind(item, "gradients", out, bytes);
}

static void cell_optimizer(const json_t *item, char *out, size_t bytes) {
    cell_kind(item, "optimizer", out, bytes);
}

static void cell_activations(const json_t *item, char *out, size_t bytes) {
    cell_kind(item, "activations", out, bytes);
}

/* ---- views ------------------------------------------------------------------------------------
 */

static const mr_column job_list_columns[] = {
    {"ID", "id", NULL},         {"NAME", "name", NULL},     {"MODE", "mode", NULL},
    {"STATE", "state", NULL},   {"STEP", NULL, cell_steps}, {"LOSS", NULL, cell_loss},
    {"TOK/S", NULL, cell_rate}, {"REASON", "reason", NULL},
};
static const mr_column job_list_wide_columns[] = {
    {"EPOCH", "epoch", NULL},         {"BUBBLE", NULL, cell_bubble},
    {"STAGES", NULL, cell_stages},    {"CHECKPOINT", "checkpoint_tag", NULL},
    {"CREATED", NULL, cell_created},  {"ENDED", NULL, cell_ended},
    {"FOLDER", "base_directory", NULL},
};
static const mr_column job_item_columns[] = {
    {"id", "id", NULL},
    {"name", "name", NULL},
    {"mode", "mode", NULL},
    {"state", "state", NULL},
    {"reason", "reason", NULL},
    {"queue", NULL, cell_queue},
    {"step", NULL, cell_steps},
    {"loss", NULL, cell_loss},
    {"tokens/s", NULL, cell_rate},
    {"bubble", NULL, cell_bubble},
    {"step time", NULL, cell_step_time},
    {"checkpoint", "checkpoint_tag", NULL},
    {"created", NULL, cell_created},
    {"started", NULL, cell_started},
    {"ended", NULL, cell_ended},
    {"folder", "base_directory", NULL},
};
static const mr_column job_item_wide_columns[] = {
    {"epoch", "epoch", NULL},
    {"start step", "start_step", NULL},
    {"|g|", "gradient_norm", NULL},
    {"lr", "learning_rate", NULL},
};
static const mr_column job_stage_columns[] = {
    {"RANK", "rank", NULL},        {"STAGE", "stage", NULL},     {"LAYERS", NULL, cell_layers},
    {"MEMBER", "member_id", NULL}, {"PREDICTED", NULL, cell_predicted},
    {"HELD", NULL, cell_held},     {"ADDRESS", "address", NULL},
};
/* Of each kind predicted and held. */
static const mr_column memory_wide_columns[] = {
    {"WEIGHTS", NULL, cell_weights},
    {"GRADIENTS", NULL, cell_gradients},
    {"OPTIMIZER", NULL, cell_optimizer},
    {"ACTIVATIONS", NULL, cell_activations},
};
static const mr_column member_columns[] = {
    {"ID", "id", NULL},           {"DEVICE", "device", NULL},          {"STATE", "state", NULL},
    {"JOB", "job_id", NULL},      {"RANK", NULL, cell_rank},           {"ADDRESS", "address", NULL},
    {"MEMORY", NULL, cell_memory}, {"HEARTBEAT", NULL, cell_heartbeat},
};
static const mr_column member_item_columns[] = {
    {"ID", "id", NULL},
    {"DEVICE", "device", NULL},
    {"STATE", "state", NULL},
    {"JOB", "job_id", NULL},
    {"RANK", NULL, cell_rank},
    {"ADDRESS", "address", NULL},
    {"MEMORY", NULL, cell_memory},
    {"PREDICTED", NULL, cell_predicted},
    {"HELD", NULL, cell_held},
    {"HEARTBEAT", NULL, cell_heartbeat},
};
static const mr_column member_item_wide_columns[] = {
    {"THREADS", "threads", NULL},
    {"STATUS PAGE", "status_address", NULL},
    {"VERSION", "version", NULL},
    {"PID", "process_id", NULL},
    {"WEIGHTS", NULL, cell_weights},
    {"GRADIENTS", NULL, cell_gradients},
    {"OPTIMIZER", NULL, cell_optimizer},
    {"ACTIVATIONS", NULL, cell_activations},
};
static const mr_column member_wide_columns[] = {
    {"THREADS", "threads", NULL},
    {"STATUS PAGE", "status_address", NULL},
    {"VERSION", "version", NULL},
    {"PID", "process_id", NULL},
};
static const mr_column checkpoint_columns[] = {
    {"TAG", "tag", NULL},        {"STEP", "step", NULL},
    {"BYTES", NULL, cell_bytes}, {"CREATED", NULL, cell_created},
    {"NEWEST", "newest", NULL},  {"PATH", "path", NULL},
};
static const mr_column checkpoint_wide_columns[] = {
    {"JOB", "job", NULL},
    {"EPOCH", "epoch", NULL},
    {"FILES", "files", NULL},
    {"MODEL HASH", "model_hash", NULL},
};

#define VIEW_COUNT(columns) (sizeof(columns) / sizeof((columns)[0]))
#define VIEW(one, many, name, all, wide)                                                           \
    {                                                                                              \
        .singular = (one), .plural = (many), .name_key = (name), .columns = (all),                 \
        .column_count = VIEW_COUNT(all), .wide_columns = (wide), .wide_count = VIEW_COUNT(wide),   \
    }

const mr_view mr_job_list_view =
    VIEW("job", "jobs", "id", job_list_columns, job_list_wide_columns);
const mr_view mr_job_item_view =
    VIEW("job", "jobs", "id", job_item_columns, job_item_wide_columns);
const mr_view mr_job_stage_view =
    VIEW("stage", "stages", "member_id", job_stage_columns, memory_wide_columns);
const mr_view mr_member_view = VIEW("stage", "stages", "id", member_columns, member_wide_columns);
const mr_view mr_member_item_view =
    VIEW("stage", "stages", "id", member_item_columns, member_item_wide_columns);
const mr_view mr_checkpoint_view =
    VIEW("checkpoint", "checkpoints", "tag", checkpoint_columns, checkpoint_wide_columns);

/* ---- JSON -------------------------------------------------------------------------------------
 */

/* Null where it is not known. */
static json_t *view_memory_bytes(const Millrace__V1__MemoryBytes *memory) {
    if (memory == NULL)
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I}", "weights", (json_int_t)memory->weights, "gradients",
                     (json_int_t)memory->gradients, "optimizer", (json_int_t)memory->optimizer,
                     "activations", (json_int_t)memory->activations);
}

json_t *mr_job_view_stages(const Millrace__V1__Job *job) {
    json_t *stages = json_array();
    for (size_t i = 0; i < job->n_stages; i++) {
        const Millrace__V1__JobStage *stage = job->stages[i];
        (void)json_array_append_new(
            stages,
            json_pack("{s:I, s:I, s:[I,I], s:o, s:o, s:o, s:o}", "rank", (json_int_t)stage->rank,
                      "stage", (json_int_t)stage->stage, "layers", (json_int_t)stage->layer_first,
                      (json_int_t)stage->layer_end, "member_id",
                      mr_render_string(stage->member_id), "address",
                      mr_render_string(stage->address), "memory_predicted_bytes",
                      view_memory_bytes(stage->memory_predicted), "memory_held_bytes",
                      view_memory_bytes(stage->memory_held)));
    }
    return stages;
}

static json_t *view_job_groups(const Millrace__V1__Job *job) {
    json_t *groups = json_array();
    for (size_t i = 0; i < job->n_groups; i++) {
        const Millrace__V1__JobGroup *group = job->groups[i];
        json_t *ranks = json_array();
        for (size_t r = 0; r < group->n_ranks; r++)
            (void)json_array_append_new(ranks, json_integer(group->ranks[r]));
        (void)json_array_append_new(
            groups, json_pack("{s:o, s:o, s:o, s:o}", "kind", mr_render_string(group->kind), "key",
                              mr_render_string(group->key), "ranks", ranks, "id",
                              mr_render_string(group->id)));
    }
    return groups;
}

/* Null where it is not known. */
static json_t *view_positive(double value) {
    return value > 0 ? mr_render_real(value) : json_null();
}

json_t *mr_job_view_job(const Millrace__V1__Job *job, bool text) {
    const char *mode = (unsigned)job->mode < MR_JOB_MODE_COUNT
                           ? mr_job_mode_name((mr_job_mode)job->mode)
                           : "unknown";
    json_t *item = json_pack(
        "{s:o, s:o, s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "id",
        mr_render_string(job->id), "name", mr_render_string(job->name), "state",
        mr_watch_state_name(job->state), "reason", mr_render_string(job->reason), "mode", mode,
        "queue_position", (json_int_t)job->queue_position, "epoch", (json_int_t)job->epoch, "step",
        (json_int_t)job->step, "total_steps", (json_int_t)job->total_steps, "loss",
        mr_render_real(job->loss), "gradient_norm", mr_render_real(job->gradient_norm),
        "learning_rate", mr_render_real(job->learning_rate), "tokens_per_second",
        mr_render_real(job->tokens_per_second), "bubble", mr_render_real(job->bubble));
    json_t *rest =
        json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "start_step",
                  (json_int_t)job->start_step, "created_ms", (json_int_t)job->created_ms,
                  "started_ms", (json_int_t)job->started_ms, "ended_ms", (json_int_t)job->ended_ms,
                  "checkpoint_tag", mr_render_string(job->checkpoint_tag), "base_directory",
                  mr_render_string(job->base_directory), "stages", mr_job_view_stages(job),
                  "groups", view_job_groups(job));
    if (item == NULL || rest == NULL || json_object_update(item, rest) != 0) {
        json_decref(item);
        item = NULL;
    }
    json_decref(rest);
    if (item != NULL) {
        bool predicted = job->predicted_step_seconds > 0;
        (void)json_object_set_new(item, "load_note", mr_render_string(job->load_note));
        (void)json_object_set_new(item, "step_seconds", view_positive(job->step_seconds));
        (void)json_object_set_new(item, "predicted_step_seconds",
                                  view_positive(job->predicted_step_seconds));
        (void)json_object_set_new(item, "predicted_bubble",
                                  predicted ? mr_render_real(job->predicted_bubble) : json_null());
    }
    if (item != NULL && text)
        (void)json_object_set_new(item, "job_file", mr_render_string(job->job_file));
    return item;
}

json_t *mr_job_view_member(const Millrace__V1__Member *member) {
    bool busy = member->job_id[0] != '\0';
    return json_pack(
        "{s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o}", "id",
        mr_render_string(member->id), "device", mr_render_string(member->device), "threads",
        (json_int_t)member->threads, "address", mr_render_string(member->address),
        "status_address", mr_render_string(member->status_address), "state",
        mr_render_string(member->state), "job_id", mr_render_string(member->job_id), "rank",
        busy ? json_integer(member->rank) : json_null(), "version",
        mr_render_string(member->version), "heartbeat_age_ms", (json_int_t)member->heartbeat_age_ms,
        "memory_bytes", (json_int_t)member->memory_bytes, "process_id",
        (json_int_t)member->process_id, "memory_predicted_bytes",
        view_memory_bytes(member->memory_predicted), "memory_held_bytes",
        view_memory_bytes(member->memory_held));
}

json_t *mr_job_view_checkpoint(const Millrace__V1__Checkpoint *checkpoint) {
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:b}", "tag", mr_render_string(checkpoint->tag),
                     "path", mr_render_string(checkpoint->path), "step",
                     (json_int_t)checkpoint->step, "created_ms", (json_int_t)checkpoint->created_ms,
                     "bytes", (json_int_t)checkpoint->bytes, "newest", (int)checkpoint->newest);
}
