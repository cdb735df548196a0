/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/session.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/log.h"
#include "daemon/layers/loss.h"
#include "daemon/stage/layer_store.h"
#include "daemon/stage/optimizer.h"
#include "daemon/stage/session_model.h"
#include "daemon/stage/session_result.h"

/* Owned parameters of a stage: those without a tie, and tied ones whose tie begins on it; none that
 * is frozen. */
static mr_status stage_owned_count(const mr_assignment *assignment, size_t stage,
                                   size_t *out_count) {
    mr_tie *ties = NULL;
    size_t tie_count = 0;
    size_t owned = 0;
    const mr_stage_plan *plan = &assignment->plan->stages[stage];
    MR_TRY(mr_job_ties(assignment->job, &ties, &tie_count));
    for (size_t l = plan->layer_first; l < plan->layer_end; l++) {
        const mr_layer_description *layer = &assignment->plan->shards[l];
        for (size_t i = 0; i < layer->parameter_count; i++)
            if (!layer->parameters[i].tied && !layer->parameters[i].frozen)
                owned++;
    }
    for (size_t i = 0; i < tie_count; i++) {
        const mr_layer_description *first = &assignment->plan->shards[ties[i].layers[0]];
        bool here = ties[i].layers[0] >= plan->layer_first && ties[i].layers[0] < plan->layer_end;
        for (size_t slot = 0; here && slot < first->tied_count; slot++)
            owned += !mr_layer_description_tied(first, slot)->frozen;
    }
    mr_job_ties_free(ties, tie_count);
    *out_count = owned;
    return MR_OK;
}

static mr_status session_size_gather(mr_session *session) {
    size_t stages = session->assignment->plan->stage_count;
    size_t total = 0;
    session->gather_bytes = mr_alloc_array(stages, sizeof(size_t));
    if (session->gather_bytes == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu stages", stages);
    for (size_t s = 0; s < stages; s++) {
        size_t owned = 0;
        MR_TRY(stage_owned_count(session->assignment, s, &owned));
        size_t sides = mr_side_losses_count(session->assignment->plan, s);
        session->gather_bytes[s] = (GATHER_HEAD + sides + owned) * sizeof(double);
        total += session->gather_bytes[s];
    }
    size_t replicas = session->assignment->job->data;
    session->replica_bytes = mr_alloc_array(replicas, sizeof(size_t));
    session->replica_losses = mr_alloc_array(replicas * (1 + session->side_count), sizeof(double));
    session->share_bytes = mr_alloc_array(replicas, sizeof(size_t));
    if (session->replica_bytes == NULL || session->replica_losses == NULL ||
        session->share_bytes == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu replicas", replicas);
    for (size_t i = 0; i < replicas; i++)
        session->replica_bytes[i] = (1 + session->side_count) * sizeof(double);
    for (size_t i = 0; i < mr_parameters_state_width(session->parameters); i++)
        session->share_bytes[i] = mr_parameters_weights_start(session->parameters, i + 1) -
                                  mr_parameters_weights_start(session->parameters, i);
    session->gathered = mr_alloc(total);
    session->mine = mr_alloc(session->gather_bytes[session->assignment->stage]);
    if (session->gathered == NULL || session->mine == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bytes of norms", total);
    return MR_OK;
}

static size_t session_gather_total(const mr_session *session) {
    size_t total = 0;
    for (size_t s = 0; s < session->assignment->plan->stage_count; s++)
        total += session->gather_bytes[s];
    return total;
}

/* Bytes of the largest exchange on the pipe group: norms, a boundary record, a piece of logits. */
static size_t session_pipe_bytes(const mr_session *session) {
    size_t bytes = session_gather_total(session);
    size_t logits = session->logit_count * sizeof(float);
    logits = logits < MR_SESSION_LOGIT_PIECE_BYTES ? logits : MR_SESSION_LOGIT_PIECE_BYTES;
    return (bytes > logits ? bytes : logits) + MR_NAME_BYTES + 64;
}

/* The loss is the mean over all terms of the step (set_micro_batches, the one place that scales by
 * law 7). */
static mr_status session_size_loss(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_shape output = mr_assignment_boundary(assignment, assignment->job->layer_count);
    if (assignment->inference)
        MR_TRY(mr_session_result_init(session));
    if (assignment->mode == MR_JOB_MODE_INFERENCE)
        return MR_OK;
    mr_shape labels = {0};
    if (assignment->job->loss == MR_LOSS_NONE)
        return MR_ERROR(INVALID_ARGUMENT, "model.loss is none; %s needs a loss",
                        mr_job_mode_name(assignment->mode));
    MR_TRY(mr_job_label_shape(assignment->job, &labels));
    session->micro_batch_terms = mr_loss_terms(assignment->job->loss, &output, &labels);
    if (assignment->job->precision == MR_DTYPE_F16)
        session->applied.loss_scale = mr_loss_scale_begin(&assignment->job->loss_scale);
    return MR_OK;
}

/* What comes in and goes out is in host memory; a device that has another gets copies. */
static mr_status session_build_copies(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_device *device = session->options.device;
    if (device->ops->host_memory)
        return MR_OK;
    session->options.transport.device = device;
    if (assignment->job->model > 1)
        return MR_ERROR(UNIMPLEMENTED,
                        "pipeline.topology.model is %zu; the ranks of a model axis sum in host "
                        "memory, and device %s has its own",
                        assignment->job->model, device->ops->name);
    if (assignment->stage > 0)
        return MR_OK;
    return mr_input_copies_create(device, mr_activations_slots(session->activations),
                                  mr_assignment_message_bytes(assignment, 0), &session->copies);
}

static mr_status session_build(mr_session *session) {
    const mr_assignment *assignment = session->assignment;
    mr_device *device = session->options.device;
    const mr_stage_plan *stage = mr_assignment_stage(assignment);
    mr_parameters_options options = {
        .device = device,
        .job = assignment->job,
        .descriptions = assignment->plan->shards,
        .layer_first = stage->layer_first,
        .layer_end = stage->layer_end,
        .training = !assignment->inference,
        .state_width = mr_session_state_width(assignment),
        .state_index = mr_session_state_width(assignment) > 1 ? assignment->replica : 0,
    };
    MR_TRY(mr_parameters_create(&options, &session->parameters));
    session->interval = assignment->job->checkpoint_interval;
    MR_TRY(
        mr_activations_create(device, assignment, session->interval, &session->activations));
    MR_TRY(mr_side_losses_create(device, assignment, &session->sides));
    session->side_count = mr_side_losses_count(assignment->plan, assignment->stage);
    MR_TRY(session_build_copies(session));
    MR_TRY(device->ops->memory_create(device, sizeof(double), &session->loss));
    session->slots = mr_alloc_array(mr_activations_slots(session->activations),
                                    sizeof(*session->slots));
    if (session->slots == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu microbatches",
                        mr_activations_slots(session->activations));
    MR_TRY(session_size_loss(session));
    MR_TRY(mr_session_model_build(session));
    MR_TRY(session_size_gather(session));
    MR_TRY(mr_schedule_shelf_create(assignment, &session->shelf));
    MR_TRY(mr_session_set_micro_batches(session, assignment->job->micro_batches));
    if (assignment->inference || assignment->job->data == 1)
        return MR_OK;
    return mr_gradient_reducer_create(session->parameters, session->options.reduce_track,
                                      &session->reducer);
}

static mr_status session_fill(mr_session *session) {
    MR_TRY(session_build(session));
    if (session->assignment->checkpoint_path[0] != 0)
        MR_TRY(mr_layer_store_load(session->assignment, session->parameters, &session->next_step,
                                   &session->applied));
    else
        MR_TRY(mr_parameters_draw(session->parameters));
    return mr_connections_listen(&session->connections, session->assignment,
                                 &session->options.transport, session_pipe_bytes(session));
}

mr_status mr_session_create(const mr_session_options *options, const mr_assignment *assignment,
                            mr_session **out_session) {
    mr_session *session = mr_alloc(sizeof(*session));
    if (session == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a session");
    session->options = *options;
    session->assignment = assignment;
    mr_status status = session_fill(session);
    if (!mr_status_is_ok(status)) {
        mr_session_destroy(session);
        return status;
    }
    *out_session = session;
    return MR_OK;
}

mr_status mr_session_set_micro_batches(mr_session *session, size_t micro_batches) {
    MR_TRY(mr_schedule_shelf_get(session->shelf, micro_batches, &session->schedule));
    session->step_parts = (double)micro_batches * (double)session->assignment->job->data;
    session->step_terms = session->micro_batch_terms * session->step_parts;
    return MR_OK;
}

mr_group_ids mr_session_take_ids(mr_session *session) {
    mr_group_ids ids = session->connections.made;
    session->connections.made = (mr_group_ids){0};
    return ids;
}

/* All members of a tie start from its first one's bits. */
static mr_status session_broadcast_tie(mr_session *session, const mr_tied_group *tied) {
    const mr_stage_parameter *held = NULL;
    for (size_t slot = 0; (held = mr_parameters_find_tie(session->parameters, tied->plan->key,
                                                         slot)) != NULL;
         slot++) {
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&held->weight.shape, &bytes));
        MR_TRY(mr_group_broadcast(tied->group, held->weight.data, bytes, 0,
                                  MR_STEP_WAIT_TIMEOUT_MS));
    }
    return MR_OK;
}

mr_status mr_session_connect(mr_session *session, const mr_group_ids *ids) {
    MR_TRY(mr_connections_open(&session->connections, session->assignment,
                               &session->options.transport, ids, session_pipe_bytes(session)));
    MR_TRY(mr_session_model_open(session));
    for (size_t i = 0; i < session->connections.tied_count; i++)
        MR_TRY(session_broadcast_tie(session, &session->connections.tied[i]));
    mr_parameters_refresh(session->parameters); /* after the load and the broadcasts */
    if (session->reducer == NULL)
        return MR_OK;
    return mr_gradient_reducer_start(session->reducer, session->connections.gradients);
}

void mr_session_destroy(mr_session *session) {
    if (session == NULL)
        return;
    mr_gradient_reducer_destroy(session->reducer); /* it uses all of the rest */
    mr_session_model_close(session);
    mr_connections_close(&session->connections);
    if (session->loss.base != NULL)
        session->options.device->ops->memory_destroy(session->options.device, &session->loss);
    mr_schedule_shelf_destroy(session->shelf);
    mr_side_losses_destroy(session->sides);
    mr_input_copies_destroy(session->copies);
    mr_activations_destroy(session->activations);
    mr_parameters_destroy(session->parameters);
    mr_free(session->logits);
    mr_free(session->share_bytes);
    mr_free(session->replica_losses);
    mr_free(session->replica_bytes);
    mr_free(session->mine);
    mr_free(session->gathered);
    mr_free(session->gather_bytes);
    mr_free(session->slots);
    mr_free(session);
}

mr_status mr_session_save(mr_session *session, const char *tag, mr_layer_save_files *out_files) {
    mr_layer_save_options options = {
        .assignment = session->assignment,
        .parameters = session->parameters,
        .replicas = session->connections.data,
        .tag = tag,
        .step = session->next_step,
        .stop = session->options.stop,
    };
    return mr_layer_save(&options, out_files);
}

mr_status mr_session_agree(mr_session *session, void *record, size_t bytes) {
    const mr_assignment *assignment = session->assignment;
    bool decides = assignment->rank == 0;
    if (session->connections.data != NULL && mr_assignment_is_fed(assignment))
        MR_TRY(mr_group_broadcast(session->connections.data, record, bytes, 0,
                                  decides ? MR_STEP_WAIT_TIMEOUT_MS : -1));
    if (session->connections.model != NULL && assignment->stage == 0)
        MR_TRY(mr_group_broadcast(session->connections.model, record, bytes, 0,
                                  assignment->model_rank == 0 ? MR_STEP_WAIT_TIMEOUT_MS : -1));
    return mr_group_broadcast(session->connections.pipe, record, bytes, 0,
                              assignment->stage == 0 ? MR_STEP_WAIT_TIMEOUT_MS : -1);
}

const mr_assignment *mr_session_assignment(const mr_session *session) {
    return session->assignment;
}

mr_applied mr_session_applied(const mr_session *session) {
    return session->applied;
}

uint64_t mr_session_next_step(const mr_session *session) {
    return session->next_step;
}

static mr_status session_make_activations(mr_session *session, size_t interval) {
    mr_activations_destroy(session->activations);
    session->activations = NULL;
    MR_TRY(mr_activations_create(session->options.device, session->assignment, interval,
                                 &session->activations));
    session->interval = interval;
    return MR_OK;
}

/* What the last step sent may still be read from the memory that goes. */
mr_status mr_session_set_interval(mr_session *session, size_t interval) {
    const mr_connections *connections = &session->connections;
    size_t before = session->interval;
    if (connections->activation_out != NULL)
        MR_TRY(mr_link_wait_sent(connections->activation_out, 0, MR_STEP_WAIT_TIMEOUT_MS));
    if (connections->gradient_out != NULL)
        MR_TRY(mr_link_wait_sent(connections->gradient_out, 0, MR_STEP_WAIT_TIMEOUT_MS));
    mr_status status = session_make_activations(session, interval);
    if (mr_status_is_ok(status))
        return MR_OK;
    MR_LOG(WARN, "activation_checkpoint_interval stays as it was", MR_I("interval", before),
           MR_I("wanted", interval), MR_S("why", status.text));
    return session_make_activations(session, before);
}

size_t mr_session_interval(const mr_session *session) {
    return session->interval;
}

mr_memory_held mr_session_memory(const mr_session *session) {
    mr_parameters_bytes parameters = mr_parameters_bytes_held(session->parameters);
    return (mr_memory_held){
        .weights = parameters.weights,
        .gradients = parameters.gradients,
        .optimizer = parameters.optimizer,
        .activations = mr_activations_bytes(session->activations),
        .activations_predicted = mr_activations_bytes_predicted(session->activations),
    };
}

void mr_session_interrupt(mr_session *session, const char *reason) {
    mr_connections_interrupt(&session->connections, reason);
}
