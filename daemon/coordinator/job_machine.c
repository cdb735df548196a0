/* SPDX-License-Identifier: Apache-2.0 */
/* The one switch over a job's state is in mr_job_machine_advance. Everything above it is a leaf: it
 * asks one question of the record or makes one move. */
#include "daemon/coordinator/job_machine.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/coordinator/saves.h"
#include "daemon/coordinator/waiters.h"

void mr_job_machine_rank_name(const mr_decision *decision, const mr_job_record *job, uint32_t rank,
                              char out_name[MR_RANK_NAME_BYTES]) {
    const mr_member *member = mr_registry_find(&decision->state->registry, job->ranks[rank].member);
    uint32_t stage = job->spec->ranks[rank].stage;
    if (member == NULL)
        (void)snprintf(out_name, MR_RANK_NAME_BYTES, "stage %u (rank %u)", stage, rank);
    else
        (void)snprintf(out_name, MR_RANK_NAME_BYTES, "stage %u (rank %u, member %s at %s)", stage,
                       rank, member->id, member->address); /* fits: an address is under 128 bytes */
}

/* ---- moves ----------------------------------------------------------------------------------- */

/* A reason is read by people and by other languages, which insist on valid text; it may hold pieces
 * of names, cut anywhere. */
static void reason_clean(char *reason) {
    for (unsigned char *at = (unsigned char *)reason; *at != '\0'; at++)
        if (*at < 0x20 || *at > 0x7e)
            *at = '?';
}

static void machine_set(mr_decision *decision, mr_job_record *job, mr_job_state state,
                        const char *format, va_list arguments) {
    mr_job_facts *facts = &job->facts;
    MR_ASSERT(!mr_job_state_is_final(facts->state));
    facts->state = state;
    (void)vsnprintf(facts->reason, sizeof(facts->reason), format, arguments); /* cut on purpose */
    reason_clean(facts->reason);
    if (state == MR_JOB_STARTING)
        facts->started_ms = decision->wall_ms;
    if (mr_job_state_is_final(state))
        facts->ended_ms = decision->wall_ms;
    job->queue_position = 0;
    mr_decision_store(decision, job);
    mr_decision_notify(decision, job, 0);
}

void mr_job_machine_set(mr_decision *decision, mr_job_record *job, mr_job_state state,
                        const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    machine_set(decision, job, state, format, arguments);
    va_end(arguments);
}

void mr_job_machine_explain(mr_decision *decision, mr_job_record *job, const char *format, ...) {
    char reason[MR_STATUS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(reason, sizeof(reason), format, arguments); /* cut on purpose */
    va_end(arguments);
    reason_clean(reason);
    if (strcmp(reason, job->facts.reason) == 0)
        return;
    memcpy(job->facts.reason, reason, sizeof(reason));
    mr_decision_notify(decision, job, 0);
}

/* Forgets what was true in the last epoch; a new epoch of the job begins. */
static void machine_new_epoch(mr_decision *decision, mr_job_record *job) {
    mr_coordinator_state *state = decision->state;
    if (state->epoch_last < job->epoch_floor)
        state->epoch_last = job->epoch_floor;
    if (state->epoch_last < job->facts.epoch)
        state->epoch_last = job->facts.epoch;
    job->facts.epoch = ++state->epoch_last;
    mr_group_ids_clear(&job->group_ids); /* an id is of one epoch */
}

/* What dead epochs left in the checkpoint folder goes, unless another active job uses the folder:
 * its epoch may be the lower one. */
static void machine_sweep(mr_decision *decision, mr_job_record *job) {
    const mr_jobs *jobs = &decision->state->jobs;
    if (!mr_job_spec_saves(job->spec))
        return;
    for (size_t i = 0; i < jobs->count; i++) {
        const mr_job_record *other = jobs->records[i];
        if (other != job && mr_job_state_is_active(other->facts.state) &&
            strcmp(other->spec->checkpoint_dir, job->spec->checkpoint_dir) == 0)
            return;
    }
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_SWEEP);
    action->job = job;
    action->epoch = job->facts.epoch;
}

void mr_job_machine_pause(mr_decision *decision, mr_job_record *job) {
    if (job->pausing)
        return;
    job->pausing = true;
    mr_decision_order_all(decision, job, MR_ORDER_PAUSE, "", 0);
}

void mr_job_machine_run(mr_decision *decision, mr_job_record *job) {
    for (size_t i = 0; i < job->spec->rank_count; i++) {
        job->ranks[i].paused = false;
        job->ranks[i].feed_idle_since_ms = decision->now_ms;
    }
    mr_job_machine_set(decision, job, MR_JOB_RUNNING, "%s", "");
    mr_decision_order_all(decision, job, MR_ORDER_RUN, "", 0);
}

/* Tells every member that is still there to let go of the job. */
static void machine_release(mr_decision *decision, mr_job_record *job, mr_order order) {
    mr_decision_order_all(decision, job, order, "", 0);
    for (size_t i = 0; i < job->spec->rank_count; i++) {
        mr_member *member = mr_registry_find(&decision->state->registry, job->ranks[i].member);
        if (member == NULL || member->state == MR_MEMBER_LOST)
            continue;
        MR_ASSERT(member->job == job->facts.number);
        member->state = MR_MEMBER_RELEASING;
        member->deadline_ms = decision->now_ms + MR_ABORT_TIMEOUT_MS;
    }
    decision->state->queue_changed = true;
}

void mr_job_machine_end(mr_decision *decision, mr_job_record *job, mr_job_state state,
                        const char *format, ...) {
    MR_ASSERT(state == MR_JOB_FAILED || state == MR_JOB_CANCELLED);
    char reason[MR_STATUS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(reason, sizeof(reason), format, arguments); /* cut on purpose */
    va_end(arguments);
    bool active = mr_job_state_is_active(job->facts.state);
    mr_status why =
        MR_ERROR(ABORTED, "job %s is %s: %s", job->facts.id, mr_job_state_name(state), reason);
    mr_saves_end(decision, job, why);
    mr_waiters_fail(decision, job, false, why);
    machine_new_epoch(decision, job);
    mr_job_machine_set(decision, job, state, "%s", reason);
    if (active)
        machine_release(decision, job, MR_ORDER_ABORT);
    decision->state->queue_changed = true;
}

static void machine_succeed(mr_decision *decision, mr_job_record *job) {
    mr_status why = MR_ERROR(FAILED_PRECONDITION, "job %s has taken its last step", job->facts.id);
    mr_saves_end(decision, job, why);
    mr_waiters_fail(decision, job, false, why);
    mr_job_machine_set(decision, job, MR_JOB_SUCCEEDED, "%s", "");
    machine_release(decision, job, MR_ORDER_RELEASE);
}

static void machine_prepare(mr_decision *decision, mr_job_record *job) {
    size_t count = job->spec->rank_count;
    job->phase = MR_START_PREPARING;
    job->deadline_ms = decision->now_ms + MR_PREPARE_TIMEOUT_MS + MR_STARTING_SLACK_MS;
    mr_job_machine_set(decision, job, MR_JOB_STARTING, "%zu stage%s build their layers", count,
                       count == 1 ? "" : "s");
    mr_decision_order_all(decision, job, MR_ORDER_PREPARE, "", 0);
}

/* Asks those members for the layers' times that the job's profile does not know. */
static void machine_profile(mr_decision *decision, mr_job_record *job) {
    const mr_profile *profile = job->spec->profile;
    size_t asked = 0;
    for (uint32_t i = 0; i < job->spec->rank_count; i++) {
        mr_job_rank *rank = &job->ranks[i];
        const mr_member *member = mr_registry_find(&decision->state->registry, rank->member);
        if (profile != NULL && job->spec->mode != MR_JOB_MODE_PROFILE) {
            rank->profile_entry =
                mr_profile_match(profile, member->device, member->threads, member->address);
            rank->profiled = rank->profile_entry < profile->device_count;
        }
        asked += !rank->profiled;
    }
    job->phase = MR_START_PROFILING;
    job->deadline_ms = decision->now_ms + MR_PROFILE_TIMEOUT_MS + MR_STARTING_SLACK_MS;
    if (asked == 0)
        mr_job_machine_set(decision, job, MR_JOB_STARTING, "the layers' times are known");
    else
        mr_job_machine_set(decision, job, MR_JOB_STARTING, "%zu stage%s time the layers", asked,
                           asked == 1 ? "" : "s");
    for (uint32_t i = 0; i < job->spec->rank_count; i++)
        if (!job->ranks[i].profiled)
            (void)mr_decision_order(decision, job, i, MR_ORDER_PROFILE); /* needs nothing more */
    mr_job_machine_advance(decision, job);
}

void mr_job_machine_start(mr_decision *decision, mr_job_record *job) {
    MR_ASSERT(job->facts.state == MR_JOB_QUEUED);
    const mr_registry *registry = &decision->state->registry;
    machine_new_epoch(decision, job);
    size_t rank = 0;
    for (size_t i = 0; i < registry->count && rank < job->spec->rank_count; i++) {
        mr_member *member = registry->members[i];
        if (!mr_member_is_idle(member))
            continue;
        member->state = MR_MEMBER_PREPARING;
        member->job = job->facts.number;
        memcpy(member->job_id, job->facts.id, sizeof(member->job_id));
        member->rank = (uint32_t)rank;
        member->epoch = job->facts.epoch;
        job->ranks[rank++] = (mr_job_rank){.member = member->number};
    }
    MR_ASSERT(rank == job->spec->rank_count);
    if (job->spec->profiles)
        machine_profile(decision, job);
    else
        machine_prepare(decision, job);
    machine_sweep(decision, job);
}

void mr_job_machine_cut(mr_decision *decision, mr_job_record *job, mr_job_spec *owned_spec) {
    MR_ASSERT(job->phase == MR_START_CUTTING);
    MR_ASSERT(owned_spec->rank_count == job->spec->rank_count);
    mr_job_record_forget_profiles(job);
    mr_job_spec_destroy(job->spec);
    job->spec = owned_spec;
    job->facts.predicted_step_seconds = owned_spec->predicted_step_seconds;
    job->facts.predicted_bubble = owned_spec->predicted_bubble;
    if (owned_spec->mode == MR_JOB_MODE_PROFILE)
        machine_succeed(decision, job);
    else
        machine_prepare(decision, job);
}

void mr_job_machine_fail(mr_decision *decision, mr_job_record *job, uint32_t rank, mr_code code,
                         const char *text, bool secondary) {
    mr_job_failure *failure = &job->failure;
    if (failure->noted && (secondary || !failure->secondary))
        return;
    if (!failure->noted)
        failure->deadline_ms = decision->now_ms + MR_SECONDARY_WAIT_MS;
    failure->noted = true;
    failure->secondary = secondary;
    failure->rank = rank;
    failure->code = code;
    char name[MR_RANK_NAME_BYTES];
    mr_job_machine_rank_name(decision, job, rank, name);
    (void)snprintf(failure->text, sizeof(failure->text), "%s: %s: %s", name, mr_code_name(code),
                   text); /* cut on purpose */
}

void mr_job_machine_drain(mr_decision *decision, mr_job_record *job, uint32_t rank) {
    char name[MR_RANK_NAME_BYTES];
    mr_job_machine_rank_name(decision, job, rank, name);
    if (job->facts.state == MR_JOB_DRAINING || job->finishing)
        return;
    if (job->facts.state == MR_JOB_STARTING || !mr_job_spec_saves(job->spec)) {
        mr_job_machine_end(decision, job, MR_JOB_FAILED, "%s was drained; nothing was saved", name);
        return;
    }
    bool paused = job->facts.state == MR_JOB_PAUSED || job->facts.state == MR_JOB_CHECKPOINTING;
    job->drain_rank = rank;
    job->drain_saving = false;
    job->deadline_ms = decision->now_ms + MR_STEP_WAIT_TIMEOUT_MS;
    mr_job_machine_set(decision, job, MR_JOB_DRAINING, "%s is drained; the job is saved first",
                       name);
    if (!paused)
        mr_job_machine_pause(decision, job);
}

/* ---- questions ------------------------------------------------------------------------------- */

/* The first rank that has not done what done() says; rank_count where all have. */
static uint32_t machine_laggard(const mr_job_record *job, bool (*done)(const mr_job_rank *rank)) {
    uint32_t rank = 0;
    while (rank < job->spec->rank_count && done(&job->ranks[rank]))
        rank++;
    return rank;
}

static bool rank_is_profiled(const mr_job_rank *rank) {
    return rank->profiled;
}
static bool rank_is_prepared(const mr_job_rank *rank) {
    return rank->prepared;
}
static bool rank_is_connected(const mr_job_rank *rank) {
    return rank->connected;
}
static bool rank_is_paused(const mr_job_rank *rank) {
    return rank->paused;
}
static bool rank_is_finished(const mr_job_rank *rank) {
    return rank->finished;
}

/* Has a member of the job missed a heartbeat? It may be the cause of what others saw. */
static bool machine_has_silent_member(const mr_decision *decision, const mr_job_record *job) {
    for (size_t i = 0; i < job->spec->rank_count; i++) {
        const mr_member *member =
            mr_registry_find(&decision->state->registry, job->ranks[i].member);
        if (member != NULL && member->state != MR_MEMBER_LOST &&
            decision->now_ms - member->heard_ms >= MR_SILENT_MS)
            return true;
    }
    return false;
}

/* Ends the job when its failure is known well enough. True: it has ended. */
static bool machine_fail_if_due(mr_decision *decision, mr_job_record *job) {
    const mr_job_failure *failure = &job->failure;
    if (!failure->noted)
        return false;
    bool due = !failure->secondary || (decision->now_ms >= failure->deadline_ms &&
                                       !machine_has_silent_member(decision, job));
    if (!due)
        return false;
    const char *tag = job->facts.checkpoint_tag;
    mr_job_machine_end(decision, job, MR_JOB_FAILED, "%s%s%s", failure->text,
                       tag[0] == '\0' ? "" : "; newest checkpoint: ", tag);
    return true;
}

/* A rank is late in STARTING: that is the failure. */
static void machine_late(mr_decision *decision, mr_job_record *job, uint32_t rank,
                         const char *awaited, int64_t bound_ms) {
    char text[MR_STATUS_TEXT_BYTES];
    (void)snprintf(text, sizeof(text), "no %s in %" PRId64 " s", awaited, bound_ms / 1000);
    mr_job_machine_fail(decision, job, rank, MR_CODE_DEADLINE_EXCEEDED, text, false);
}

/* What a phase of STARTING waits for, of each rank. */
typedef struct start_phase {
    bool (*done)(const mr_job_rank *rank);
    const char *awaited;
    int64_t bound_ms;
} start_phase;

static const start_phase start_phases[MR_START_PHASE_COUNT] = {
    [MR_START_PROFILING] = {rank_is_profiled, "Profiled", MR_PROFILE_TIMEOUT_MS},
    [MR_START_CUTTING] = {rank_is_profiled, "", MR_PREPARE_TIMEOUT_MS},
    [MR_START_PREPARING] = {rank_is_prepared, "Prepared", MR_PREPARE_TIMEOUT_MS},
    [MR_START_CONNECTING] = {rank_is_connected, "Connected", MR_CONNECT_TIMEOUT_MS},
};

static void machine_enter(mr_decision *decision, mr_job_record *job, mr_start_phase phase,
                          const char *doing) {
    size_t count = job->spec->rank_count;
    job->phase = phase;
    job->deadline_ms = decision->now_ms + start_phases[phase].bound_ms + MR_STARTING_SLACK_MS;
    mr_job_machine_explain(decision, job, "%zu stage%s %s", count, count == 1 ? "" : "s", doing);
}

static void machine_go_running(mr_decision *decision, mr_job_record *job) {
    for (size_t i = 0; i < job->spec->rank_count; i++) {
        mr_member *member = mr_registry_find(&decision->state->registry, job->ranks[i].member);
        if (member != NULL && member->state == MR_MEMBER_PREPARING)
            member->state = MR_MEMBER_RUNNING;
    }
    mr_job_machine_run(decision, job);
}

static void machine_advance_starting(mr_decision *decision, mr_job_record *job) {
    const start_phase *phase = &start_phases[job->phase];
    uint32_t laggard = machine_laggard(job, phase->done);
    bool late = decision->now_ms >= job->deadline_ms;
    if (laggard < job->spec->rank_count) {
        if (late)
            machine_late(decision, job, laggard, phase->awaited,
                         phase->bound_ms + MR_STARTING_SLACK_MS);
        return;
    }
    switch (job->phase) {
    case MR_START_PROFILING:
        machine_enter(decision, job, MR_START_CUTTING, "wait for the cut of the model");
        mr_action *cut = mr_actions_add(decision->actions, MR_ACTION_CUT);
        cut->job = job;
        cut->epoch = job->facts.epoch;
        break;
    case MR_START_CUTTING: /* goes on with MR_EVENT_CUT */
        if (late)
            mr_job_machine_end(decision, job, MR_JOB_FAILED, "the model was not cut in %d s",
                               (MR_PREPARE_TIMEOUT_MS + MR_STARTING_SLACK_MS) / 1000);
        break;
    case MR_START_PREPARING:
        machine_enter(decision, job, MR_START_CONNECTING, "connect");
        mr_decision_order_all(decision, job, MR_ORDER_CONNECT, "", 0);
        break;
    case MR_START_CONNECTING:
        machine_go_running(decision, job);
        break;
    case MR_START_PHASE_COUNT:
        MR_ASSERT(!"no phase");
    }
}

/* Every rank has taken the last step: the job has succeeded when its last checkpoint stands. */
static void machine_advance_finishing(mr_decision *decision, mr_job_record *job) {
    bool trains = mr_job_mode_trains(job->spec->mode);
    uint32_t laggard =
        trains ? machine_laggard(job, rank_is_finished) : (uint32_t)job->spec->rank_count;
    bool late = decision->now_ms >= job->deadline_ms;
    if (laggard < job->spec->rank_count) {
        if (late)
            machine_late(decision, job, laggard, "Finished", MR_STEP_WAIT_TIMEOUT_MS);
        return;
    }
    bool saved = !mr_job_spec_saves(job->spec) || job->finish_step == job->facts.start_step ||
                 (job->committed && job->committed_step == job->finish_step);
    if (saved) {
        machine_succeed(decision, job);
        return;
    }
    mr_job_machine_explain(decision, job, "saving the last step");
    if (job->save_failed && job->save_failed_step == job->finish_step)
        mr_job_machine_end(decision, job, MR_JOB_FAILED, "the last checkpoint was not saved: %s",
                           job->save_failed_text);
    else if (late && !mr_saves_is_committing(job, job->finish_step))
        mr_job_machine_end(decision, job, MR_JOB_FAILED,
                           "the last checkpoint was not saved: not reported in %d s",
                           MR_SAVE_TIMEOUT_MS / 1000);
}

/* A step needs the microbatches of every replica, so one that nobody feeds is named before its
 * peers give up waiting for it inside the step. */
static void machine_check_feeds(mr_decision *decision, mr_job_record *job) {
    size_t replicas = 0;
    size_t idle = SIZE_MAX;
    for (size_t i = 0; i < job->spec->rank_count; i++) {
        const mr_job_rank *rank = &job->ranks[i];
        if (!job->spec->ranks[i].first)
            continue;
        if (idle == SIZE_MAX && !rank->feed_open &&
            (replicas == 0 || mr_job_mode_trains(job->spec->mode)) &&
            decision->now_ms - rank->feed_idle_since_ms >= MR_FEED_IDLE_TIMEOUT_MS)
            idle = replicas;
        replicas++;
    }
    if (idle == SIZE_MAX)
        return;
    char fed[32] = "the job";
    if (replicas > 1)
        (void)snprintf(fed, sizeof(fed), "replica %zu", idle);
    mr_job_machine_end(decision, job, MR_JOB_FAILED,
                       "no client has fed %s for %d s: each step waits for its microbatches", fed,
                       MR_FEED_IDLE_TIMEOUT_MS / 1000);
}

static void machine_advance_running(mr_decision *decision, mr_job_record *job) {
    if (job->finishing) {
        machine_advance_finishing(decision, job);
        return;
    }
    if (job->pausing && machine_laggard(job, rank_is_paused) == job->spec->rank_count) {
        job->pausing = false;
        mr_job_machine_set(decision, job, MR_JOB_PAUSED, "paused on request; resume it to go on");
        mr_waiters_paused(decision, job);
        return;
    }
    machine_check_feeds(decision, job);
}

/* Does a checkpoint of the step where the job stands exist? */
static bool machine_is_saved(const mr_job_record *job) {
    return job->committed && job->committed_step == job->facts.step;
}

/* Pause, then save, then end: the member that is drained leaves nothing behind. */
static void machine_advance_draining(mr_decision *decision, mr_job_record *job) {
    if (job->finishing) {
        machine_advance_finishing(decision, job);
        return;
    }
    char name[MR_RANK_NAME_BYTES];
    mr_job_machine_rank_name(decision, job, job->drain_rank, name);
    if (!job->drain_saving) {
        uint32_t laggard = machine_laggard(job, rank_is_paused);
        if (laggard < job->spec->rank_count) {
            if (decision->now_ms >= job->deadline_ms)
                mr_job_machine_end(decision, job, MR_JOB_FAILED,
                                   "%s was drained; the job did not pause in %d s, rank %u is late",
                                   name, MR_STEP_WAIT_TIMEOUT_MS / 1000, laggard);
            return;
        }
        job->pausing = false;
        job->drain_saving = true;
        mr_job_save *save = NULL;
        mr_status asked = machine_is_saved(job) ? MR_OK : mr_saves_ask(decision, job, "", &save);
        if (!mr_status_is_ok(asked)) {
            mr_job_machine_end(decision, job, MR_JOB_FAILED, "%s was drained; not saved: %s", name,
                               asked.text);
            return;
        }
    }
    if (mr_saves_asked_pending(job))
        return;
    if (machine_is_saved(job))
        mr_job_machine_end(decision, job, MR_JOB_FAILED,
                           "%s was drained; saved as %s: submit the job again with resume", name,
                           job->facts.checkpoint_tag);
    else
        mr_job_machine_end(decision, job, MR_JOB_FAILED, "%s was drained; not saved: %s", name,
                           job->save_failed_text);
}

void mr_job_machine_advance(mr_decision *decision, mr_job_record *job) {
    if (mr_job_state_is_active(job->facts.state) && machine_fail_if_due(decision, job))
        return;
    switch (job->facts.state) {
    case MR_JOB_STARTING:
        machine_advance_starting(decision, job);
        break;
    case MR_JOB_RUNNING:
        machine_advance_running(decision, job);
        break;
    case MR_JOB_CHECKPOINTING:
        if (!mr_saves_asked_pending(job))
            mr_job_machine_set(decision, job, MR_JOB_PAUSED,
                               "paused on request; resume it to go on");
        break;
    case MR_JOB_DRAINING:
        machine_advance_draining(decision, job);
        break;
    case MR_JOB_QUEUED:    /* scheduler.h */
    case MR_JOB_PAUSED:    /* waits for a client's word */
    case MR_JOB_SUCCEEDED: /* the end */
    case MR_JOB_FAILED:
    case MR_JOB_CANCELLED:
    case MR_JOB_STATE_COUNT:
        break;
    }
    /* A move may have made a failure final (a rank that is late). */
    if (mr_job_state_is_active(job->facts.state))
        (void)machine_fail_if_due(decision, job);
}
