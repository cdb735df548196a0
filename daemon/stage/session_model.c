/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/session_model.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/layers/loss.h"
#include "daemon/model/shard.h"

enum { INPUT_ALIGN = 64 };

static size_t model_width(const mr_session *session) {
    return session->assignment->job->model;
}

/* A rank that is not fed keeps what it is handed, a slot for each microbatch under way. */
static mr_status model_build_inputs(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    size_t total = 0;
    if (assignment->stage != 0 || mr_assignment_is_fed(assignment))
        return MR_OK;
    session->model.input_bytes = mr_assignment_message_bytes(assignment, 0) +
                                 (size_t)MR_MESSAGE_TENSORS_MAX * INPUT_ALIGN;
    session->model.input_bytes -= session->model.input_bytes % INPUT_ALIGN;
    if (!mr_size_mul(session->model.input_bytes, mr_activations_slots(session->activations),
                     &total))
        total = SIZE_MAX;
    session->model.inputs = mr_alloc(total);
    if (session->model.inputs == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bytes of microbatches", total);
    return MR_OK;
}

static mr_status model_build_loss(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_shape output = mr_assignment_boundary(assignment, assignment->job->layer_count);
    size_t bytes = mr_loss_share_bytes(&output, model_width(session));
    if (!mr_session_is_last(session) || bytes == 0 || assignment->mode == MR_JOB_MODE_INFERENCE)
        return MR_OK;
    mr_device *device = session->options.device;
    return device->ops->memory_create(device, bytes, &session->model.loss_scratch);
}

mr_status mr_session_model_build(mr_session *session) {
    size_t width = model_width(session);
    size_t owned = mr_parameters_owned_count(session->parameters);
    if (width == 1)
        return MR_OK;
    MR_TRY(model_build_inputs(session));
    MR_TRY(model_build_loss(session));
    session->model.squares_bytes = mr_alloc_array(width, sizeof(size_t));
    session->model.squares = mr_alloc_array(width * (owned + 1), sizeof(double));
    if (session->model.squares_bytes == NULL || session->model.squares == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the norms of %zu model ranks", width);
    for (size_t i = 0; i < width; i++)
        session->model.squares_bytes[i] = owned * sizeof(double);
    return MR_OK;
}

mr_status mr_session_model_open(mr_session *session) {
    if (session->connections.model == NULL)
        return MR_OK;
    return mr_model_axis_create(session->connections.model, &session->model.axis);
}

void mr_session_model_close(mr_session *session) {
    session_model *model = &session->model;
    mr_device *device = session->options.device;
    mr_model_axis_destroy(model->axis);
    if (model->loss_scratch.base != NULL)
        device->ops->memory_destroy(device, &model->loss_scratch);
    mr_free(model->shares);
    mr_free(model->share);
    mr_free(model->squares);
    mr_free(model->squares_bytes);
    mr_free(model->inputs);
    *model = (session_model){0};
}

/* ---- a microbatch, from the rank that is fed to the others ---- */

/* The message's tensors, as another process described them, get their places in this slot. */
static mr_status model_place_tensors(mr_session *session, uint32_t micro_batch,
                                     mr_message *message) {
    size_t slot = micro_batch % mr_activations_slots(session->activations);
    unsigned char *base = session->model.inputs + slot * session->model.input_bytes;
    size_t at = 0;
    message->slot = NULL;
    if (message->tensor_count > MR_MESSAGE_TENSORS_MAX || message->micro_batch != micro_batch)
        return MR_ERROR(INTERNAL,
                        "rank 0 of the model axis hands on microbatch %u with %zu tensors",
                        message->micro_batch, message->tensor_count);
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t bytes = 0;
        mr_tensor *tensor = &message->tensors[i].tensor;
        if (!mr_shape_bytes(&tensor->shape, &bytes) || bytes > session->model.input_bytes - at)
            return MR_ERROR(INTERNAL,
                            "rank 0 of the model axis hands on more than %zu bytes of a microbatch",
                            session->model.input_bytes);
        tensor->data = base + at;
        at += (bytes + INPUT_ALIGN - 1) / INPUT_ALIGN * INPUT_ALIGN;
        at = at < session->model.input_bytes ? at : session->model.input_bytes;
    }
    return MR_OK;
}

/* The description goes as bytes between equal builds (the schedule's hash was compared before). */
static mr_status model_hand_on(mr_session *session, uint32_t micro_batch, mr_message *message) {
    mr_group *group = session->connections.model;
    MR_TRY(mr_group_broadcast(group, message, sizeof(*message), 0, MR_STEP_WAIT_TIMEOUT_MS));
    if (group->member_index > 0)
        MR_TRY(model_place_tensors(session, micro_batch, message));
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&message->tensors[i].tensor.shape, &bytes));
        MR_TRY(mr_group_broadcast(group, message->tensors[i].tensor.data, bytes, 0,
                                  MR_STEP_WAIT_TIMEOUT_MS));
    }
    return MR_OK;
}

mr_status mr_session_model_load(mr_session *session, uint32_t micro_batch,
                                mr_message *out_message) {
    mr_message message = {0};
    mr_link *onward = session->connections.activation_out;
    size_t slots = mr_activations_slots(session->activations);
    bool fed = mr_assignment_is_fed(session->assignment);
    bool reuses = !fed || session->copies != NULL; /* memory of an earlier microbatch */
    if (fed)
        mr_feed_take(session->options.feed, session->next_step, micro_batch, &message);
    if (reuses && onward != NULL) /* what rode along in it may still be on its way */
        MR_TRY(mr_link_wait_sent(onward, slots - 1, MR_STEP_WAIT_TIMEOUT_MS));
    if (session->connections.model != NULL)
        MR_TRY(model_hand_on(session, micro_batch, &message));
    if (session->copies != NULL)
        MR_TRY(mr_input_copies_place(session->copies, micro_batch % slots, &message));
    *out_message = message;
    return MR_OK;
}

/* ---- the end of the model ---- */

mr_status mr_session_model_loss(mr_session *session, const mr_tensor *output,
                                const mr_tensor *labels, mr_tensor *doutput) {
    mr_device *device = session->options.device;
    if (output->shape.cut_from == 0) {
        mr_loss_run(device, session->assignment->job->loss, output, labels, session->loss_scale,
                    doutput, session->loss.base);
        return MR_OK;
    }
    MR_ASSERT(session->assignment->job->loss == MR_LOSS_CROSS_ENTROPY); /* the job was checked */
    mr_loss_run_share(device, mr_model_axis_reducer(session->model.axis), output, labels,
                      session->loss_scale, doutput, session->model.loss_scratch.base,
                      session->loss.base);
    return mr_model_axis_check(session->model.axis);
}

/* One row in inference, those of a microbatch in evaluation; of the whole vocabulary. */
mr_status mr_session_model_want_logits(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_shape output = mr_assignment_boundary(assignment, assignment->job->layer_count);
    size_t count = session->logit_count / assignment->job->micro_batches;
    if (output.cut_from == 0 || !mr_session_is_last(session))
        return MR_OK;
    session->model.share = mr_alloc_array(count, sizeof(float));
    session->model.shares = mr_alloc_array(count, sizeof(float));
    if (session->model.share == NULL || session->model.shares == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for shares of %zu logits", count);
    return MR_OK;
}

float *mr_session_model_share(mr_session *session) {
    return session->model.share;
}

mr_status mr_session_model_logits(mr_session *session, size_t rows, size_t whole, float *logits) {
    mr_reducer *reducer = mr_model_axis_reducer(session->model.axis);
    const float *share = session->model.shares;
    reducer->gather(reducer, session->model.share, whole, rows * sizeof(float),
                    session->model.shares);
    MR_TRY(mr_model_axis_check(session->model.axis));
    for (size_t rank = 0; rank < reducer->width; rank++) {
        mr_shard_range range = mr_shard_range_of(whole, rank, reducer->width);
        for (size_t row = 0; row < rows; row++, share += range.count)
            memcpy(logits + row * whole + range.first, share, range.count * sizeof(float));
    }
    return MR_OK;
}

mr_status mr_session_model_squares(mr_session *session, double *squares) {
    size_t owned = mr_parameters_owned_count(session->parameters);
    size_t at = 0;
    if (session->connections.model == NULL || owned == 0)
        return MR_OK;
    MR_TRY(mr_group_gather(session->connections.model, squares, session->model.squares_bytes,
                           session->model.squares, MR_STEP_WAIT_TIMEOUT_MS));
    for (size_t i = 0; i < mr_parameters_count(session->parameters); i++) {
        const mr_stage_parameter *parameter = mr_parameters_at(session->parameters, i);
        if (!parameter->owned)
            continue;
        for (size_t rank = 0; parameter->description->cut != MR_MODEL_CUT_NONE &&
                              rank < model_width(session);
             rank++)
            squares[at] = (rank == 0 ? 0 : squares[at]) + session->model.squares[rank * owned + at];
        at++;
    }
    MR_ASSERT(at == owned);
    return MR_OK;
}
