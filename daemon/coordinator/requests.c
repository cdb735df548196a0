/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/requests.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/coordinator/job_machine.h"
#include "daemon/coordinator/saves.h"
#include "daemon/coordinator/waiters.h"

/* ---- submit ---------------------------------------------------------------------------------- */

/* A job's id: its name, cut where the number would not fit, and its number. */
static void submit_facts(const mr_decision *decision, const mr_event *event, mr_job_facts *out) {
    const mr_job_spec *spec = event->u.submit.owned_spec;
    *out = (mr_job_facts){
        .number = decision->state->job_last + 1,
        .mode = spec->mode,
        .state = MR_JOB_QUEUED,
        .step = event->u.submit.start_step,
        .start_step = event->u.submit.start_step,
        .total_steps = spec->total_steps,
        .created_ms = decision->wall_ms,
        .predicted_step_seconds = spec->predicted_step_seconds,
        .predicted_bubble = spec->predicted_bubble,
    };
    (void)snprintf(out->id, sizeof(out->id), "%.40s-%" PRIu64, spec->name, out->number);
    memcpy(out->name, spec->name, sizeof(out->name));
    (void)snprintf(out->checkpoint_path, sizeof(out->checkpoint_path), "%s",
                   event->u.submit.checkpoint_path); /* as long as its field */
    if (event->u.submit.note != NULL)
        (void)snprintf(out->load_note, sizeof(out->load_note), "%s", event->u.submit.note);
    (void)snprintf(out->request_id, sizeof(out->request_id), "%s",
                   event->u.submit.request_id); /* checked by submit_check */
}

static mr_status submit_check(const mr_decision *decision, const mr_event *event) {
    const mr_job_spec *spec = event->u.submit.owned_spec;
    const mr_coordinator_state *state = decision->state;
    size_t id_bytes = strlen(event->u.submit.request_id);
    if (id_bytes >= MR_REQUEST_ID_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "request_id has %zu bytes; the limit is %d", id_bytes,
                        MR_REQUEST_ID_BYTES - 1);
    if (state->store_error[0] != '\0')
        return MR_ERROR(UNAVAILABLE, "the job cannot be stored now: %s", state->store_error);
    const mr_job_record *other =
        mr_job_mode_trains(spec->mode) ? mr_jobs_find_active(&state->jobs, spec->name) : NULL;
    if (other != NULL)
        return MR_ERROR(ALREADY_EXISTS, "name \"%s\" is held by job %s, which is %s", spec->name,
                        other->facts.id, mr_job_state_name(other->facts.state));
    if (mr_job_mode_trains(spec->mode) && event->u.submit.start_step > spec->total_steps)
        return MR_ERROR(FAILED_PRECONDITION,
                        "the checkpoint is at step %" PRIu64
                        " and lr_schedule.total_steps is %" PRIu64,
                        event->u.submit.start_step, spec->total_steps);
    return MR_OK;
}

mr_status mr_requests_submit(mr_decision *decision, const mr_event *event) {
    mr_coordinator_state *state = decision->state;
    mr_job_spec *spec = event->u.submit.owned_spec;
    mr_job_record *job = mr_jobs_find_request(&state->jobs, event->u.submit.request_id);
    if (job != NULL) {
        mr_job_spec_destroy(spec);
        mr_decision_answer_job(decision, event->request, job);
        return MR_OK;
    }
    mr_status checked = submit_check(decision, event);
    if (!mr_status_is_ok(checked)) {
        mr_job_spec_destroy(spec);
        mr_decision_answer_error(decision, event->request, checked);
        return MR_OK;
    }
    mr_job_facts facts;
    submit_facts(decision, event, &facts);
    mr_status added = mr_jobs_add(&state->jobs, &facts, spec, &job);
    if (!mr_status_is_ok(added)) {
        mr_decision_answer_error(decision, event->request, added);
        return MR_OK;
    }
    state->job_last = facts.number;
    state->queue_changed = true;
    job->epoch_floor = event->u.submit.epoch_floor;
    mr_decision_store(decision, job);
    mr_decision_answer_job(decision, event->request, job);
    return MR_OK;
}

/* ---- requests about one job ------------------------------------------------------------------ */

/* The job that a request names; NULL where there is none, and then the request is answered. */
static mr_job_record *request_job(mr_decision *decision, const mr_event *event) {
    mr_job_record *job = mr_jobs_resolve(&decision->state->jobs, event->job);
    if (job == NULL)
        mr_decision_answer_error(
            decision, event->request,
            MR_ERROR(NOT_FOUND, "no job has the id or name \"%s\"", event->job));
    return job;
}

static void request_refuse(mr_decision *decision, const mr_event *event, const mr_job_record *job,
                           const char *wanted) {
    mr_decision_answer_error(decision, event->request,
                             MR_ERROR(FAILED_PRECONDITION, "job %s is %s%s%s; it must be %s",
                                      job->facts.id, mr_job_state_name(job->facts.state),
                                      job->facts.reason[0] == '\0' ? "" : ": ", job->facts.reason,
                                      wanted));
}

void mr_requests_pause(mr_decision *decision, const mr_event *event) {
    mr_job_record *job = request_job(decision, event);
    if (job == NULL)
        return;
    if (job->facts.state == MR_JOB_PAUSED) {
        mr_decision_answer_job(decision, event->request, job);
        return;
    }
    if (job->facts.state != MR_JOB_RUNNING || job->finishing) {
        request_refuse(decision, event, job, "RUNNING, before its last step");
        return;
    }
    mr_status added = mr_waiters_add(decision, job, event->request, NULL, MR_STEP_WAIT_TIMEOUT_MS);
    if (!mr_status_is_ok(added)) {
        mr_decision_answer_error(decision, event->request, added);
        return;
    }
    mr_job_machine_explain(decision, job, "pausing at the next step");
    mr_job_machine_pause(decision, job);
}

void mr_requests_resume(mr_decision *decision, const mr_event *event) {
    mr_job_record *job = request_job(decision, event);
    if (job == NULL)
        return;
    bool running = job->facts.state == MR_JOB_RUNNING && !job->pausing;
    if (job->facts.state != MR_JOB_PAUSED && !running) {
        request_refuse(decision, event, job, "PAUSED");
        return;
    }
    if (!running)
        mr_job_machine_run(decision, job);
    mr_decision_answer_job(decision, event->request, job);
}

void mr_requests_cancel(mr_decision *decision, const mr_event *event) {
    mr_job_record *job = request_job(decision, event);
    if (job == NULL)
        return;
    if (mr_job_state_is_final(job->facts.state) && job->facts.state != MR_JOB_CANCELLED) {
        request_refuse(decision, event, job, "queued or active");
        return;
    }
    if (job->facts.state != MR_JOB_CANCELLED)
        mr_job_machine_end(decision, job, MR_JOB_CANCELLED, "cancelled on request");
    mr_decision_answer_job(decision, event->request, job);
}

/* May the job be saved now, under this tag? */
static mr_status save_check(const mr_job_record *job, const mr_event *event) {
    const char *tag = event->u.save.tag;
    bool stands = job->facts.state == MR_JOB_RUNNING || job->facts.state == MR_JOB_PAUSED ||
                  job->facts.state == MR_JOB_CHECKPOINTING;
    if (!stands || job->finishing)
        return MR_ERROR(FAILED_PRECONDITION,
                        "job %s is %s; only a job that runs or is paused, before its last step, "
                        "can be saved",
                        job->facts.id, mr_job_state_name(job->facts.state));
    if (!mr_job_spec_saves(job->spec))
        return MR_ERROR(FAILED_PRECONDITION, "job %s has no checkpoint.dir to save to",
                        job->facts.id);
    if (tag[0] != '\0')
        MR_TRY(mr_layout_user_tag_check(tag));
    if (event->u.save.tag_taken)
        return MR_ERROR(ALREADY_EXISTS, "tag \"%.64s\" stands in %.120s already", tag,
                        job->spec->checkpoint_dir);
    return mr_waiters_check(job);
}

void mr_requests_save(mr_decision *decision, const mr_event *event) {
    mr_job_record *job = request_job(decision, event);
    if (job == NULL)
        return;
    bool paused = job->facts.state == MR_JOB_PAUSED;
    mr_job_save *save = NULL;
    mr_status status = save_check(job, event);
    if (mr_status_is_ok(status))
        status = mr_saves_ask(decision, job, event->u.save.tag, &save);
    if (mr_status_is_ok(status))
        status = mr_waiters_add(decision, job, event->request, save, MR_SAVE_TIMEOUT_MS);
    if (!mr_status_is_ok(status)) {
        mr_decision_answer_error(decision, event->request, status);
        return;
    }
    if (paused)
        mr_job_machine_set(decision, job, MR_JOB_CHECKPOINTING, "saving on request");
}

/* Settings are part of the job's file from here on, so that its next start has them, too. Only rank
 * 0 is told: it picks the boundary, and the others learn it there. */
static mr_status set_check(const mr_job_record *job, const mr_event *event) {
    mr_job_state state = job->facts.state;
    bool stands = state == MR_JOB_QUEUED || state == MR_JOB_RUNNING || state == MR_JOB_PAUSED ||
                  state == MR_JOB_CHECKPOINTING;
    if (!stands || job->finishing)
        return MR_ERROR(FAILED_PRECONDITION,
                        "job %s is %s; only a job that is queued, runs or is paused, before its "
                        "last step, can be changed",
                        job->facts.id, mr_job_state_name(state));
    if (strcmp(job->spec->job_file, event->u.set.old_file) != 0)
        return MR_ERROR(ABORTED, "job %s was changed by somebody else meanwhile; try again",
                        job->facts.id);
    return MR_OK;
}

void mr_requests_set(mr_decision *decision, const mr_event *event) {
    mr_job_spec *spec = event->u.set.owned_spec;
    mr_job_record *job = request_job(decision, event);
    mr_status status = job == NULL ? MR_OK : set_check(job, event);
    if (job == NULL || !mr_status_is_ok(status)) {
        mr_job_spec_destroy(spec);
        if (job != NULL)
            mr_decision_answer_error(decision, event->request, status);
        return;
    }
    MR_ASSERT(spec->rank_count == job->spec->rank_count);
    mr_job_spec_destroy(job->spec);
    job->spec = spec;
    mr_decision_store(decision, job);
    if (job->facts.state != MR_JOB_QUEUED) {
        mr_action *order = mr_decision_order(decision, job, 0, MR_ORDER_SET);
        if (order != NULL)
            order->job = job;
    }
    mr_decision_answer_job(decision, event->request, job);
}

/* ---- drain ----------------------------------------------------------------------------------- */

void mr_requests_drain_member(mr_decision *decision, mr_member *member) {
    mr_coordinator_state *state = decision->state;
    if (member->draining)
        return;
    member->draining = true;
    state->queue_changed = true;
    mr_job_record *job = mr_jobs_find(&state->jobs, member->job);
    if (member->state == MR_MEMBER_IDLE)
        mr_decision_shut_down(decision, member);
    else if (job != NULL && mr_job_state_is_active(job->facts.state))
        mr_job_machine_drain(decision, job, member->rank);
}

void mr_requests_drain(mr_decision *decision, const mr_event *event) {
    const char *id = event->u.drain.member_id;
    mr_member *member = mr_registry_find_id(&decision->state->registry, id);
    if (member == NULL || member->state == MR_MEMBER_LOST) {
        mr_decision_answer_error(decision, event->request,
                                 MR_ERROR(NOT_FOUND, "no attached stage has the id \"%s\"", id));
        return;
    }
    mr_action *answer = mr_actions_add(decision->actions, MR_ACTION_ANSWER);
    answer->request = event->request;
    answer->reply = MR_REPLY_MEMBER;
    answer->member = member->number;
    mr_requests_drain_member(decision, member);
}
