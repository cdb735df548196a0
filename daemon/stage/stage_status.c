/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/stage_status.h"

#include <stdlib.h>

#include <jansson.h>

#include "daemon/base/version.h"

static json_t *status_memory(size_t weights, size_t gradients, size_t optimizer,
                             size_t activations) {
    return json_pack("{s:I,s:I,s:I,s:I}", "weights", (json_int_t)weights, "gradients",
                     (json_int_t)gradients, "optimizer", (json_int_t)optimizer, "activations",
                     (json_int_t)activations);
}

/* memory_bytes is what the plan predicts, memory_held_bytes what the device really gave. */
static json_t *status_job(const mr_stage_status *status) {
    const mr_stage_plan *plan = mr_assignment_stage(status->assignment);
    const mr_memory_held *held = &status->held;
    return json_pack("{s:s, s:s, s:I, s:i, s:i, s:[I,I], s:I, s:o, s:o, s:I, s:I}", "id",
                     status->job_id, "name", status->assignment->job->name, "epoch",
                     (json_int_t)status->epoch, "rank", (int)status->rank, "stage",
                     (int)status->assignment->stage, "layers", (json_int_t)plan->layer_first,
                     (json_int_t)plan->layer_end, "next_step", (json_int_t)status->next_step,
                     "memory_bytes",
                     status_memory(plan->weights_bytes, plan->gradients_bytes,
                                   plan->optimizer_bytes, held->activations_predicted),
                     "memory_held_bytes",
                     status_memory(held->weights, held->gradients, held->optimizer,
                                   held->activations),
                     "peak_in_flight", (json_int_t)plan->peak_in_flight,
                     "activation_checkpoint_interval", (json_int_t)status->interval);
}

static json_t *status_result(const mr_step_result *result) {
    return json_pack("{s:f, s:f, s:f, s:I, s:f, s:f, s:I, s:f, s:f, s:f}", "loss", result->loss,
                     "grad_norm", result->gradient_norm, "lr", result->learning_rate, "tokens",
                     (json_int_t)result->tokens, "step_seconds", result->step_seconds, "bubble",
                     result->bubble, "allocations", (json_int_t)result->allocations,
                     "transport_seconds", result->transport_seconds, "reduce_seconds",
                     result->reduce_seconds, "reduce_exposed_seconds",
                     result->reduce_exposed_seconds);
}

void mr_stage_status_publish(mr_status_page *page, const mr_stage_status *status) {
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:{s:I, s:s, s:I}}", "schema",
        "millrace.status/v1", "role", "stage", "version", MR_VERSION, "state", status->state,
        "address", status->address, "coordinator", status->coordinator, "device", status->device,
        "threads", (int)status->threads, "progress", "step", (json_int_t)status->progress.step,
        "instruction", status->progress.instruction, "age_ms",
        (json_int_t)status->progress.age_ms);
    if (root != NULL && status->assignment != NULL)
        (void)json_object_set_new(root, "job", status_job(status)); /* refuses NULL */
    if (root != NULL && status->result.tokens > 0)
        (void)json_object_set_new(root, "last_step", status_result(&status->result));
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    if (text != NULL) {
        mr_status published = mr_status_page_publish(page, text);
        (void)published; /* the page before stays */
    }
    free(text);
    json_decref(root);
}
