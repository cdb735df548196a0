/* SPDX-License-Identifier: Apache-2.0 */
/* The one way in. Memory that a decision needs is taken at its start, or when a member or a job is
 * added, so that nothing can fail half-way through a move. */
#include "daemon/coordinator/decide.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/coordinator/decision.h"
#include "daemon/coordinator/job_machine.h"
#include "daemon/coordinator/requests.h"
#include "daemon/coordinator/saves.h"
#include "daemon/coordinator/scheduler.h"
#include "daemon/coordinator/waiters.h"

enum {
    ACTIONS_FIXED = 32,
    ACTIONS_PER_JOB = 8, /* stored, notified, answered */
    /* A member gets a few orders; an active job, which has at least one member, gives up its saves
     * and answers its waiters. */
    ACTIONS_PER_MEMBER = 8 + 3 * MR_JOB_SAVES_MAX + MR_JOB_WAITERS_MAX,
};

/* The most actions that a decision can want with one member and one job more than now; when the
 * event adds one, room is made for the decision after it too. So only an event that adds can find
 * no memory. */
static size_t state_actions_max(const mr_coordinator_state *state, const mr_event *event) {
    bool adds = event->kind == MR_EVENT_ATTACHED || event->kind == MR_EVENT_SUBMIT ||
                event->kind == MR_EVENT_RESTORE;
    size_t more = adds ? 2 : 1;
    return ACTIONS_FIXED + (state->jobs.count + more) * ACTIONS_PER_JOB +
           (state->registry.count + more) * ACTIONS_PER_MEMBER;
}

/* ---- members --------------------------------------------------------------------------------- */

/* The member's job as long as it is active; NULL otherwise. */
static mr_job_record *member_active_job(const mr_decision *decision, const mr_member *member) {
    mr_job_record *job = mr_jobs_find(&decision->state->jobs, member->job);
    return job != NULL && mr_job_state_is_active(job->facts.state) ? job : NULL;
}

/* A job that has taken its last step and waits for DISK alone does not need its members any
 * more. */
static bool job_needs_member(const mr_job_record *job, uint32_t rank) {
    if (!job->finishing || !job->ranks[rank].finished)
        return true;
    for (size_t i = 0; i < job->spec->rank_count; i++)
        if (!job->ranks[i].finished)
            return true;
    bool committed = job->committed && job->committed_step == job->finish_step;
    return !committed && !mr_saves_is_committing(job, job->finish_step);
}

/* expected: it was told to exit, and did. */
static void member_lose(mr_decision *decision, mr_member *member, const char *why,
                        bool expected) {
    mr_job_record *job = member_active_job(decision, member);
    mr_decision_log(decision, expected ? "stage left" : "stage lost", member, job,
                    expected ? MR_OK : MR_ERROR(UNAVAILABLE, "%s", why));
    if (job != NULL && job_needs_member(job, member->rank)) {
        char text[MR_STATUS_TEXT_BYTES];
        (void)snprintf(text, sizeof(text), "lost: %s", why); /* cut on purpose */
        mr_job_machine_fail(decision, job, member->rank, MR_CODE_UNAVAILABLE, text, false);
    }
    uint32_t rank = member->rank;
    member->state = MR_MEMBER_LOST;
    member->job = 0;
    member->job_id[0] = '\0';
    member->deadline_ms = decision->now_ms + (expected ? MR_MEMBER_LEAVE_MS : MR_MEMBER_FORGET_MS);
    decision->state->queue_changed = true;
    if (job != NULL) {
        job->ranks[rank].member = 0;
        mr_job_machine_advance(decision, job);
    }
}

static void member_close(mr_decision *decision, const mr_member *member, mr_status why) {
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_CLOSE);
    action->member = member->number;
    action->status = why;
}

static mr_status decide_attached(mr_decision *decision, const mr_event *event) {
    mr_registry *registry = &decision->state->registry;
    const char *instance_id = event->u.attached.instance_id;
    mr_member *before =
        instance_id[0] == '\0' ? NULL : mr_registry_find_instance(registry, instance_id);
    mr_member *member = NULL;
    MR_TRY(mr_registry_add(registry, event->member, &event->u.attached, decision->now_ms, &member));
    if (before != NULL) {
        member_close(decision, before,
                     MR_ERROR(ABORTED, "the stage has attached again as %s", member->id));
        member_lose(decision, before, "the stage has attached again", false);
    }
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_SEND);
    action->member = member->number;
    action->order = MR_ORDER_REGISTERED;
    decision->state->queue_changed = true;
    mr_decision_log(decision, "stage attached", member, NULL, MR_OK);
    return MR_OK;
}

/* A stage that works for a job which it does not have (any more) is told to let go. */
static void decide_heartbeat(mr_decision *decision, mr_member *member, const mr_event *event) {
    member->step = event->u.heartbeat.step;
    member->instruction_age_ms = event->u.heartbeat.instruction_age_ms;
    (void)snprintf(member->instruction, sizeof(member->instruction), "%s",
                   event->u.heartbeat.instruction); /* cut on purpose */
    bool stale = event->job[0] != '\0' &&
                 (strcmp(event->job, member->job_id) != 0 || event->epoch < member->epoch);
    if (!stale || strlen(event->job) >= MR_COORDINATOR_ID_BYTES)
        return;
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_SEND);
    action->member = member->number;
    action->order = MR_ORDER_ABORT;
    memcpy(action->job_id, event->job, strlen(event->job));
    action->epoch = event->epoch + 1;
    action->status =
        MR_ERROR(ABORTED, "epoch %" PRIu64 " of job %s is over", event->epoch, action->job_id);
}

static void decide_released(mr_decision *decision, mr_member *member, const mr_event *event) {
    if (member->job == 0 || strcmp(event->job, member->job_id) != 0 || event->epoch < member->epoch)
        return;
    if (member->state == MR_MEMBER_RELEASING) {
        mr_decision_set_idle(decision, member);
        return;
    }
    mr_job_record *job = member_active_job(decision, member);
    if (job == NULL)
        return;
    mr_job_machine_fail(decision, job, member->rank, MR_CODE_ABORTED,
                        "let go of the job without an order", true);
    mr_job_machine_advance(decision, job);
}

/* ---- reports about a job --------------------------------------------------------------------- */

/* Takes the ids that a rank has made, once. */
static mr_status prepared_take_ids(mr_job_record *job, uint32_t rank, const mr_event *event) {
    for (size_t i = 0; i < event->u.prepared.group_id_count && !job->ranks[rank].prepared; i++) {
        const mr_group_id *id = &event->u.prepared.group_ids[i];
        MR_TRY(mr_group_ids_add(&job->group_ids, id->key, id->bytes, id->byte_count));
    }
    return MR_OK;
}

static void report_held(mr_job_record *job, uint32_t rank, const mr_memory_bytes *held) {
    job->ranks[rank].held = *held;
    job->ranks[rank].held_known = true;
}

static void report_prepared(mr_decision *decision, mr_job_record *job, uint32_t rank,
                            const mr_event *event) {
    char text[MR_STATUS_TEXT_BYTES];
    if (strcmp(event->u.prepared.schedule_hash, job->spec->schedule_hash) != 0) {
        (void)snprintf(text, sizeof(text), "schedule hash is \"%.64s\"; the plan's is \"%.64s\"",
                       event->u.prepared.schedule_hash, job->spec->schedule_hash);
        mr_job_machine_fail(decision, job, rank, MR_CODE_FAILED_PRECONDITION, text, false);
    } else if (event->u.prepared.next_step != job->facts.start_step) {
        (void)snprintf(text, sizeof(text),
                       "its weights are at step %" PRIu64 "; the job starts at %" PRIu64,
                       event->u.prepared.next_step, job->facts.start_step);
        mr_job_machine_fail(decision, job, rank, MR_CODE_DATA_LOSS, text, false);
    } else {
        mr_status status = prepared_take_ids(job, rank, event);
        job->ranks[rank].prepared = mr_status_is_ok(status);
        report_held(job, rank, &event->u.prepared.held);
        if (!mr_status_is_ok(status))
            mr_job_machine_fail(decision, job, rank, status.code, status.text, false);
    }
}

static void report_step_done(mr_decision *decision, mr_job_record *job, uint32_t rank,
                             const mr_event *event) {
    if (rank != 0 || event->u.step_done.step <= job->facts.step)
        return;
    job->facts.step = event->u.step_done.step;
    job->facts.result = event->u.step_done;
    mr_decision_notify(decision, job, event->u.step_done.step);
}

static void report_paused(mr_job_record *job, uint32_t rank, const mr_event *event) {
    if (!job->pausing)
        return;
    job->ranks[rank].paused = true;
    if (event->u.paused.step > job->facts.step)
        job->facts.step = event->u.paused.step;
}

static void report_finished(mr_decision *decision, mr_job_record *job, uint32_t rank,
                            const mr_event *event) {
    bool runs = job->facts.state == MR_JOB_RUNNING || job->facts.state == MR_JOB_DRAINING;
    if (!runs || job->ranks[rank].finished || (!mr_job_mode_trains(job->spec->mode) && rank != 0))
        return;
    job->ranks[rank].finished = true;
    if (!job->finishing)
        job->finish_step = event->u.finished.step;
    job->finishing = true;
    job->deadline_ms = decision->now_ms + MR_STEP_WAIT_TIMEOUT_MS;
    for (size_t i = 0; i < job->spec->rank_count; i++)
        if (!job->ranks[i].finished)
            return;
    job->deadline_ms = decision->now_ms + MR_SAVE_TIMEOUT_MS;
}

static void report_feed_state(const mr_decision *decision, mr_job_rank *rank,
                              const mr_event *event) {
    if (rank->feed_open && !event->u.feed_state.open)
        rank->feed_idle_since_ms = decision->now_ms;
    rank->feed_open = event->u.feed_state.open;
}

/* A report counts only from a member of the job, in the job's present epoch. NULL: it does not. */
static mr_job_record *report_job(const mr_decision *decision, const mr_member *member,
                                 const mr_event *event) {
    mr_job_record *job = member_active_job(decision, member);
    if (job == NULL || strcmp(event->job, job->facts.id) != 0 || event->epoch != job->facts.epoch)
        return NULL;
    MR_ASSERT(job->ranks[member->rank].member == member->number);
    return job;
}

static void decide_profiled(mr_decision *decision, mr_member *member, const mr_event *event) {
    mr_profile_device *profile = event->u.profiled.owned_profile;
    mr_job_record *job = report_job(decision, member, event);
    mr_job_rank *rank = job == NULL ? NULL : &job->ranks[member->rank];
    if (rank == NULL || job->facts.state != MR_JOB_STARTING || rank->profiled) {
        mr_profile_device_destroy(profile);
        return;
    }
    rank->profiled = true;
    rank->profile = profile;
    mr_job_machine_advance(decision, job);
}

static void decide_report(mr_decision *decision, mr_member *member, const mr_event *event) {
    mr_job_record *job = report_job(decision, member, event);
    if (job == NULL)
        return;
    uint32_t rank = member->rank;
    switch (event->kind) {
    case MR_EVENT_PREPARED:
        report_prepared(decision, job, rank, event);
        break;
    case MR_EVENT_CONNECTED:
        job->ranks[rank].connected = job->phase == MR_START_CONNECTING;
        break;
    case MR_EVENT_STEP_DONE:
        report_step_done(decision, job, rank, event);
        break;
    case MR_EVENT_SAVED:
        mr_saves_report(decision, job, rank, event);
        break;
    case MR_EVENT_PAUSED:
        report_paused(job, rank, event);
        break;
    case MR_EVENT_FINISHED:
        report_finished(decision, job, rank, event);
        break;
    case MR_EVENT_FAILED:
        mr_job_machine_fail(decision, job, rank, event->u.failed.code, event->u.failed.text,
                            event->u.failed.secondary);
        break;
    case MR_EVENT_RESIZED:
        report_held(job, rank, &event->u.resized.held);
        break;
    case MR_EVENT_FEED_STATE:
        report_feed_state(decision, &job->ranks[rank], event);
        break;
    default:
        MR_ASSERT(!"a kind of report without a case");
    }
    mr_job_machine_advance(decision, job);
}

static void decide_member(mr_decision *decision, const mr_event *event) {
    mr_member *member = mr_registry_find(&decision->state->registry, event->member);
    if (member == NULL || member->state == MR_MEMBER_LOST) {
        if (event->kind == MR_EVENT_PROFILED)
            mr_profile_device_destroy(event->u.profiled.owned_profile);
        return;
    }
    member->heard_ms = decision->now_ms;
    if (event->kind == MR_EVENT_PROFILED)
        decide_profiled(decision, member, event);
    else if (event->kind == MR_EVENT_LOST)
        member_lose(decision, member, event->u.lost.text,
                    member->state == MR_MEMBER_DRAINING);
    else if (event->kind == MR_EVENT_HEARTBEAT)
        decide_heartbeat(decision, member, event);
    else if (event->kind == MR_EVENT_RELEASED)
        decide_released(decision, member, event);
    else if (event->kind == MR_EVENT_LEAVING)
        mr_requests_drain_member(decision, member);
    else
        decide_report(decision, member, event);
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Silence and broken bounds of one member. */
static void tick_member(mr_decision *decision, mr_member *member) {
    int64_t now_ms = decision->now_ms;
    int64_t silent_ms = now_ms - member->heard_ms;
    mr_status why = MR_OK;
    if (silent_ms >= MR_HEARTBEAT_TIMEOUT_MS)
        why = MR_ERROR(UNAVAILABLE, "no heartbeat for %" PRId64 " ms", silent_ms);
    else if (member->state == MR_MEMBER_RELEASING && now_ms >= member->deadline_ms)
        why = MR_ERROR(DEADLINE_EXCEEDED, "job %s was not let go of in %d ms", member->job_id,
                       MR_ABORT_TIMEOUT_MS);
    else if (member->state == MR_MEMBER_DRAINING && now_ms >= member->deadline_ms)
        why = MR_ERROR(DEADLINE_EXCEEDED, "the stage did not exit when told to");
    if (mr_status_is_ok(why))
        return;
    if (member->state == MR_MEMBER_RELEASING)
        mr_decision_order_exit(decision, member);
    member_close(decision, member, why);
    member_lose(decision, member, why.text, false);
}

static void tick_members(mr_decision *decision) {
    mr_registry *registry = &decision->state->registry;
    for (size_t i = registry->count; i > 0; i--) {
        mr_member *member = registry->members[i - 1];
        if (member->state != MR_MEMBER_LOST)
            tick_member(decision, member);
        else if (decision->now_ms >= member->deadline_ms)
            mr_registry_remove(registry, member->number);
    }
}

static void tick_job(mr_decision *decision, mr_job_record *job) {
    mr_saves_tick(decision, job);
    mr_waiters_fail(decision, job, true,
                    MR_ERROR(DEADLINE_EXCEEDED, "job %s did not pause in %d s", job->facts.id,
                             MR_STEP_WAIT_TIMEOUT_MS / 1000));
    mr_job_machine_advance(decision, job);
}

static void decide_tick(mr_decision *decision) {
    mr_coordinator_state *state = decision->state;
    tick_members(decision);
    bool retry = state->store_error[0] != '\0' && decision->now_ms >= state->store_retry_ms;
    for (size_t i = 0; i < state->jobs.count; i++) {
        mr_job_record *job = state->jobs.records[i];
        if (mr_job_state_is_active(job->facts.state))
            tick_job(decision, job);
        if (retry && job->dirty)
            mr_decision_store(decision, job);
    }
    if (retry)
        state->store_retry_ms = decision->now_ms + MR_STORE_RETRY_MS;
}

/* ---- DISK ------------------------------------------------------------------------------------ */

static void decide_commit(mr_decision *decision, const mr_event *event) {
    mr_job_record *job = mr_jobs_resolve(&decision->state->jobs, event->job);
    if (job == NULL)
        return; /* ended and forgotten; the checkpoint stands all the same */
    mr_saves_committed(decision, job, event);
    mr_job_machine_advance(decision, job);
}

/* The model is cut: what follows knows the bounds. Too late, it is of no use. */
static void decide_cut(mr_decision *decision, const mr_event *event) {
    mr_job_spec *spec = event->u.cut.owned_spec;
    mr_job_record *job = mr_jobs_resolve(&decision->state->jobs, event->job);
    bool awaited = job != NULL && job->facts.state == MR_JOB_STARTING &&
                   job->phase == MR_START_CUTTING && event->epoch == job->facts.epoch;
    if (!awaited) {
        mr_job_spec_destroy(spec);
        return;
    }
    if (spec == NULL)
        mr_job_machine_end(decision, job, MR_JOB_FAILED, "the model was not cut: %s",
                           event->u.cut.status.text);
    else
        mr_job_machine_cut(decision, job, spec);
}

static void decide_stored(mr_decision *decision, const mr_event *event) {
    mr_coordinator_state *state = decision->state;
    mr_job_record *stored = mr_jobs_find(&state->jobs, event->u.stored.number);
    if (!mr_status_is_ok(event->u.stored.status)) {
        if (stored != NULL)
            stored->dirty = true;
        memcpy(state->store_error, event->u.stored.status.text, sizeof(state->store_error));
        state->store_retry_ms = decision->now_ms + MR_STORE_RETRY_MS;
        state->queue_changed = true;
        return;
    }
    if (stored != NULL)
        stored->dirty = false;
    if (state->store_error[0] == '\0')
        return;
    for (size_t i = 0; i < state->jobs.count; i++)
        if (state->jobs.records[i]->dirty)
            return;
    state->store_error[0] = '\0';
    state->queue_changed = true;
}

/* A job from the store, at start. One that was active has lost its members with the coordinator:
 * its epoch is burnt. */
static mr_status decide_restore(mr_decision *decision, const mr_event *event) {
    mr_coordinator_state *state = decision->state;
    const mr_job_facts *facts = event->u.restore.facts;
    mr_job_record *job = NULL;
    MR_TRY(mr_jobs_add(&state->jobs, facts, event->u.restore.owned_spec, &job));
    job->epoch_floor = event->u.restore.epoch_floor;
    if (state->job_last < facts->number)
        state->job_last = facts->number;
    if (state->epoch_last < facts->epoch)
        state->epoch_last = facts->epoch;
    if (mr_job_state_is_active(facts->state)) {
        const char *tag = facts->checkpoint_tag;
        mr_job_machine_end(
            decision, job, MR_JOB_FAILED, "coordinator restarted while it was %s%s%s",
            mr_job_state_name(facts->state), tag[0] == '\0' ? "" : "; newest checkpoint: ", tag);
    } else if (facts->state == MR_JOB_QUEUED && !mr_status_is_ok(event->u.restore.status)) {
        mr_job_machine_end(decision, job, MR_JOB_FAILED, "coordinator restarted: %s",
                           event->u.restore.status.text);
    }
    state->queue_changed = true;
    return MR_OK;
}

/* ---- the one way in -------------------------------------------------------------------------- */

static void event_release(const mr_event *event) {
    if (event->kind == MR_EVENT_SUBMIT)
        mr_job_spec_destroy(event->u.submit.owned_spec);
    else if (event->kind == MR_EVENT_RESTORE)
        mr_job_spec_destroy(event->u.restore.owned_spec);
    else if (event->kind == MR_EVENT_CUT)
        mr_job_spec_destroy(event->u.cut.owned_spec);
    else if (event->kind == MR_EVENT_PROFILED)
        mr_profile_device_destroy(event->u.profiled.owned_profile);
    else if (event->kind == MR_EVENT_SET)
        mr_job_spec_destroy(event->u.set.owned_spec);
}

static mr_status decide_dispatch(mr_decision *decision, const mr_event *event) {
    switch (event->kind) {
    case MR_EVENT_TICK:
        decide_tick(decision);
        return MR_OK;
    case MR_EVENT_ATTACHED:
        return decide_attached(decision, event);
    case MR_EVENT_LOST:
    case MR_EVENT_HEARTBEAT:
    case MR_EVENT_PREPARED:
    case MR_EVENT_CONNECTED:
    case MR_EVENT_STEP_DONE:
    case MR_EVENT_SAVED:
    case MR_EVENT_PAUSED:
    case MR_EVENT_FINISHED:
    case MR_EVENT_FAILED:
    case MR_EVENT_RELEASED:
    case MR_EVENT_FEED_STATE:
    case MR_EVENT_LEAVING:
    case MR_EVENT_PROFILED:
    case MR_EVENT_RESIZED:
        decide_member(decision, event);
        return MR_OK;
    case MR_EVENT_SUBMIT:
        return mr_requests_submit(decision, event);
    case MR_EVENT_PAUSE:
        mr_requests_pause(decision, event);
        return MR_OK;
    case MR_EVENT_RESUME:
        mr_requests_resume(decision, event);
        return MR_OK;
    case MR_EVENT_CANCEL:
        mr_requests_cancel(decision, event);
        return MR_OK;
    case MR_EVENT_SAVE:
        mr_requests_save(decision, event);
        return MR_OK;
    case MR_EVENT_SET:
        mr_requests_set(decision, event);
        return MR_OK;
    case MR_EVENT_DRAIN:
        mr_requests_drain(decision, event);
        return MR_OK;
    case MR_EVENT_COMMIT:
        decide_commit(decision, event);
        return MR_OK;
    case MR_EVENT_CUT:
        decide_cut(decision, event);
        return MR_OK;
    case MR_EVENT_STORED:
        decide_stored(decision, event);
        return MR_OK;
    case MR_EVENT_RESTORE:
        return decide_restore(decision, event);
    case MR_EVENT_KIND_COUNT:
        break;
    }
    MR_ASSERT(!"an event of no kind");
    return MR_OK;
}

mr_status mr_decide(mr_coordinator_state *state, const mr_event *event, mr_actions *actions) {
    mr_status status = mr_actions_reset(actions, state_actions_max(state, event));
    if (!mr_status_is_ok(status)) {
        event_release(event);
        return status;
    }
    mr_decision decision = {
        .state = state,
        .actions = actions,
        .now_ms = event->now_ms,
        .wall_ms = event->wall_ms,
    };
    MR_TRY(decide_dispatch(&decision, event));
    if (state->queue_changed)
        mr_scheduler_run(&decision);
    return MR_OK;
}

void mr_coordinator_state_deinit(mr_coordinator_state *state) {
    mr_jobs_deinit(&state->jobs);
    mr_registry_deinit(&state->registry);
    *state = (mr_coordinator_state){0};
}
