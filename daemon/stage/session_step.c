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
#include "daemon/base/clock.h"
#include "daemon/stage/optimizer.h"
#include "daemon/stage/session_model.h"
#include "daemon/stage/session_asides.h"
#include "daemon/stage/session_result.h"

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
        .model = mr_model_axis_reducer(session->model.axis),
        .step = session->next_step,
        .micro_batch = micro_batch,
        .sides = session->sides,
        .side_scale = session->side_scale,
        .micro_batches = session->schedule.micro_batches,
    };
}

/* The loss of the last stage's output, and its gradient in the output's place. */
static mr_status session_take_loss(mr_session *session, const session_slot *slot) {
    const mr_tensor *labels = mr_session_tensor(&slot->input, "labels");
    mr_tensor gradient = slot->output;
    if (labels == NULL)
        return MR_ERROR(INVALID_ARGUMENT, "the microbatch carries no tensor named labels");
    return mr_session_model_loss(session, &slot->output, labels,
                                 session->assignment->inference ? NULL : &gradient);
}

/* What the last stage does with its output. */
static mr_status session_end_forward(mr_session *session, const session_slot *slot,
                                     uint32_t micro_batch) {
    if (session->assignment->inference)
        MR_TRY(mr_session_result_take(session, slot, micro_batch));
    if (session->assignment->mode == MR_JOB_MODE_INFERENCE)
        return MR_OK;
    return session_take_loss(session, slot);
}

static mr_status session_forward(mr_session *session, uint32_t micro_batch) {
    session_slot *slot = session_slot_of(session, micro_batch);
    mr_pass pass = session_pass(session, micro_batch);
    if (session->connections.activation_out != NULL)
        /* The slot's former output may still be on its way. */
        MR_TRY(mr_link_wait_sent(session->connections.activation_out,
                                 mr_activations_slots(session->activations) - 1,
                                 MR_STEP_WAIT_TIMEOUT_MS));
    mr_session_asides_find(session, &slot->input, session->asides);
    pass.asides = session->asides;
    int64_t start_ns = mr_clock_now_ns();
    slot->output = mr_pass_forward(&pass, &slot->input.tensors[0].tensor);
    MR_TRY(mr_model_axis_check(session->model.axis));
    if (mr_session_is_last(session))
        MR_TRY(session_end_forward(session, slot, micro_batch));
    session->busy_ns += mr_clock_now_ns() - start_ns;
    return MR_OK;
}

static void session_layer_done(void *context, size_t layer) {
    mr_session *session = context;
    mr_gradient_reducer_ready(session->reducer, session->next_step, layer);
}

/* last: no later instruction adds to the gradients, so that the replicas may sum them. */
static mr_status session_backward(mr_session *session, uint32_t micro_batch, bool last) {
    session_slot *slot = session_slot_of(session, micro_batch);
    mr_pass pass = session_pass(session, micro_batch);
    if (last && session->reducer != NULL) {
        pass.layer_done = session_layer_done;
        pass.done_context = session;
    }
    const mr_tensor *dy = mr_session_is_last(session) ? &slot->output
                                                   : &slot->gradient.tensors[0].tensor;
    mr_tensor dx = {0};
    if (session->connections.gradient_out != NULL) {
        /* One gradient may still be on its way; the other buffer is free. */
        MR_TRY(mr_link_wait_sent(session->connections.gradient_out,
                                 MR_ACTIVATION_GRADIENT_BUFFERS - 1, MR_STEP_WAIT_TIMEOUT_MS));
        dx = mr_activations_outgoing(session->activations, session->gradients_sent);
    }
    mr_session_asides_find(session, &slot->input, session->asides);
    mr_session_asides_find(session, &slot->gradient, session->aside_gradients);
    pass.asides = session->asides;
    pass.aside_gradients = session->aside_gradients;
    pass.turn = session->gradients_sent;
    int64_t start_ns = mr_clock_now_ns();
    mr_pass_backward(&pass, &slot->input.tensors[0].tensor, dy, dx.data != NULL ? &dx : NULL);
    MR_TRY(mr_model_axis_check(session->model.axis));
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
    mr_session_asides_forward(session, micro_batch, &message);
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
    mr_session_asides_backward(session, session->gradients_sent, &message);
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

/* Gradients of all replicas: what the reducer has not summed yet. */
static mr_status session_reduce_data(mr_session *session) {
    if (session->reducer == NULL)
        return MR_OK;
    return mr_gradient_reducer_finish(session->reducer, session->next_step, &session->reduction);
}

/* The sums of the loss and of side losses, [1 + side_count], of all replicas of this stage, added
 * in rank order; asked for only where the stage has any of them. */
static mr_status session_sum_losses(mr_session *session, double *losses) {
    mr_group *data = session->connections.data;
    size_t count = 1 + session->side_count;
    if (data == NULL)
        return MR_OK;
    MR_TRY(mr_group_gather(data, losses, session->replica_bytes, session->replica_losses,
                           MR_STEP_WAIT_TIMEOUT_MS));
    for (size_t j = 0; j < count; j++) {
        losses[j] = 0;
        for (size_t i = 0; i < data->member_count; i++)
            losses[j] += session->replica_losses[i * count + j];
    }
    return MR_OK;
}

/* Puts loss, busy time and squares of all ranks into gathered; the same bytes on every rank. */
static mr_status session_gather(mr_session *session) {
    mr_device *device = session->options.device;
    double *squares = session->mine + GATHER_HEAD + session->side_count;
    double *losses = session->mine + GATHER_LOSS; /* the side losses behind it */
    static_assert(GATHER_BUSY == 0 && GATHER_LOSS == 1 && GATHER_HEAD == 2,
                  "the loss lies before the side losses");
    session->mine[GATHER_BUSY] = (double)session->busy_ns;
    losses[0] = 0;
    if (mr_session_is_last(session))
        device->ops->copy_out(device, losses, session->loss.base, sizeof(double));
    mr_side_losses_read(session->sides, losses + 1);
    if (mr_session_is_last(session) || session->side_count > 0)
        MR_TRY(session_sum_losses(session, losses));
    mr_optimizer_sums(session->parameters, squares);
    MR_TRY(device->ops->check(device));
    MR_TRY(mr_session_model_squares(session, squares));
    return mr_group_gather(session->connections.pipe, session->mine, session->gather_bytes,
                           session->gathered, MR_STEP_WAIT_TIMEOUT_MS);
}

/* Moves the squares of all ranks together, in rank order, and reads losses and busy time. */
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
        size_t sides = mr_side_losses_count(session->assignment->plan, s);
        mr_side_values_add(&session->result.sides, session->assignment->plan, s,
                           part + GATHER_HEAD, session->step_parts);
        for (size_t i = GATHER_HEAD + sides; i < doubles; i++)
            squares[count++] = part[i]; /* never overtakes the reading */
        part += doubles;
    }
    return count;
}

/* With split state each replica has changed its part of the weights; all get all parts. */
static mr_status session_share_weights(mr_session *session) {
    const mr_parameters *parameters = session->parameters;
    unsigned char *weights = mr_parameters_weights(parameters);
    size_t mine = mr_parameters_weights_start(parameters, mr_parameters_state_index(parameters));
    if (mr_parameters_state_width(parameters) == 1 || weights == NULL)
        return MR_OK;
    mr_status status = mr_group_gather(session->connections.gradients, weights + mine,
                                       session->share_bytes, weights, MR_STEP_WAIT_TIMEOUT_MS);
    if (!mr_status_is_ok(status))
        return mr_status_prefix(status, "the replicas' new weights");
    mr_parameters_refresh(session->parameters);
    return MR_OK;
}

/* The factor of gradients: 1 but in fp16. */
static double session_scale(const mr_session *session) {
    double scale = session->applied.loss_scale.scale;
    return scale > 0 ? scale : 1;
}

/* What all ranks know alike: were the step's gradients finite? In fp16 they are made smaller and
 * the step is skipped; elsewhere the job cannot go on. */
static mr_status session_judge(mr_session *session, bool *out_applies) {
    mr_step_result *result = &session->result;
    mr_loss_scale *scale = &session->applied.loss_scale;
    const mr_job *job = session->assignment->job;
    bool finite = isfinite(result->total_loss) && isfinite(result->gradient_norm);
    *out_applies = finite;
    if (scale->scale > 0) {
        result->loss_scale = scale->scale;
        result->skipped = !finite;
        if (mr_loss_scale_update(scale, &job->loss_scale, finite))
            return MR_OK;
        return MR_ERROR(OUT_OF_RANGE,
                        "gradients overflow fp16 and loss_scale is at its least, %g", scale->scale);
    }
    if (!finite)
        return MR_ERROR(OUT_OF_RANGE, "the loss is %g and the gradient norm %g: not finite",
                        result->total_loss, result->gradient_norm);
    return MR_OK;
}

/* One optimizer step, on gradients that were scaled; nothing where they overflowed. */
static mr_status session_apply(mr_session *session, double scale) {
    const mr_job *job = session->assignment->job;
    bool applies = false;
    MR_TRY(session_judge(session, &applies));
    if (!applies)
        return MR_OK;
    double clip = mr_optimizer_clip_factor(session->result.gradient_norm, job->grad_clip);
    mr_optimizer_step(session->parameters, ++session->applied.steps, clip / scale);
    return session_share_weights(session);
}

static mr_status session_optimizer(mr_session *session) {
    double loss = 0;
    double busy_ns = 0;
    MR_TRY(session_gather(session));
    size_t count = session_read_gathered(session, &loss, &busy_ns);
    const mr_job *job = session->assignment->job;
    double scale = session_scale(session);
    mr_step_result *result = &session->result;
    result->loss = loss / session->step_terms;
    result->total_loss = result->loss + mr_side_values_total(&result->sides);
    result->gradient_norm = mr_optimizer_norm(session->gathered, count) / scale;
    result->learning_rate = mr_job_learning_rate(job, session->applied.steps + 1);
    MR_TRY(session_apply(session, scale));
    double makespan_ns = (double)(session->schedule_end_ns - session->schedule_start_ns);
    double stages = (double)session->assignment->plan->stage_count;
    result->bubble = makespan_ns > 0 ? fmax(0, 1 - busy_ns / (stages * makespan_ns)) : 0;
    return MR_OK;
}

/* index: of the instruction in the rank's list. */
static mr_status session_instruction(mr_session *session, const mr_instruction *instruction,
                                     size_t index) {
    uint32_t m = instruction->micro_batch;
    uint32_t chunk = instruction->chunk;
    session_slot *slot = session_slot_of(session, m);
    switch (instruction->opcode) {
    case MR_OPCODE_LOAD:
        MR_TRY(mr_session_result_reuse(session, slot));
        return mr_session_model_load(session, m, &slot->input);
    case MR_OPCODE_RECEIVE_ACTIVATION:
        MR_TRY(mr_session_result_reuse(session, slot));
        return mr_link_receive(session->connections.activation_in, session->next_step, m, chunk,
                               MR_STEP_WAIT_TIMEOUT_MS, &slot->input);
    case MR_OPCODE_RECEIVE_GRADIENT:
        return mr_link_receive(session->connections.gradient_in, session->next_step, m, chunk,
                               MR_STEP_WAIT_TIMEOUT_MS, &slot->gradient);
    case MR_OPCODE_FORWARD:
        return session_forward(session, m);
    case MR_OPCODE_BACKWARD:
        return session_backward(session, m, index == session->schedule.last_backward);
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
    const mr_schedule *schedule = session->schedule.list;
    for (size_t i = 0; i < schedule->count; i++) {
        const mr_instruction *instruction = &schedule->instructions[i];
        char text[MR_INSTRUCTION_TEXT_BYTES];
        if (atomic_load(session->options.stop))
            return MR_ERROR(CANCELLED, "step %" PRIu64 " was abandoned", session->next_step);
        session_progress_set(session, instruction);
        int64_t start_ns = mr_clock_now_ns();
        mr_status status = session_instruction(session, instruction, i);
        mr_instruction_text(instruction, text);
        if (!mr_status_is_ok(status))
            return mr_status_prefix(status, "step %" PRIu64 ", %s", session->next_step + 1, text);
        mr_trace_add(session->options.track, text, session->next_step, instruction->micro_batch,
                     start_ns, mr_clock_now_ns());
    }
    return MR_OK;
}

mr_status mr_session_step(mr_session *session, bool wants_logits, mr_step_result *out_result) {
    mr_device *device = session->options.device;
    const mr_job *job = session->assignment->job;
    uint64_t allocations = mr_alloc_count();
    int64_t start_ns = mr_clock_now_ns();
    session->result = (mr_step_result){
        .tokens =
            job->data * session->schedule.micro_batches * job->micro_batch_size *
            job->sequence_length,
    };
    session->busy_ns = 0;
    session->transport_ns = 0;
    session->reduction = (mr_reduction_time){0};
    session->wants_logits = wants_logits;
    session->loss_scale = (float)(session_scale(session) / session->step_terms);
    session->side_scale = session_scale(session) / session->step_parts;
    session->schedule_start_ns = start_ns;
    if (wants_logits)
        MR_TRY(mr_session_result_want(session));
    device->ops->zero(device, session->loss.base, sizeof(double));
    mr_side_losses_begin(session->sides);
    if (!session->assignment->inference)
        mr_parameters_zero_gradients(session->parameters);
    MR_TRY(session_run_list(session));
    if (session->assignment->inference)
        MR_TRY(mr_session_result_share(session));
    if (mr_assignment_is_fed(session->assignment))
        mr_feed_done(session->options.feed, session->next_step);
    session->next_step++;
    session_progress_set(session, NULL);
    session->result.allocations = mr_alloc_count() - allocations;
    session->result.step_seconds = (double)(mr_clock_now_ns() - start_ns) * 1e-9;
    session->result.transport_seconds = (double)session->transport_ns * 1e-9;
    session->result.reduce_seconds = (double)session->reduction.sum_ns * 1e-9;
    session->result.reduce_exposed_seconds = (double)session->reduction.exposed_ns * 1e-9;
    *out_result = session->result;
    return MR_OK;
}
