/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/stage_metrics.h"

#include <stdio.h>

#include "daemon/base/alloc.h"
#include "daemon/base/version.h"

struct mr_stage_metrics {
    mr_metrics *table;
    mr_series *layers;
    mr_series *weights;
    mr_series *gradients;
    mr_series *optimizer;
    mr_series *activations;
    mr_series *steps;
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
    if (!mr_status_is_ok(status)) {
        mr_free(metrics);
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
    mr_metrics_destroy(metrics->table);
    mr_free(metrics);
}

mr_metrics *mr_stage_metrics_table(mr_stage_metrics *metrics) {
    return metrics->table;
}

/* The series of a stage's memory of one kind. */
static mr_series *memory_series(mr_stage_metrics *metrics, const char *stage, const char *kind) {
    return mr_metrics_series(metrics->table, MR_METRIC_STAGE_MEMORY, stage, kind);
}

void mr_stage_metrics_assign(mr_stage_metrics *metrics, const mr_assignment *assignment) {
    const mr_stage_plan *plan = mr_assignment_stage(assignment);
    const char *job = assignment->job_id;
    char stage[16];
    (void)snprintf(stage, sizeof(stage), "%u", assignment->stage);
    metrics->layers = mr_metrics_series(metrics->table, MR_METRIC_STAGE_LAYERS, stage);
    metrics->weights = memory_series(metrics, stage, "weights");
    metrics->gradients = memory_series(metrics, stage, "grads");
    metrics->optimizer = memory_series(metrics, stage, "optimizer");
    metrics->activations = memory_series(metrics, stage, "activations");
    metrics->steps =
        mr_metrics_series(metrics->table, MR_METRIC_OPTIMIZER_STEPS, job, "applied");
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
}

void mr_stage_metrics_step(mr_stage_metrics *metrics, const mr_step_result *result) {
    mr_series_add(metrics->steps, 1);
    mr_series_add(metrics->tokens, (double)result->tokens);
    mr_series_observe(metrics->duration, result->step_seconds);
    mr_series_set(metrics->bubble, result->bubble);
}
