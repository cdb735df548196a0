/* SPDX-License-Identifier: Apache-2.0 */
/* A step is the rank's instruction list, one switch over opcodes. Everything it touches was sized
 * by the plan and made in create; a step allocates nothing.
 *
 * Order and bits (law 1): losses and gradients are added in ascending microbatch order because the
 * verified schedule runs them so; tied accumulators are summed in layer order by the tied group;
 * the squares of all owned parameters' gradients are gathered in rank order, which is layer order,
 * and added by every rank in the same order. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/bf16.h"
#include "daemon/base/clock.h"
#include "daemon/layers/loss.h"
#include "daemon/stage/optimizer.h"
#include "daemon/stage/session_state.h"

/* ---- one instruction ---- */

static session_slot *session_slot_of(mr_session *session, uint32_t micro_batch) {
    return &session->slots[micro_batch % mr_activations_slots(session->activations)];
}

static mr_pass session_pass(const mr_session *session, uint32_t micro_batch) {
    return (mr_pass){
        .device = session->options.device,
        .assignment = session->assignment,
        .parameters = session->parameters,
        .activations = session->activations,
        .step = session->next_step,
        .micro_batch = micro_batch,
    };
}

/* The tensor of that name in a message; the schedule and the feed guarantee it. */
static const mr_tensor *message_find(const mr_message *message, const char *name) {
    for (size_t i = 0; i < message->tensor_count; i++)
        if (strcmp(message->tensors[i].name, name) == 0)
            return &message->tensors[i].tensor;
    return NULL;
}

/* Inference: the logits of row 0 at the asked position, on the last stage. */
static mr_status session_take_logits(mr_session *session, const session_slot *slot) {
    const mr_tensor *position = message_find(&slot->input, "position");
    const mr_shape *shape = &slot->output.shape;
    if (position == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "the microbatch carries no tensor named position");
    size_t row = (size_t)*(const int32_t *)position->data;
    MR_ASSERT(shape->dim_count < 2 || row < shape->dims[shape->dim_count - 2]);
    size_t bytes = session->logit_count * mr_dtype_bytes(shape->dtype);
    /* Shorter elements go to the end of the buffer and are widened from its start. */
    unsigned char *host =
        (unsigned char *)session->logits + session->logit_count * sizeof(float) - bytes;
    session->options.device->ops->copy_out(session->options.device, host,
                                           (const unsigned char *)slot->output.data + row * bytes,
                                           bytes);
    for (size_t i = 0; shape->dtype == MR_DTYPE_BF16 && i < session->logit_count; i++) {
        uint16_t logit;
        memcpy(&logit, host + i * sizeof(logit), sizeof(logit));
        session->logits[i] = mr_bf16_widen(logit);
    }
    return MR_OK;
}

static mr_status session_forward(mr_session *session, uint32_t micro_batch) {
    session_slot *slot = session_slot_of(session, micro_batch);
    mr_pass pass = session_pass(session, micro_batch);
    if (session->connections.activation_out != NULL)
        /* The slot's former output may still be on its way. */
        MR_TRY(mr_link_wait_sent(session->connections.activation_out,
                                 mr_activations_slots(session->activations) - 1,
                                 MR_STEP_WAIT_TIMEOUT_MS));
    int64_t start_ns = mr_clock_now_ns();
    slot->output = mr_pass_forward(&pass, &slot->input.tensors[0].tensor);
    if (mr_session_is_last(session) && session->assignment->inference)
        MR_TRY(session_take_logits(session, slot));
    if (mr_session_is_last(session) && !session->assignment->inference) {
        const mr_tensor *labels = message_find(&slot->input, "labels");
        if (labels == NULL)
            return MR_ERROR(INVALID_ARGUMENT, "the microbatch carries no tensor named labels");
        mr_loss_run(session->options.device, session->assignment->job->loss, &slot->output, labels,
                    session->loss_scale, &slot->output, session->loss.base);
    }
    session->busy_ns += mr_clock_now_ns() - start_ns;
    return MR_OK;
}

static mr_status session_backward(mr_session *session, uint32_t micro_batch) {
    session_slot *slot = session_slot_of(session, micro_batch);
    mr_pass pass = session_pass(session, micro_batch);
    const mr_tensor *dy = mr_session_is_last(session) ? &slot->output
                                                   : &slot->gradient.tensors[0].tensor;
    mr_tensor dx = {0};
    if (session->connections.gradient_out != NULL) {
        /* One gradient may still be on its way; the other buffer is free. */
        MR_TRY(mr_link_wait_sent(session->connections.gradient_out,
                                 MR_ACTIVATION_GRADIENT_BUFFERS - 1, MR_STEP_WAIT_TIMEOUT_MS));
        dx = mr_activations_outgoing(session->activations, session->gradients_sent);
    }
    int64_t start_ns = mr_clock_now_ns();
    mr_pass_backward(&pass, &slot->input.tensors[0].tensor, dy, dx.data != NULL ? &dx : NULL);
    session->busy_ns += mr_clock_now_ns() - start_ns;
    if (session->connections.gradient_in != NULL)
        mr_link_release(session->connections.gradient_in, &slot->gradient);
    if (session->connections.activation_in != NULL)
        mr_link_release(session->connections.activation_in, &slot->input);
    return MR_OK;
}

/* The output goes on with whatever rode along with the input. */
static mr_status session_send_activation(mr_session *session, uint32_t micro_batch,
                                         uint32_t chunk) {
    session_slot *slot = session_slot_of(session, micro_batch);
    mr_message message = slot->input;
    message.chunk = chunk;
    message.slot = NULL;
    (void)snprintf(message.tensors[0].name, MR_TENSOR_NAME_BYTES, "activation");
    message.tensors[0].tensor = slot->output;
    int64_t start_ns = mr_clock_now_ns();
    mr_status status = mr_link_send(session->connections.activation_out, &message);
    session->transport_ns += mr_clock_now_ns() - start_ns;
    return status;
}

static mr_status session_send_gradient(mr_session *session, uint32_t micro_batch, uint32_t chunk) {
    mr_message message = {
        .step = session->next_step,
        .micro_batch = micro_batch,
        .chunk = chunk,
        .tensor_count = 1,
    };
    (void)snprintf(message.tensors[0].name, MR_TENSOR_NAME_BYTES, "gradient");
    message.tensors[0].tensor =
        mr_activations_outgoing(session->activations, session->gradients_sent);
    session->gradients_sent++;
    int64_t start_ns = mr_clock_now_ns();
    mr_status status = mr_link_send(session->connections.gradient_out, &message);
    session->transport_ns += mr_clock_now_ns() - start_ns;
    return status;
}

/* The gradient of one tied parameter: the sum of all its uses in layer order. */
static mr_status session_sum_tied(mr_session *session, mr_group *group,
                                  const mr_stage_parameter *held) {
    const float *parts[MR_TIED_USES_MAX];
    size_t elements = 0;
    if (group->member_count == 1) {
        mr_parameters_sum_uses(session->parameters, held);
        return MR_OK;
    }
    MR_ASSERT(held->use_count <= MR_TIED_USES_MAX);
    MR_ASSERT(mr_shape_elements(&held->gradient.shape, &elements));
    for (size_t use = 0; use < held->use_count; use++)
        parts[use] = held->gradients[use].data;
    return mr_group_sum(group, parts, held->use_count, held->gradient.data, elements,
                        MR_STEP_WAIT_TIMEOUT_MS);
}

static mr_status session_reduce_tied(mr_session *session) {
    session->schedule_end_ns = mr_clock_now_ns();
    for (size_t i = 0; i < session->connections.tied_count; i++) {
        const mr_tied_group *tied = &session->connections.tied[i];
        const mr_stage_parameter *held = NULL;
        for (size_t slot = 0; (held = mr_parameters_find_tie(session->parameters, tied->plan->key,
                                                             slot)) != NULL;
             slot++)
            if (!held->description->frozen)
                MR_TRY(session_sum_tied(session, tied->group, held));
    }
    return MR_OK;
}

/* Gradients of all replicas, each parameter in one piece, summed in rank order. */
static mr_status session_reduce_data(mr_session *session) {
    const mr_connections *connections = &session->connections;
    mr_group *data = connections->gradients != NULL ? connections->gradients : connections->data;
    for (size_t i = 0; data != NULL && i < mr_parameters_count(session->parameters); i++) {
        if (mr_parameters_at(session->parameters, i)->description->frozen)
            continue;
        const mr_tensor *gradient = &mr_parameters_at(session->parameters, i)->gradient;
        const float *part = gradient->data;
        size_t elements = 0;
        MR_ASSERT(mr_shape_elements(&gradient->shape, &elements));
        MR_TRY(mr_group_sum(data, &part, 1, gradient->data, elements, MR_STEP_WAIT_TIMEOUT_MS));
    }
    return MR_OK;
}

/* The loss sums of all replicas' last stages, added in rank order. */
static mr_status session_sum_loss(mr_session *session, double *loss) {
    mr_group *data = session->connections.data;
    if (data == NULL)
        return MR_OK;
    MR_TRY(mr_group_gather(data, loss, session->replica_bytes, session->replica_losses,
                           MR_STEP_WAIT_TIMEOUT_MS));
    *loss = 0;
    for (size_t i = 0; i < data->member_count; i++)
        *loss += session->replica_losses[i];
    return MR_OK;
}

/* Puts loss, busy time and squares of all ranks into gathered; the same bytes on every rank. */
static mr_status session_gather(mr_session *session) {
    mr_device *device = session->options.device;
    session->mine[GATHER_LOSS] = 0;
    if (mr_session_is_last(session)) {
        device->ops->copy_out(device, &session->mine[GATHER_LOSS], session->loss.base,
                              sizeof(double));
        MR_TRY(session_sum_loss(session, &session->mine[GATHER_LOSS]));
    }
    session->mine[GATHER_BUSY] = (double)session->busy_ns;
    mr_optimizer_sums(session->parameters, &session->mine[GATHER_HEAD]);
    MR_TRY(device->ops->check(device));
    return mr_group_gather(session->connections.pipe, session->mine, session->gather_bytes,
                           session->gathered, MR_STEP_WAIT_TIMEOUT_MS);
}

/* Moves the squares of all ranks together, in rank order, and reads loss and busy time. */
static size_t session_read_gathered(mr_session *session, double *out_loss, double *out_busy) {
    const double *part = session->gathered;
    double *squares = session->gathered;
    size_t count = 0;
    *out_loss = 0;
    *out_busy = 0;
    for (size_t s = 0; s < session->assignment->plan->stage_count; s++) {
        size_t doubles = session->gather_bytes[s] / sizeof(double);
        *out_loss += part[GATHER_LOSS]; /* only the last stage's is not zero */
        *out_busy += part[GATHER_BUSY];
        for (size_t i = GATHER_HEAD; i < doubles; i++)
            squares[count++] = part[i]; /* never overtakes the reading */
        part += doubles;
    }
    return count;
}

static mr_status session_optimizer(mr_session *session) {
    double loss = 0;
    double busy_ns = 0;
    MR_TRY(session_gather(session));
    size_t count = session_read_gathered(session, &loss, &busy_ns);
    const mr_job *job = session->assignment->job;
    uint64_t step = session->next_step + 1; /* optimizer steps count from 1 */
    mr_step_result *result = &session->result;
    result->loss = loss / session->step_terms;
    result->gradient_norm = mr_optimizer_norm(session->gathered, count);
    result->learning_rate = mr_job_learning_rate(job, step);
    if (!isfinite(result->loss) || !isfinite(result->gradient_norm))
        return MR_ERROR(OUT_OF_RANGE, "the loss is %g and the gradient norm %g: not finite",
                        result->loss, result->gradient_norm);
    mr_optimizer_step(session->parameters, step,
                      mr_optimizer_clip_factor(result->gradient_norm, job->grad_clip));
    double makespan_ns = (double)(session->schedule_end_ns - session->schedule_start_ns);
    double stages = (double)session->assignment->plan->stage_count;
    result->bubble = makespan_ns > 0 ? fmax(0, 1 - busy_ns / (stages * makespan_ns)) : 0;
    return MR_OK;
}

static mr_status session_instruction(mr_session *session, const mr_instruction *instruction) {
    uint32_t m = instruction->micro_batch;
    uint32_t chunk = instruction->chunk;
    session_slot *slot = session_slot_of(session, m);
    switch (instruction->opcode) {
    case MR_OPCODE_LOAD:
        mr_feed_take(session->options.feed, session->next_step, m, &slot->input);
        return MR_OK;
    case MR_OPCODE_RECEIVE_ACTIVATION:
        return mr_link_receive(session->connections.activation_in, session->next_step, m, chunk,
                               MR_STEP_WAIT_TIMEOUT_MS, &slot->input);
    case MR_OPCODE_RECEIVE_GRADIENT:
        return mr_link_receive(session->connections.gradient_in, session->next_step, m, chunk,
                               MR_STEP_WAIT_TIMEOUT_MS, &slot->gradient);
    case MR_OPCODE_FORWARD:
        return session_forward(session, m);
    case MR_OPCODE_BACKWARD:
        return session_backward(session, m);
    case MR_OPCODE_SEND_ACTIVATION:
        return session_send_activation(session, m, chunk);
    case MR_OPCODE_SEND_GRADIENT:
        return session_send_gradient(session, m, chunk);
    case MR_OPCODE_REDUCE_TIED:
        return session_reduce_tied(session);
    case MR_OPCODE_REDUCE_DATA:
        return session_reduce_data(session);
    case MR_OPCODE_OPTIMIZER:
        return session_optimizer(session);
    case MR_OPCODE_BACKWARD_INPUT:
    case MR_OPCODE_BACKWARD_WEIGHT:
    case MR_OPCODE_COUNT:
        break;
    }
    return MR_ERROR(UNIMPLEMENTED, "no schedule of this version splits the backward pass");
}

/* ---- a step ---- */

static void session_progress_set(mr_session *session, const mr_instruction *instruction) {
    uint64_t packed = instruction == NULL ? 0
                                          : (1 + (uint64_t)instruction->opcode) << 56 |
                                                (uint64_t)instruction->chunk << 32 |
                                                instruction->micro_batch;
    atomic_store(&session->options.progress->step, session->next_step);
    atomic_store(&session->options.progress->since_ns, mr_clock_now_ns());
    atomic_store(&session->options.progress->instruction, packed);
}

static mr_status session_run_list(mr_session *session) {
    const mr_schedule *schedule =
        &session->assignment->plan->schedules[session->assignment->stage];
    for (size_t i = 0; i < schedule->count; i++) {
        const mr_instruction *instruction = &schedule->instructions[i];
        char text[MR_INSTRUCTION_TEXT_BYTES];
        if (atomic_load(session->options.stop))
            return MR_ERROR(CANCELLED, "step %" PRIu64 " was abandoned", session->next_step);
        session_progress_set(session, instruction);
        int64_t start_ns = mr_clock_now_ns();
        mr_status status = session_instruction(session, instruction);
        mr_instruction_text(instruction, text);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "step %" PRIu64 ", %s", session->next_step + 1, text);
        mr_trace_add(session->options.track, text, session->next_step, instruction->micro_batch,
                     start_ns, mr_clock_now_ns());
    }
    return MR_OK;
}

/* Inference has no backward: inputs are let go, and the last stage's logits go round. */
static mr_status session_end_inference(mr_session *session) {
    session_slot *slot = session_slot_of(session, 0);
    mr_group *pipe = session->connections.pipe;
    if (session->connections.activation_out != NULL)
        MR_TRY(mr_link_wait_sent(session->connections.activation_out, 0, MR_STEP_WAIT_TIMEOUT_MS));
    if (session->connections.activation_in != NULL)
        mr_link_release(session->connections.activation_in, &slot->input);
    MR_TRY(session->options.device->ops->check(session->options.device));
    return mr_group_broadcast(pipe, session->logits, session->logit_count * sizeof(float),
                              pipe->member_count - 1, MR_STEP_WAIT_TIMEOUT_MS);
}

mr_status mr_session_step(mr_session *session, mr_step_result *out_result) {
    mr_device *device = session->options.device;
    const mr_job *job = session->assignment->job;
    uint64_t allocations = mr_alloc_count();
    int64_t start_ns = mr_clock_now_ns();
    session->result = (mr_step_result){
        .tokens =
            job->data * job->micro_batches * job->micro_batch_size * job->sequence_length,
    };
    session->busy_ns = 0;
    session->transport_ns = 0;
    session->schedule_start_ns = start_ns;
    device->ops->zero(device, session->loss.base, sizeof(double));
    if (!session->assignment->inference)
        mr_parameters_zero_gradients(session->parameters);
    MR_TRY(session_run_list(session));
    if (session->assignment->inference)
        MR_TRY(session_end_inference(session));
    if (session->assignment->stage == 0)
        mr_feed_done(session->options.feed, session->next_step);
    session->next_step++;
    session_progress_set(session, NULL);
    session->result.allocations = mr_alloc_count() - allocations;
    session->result.step_seconds = (double)(mr_clock_now_ns() - start_ns) * 1e-9;
    session->result.transport_seconds = (double)session->transport_ns * 1e-9;
    *out_result = session->result;
    return MR_OK;
}
