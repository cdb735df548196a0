/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/stage_metrics.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/version.h"

enum { METRICS_ENDED_MAX = 8 };

/* A job whose series are still shown. */
typedef struct metrics_ended {
    char job_id[MR_JOB_ID_BYTES];
    int64_t since_ms;
} metrics_ended;

struct mr_stage_metrics {
    mr_metrics *table;
    mr_stage_meter *meter;
    char job_id[MR_JOB_ID_BYTES]; /* of the job that is here */
    metrics_ended ended[METRICS_ENDED_MAX]; /* oldest first */
    size_t ended_count;
    mr_series *layers;
    mr_series *weights;
    mr_series *gradients;
    mr_series *optimizer;
    mr_series *activations;
    mr_series *applied;
    mr_series *skipped;
    mr_series *tokens;
    mr_series *duration;
    mr_series *bubble;
    bool assigned;
};

mr_status mr_stage_metrics_create(mr_stage_metrics **out_metrics) {
    mr_stage_metrics *metrics = mr_alloc(sizeof(*metrics));
    if (metrics == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for metrics");
    mr_status status = mr_metrics_create(&metrics->table);
    if (mr_status_is_ok(status))
        status = mr_stage_meter_create(metrics->table, &metrics->meter);
    if (!mr_status_is_ok(status)) {
        mr_stage_metrics_destroy(metrics);
        return status;
    }
    mr_series_set(mr_metrics_series(metrics->table, MR_METRIC_BUILD_INFO, MR_VERSION, MR_COMMIT,
                                    "cpu"),
                  1);
    *out_metrics = metrics;
    return MR_OK;
}

void mr_stage_metrics_destroy(mr_stage_metrics *metrics) {
    if (metrics == NULL)
        return;
    mr_stage_meter_destroy(metrics->meter);
    mr_metrics_destroy(metrics->table);
    mr_free(metrics);
}

mr_metrics *mr_stage_metrics_table(mr_stage_metrics *metrics) {
    return metrics->table;
}

mr_stage_meter *mr_stage_metrics_meter(mr_stage_metrics *metrics) {
    return metrics->meter;
}

/* Takes an ended job off the list. */
static void ended_remove(mr_stage_metrics *metrics, size_t index) {
    metrics->ended_count--;
    memmove(&metrics->ended[index], &metrics->ended[index + 1],
            (metrics->ended_count - index) * sizeof(metrics->ended[0]));
}

static void ended_drop_oldest(mr_stage_metrics *metrics) {
    mr_metrics_drop(metrics->table, "job_id", metrics->ended[0].job_id);
    ended_remove(metrics, 0);
}

/* A job that comes back keeps its series. */
static void ended_forget(mr_stage_metrics *metrics, const char *job_id) {
    for (size_t i = metrics->ended_count; i > 0; i--)
        if (strcmp(metrics->ended[i - 1].job_id, job_id) == 0)
            ended_remove(metrics, i - 1);
}

/* The series of a stage's memory of one kind. */
static mr_series *memory_series(mr_stage_metrics *metrics, const char *stage, const char *kind) {
    return mr_metrics_series(metrics->table, MR_METRIC_STAGE_MEMORY, stage, kind);
}

void mr_stage_metrics_assign(mr_stage_metrics *metrics, const mr_assignment *assignment) {
    const mr_stage_plan *plan = mr_assignment_stage(assignment);
    const char *job = assignment->job_id;
    char stage[16];
    ended_forget(metrics, job);
    (void)snprintf(metrics->job_id, sizeof(metrics->job_id), "%s", job);
    mr_stage_meter_assign(metrics->meter, assignment);
    (void)snprintf(stage, sizeof(stage), "%u", assignment->stage);
    metrics->layers = mr_metrics_series(metrics->table, MR_METRIC_STAGE_LAYERS, stage);
    metrics->weights = memory_series(metrics, stage, "weights");
    metrics->gradients = memory_series(metrics, stage, "grads");
    metrics->optimizer = memory_series(metrics, stage, "optimizer");
    metrics->activations = memory_series(metrics, stage, "activations");
    metrics->applied =
        mr_metrics_series(metrics->table, MR_METRIC_OPTIMIZER_STEPS, job, "applied");
    metrics->skipped =
        mr_metrics_series(metrics->table, MR_METRIC_OPTIMIZER_STEPS, job, "skipped");
    metrics->tokens = mr_metrics_series(metrics->table, MR_METRIC_TRAINED_TOKENS, job);
    metrics->duration = mr_metrics_series(metrics->table, MR_METRIC_STEP_DURATION, job);
    metrics->bubble = mr_metrics_series(metrics->table, MR_METRIC_PIPELINE_BUBBLE, job);
    mr_series_set(metrics->layers, (double)(plan->layer_end - plan->layer_first));
    mr_series_set(metrics->weights, (double)plan->weights_bytes);
    mr_series_set(metrics->gradients, (double)plan->gradients_bytes);
    mr_series_set(metrics->optimizer, (double)plan->optimizer_bytes);
    mr_series_set(metrics->activations, (double)plan->activations_bytes);
    metrics->assigned = true;
}

void mr_stage_metrics_release(mr_stage_metrics *metrics) {
    if (!metrics->assigned)
        return;
    mr_series_set(metrics->layers, 0);
    mr_series_set(metrics->weights, 0);
    mr_series_set(metrics->gradients, 0);
    mr_series_set(metrics->optimizer, 0);
    mr_series_set(metrics->activations, 0);
    metrics->assigned = false;
    if (metrics->ended_count == METRICS_ENDED_MAX)
        ended_drop_oldest(metrics);
    metrics_ended *ended = &metrics->ended[metrics->ended_count++];
    memcpy(ended->job_id, metrics->job_id, sizeof(ended->job_id));
    ended->since_ms = mr_clock_now_ms();
}

void mr_stage_metrics_tick(mr_stage_metrics *metrics, int64_t now_ms) {
    while (metrics->ended_count > 0 && now_ms - metrics->ended[0].since_ms >= MR_SERIES_AFTER_MS)
        ended_drop_oldest(metrics);
}

void mr_stage_metrics_memory(mr_stage_metrics *metrics, const mr_memory_held *held) {
    if (!metrics->assigned)
        return;
    mr_series_set(metrics->weights, (double)held->weights);
    mr_series_set(metrics->gradients, (double)held->gradients);
    mr_series_set(metrics->optimizer, (double)held->optimizer);
    mr_series_set(metrics->activations, (double)held->activations);
}

void mr_stage_metrics_step(mr_stage_metrics *metrics, uint64_t step,
                           const mr_step_result *result) {
    mr_series_add(result->skipped ? metrics->skipped : metrics->applied, 1);
    if (!result->skipped)
        mr_series_add(metrics->tokens, (double)result->tokens);
    mr_series_observe_step(metrics->duration, result->step_seconds, step);
    mr_series_set(metrics->bubble, result->bubble);
}
