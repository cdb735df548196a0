/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/session_result.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/half.h"
#include "daemon/stage/session_model.h"

static bool result_evaluates(const mr_session *session) {
    return session->assignment->mode == MR_JOB_MODE_EVALUATION;
}

static mr_status result_allocate(mr_session *session) {
    session->logits = mr_alloc_array(session->logit_count, sizeof(float));
    if (session->logits == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu logits", session->logit_count);
    return mr_session_model_want_logits(session);
}

/* What leaves the model, of all ranks of the model axis together. */
static mr_shape result_output(const mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_shape output = mr_assignment_boundary(assignment, assignment->job->layer_count);
    if (output.cut_from > 0)
        output.dims[output.dim_count - 1] = output.cut_from;
    output.cut_from = 0;
    return output;
}

mr_status mr_session_result_init(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_shape output = result_output(session);
    if (!result_evaluates(session)) {
        session->logit_count = output.dims[output.dim_count - 1];
        return result_allocate(session);
    }
    MR_ASSERT(mr_shape_elements(&output, &session->logit_count)); /* the plan counted them */
    session->logit_count *= assignment->job->micro_batches;
    return MR_OK;
}

mr_status mr_session_result_want(mr_session *session) {
    return session->logits != NULL ? MR_OK : result_allocate(session);
}

const mr_tensor *mr_session_tensor(const mr_message *message, const char *name) {
    for (size_t i = 0; i < message->tensor_count; i++)
        if (strcmp(message->tensors[i].name, name) == 0)
            return &message->tensors[i].tensor;
    return NULL;
}

/* count elements of device memory as f32. Shorter elements go to the end of out and are widened
 * from its start. */
static void result_copy(mr_session *session, const void *from, mr_dtype dtype, size_t count,
                        float *out) {
    mr_device *device = session->options.device;
    size_t bytes = count * mr_dtype_bytes(dtype);
    unsigned char *host = (unsigned char *)out + count * sizeof(float) - bytes;
    device->ops->copy_out(device, host, from, bytes);
    for (size_t i = 0; dtype != MR_DTYPE_F32 && i < count; i++) {
        uint16_t logit;
        memcpy(&logit, host + i * sizeof(logit), sizeof(logit));
        out[i] = mr_half_widen(dtype, logit);
    }
}

/* rows of the output from number first on, whole, as f32. */
static mr_status result_take_rows(mr_session *session, const mr_tensor *output, size_t first,
                                  size_t rows, float *out) {
    const mr_shape *shape = &output->shape;
    size_t width = shape->dims[shape->dim_count - 1];
    const unsigned char *from =
        (const unsigned char *)output->data + first * width * mr_dtype_bytes(shape->dtype);
    bool cut = shape->cut_from > 0;
    result_copy(session, from, shape->dtype, rows * width,
                cut ? mr_session_model_share(session) : out);
    return cut ? mr_session_model_logits(session, rows, shape->cut_from, out) : MR_OK;
}

/* Row 0 at the asked position. */
static mr_status result_take_position(mr_session *session, const session_slot *slot) {
    const mr_tensor *position = mr_session_tensor(&slot->input, "position");
    const mr_shape *shape = &slot->output.shape;
    mr_device *device = session->options.device;
    int32_t at = 0;
    if (position == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "the microbatch carries no tensor named position");
    device->ops->copy_out(device, &at, position->data, sizeof(at));
    size_t row = (size_t)at;
    MR_ASSERT(shape->dim_count < 2 || row < shape->dims[shape->dim_count - 2]);
    return result_take_rows(session, &slot->output, row, 1, session->logits);
}

mr_status mr_session_result_take(mr_session *session, const session_slot *slot,
                                 uint32_t micro_batch) {
    if (!result_evaluates(session))
        return result_take_position(session, slot);
    mr_shape whole = result_output(session);
    size_t count = session->logit_count / session->assignment->job->micro_batches;
    if (!session->wants_logits)
        return MR_OK;
    return result_take_rows(session, &slot->output, 0, count / whole.dims[whole.dim_count - 1],
                            session->logits + micro_batch * count);
}

/* What rode along with the input is sent on from the input's own memory: it must be gone first. */
mr_status mr_session_result_reuse(mr_session *session, session_slot *slot) {
    if (!session->assignment->inference || slot->input.slot == NULL)
        return MR_OK;
    if (session->connections.activation_out != NULL)
        MR_TRY(mr_link_wait_sent(session->connections.activation_out, 0, MR_STEP_WAIT_TIMEOUT_MS));
    mr_link_release(session->connections.activation_in, &slot->input);
    slot->input = (mr_message){0};
    return MR_OK;
}

static mr_status result_share_logits(mr_session *session) {
    mr_group *pipe = session->connections.pipe;
    unsigned char *at = (unsigned char *)session->logits;
    size_t each = session->logit_count / session->assignment->job->micro_batches;
    size_t left = each * session->schedule.micro_batches * sizeof(float);
    while (left > 0) {
        size_t piece = left < MR_SESSION_LOGIT_PIECE_BYTES ? left : MR_SESSION_LOGIT_PIECE_BYTES;
        MR_TRY(mr_group_broadcast(pipe, at, piece, pipe->member_count - 1,
                                  MR_STEP_WAIT_TIMEOUT_MS));
        at += piece;
        left -= piece;
    }
    return MR_OK;
}

static mr_status result_share_loss(mr_session *session) {
    mr_device *device = session->options.device;
    mr_group *pipe = session->connections.pipe;
    double loss = 0;
    if (mr_session_is_last(session))
        device->ops->copy_out(device, &loss, session->loss.base, sizeof(loss));
    MR_TRY(mr_group_broadcast(pipe, &loss, sizeof(loss), pipe->member_count - 1,
                              MR_STEP_WAIT_TIMEOUT_MS));
    session->result.loss = loss / session->step_terms;
    return MR_OK;
}

mr_status mr_session_result_share(mr_session *session) {
    if (session->connections.activation_out != NULL)
        MR_TRY(mr_link_wait_sent(session->connections.activation_out, 0, MR_STEP_WAIT_TIMEOUT_MS));
    for (size_t i = 0; i < mr_activations_slots(session->activations); i++)
        MR_TRY(mr_session_result_reuse(session, &session->slots[i]));
    MR_TRY(session->options.device->ops->check(session->options.device));
    if (result_evaluates(session))
        MR_TRY(result_share_loss(session));
    if (result_evaluates(session) && !session->wants_logits)
        return MR_OK;
    return result_share_logits(session);
}

const float *mr_session_logits(const mr_session *session, mr_shape *out_shape) {
    mr_shape output = result_output(session);
    if (result_evaluates(session))
        output.dims[0] *= session->schedule.micro_batches;
    else
        output = (mr_shape){.dim_count = 1, .dims = {session->logit_count}};
    output.dtype = MR_DTYPE_F32;
    *out_shape = output;
    return result_evaluates(session) && !session->wants_logits ? NULL : session->logits;
}
