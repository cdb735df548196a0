/* SPDX-License-Identifier: Apache-2.0 */
/* What people and Prometheus see of a coordinator: once a second its state as one JSON text, and
 * the gauges; counters move when things happen. The series of a job that has ended are dropped when
 * it is no longer among the newest. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "daemon/base/clock.h"
#include "daemon/base/version.h"
#include "daemon/coordinator/runtime.h"

enum {
    BOARD_PERIOD_MS = 1000,
    BOARD_FORGET_MS = 3 * BOARD_PERIOD_MS,
    BOARD_HASH_BYTES = 13,
    BOARD_ENDED_JOBS_MAX = 16,     /* of those that have ended, so many are shown */
};

static_assert((int)BOARD_FORGET_MS < (int)MR_MEMBER_LEAVE_MS,
              "a member is seen as lost before it is forgotten");

/* ---- /status --------------------------------------------------------------------------------- */

static json_t *board_memory(const mr_memory_bytes *memory) {
    return json_pack("{s:I,s:I,s:I,s:I}", "weights", (json_int_t)memory->weights, "gradients",
                     (json_int_t)memory->gradients, "optimizer", (json_int_t)memory->optimizer,
                     "activations", (json_int_t)memory->activations);
}

/* JSON has no form of what is not finite. */
static json_t *board_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *board_commits(const mr_job_record *job) {
    json_t *list = json_array();
    for (size_t i = 0; i < job->commit_count; i++) {
        const mr_job_commit *commit = &job->commits[i];
        char path[MR_PATH_BYTES + MR_NAME_BYTES];
        (void)snprintf(path, sizeof(path), "%s/%s", job->spec->checkpoint_dir, commit->tag);
        (void)json_array_append_new(
            list, json_pack("{s:s, s:s, s:I, s:I, s:I}", "tag", commit->tag, "path", path, "step",
                            (json_int_t)commit->step, "bytes", (json_int_t)commit->bytes,
                            "committed_ms", (json_int_t)commit->at_ms)); /* NULL is refused */
    }
    return list;
}

/* What only some jobs have. */
static json_t *board_job_add(json_t *root, const mr_job_record *job) {
    (void)json_object_set_new(root, "queue_position", json_integer(job->queue_position));
    (void)json_object_set_new(root, "step_seconds",
                              board_number(job->facts.result.step_seconds));
    (void)json_object_set_new(root, "bubble_planned", board_number(job->spec->bubble_planned));
    (void)json_object_set_new(root, "checkpoints", board_commits(job)); /* all refuse NULL */
    return root;
}

static json_t *board_job(const mr_coordinator *coordinator, const mr_job_record *job) {
    const mr_job_facts *facts = &job->facts;
    json_t *stages = json_array();
    for (uint32_t rank = 0; rank < job->spec->rank_count; rank++) {
        const mr_member *member =
            mr_registry_find(&coordinator->state.registry, job->ranks[rank].member);
        const mr_spec_rank *planned = &job->spec->ranks[rank];
        (void)json_array_append_new(
            stages,
            json_pack("{s:i, s:i, s:[i,i], s:s?, s:o, s:o}", "rank", (int)rank, "stage",
                      (int)planned->stage, "layers", (int)planned->layer_first,
                      (int)planned->layer_end, "member", member == NULL ? NULL : member->id,
                      "memory_bytes", board_memory(&planned->memory), "memory_held_bytes",
                      job->ranks[rank].held_known ? board_memory(&job->ranks[rank].held)
                                                  : json_null())); /* NULL is refused */
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:s, "
        "s:o}",
        "id", facts->id, "name", facts->name, "state", mr_job_state_name(facts->state), "reason",
        facts->reason, "mode", mr_job_mode_name(facts->mode), "epoch",
        (json_int_t)facts->epoch, "step", (json_int_t)facts->step, "total_steps",
        (json_int_t)facts->total_steps, "loss", board_number(facts->result.loss), "grad_norm",
        board_number(facts->result.gradient_norm), "lr",
        board_number(facts->result.learning_rate), "tokens_per_second",
        board_number(facts->result.tokens_per_second), "bubble",
        board_number(facts->result.bubble), "created_ms",
        (json_int_t)facts->created_ms, "started_ms", (json_int_t)facts->started_ms, "ended_ms",
        (json_int_t)facts->ended_ms, "checkpoint", facts->checkpoint_tag, "stages", stages);
    return root == NULL ? NULL : board_job_add(root, job);
}

static json_t *board_member(const mr_member *member, int64_t now_ms) {
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:I}", "id",
                     member->id, "state", mr_member_state_name(member), "device",
                     member->device, "threads", (int)member->threads, "address", member->address,
                     "status_address", member->status_address, "job", member->job_id, "rank",
                     (int)member->rank,
                     "heartbeat_age_ms", (json_int_t)(now_ms - member->heard_ms), "step",
                     (json_int_t)member->step, "instruction", member->instruction,
                     "memory_bytes", (json_int_t)member->memory_bytes);
}

/* Every job that has not ended, and the newest of the others; newest first. */
static json_t *board_jobs(const mr_coordinator *coordinator) {
    const mr_jobs *jobs = &coordinator->state.jobs;
    json_t *list = json_array();
    size_t ended = 0;
    for (size_t i = jobs->count; i > 0; i--) {
        const mr_job_record *job = jobs->records[i - 1];
        if (mr_job_state_is_final(job->facts.state) && ++ended > BOARD_ENDED_JOBS_MAX)
            continue;
        (void)json_array_append_new(list, board_job(coordinator, job)); /* NULL is refused */
    }
    return list;
}

static json_t *board_members(const mr_coordinator *coordinator, int64_t now_ms) {
    const mr_registry *registry = &coordinator->state.registry;
    json_t *list = json_array();
    for (size_t i = 0; i < registry->count; i++)
        (void)json_array_append_new(list, board_member(registry->members[i], now_ms));
    return list;
}

static void board_publish(mr_coordinator *coordinator, int64_t now_ms) {
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:o, s:o}",
                             "schema", "millrace.status/v1", "role", "coordinator", "version",
                             MR_VERSION, "commit", MR_COMMIT, "address",
                             mr_coordinator_address(coordinator), "started_ms",
                             (json_int_t)coordinator->started_ms, "at_ms",
                             (json_int_t)mr_clock_wall_ms(), "term",
                             (json_int_t)mr_store_term(coordinator->store), "store_error",
                             coordinator->state.store_error, "jobs", board_jobs(coordinator),
                             "members", board_members(coordinator, now_ms));
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    if (text != NULL) {
        mr_status published = mr_status_page_publish(coordinator->page, text);
        (void)published; /* the page before stays */
    }
    free(text);
    json_decref(root);
}

/* ---- gauges ---------------------------------------------------------------------------------- */

/* What a job is measured against: its plan, and how often it is to be saved. */
static void board_plan_gauges(mr_metrics *metrics, const mr_job_record *job) {
    const mr_job_spec *spec = job->spec;
    const char *id = job->facts.id;
    if (!mr_job_mode_trains(job->facts.mode) || spec->rank_count == 0)
        return;
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_PIPELINE_PLANNED_BUBBLE, id),
                  spec->bubble_planned);
    if (spec->checkpoint_every_steps == 0)
        return;
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_CHECKPOINT_INTERVAL, id),
                  (double)spec->checkpoint_every_steps);
    mr_series *saved = mr_metrics_series(metrics, MR_METRIC_CHECKPOINT_LAST_STEP, id);
    if (mr_series_value(saved) < (double)job->facts.start_step)
        mr_series_set(saved, (double)job->facts.start_step);
}

/* The model is told by its hash's first digits: job files give it no name. */
static void board_job_info(mr_metrics *metrics, const mr_job_record *job) {
    const mr_job_spec *spec = job->spec;
    static const char *const schedules[MR_SCHEDULE_KIND_COUNT] = {
        [MR_SCHEDULE_GPIPE] = "gpipe",
        [MR_SCHEDULE_1F1B] = "1f1b",
        [MR_SCHEDULE_INFERENCE] = "inference",
    };
    char model[BOARD_HASH_BYTES];
    char stages[16];
    if (spec->job == NULL)
        return;
    (void)snprintf(model, sizeof(model), "%s", spec->model_hash);
    (void)snprintf(stages, sizeof(stages), "%zu", spec->job->pipe);
    (void)mr_metrics_series(metrics, MR_METRIC_JOB_INFO, job->facts.id, spec->name, model,
                            schedules[spec->job->schedule], stages);
}

static void board_job_gauges(mr_metrics *metrics, const mr_job_record *job) {
    const mr_job_facts *facts = &job->facts;
    board_job_info(metrics, job);
    for (mr_job_state state = MR_JOB_QUEUED; state < MR_JOB_STATE_COUNT; state++)
        mr_series_set(
            mr_metrics_series(metrics, MR_METRIC_JOB_STATE, facts->id, mr_job_state_name(state)),
            facts->state == state ? 1 : 0);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_STEP, facts->id), (double)facts->step);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_TARGET_STEPS, facts->id),
                  (double)facts->total_steps);
    board_plan_gauges(metrics, job);
}

/* Jobs of long ago have no series: their labels would only grow. */
static bool board_has_series(const mr_job_facts *facts, int64_t wall_ms) {
    return !mr_job_state_is_final(facts->state) ||
           wall_ms - facts->ended_ms < MR_SERIES_AFTER_MS;
}

static void board_jobs_gauges(mr_coordinator *coordinator) {
    mr_metrics *metrics = coordinator->metrics;
    const mr_jobs *jobs = &coordinator->state.jobs;
    size_t counts[MR_JOB_STATE_COUNT] = {0};
    int64_t wall_ms = mr_clock_wall_ms();
    for (size_t i = 0; i < jobs->count; i++) {
        mr_job_record *job = jobs->records[i];
        counts[job->facts.state]++;
        if (board_has_series(&job->facts, wall_ms)) {
            job->has_series = true;
            board_job_gauges(metrics, job);
        } else if (job->has_series) {
            job->has_series = false;
            mr_metrics_drop(metrics, "job_id", job->facts.id);
        }
    }
    for (mr_job_state state = MR_JOB_QUEUED; state < MR_JOB_STATE_COUNT; state++)
        mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOBS, mr_job_state_name(state)),
                      (double)counts[state]);
}

/* A stage that was here before, as far as that is remembered: the same process, or another one that
 * serves at its address. Its member is a new one, so the address is what names it over time. */
static void board_count_attachment(mr_metrics *metrics, const mr_registry *registry,
                                   mr_member *member) {
    if (member->counted)
        return;
    member->counted = true;
    for (size_t i = 0; i < registry->count; i++) {
        const mr_member *other = registry->members[i];
        bool same = strcmp(other->instance_id, member->instance_id) == 0 ||
                    strcmp(other->address, member->address) == 0;
        if (other->number >= member->number || !same)
            continue;
        mr_series_add(mr_metrics_series(metrics, MR_METRIC_STAGE_RESTARTS, member->address), 1);
        return;
    }
}

static void board_members_gauges(mr_coordinator *coordinator, int64_t now_ms) {
    mr_metrics *metrics = coordinator->metrics;
    const mr_registry *registry = &coordinator->state.registry;
    for (size_t i = 0; i < registry->count; i++) {
        mr_member *member = registry->members[i];
        board_count_attachment(metrics, registry, member);
        bool up = member->state != MR_MEMBER_LOST;
        if (!up && member->deadline_ms - now_ms < BOARD_FORGET_MS) {
            mr_metrics_drop(metrics, "stage", member->id); /* it is forgotten soon */
            continue;
        }
        mr_series_set(mr_metrics_series(metrics, MR_METRIC_STAGE_UP, member->id), up ? 1 : 0);
        mr_series_set(mr_metrics_series(metrics, MR_METRIC_STAGE_HEARTBEAT_AGE, member->id),
                      (double)(now_ms - member->heard_ms) / 1000);
    }
}

void mr_status_board_tick(mr_coordinator *coordinator, int64_t now_ms) {
    mr_status_page_beat(coordinator->page);
    if (now_ms - coordinator->published_ms < BOARD_PERIOD_MS)
        return;
    coordinator->published_ms = now_ms;
    const char *store_error = coordinator->state.store_error;
    mr_status_page_ready_set(coordinator->page, store_error[0] == '\0',
                             store_error[0] == '\0' ? NULL : store_error);
    mr_status_page_check_set(coordinator->page, "store",
                             store_error[0] == '\0' ? NULL : store_error);
    if (coordinator->status_server == NULL)
        return;
    board_jobs_gauges(coordinator);
    board_members_gauges(coordinator, now_ms);
    board_publish(coordinator, now_ms);
}

/* ---- counters -------------------------------------------------------------------------------- */

void mr_status_board_step(mr_coordinator *coordinator, mr_job_record *job) {
    mr_news_step(coordinator, job);
    mr_step_spans_ask(coordinator, job);
    mr_metrics *metrics = coordinator->metrics;
    const mr_job_step *step = &job->facts.result;
    const char *id = job->facts.id;
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_LOSS, id, "train"), step->loss);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_GRADIENT_NORM, id), step->gradient_norm);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_LEARNING_RATE, id), step->learning_rate);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_PIPELINE_BUBBLE, id), step->bubble);
    if (step->loss_scale > 0)
        mr_series_set(mr_metrics_series(metrics, MR_METRIC_JOB_LOSS_SCALE, id), step->loss_scale);
    if (!step->skipped)
        mr_series_add(mr_metrics_series(metrics, MR_METRIC_TRAINED_TOKENS, id),
                      (double)step->tokens);
    mr_series_add(mr_metrics_series(metrics, MR_METRIC_OPTIMIZER_STEPS, id,
                                    step->skipped ? "skipped" : "applied"),
                  1);
    mr_series_observe_step(mr_metrics_series(metrics, MR_METRIC_STEP_DURATION, id),
                           step->step_seconds, step->step);
}

void mr_status_board_save_failed(mr_coordinator *coordinator, const mr_job_record *job,
                                 mr_status why) {
    mr_series_add(mr_metrics_series(coordinator->metrics, MR_METRIC_CHECKPOINT_FAILURES,
                                    job->facts.id, mr_code_name(why.code)),
                  1);
}

void mr_status_board_saved(mr_coordinator *coordinator, mr_job_record *job, const char *tag,
                           uint64_t step, uint64_t bytes, double seconds) {
    mr_news_checkpoint(coordinator, job, tag, step, bytes);
    mr_metrics *metrics = coordinator->metrics;
    mr_series_observe(mr_metrics_series(metrics, MR_METRIC_CHECKPOINT_DURATION, "commit"), seconds);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_CHECKPOINT_SIZE, job->facts.id),
                  (double)bytes);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_CHECKPOINT_LAST_STEP, job->facts.id),
                  (double)step);
    mr_series_set(mr_metrics_series(metrics, MR_METRIC_CHECKPOINT_LAST_SUCCESS, job->facts.id),
                  (double)mr_clock_wall_ms() / 1000);
}
