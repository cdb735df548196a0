/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/reports.h"

#include "daemon/base/alloc.h"

/* Messages are packed before mr_control_send returns, so they may borrow text and live here. */
static char *borrowed(const char *text) {
    return (char *)(uintptr_t)text;
}

/* Declares a report of one kind, with its job and epoch filled in. */
#define REPORT_BEGIN(type, INIT, field, CASE)                                                      \
    Millrace__V1__StageReport report_ = MILLRACE__V1__STAGE_REPORT__INIT;                          \
    type body = INIT;                                                                              \
    body.job_id = borrowed(subject.job_id);                                                        \
    body.epoch = subject.epoch;                                                                    \
    report_.report_case = CASE;                                                                    \
    report_.field = &body

static Millrace__V1__MemoryBytes memory_message(const mr_memory_held *held) {
    Millrace__V1__MemoryBytes message = MILLRACE__V1__MEMORY_BYTES__INIT;
    message.weights = held->weights;
    message.gradients = held->gradients;
    message.optimizer = held->optimizer;
    message.activations = held->activations;
    return message;
}

void mr_report_prepared(mr_control *control, mr_report_subject subject, const char *schedule_hash,
                        const mr_executor_report *report) {
    const mr_group_ids *ids = &report->ids;
    Millrace__V1__MemoryBytes held = memory_message(&report->held);
    REPORT_BEGIN(Millrace__V1__Prepared, MILLRACE__V1__PREPARED__INIT, prepared,
                 MILLRACE__V1__STAGE_REPORT__REPORT_PREPARED);
    body.schedule_hash = borrowed(schedule_hash);
    body.next_step = report->step;
    body.memory_held = &held;
    Millrace__V1__GroupId *messages = mr_alloc_array(ids->count, sizeof(*messages));
    Millrace__V1__GroupId **list = mr_alloc_array(ids->count, sizeof(*list));
    bool whole = messages != NULL && list != NULL;
    for (size_t i = 0; i < ids->count && whole; i++) {
        millrace__v1__group_id__init(&messages[i]);
        messages[i].group_key = ids->items[i].key;
        messages[i].id.data = ids->items[i].bytes;
        messages[i].id.len = ids->items[i].byte_count;
        list[i] = &messages[i];
    }
    body.n_group_ids = whole ? ids->count : 0;
    body.group_ids = list;
    if (whole)
        mr_control_send(control, &report_);
    else
        mr_report_failed(control, subject,
                         MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu ids", ids->count));
    mr_free(list);
    mr_free(messages);
}

void mr_report_resized(mr_control *control, mr_report_subject subject, const mr_memory_held *held) {
    Millrace__V1__MemoryBytes message = memory_message(held);
    REPORT_BEGIN(Millrace__V1__Resized, MILLRACE__V1__RESIZED__INIT, resized,
                 MILLRACE__V1__STAGE_REPORT__REPORT_RESIZED);
    body.memory_held = &message;
    mr_control_send(control, &report_);
}

void mr_report_profiled(mr_control *control, mr_report_subject subject,
                        const mr_profile_device *profile) {
    REPORT_BEGIN(Millrace__V1__Profiled, MILLRACE__V1__PROFILED__INIT, profiled,
                 MILLRACE__V1__STAGE_REPORT__REPORT_PROFILED);
    body.loss = profile->loss;
    body.zero = profile->zero;
    body.norm = profile->norm;
    body.optimizer = profile->optimizer;
    body.link = profile->link;
    body.link_byte = profile->link_byte;
    size_t count = profile->class_count;
    Millrace__V1__LayerCost *costs = mr_alloc_array(count, sizeof(*costs));
    Millrace__V1__LayerCost **list = mr_alloc_array(count, sizeof(*list));
    bool whole = costs != NULL && list != NULL;
    for (size_t i = 0; i < count && whole; i++) {
        millrace__v1__layer_cost__init(&costs[i]);
        costs[i].forward = profile->costs[i].forward;
        costs[i].backward_input = profile->costs[i].backward_input;
        costs[i].backward_weight = profile->costs[i].backward_weight;
        costs[i].saved_bytes = profile->costs[i].saved_bytes;
        list[i] = &costs[i];
    }
    body.n_costs = whole ? count : 0;
    body.costs = list;
    if (whole)
        mr_control_send(control, &report_);
    else
        mr_report_failed(control, subject,
                         MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu costs", count));
    mr_free(list);
    mr_free(costs);
}

void mr_report_connected(mr_control *control, mr_report_subject subject) {
    REPORT_BEGIN(Millrace__V1__Connected, MILLRACE__V1__CONNECTED__INIT, connected,
                 MILLRACE__V1__STAGE_REPORT__REPORT_CONNECTED);
    mr_control_send(control, &report_);
}

void mr_report_step(mr_control *control, mr_report_subject subject,
                    const mr_executor_report *report) {
    REPORT_BEGIN(Millrace__V1__StepDone, MILLRACE__V1__STEP_DONE__INIT, step_done,
                 MILLRACE__V1__STAGE_REPORT__REPORT_STEP_DONE);
    Millrace__V1__StepResult result = MILLRACE__V1__STEP_RESULT__INIT;
    result.step = report->step + 1; /* clients count from 1 */
    Millrace__V1__SideLoss sides[MR_SIDE_LOSSES_MAX];
    Millrace__V1__SideLoss *list[MR_SIDE_LOSSES_MAX];
    const mr_side_values *values = &report->result.sides;
    for (size_t i = 0; i < values->names.count; i++) {
        millrace__v1__side_loss__init(&sides[i]);
        sides[i].name = (char *)(uintptr_t)values->names.names[i]; /* packed below */
        sides[i].value = values->values[i];
        list[i] = &sides[i];
    }
    result.n_side_losses = values->names.count;
    result.side_losses = list;
    result.total_loss = report->result.total_loss;
    result.loss = report->result.loss;
    result.gradient_norm = report->result.gradient_norm;
    result.learning_rate = report->result.learning_rate;
    result.tokens = report->result.tokens;
    result.bubble = report->result.bubble;
    result.step_seconds = report->result.step_seconds;
    result.loss_scale = report->result.loss_scale;
    result.skipped = report->result.skipped;
    result.tokens_per_second = report->result.step_seconds > 0
                                   ? (double)report->result.tokens / report->result.step_seconds
                                   : 0;
    body.result = &result;
    mr_control_send(control, &report_);
}

/* The list of files as messages, in memory freed by the caller; false: no memory. */
static bool saved_files(const mr_layer_save_files *files, Millrace__V1__SavedFile **out_files,
                        Millrace__V1__SavedFile ***out_list) {
    Millrace__V1__SavedFile *messages = mr_alloc_array(files->count, sizeof(*messages));
    Millrace__V1__SavedFile **list = mr_alloc_array(files->count, sizeof(*list));
    *out_files = messages;
    *out_list = list;
    if (messages == NULL || list == NULL)
        return false;
    for (size_t i = 0; i < files->count; i++) {
        millrace__v1__saved_file__init(&messages[i]);
        messages[i].name = files->files[i].name;
        messages[i].bytes = files->files[i].bytes;
        messages[i].sha256 = files->files[i].sha256;
        list[i] = &messages[i];
    }
    return true;
}

void mr_report_saved(mr_control *control, mr_report_subject subject,
                     const mr_executor_report *report) {
    REPORT_BEGIN(Millrace__V1__Saved, MILLRACE__V1__SAVED__INIT, saved,
                 MILLRACE__V1__STAGE_REPORT__REPORT_SAVED);
    Millrace__V1__SavedFile *messages = NULL;
    Millrace__V1__SavedFile **list = NULL;
    body.tag = borrowed(report->tag);
    body.step = report->step;
    body.optimizer_steps = report->applied.steps;
    body.loss_scale = report->applied.loss_scale.scale;
    body.loss_scale_good_steps = report->applied.loss_scale.good_steps;
    body.loss_scale_overflows_left = report->applied.loss_scale.overflows_left;
    if (!mr_status_is_ok(report->status)) {
        body.error = borrowed(report->status.text);
    } else if (saved_files(&report->files, &messages, &list)) {
        body.n_files = report->files.count;
        body.files = list;
    } else {
        body.error = borrowed("no memory for the list of files");
    }
    mr_control_send(control, &report_);
    mr_free(list);
    mr_free(messages);
}

void mr_report_paused(mr_control *control, mr_report_subject subject, uint64_t step) {
    REPORT_BEGIN(Millrace__V1__Paused, MILLRACE__V1__PAUSED__INIT, paused,
                 MILLRACE__V1__STAGE_REPORT__REPORT_PAUSED);
    body.step = step;
    mr_control_send(control, &report_);
}

void mr_report_finished(mr_control *control, mr_report_subject subject, uint64_t step) {
    REPORT_BEGIN(Millrace__V1__Finished, MILLRACE__V1__FINISHED__INIT, finished,
                 MILLRACE__V1__STAGE_REPORT__REPORT_FINISHED);
    body.step = step;
    mr_control_send(control, &report_);
}

static bool failure_is_secondary(mr_code code) {
    return code == MR_CODE_UNAVAILABLE || code == MR_CODE_CANCELLED ||
           code == MR_CODE_DEADLINE_EXCEEDED;
}

void mr_report_failed(mr_control *control, mr_report_subject subject, mr_status status) {
    REPORT_BEGIN(Millrace__V1__StageFailed, MILLRACE__V1__STAGE_FAILED__INIT, failed,
                 MILLRACE__V1__STAGE_REPORT__REPORT_FAILED);
    body.code = (int32_t)status.code;
    body.text = status.text;
    body.secondary = failure_is_secondary(status.code);
    mr_control_send(control, &report_);
}

void mr_report_released(mr_control *control, mr_report_subject subject) {
    REPORT_BEGIN(Millrace__V1__Released, MILLRACE__V1__RELEASED__INIT, released,
                 MILLRACE__V1__STAGE_REPORT__REPORT_RELEASED);
    mr_control_send(control, &report_);
}

void mr_report_feed(mr_control *control, mr_report_subject subject, bool open) {
    REPORT_BEGIN(Millrace__V1__FeedState, MILLRACE__V1__FEED_STATE__INIT, feed_state,
                 MILLRACE__V1__STAGE_REPORT__REPORT_FEED_STATE);
    body.open = open;
    mr_control_send(control, &report_);
}

void mr_report_leaving(mr_control *control) {
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    Millrace__V1__Leaving body = MILLRACE__V1__LEAVING__INIT;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_LEAVING;
    report.leaving = &body;
    mr_control_send(control, &report);
}

void mr_report_heartbeat(mr_control *control, mr_report_subject subject,
                         const mr_executor_progress *progress) {
    REPORT_BEGIN(Millrace__V1__Heartbeat, MILLRACE__V1__HEARTBEAT__INIT, heartbeat,
                 MILLRACE__V1__STAGE_REPORT__REPORT_HEARTBEAT);
    body.step = progress->step;
    body.instruction = borrowed(progress->instruction);
    body.instruction_age_ms = progress->age_ms;
    mr_control_send(control, &report_);
}
