/* SPDX-License-Identifier: Apache-2.0 */
/* protobuf-c's generated structs have char * without const; packing never writes through them. */
#include "daemon/coordinator/replies.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/crc32c.h"

static char *borrow(const char *text) {
    return (char *)(uintptr_t)text;
}

static_assert((int)MR_JOB_QUEUED == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED &&
                  (int)MR_JOB_STARTING == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_STARTING &&
                  (int)MR_JOB_RUNNING == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING &&
                  (int)MR_JOB_PAUSED == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_PAUSED &&
                  (int)MR_JOB_CHECKPOINTING ==
                      (int)MILLRACE__V1__JOB_STATE__JOB_STATE_CHECKPOINTING &&
                  (int)MR_JOB_DRAINING == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_DRAINING &&
                  (int)MR_JOB_SUCCEEDED == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED &&
                  (int)MR_JOB_FAILED == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED &&
                  (int)MR_JOB_CANCELLED == (int)MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED,
              "states have the numbers of jobs.proto");

/* ---- jobs ------------------------------------------------------------------------------------ */

static void reply_facts(Millrace__V1__Job *message, const mr_job_record *job, bool with_file) {
    const mr_job_facts *facts = &job->facts;
    millrace__v1__job__init(message);
    message->id = borrow(facts->id);
    message->name = borrow(facts->name);
    message->state = (Millrace__V1__JobState)facts->state;
    message->reason = borrow(facts->reason);
    message->mode = (Millrace__V1__JobMode)facts->mode;
    message->step_seconds = facts->result.step_seconds;
    message->predicted_step_seconds = facts->predicted_step_seconds;
    message->predicted_bubble = facts->predicted_bubble;
    message->epoch = facts->epoch;
    message->step = facts->step;
    message->total_steps = facts->total_steps;
    message->loss = facts->result.loss;
    message->gradient_norm = facts->result.gradient_norm;
    message->learning_rate = facts->result.learning_rate;
    message->tokens_per_second = facts->result.tokens_per_second;
    message->bubble = facts->result.bubble;
    message->created_ms = facts->created_ms;
    message->started_ms = facts->started_ms;
    message->ended_ms = facts->ended_ms;
    message->checkpoint_tag = borrow(facts->checkpoint_tag);
    message->base_directory = borrow(job->spec->base_directory);
    message->queue_position = job->queue_position;
    message->start_step = facts->start_step;
    message->load_note = borrow(facts->load_note);
    if (with_file)
        message->job_file = borrow(job->spec->job_file);
}

static void memory_fill(Millrace__V1__MemoryBytes *message, const mr_memory_bytes *memory) {
    millrace__v1__memory_bytes__init(message);
    message->weights = memory->weights;
    message->gradients = memory->gradients;
    message->optimizer = memory->optimizer;
    message->activations = memory->activations;
}

/* NULL in *out_held: not known yet. */
static void reply_memory(mr_reply_memory *memory, const mr_job_record *job, uint32_t rank,
                         Millrace__V1__MemoryBytes **out_predicted,
                         Millrace__V1__MemoryBytes **out_held) {
    memory_fill(&memory->predicted, &job->spec->ranks[rank].memory);
    memory_fill(&memory->held, &job->ranks[rank].held);
    *out_predicted = &memory->predicted;
    *out_held = job->ranks[rank].held_known ? &memory->held : NULL;
}

static void reply_stages(mr_reply_job *reply, const mr_coordinator_state *state,
                         const mr_job_record *job) {
    for (uint32_t rank = 0; rank < job->spec->rank_count; rank++) {
        Millrace__V1__JobStage *stage = &reply->stages[rank];
        const mr_spec_rank *planned = &job->spec->ranks[rank];
        const mr_member *member = mr_registry_find(&state->registry, job->ranks[rank].member);
        millrace__v1__job_stage__init(stage);
        stage->rank = rank;
        stage->stage = planned->stage;
        stage->layer_first = planned->layer_first;
        stage->layer_end = planned->layer_end;
        reply_memory(&reply->memories[rank], job, rank, &stage->memory_predicted,
                     &stage->memory_held);
        if (member != NULL) {
            stage->member_id = borrow(member->id);
            stage->address = borrow(member->address);
        }
        reply->stage_pointers[rank] = stage;
    }
    reply->message.n_stages = job->spec->rank_count;
    reply->message.stages = reply->stage_pointers;
}

/* KIND/NUMBER, and a fingerprint of the epoch's id: the id itself lets anybody join. */
static void group_id_text(const mr_job_record *job, size_t group, char out_text[MR_NAME_BYTES]) {
    const mr_spec_group *planned = &job->spec->groups[group];
    char key[MR_GROUP_KEY_BYTES];
    (void)snprintf(key, sizeof(key), "%s/%s/%u", planned->kind, planned->key,
                   planned->ranks[0]); /* short; as the stages name it */
    const mr_group_id *id = mr_group_ids_find(&job->group_ids, key);
    if (id == NULL)
        (void)snprintf(out_text, MR_NAME_BYTES, "%s/%zu", planned->kind, group);
    else
        (void)snprintf(out_text, MR_NAME_BYTES, "%s/%zu:%08x", planned->kind, group,
                       mr_crc32c(0, id->bytes, id->byte_count));
}

static void reply_groups(mr_reply_job *reply, const mr_job_record *job) {
    for (size_t i = 0; i < job->spec->group_count; i++) {
        Millrace__V1__JobGroup *group = &reply->groups[i];
        const mr_spec_group *planned = &job->spec->groups[i];
        millrace__v1__job_group__init(group);
        group_id_text(job, i, reply->group_ids[i]);
        group->kind = borrow(planned->kind);
        group->key = borrow(planned->key);
        group->n_ranks = planned->rank_count;
        group->ranks = planned->ranks;
        group->id = reply->group_ids[i];
        reply->group_pointers[i] = group;
    }
    reply->message.n_groups = job->spec->group_count;
    reply->message.groups = reply->group_pointers;
}

mr_status mr_reply_job_init(mr_reply_job *reply, const mr_coordinator_state *state,
                            const mr_job_record *job, bool with_file) {
    size_t ranks = job->spec->rank_count;
    size_t groups = job->spec->group_count;
    *reply = (mr_reply_job){
        .stages = mr_alloc_array(ranks, sizeof(*reply->stages)),
        .stage_pointers = mr_alloc_array(ranks, sizeof(*reply->stage_pointers)),
        .memories = mr_alloc_array(ranks, sizeof(*reply->memories)),
        .groups = mr_alloc_array(groups, sizeof(*reply->groups)),
        .group_pointers = mr_alloc_array(groups, sizeof(*reply->group_pointers)),
        .group_ids = mr_alloc_array(groups, sizeof(*reply->group_ids)),
    };
    if (reply->stages == NULL || reply->stage_pointers == NULL || reply->memories == NULL ||
        reply->groups == NULL || reply->group_pointers == NULL || reply->group_ids == NULL) {
        mr_reply_job_deinit(reply);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to describe job %s", job->facts.id);
    }
    reply_facts(&reply->message, job, with_file);
    reply_stages(reply, state, job);
    reply_groups(reply, job);
    return MR_OK;
}

void mr_reply_job_deinit(mr_reply_job *reply) {
    mr_free(reply->stages);
    mr_free(reply->stage_pointers);
    mr_free(reply->memories);
    mr_free(reply->groups);
    mr_free(reply->group_pointers);
    mr_free(reply->group_ids);
    *reply = (mr_reply_job){0};
}

void mr_reply_step(mr_reply_step_result *reply, const mr_job_step *step) {
    Millrace__V1__StepResult *message = &reply->message;
    millrace__v1__step_result__init(message);
    message->step = step->step;
    message->loss = step->loss;
    message->gradient_norm = step->gradient_norm;
    message->learning_rate = step->learning_rate;
    message->tokens = step->tokens;
    message->tokens_per_second = step->tokens_per_second;
    message->bubble = step->bubble;
    message->step_seconds = step->step_seconds;
    message->loss_scale = step->loss_scale;
    message->skipped = step->skipped;
    message->total_loss = step->total_loss;
    message->n_side_losses = step->side_count;
    message->side_losses = reply->pointers;
    for (size_t i = 0; i < step->side_count; i++) {
        millrace__v1__side_loss__init(&reply->sides[i]);
        reply->sides[i].name = borrow(step->sides[i].name);
        reply->sides[i].value = step->sides[i].value;
        reply->pointers[i] = &reply->sides[i];
    }
}

void mr_reply_member_init(mr_reply_member *reply, const mr_coordinator_state *state,
                          const mr_member *member, int64_t now_ms) {
    Millrace__V1__Member *message = &reply->message;
    const mr_job_record *job = mr_jobs_find(&state->jobs, member->job);
    millrace__v1__member__init(message);
    message->id = borrow(member->id);
    message->device = borrow(member->device);
    message->threads = member->threads;
    message->address = borrow(member->address);
    message->status_address = borrow(member->status_address);
    message->state = borrow(mr_member_state_name(member));
    message->job_id = borrow(member->job_id);
    message->rank = member->rank;
    message->version = borrow(member->version);
    message->heartbeat_age_ms = now_ms - member->heard_ms;
    message->memory_bytes = member->memory_bytes;
    message->process_id = member->process_id;
    if (job != NULL && member->rank < job->spec->rank_count)
        reply_memory(&reply->memory, job, member->rank, &message->memory_predicted,
                     &message->memory_held);
}

/* ---- orders ---------------------------------------------------------------------------------- */

static mr_status order_peers(mr_reply_order *reply, const mr_coordinator_state *state,
                             const mr_job_record *job) {
    size_t ranks = job->spec->rank_count;
    reply->peers = mr_alloc_array(ranks, sizeof(*reply->peers));
    reply->peer_pointers = mr_alloc_array(ranks, sizeof(*reply->peer_pointers));
    if (reply->peers == NULL || reply->peer_pointers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the peers of job %s", job->facts.id);
    for (uint32_t rank = 0; rank < ranks; rank++) {
        const mr_member *member = mr_registry_find(&state->registry, job->ranks[rank].member);
        millrace__v1__peer__init(&reply->peers[rank]);
        reply->peers[rank].rank = rank;
        if (member != NULL)
            reply->peers[rank].address = borrow(member->address);
        reply->peer_pointers[rank] = &reply->peers[rank];
    }
    reply->prepare.n_peers = ranks;
    reply->prepare.peers = reply->peer_pointers;
    return MR_OK;
}

/* A job that starts at step 0 from what checkpoint.load names takes the weights alone. So may one
 * that goes on from its own checkpoint of step 0: no state stands in that yet. */
static bool order_weights_only(const mr_job_record *job) {
    const mr_job_facts *facts = &job->facts;
    const mr_job *spec = job->spec->job;
    return spec != NULL && spec->load_path[0] != '\0' && mr_job_mode_trains(facts->mode) &&
           facts->checkpoint_path[0] != '\0' && facts->start_step == 0;
}

static mr_status order_prepare(mr_reply_order *reply, const mr_coordinator_state *state,
                               const mr_action *action) {
    const mr_job_record *job = action->job;
    Millrace__V1__Prepare *prepare = &reply->prepare;
    millrace__v1__prepare__init(prepare);
    prepare->job_id = borrow(action->job_id);
    prepare->epoch = action->epoch;
    prepare->job_file = borrow(job->spec->job_file);
    prepare->base_directory = borrow(job->spec->base_directory);
    prepare->mode = (Millrace__V1__JobMode)job->facts.mode;
    prepare->rank = action->rank;
    prepare->checkpoint_path = borrow(job->facts.checkpoint_path);
    prepare->weights_only = order_weights_only(job);
    prepare->schedule_hash = borrow(job->spec->schedule_hash);
    prepare->job_name = borrow(job->facts.name);
    prepare->n_bounds = job->spec->bound_count;
    prepare->bounds = job->spec->bounds;
    reply->message.order_case = MILLRACE__V1__STAGE_ORDER__ORDER_PREPARE;
    reply->message.prepare = prepare;
    return order_peers(reply, state, job);
}

/* Fills one order that says no more than which job and epoch it means. */
#define ORDER_PLAIN(field, NAME, init)                                                             \
    do {                                                                                           \
        init(&reply->field);                                                                       \
        reply->field.job_id = borrow(action->job_id);                                              \
        reply->field.epoch = action->epoch;                                                        \
        reply->message.order_case = MILLRACE__V1__STAGE_ORDER__ORDER_##NAME;                       \
        reply->message.field = &reply->field;                                                      \
    } while (0)

static void order_profile(mr_reply_order *reply, const mr_action *action) {
    ORDER_PLAIN(profile, PROFILE, millrace__v1__profile__init);
    reply->profile.job_file = borrow(action->job->spec->job_file);
}

static mr_status order_connect(mr_reply_order *reply, const mr_action *action) {
    const mr_group_ids *ids = &action->job->group_ids;
    ORDER_PLAIN(connect, CONNECT, millrace__v1__connect__init);
    reply->group_ids = mr_alloc_array(ids->count, sizeof(*reply->group_ids));
    reply->group_id_pointers = mr_alloc_array(ids->count, sizeof(*reply->group_id_pointers));
    if (reply->group_ids == NULL || reply->group_id_pointers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the %zu ids of job %s", ids->count,
                        action->job_id);
    for (size_t i = 0; i < ids->count; i++) {
        Millrace__V1__GroupId *id = &reply->group_ids[i];
        millrace__v1__group_id__init(id);
        id->group_key = borrow(ids->items[i].key);
        id->id.data = ids->items[i].bytes;
        id->id.len = ids->items[i].byte_count;
        reply->group_id_pointers[i] = id;
    }
    reply->connect.n_group_ids = ids->count;
    reply->connect.group_ids = reply->group_id_pointers;
    return MR_OK;
}

static void order_registered(mr_reply_order *reply, const mr_coordinator_state *state,
                             const mr_action *action) {
    const mr_member *member = mr_registry_find(&state->registry, action->member);
    millrace__v1__registered__init(&reply->registered);
    reply->registered.member_id = borrow(member == NULL ? "" : member->id);
    reply->registered.heartbeat_period_ms = MR_HEARTBEAT_PERIOD_MS;
    reply->message.order_case = MILLRACE__V1__STAGE_ORDER__ORDER_REGISTERED;
    reply->message.registered = &reply->registered;
}

static void order_save(mr_reply_order *reply, const mr_action *action) {
    ORDER_PLAIN(save, SAVE, millrace__v1__save__init);
    reply->save.tag = borrow(action->tag);
    reply->save.path = borrow(action->job->spec->checkpoint_dir);
}

static void order_committed(mr_reply_order *reply, const mr_action *action) {
    ORDER_PLAIN(committed, COMMITTED, millrace__v1__committed__init);
    reply->committed.tag = borrow(action->tag);
    reply->committed.step = action->step;
}

static void order_abort(mr_reply_order *reply, const mr_action *action) {
    ORDER_PLAIN(abort, ABORT, millrace__v1__abort__init);
    reply->abort.reason =
        borrow(action->job != NULL ? action->job->facts.reason : action->status.text);
}

mr_status mr_reply_order_init(mr_reply_order *reply, const mr_coordinator_state *state,
                              const mr_action *action) {
    *reply = (mr_reply_order){.message = MILLRACE__V1__STAGE_ORDER__INIT};
    mr_status status = MR_OK;
    switch (action->order) {
    case MR_ORDER_REGISTERED:
        order_registered(reply, state, action);
        break;
    case MR_ORDER_PROFILE:
        order_profile(reply, action);
        break;
    case MR_ORDER_PREPARE:
        status = order_prepare(reply, state, action);
        break;
    case MR_ORDER_CONNECT:
        status = order_connect(reply, action);
        break;
    case MR_ORDER_RUN:
        ORDER_PLAIN(run, RUN, millrace__v1__run__init);
        break;
    case MR_ORDER_PAUSE:
        ORDER_PLAIN(pause, PAUSE, millrace__v1__pause__init);
        break;
    case MR_ORDER_SAVE:
        order_save(reply, action);
        break;
    case MR_ORDER_COMMITTED:
        order_committed(reply, action);
        break;
    case MR_ORDER_ABORT:
        order_abort(reply, action);
        break;
    case MR_ORDER_RELEASE:
        ORDER_PLAIN(release, RELEASE, millrace__v1__release__init);
        break;
    case MR_ORDER_SHUTDOWN:
        millrace__v1__shutdown__init(&reply->shutdown);
        reply->message.order_case = MILLRACE__V1__STAGE_ORDER__ORDER_SHUTDOWN;
        reply->message.shutdown = &reply->shutdown;
        break;
    case MR_ORDER_SET:
        ORDER_PLAIN(set, SET, millrace__v1__set__init);
        reply->set.activation_checkpoint_interval = action->job->spec->job->checkpoint_interval;
        break;
    case MR_ORDER_COUNT:
        MR_ASSERT(!"an order of no kind");
    }
    if (!mr_status_is_ok(status))
        mr_reply_order_deinit(reply);
    return status;
}

void mr_reply_order_deinit(mr_reply_order *reply) {
    mr_free(reply->peers);
    mr_free(reply->peer_pointers);
    mr_free(reply->group_ids);
    mr_free(reply->group_id_pointers);
    reply->peers = NULL;
    reply->peer_pointers = NULL;
    reply->group_ids = NULL;
    reply->group_id_pointers = NULL;
}
