/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: each move of a job and of a member, one by one: what it takes, what it orders, what it
 * says.
 * Method: events in, actions out; time is a number. What happens when they mix is the simulation's
 * (tests/simulation). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/coordinator/decide.h"

typedef struct desk {
    mr_coordinator_state state;
    mr_actions actions;
    int64_t now_ms;
    uint64_t requests;
} desk;

static int setup(void **state) {
    desk *d = mr_alloc(sizeof(*d));
    assert_non_null(d);
    d->now_ms = 1000;
    *state = d;
    return 0;
}

static int teardown(void **state) {
    desk *d = *state;
    mr_actions_deinit(&d->actions);
    mr_coordinator_state_deinit(&d->state);
    mr_free(d);
    return 0;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void take(desk *d, mr_event event) {
    event.now_ms = d->now_ms;
    event.wall_ms = 1700000000000 + d->now_ms;
    assert_int_equal(mr_decide(&d->state, &event, &d->actions).code, MR_CODE_OK);
}

static void attach(desk *d, uint64_t number) {
    char name[32];
    (void)snprintf(name, sizeof(name), "stage-%d", (int)number);
    mr_event event = {.kind = MR_EVENT_ATTACHED, .member = number};
    event.u.attached = (mr_member_info){
        .instance_id = name, .device = "cpu", .address = name, .status_address = "", .version = ""};
    take(d, event);
}

/* Keeps every member but silent alive while time passes in ticks. */
static void pass(desk *d, int64_t ms, uint64_t silent) {
    for (int64_t until_ms = d->now_ms + ms; d->now_ms < until_ms;) {
        d->now_ms += MR_TICK_PERIOD_MS;
        for (uint64_t member = 1; member <= 4; member++) {
            mr_event event = {.kind = MR_EVENT_HEARTBEAT, .member = member, .job = ""};
            event.u.heartbeat.instruction = "";
            if (member != silent)
                take(d, event);
        }
        take(d, (mr_event){.kind = MR_EVENT_TICK});
    }
}

static mr_job_spec *make_spec(const char *name, size_t ranks, mr_job_mode mode, const char *dir) {
    mr_job_spec *spec = NULL;
    assert_int_equal(mr_job_spec_ended(name, "text", "/", mode, &spec).code, MR_CODE_OK);
    spec->rank_count = ranks;
    spec->ranks = mr_alloc_array(ranks, sizeof(*spec->ranks));
    for (uint32_t rank = 0; rank < ranks; rank++)
        spec->ranks[rank] = (mr_spec_rank){.stage = rank, .first = rank == 0};
    spec->total_steps = mr_job_mode_trains(mode) ? 10 : 0;
    (void)snprintf(spec->schedule_hash, sizeof(spec->schedule_hash), "hash");
    (void)snprintf(spec->checkpoint_dir, sizeof(spec->checkpoint_dir), "%s", dir);
    return spec;
}

/* Submits; returns the newest job's record. */
static mr_job_record *submit(desk *d, mr_job_spec *spec) {
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = ++d->requests};
    event.u.submit.owned_spec = spec;
    event.u.submit.request_id = "";
    event.u.submit.checkpoint_path = "";
    take(d, event);
    return d->state.jobs.records[d->state.jobs.count - 1];
}

static mr_event about(const mr_job_record *job, uint64_t member, mr_event_kind kind) {
    return (mr_event){
        .kind = kind, .member = member, .job = job->facts.id, .epoch = job->facts.epoch};
}

static void prepared(desk *d, const mr_job_record *job, uint64_t member, const char *hash) {
    mr_event event = about(job, member, MR_EVENT_PREPARED);
    event.u.prepared.schedule_hash = hash;
    event.u.prepared.next_step = job->facts.start_step;
    take(d, event);
}

static void failed(desk *d, const mr_job_record *job, uint64_t member, const char *text,
                   bool secondary) {
    mr_event event = about(job, member, MR_EVENT_FAILED);
    event.u.failed.code = MR_CODE_DATA_LOSS;
    event.u.failed.text = text;
    event.u.failed.secondary = secondary;
    take(d, event);
}

static void lost(desk *d, uint64_t member) {
    mr_event event = {.kind = MR_EVENT_LOST, .member = member};
    event.u.lost.text = "stream ended";
    take(d, event);
}

static void saved(desk *d, const mr_job_record *job, uint64_t member, const char *tag,
                  uint64_t step, const char *file, const char *error) {
    mr_checkpoint_file files[1] = {{.bytes = 8}};
    (void)snprintf(files[0].name, sizeof(files[0].name), "%s", file);
    mr_event event = about(job, member, MR_EVENT_SAVED);
    event.u.saved.tag = tag;
    event.u.saved.step = step;
    event.u.saved.files = files;
    event.u.saved.file_count = 1;
    event.u.saved.error = error;
    event.u.saved.error_code = MR_CODE_RESOURCE_EXHAUSTED;
    event.u.saved.optimizer_steps = step;
    take(d, event);
}

static void committed(desk *d, const mr_job_record *job, const char *tag, mr_status status) {
    mr_event event = about(job, 0, MR_EVENT_COMMIT);
    event.u.commit.tag = tag;
    event.u.commit.status = status;
    take(d, event);
}

static void request(desk *d, const mr_job_record *job, mr_event_kind kind) {
    mr_event event = about(job, 0, kind);
    event.request = ++d->requests;
    event.u.save.tag = "";
    take(d, event);
}

/* ---- actions --------------------------------------------------------------------------------- */

static size_t orders(const desk *d, mr_order order) {
    size_t count = 0;
    for (size_t i = 0; i < d->actions.count; i++)
        count += d->actions.items[i].kind == MR_ACTION_SEND && d->actions.items[i].order == order;
    return count;
}

static size_t count_of(const desk *d, mr_action_kind kind) {
    size_t count = 0;
    for (size_t i = 0; i < d->actions.count; i++)
        count += d->actions.items[i].kind == kind;
    return count;
}

/* The answer to the newest request; NULL where there is none. */
static const mr_action *answer(const desk *d) {
    for (size_t i = 0; i < d->actions.count; i++)
        if (d->actions.items[i].kind == MR_ACTION_ANSWER &&
            d->actions.items[i].request == d->requests)
            return &d->actions.items[i];
    return NULL;
}

static void assert_says(const mr_job_record *job, mr_job_state state, const char *words) {
    assert_int_equal(job->facts.state, state);
    if (strstr(job->facts.reason, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", job->facts.reason, words);
}

/* A job of two ranks on members 1 and 2 that runs and is fed. */
static mr_job_record *run_two(desk *d, mr_job_mode mode, const char *dir) {
    attach(d, 1);
    attach(d, 2);
    mr_job_record *job = submit(d, make_spec("job", 2, mode, dir));
    assert_int_equal(orders(d, MR_ORDER_PREPARE), 2);
    prepared(d, job, 1, "hash");
    assert_int_equal(orders(d, MR_ORDER_CONNECT), 0);
    prepared(d, job, 2, "hash");
    assert_int_equal(orders(d, MR_ORDER_CONNECT), 2);
    take(d, about(job, 2, MR_EVENT_CONNECTED));
    take(d, about(job, 1, MR_EVENT_CONNECTED));
    assert_int_equal(orders(d, MR_ORDER_RUN), 2);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    mr_event event = about(job, 1, MR_EVENT_FEED_STATE);
    event.u.feed_state.open = true;
    take(d, event);
    return job;
}

static void pause_two(desk *d, const mr_job_record *job, uint64_t step) {
    for (uint64_t member = 1; member <= 2; member++) {
        mr_event event = about(job, member, MR_EVENT_PAUSED);
        event.u.paused.step = step;
        take(d, event);
    }
}

/* ---- start ----------------------------------------------------------------------------------- */

static void test_queue_is_first_come_first_served(void **state) {
    desk *d = *state;
    attach(d, 1);
    mr_job_record *first = submit(d, make_spec("first", 2, MR_JOB_MODE_TRAIN, ""));
    mr_job_record *second = submit(d, make_spec("second", 1, MR_JOB_MODE_TRAIN, ""));
    assert_says(first, MR_JOB_QUEUED, "waits for 1 more stage (needs 2, idle 1)");
    assert_says(second, MR_JOB_QUEUED, first->facts.id);
    assert_int_equal(first->queue_position, 1);
    assert_int_equal(second->queue_position, 2);
    attach(d, 2);
    assert_int_equal(first->facts.state, MR_JOB_STARTING);
    assert_int_equal(second->facts.state, MR_JOB_QUEUED);
    assert_int_equal(second->queue_position, 1);
    attach(d, 3);
    assert_int_equal(second->facts.state, MR_JOB_STARTING);
    assert_true(second->facts.epoch > first->facts.epoch);
}

static void test_epoch_is_above_what_the_folder_has_seen(void **state) {
    desk *d = *state;
    attach(d, 1);
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = ++d->requests};
    event.u.submit.owned_spec = make_spec("job", 1, MR_JOB_MODE_TRAIN, "/ckpt");
    event.u.submit.request_id = "";
    event.u.submit.checkpoint_path = "";
    event.u.submit.epoch_floor = 41;
    take(d, event);
    assert_int_equal(d->state.jobs.records[0]->facts.epoch, 42);
    assert_int_equal(count_of(d, MR_ACTION_SWEEP), 1);
}

static void test_other_schedule_fails_the_job(void **state) {
    desk *d = *state;
    attach(d, 1);
    mr_job_record *job = submit(d, make_spec("job", 1, MR_JOB_MODE_TRAIN, ""));
    prepared(d, job, 1, "another");
    assert_says(job, MR_JOB_FAILED, "schedule hash");
    assert_int_equal(orders(d, MR_ORDER_ABORT), 1);
}

static void test_late_preparation_names_the_late_stage(void **state) {
    desk *d = *state;
    attach(d, 1);
    attach(d, 2);
    mr_job_record *job = submit(d, make_spec("job", 2, MR_JOB_MODE_TRAIN, ""));
    prepared(d, job, 1, "hash");
    pass(d, MR_PREPARE_TIMEOUT_MS, 0);
    assert_int_equal(job->facts.state, MR_JOB_STARTING);
    pass(d, MR_STARTING_SLACK_MS, 0);
    assert_says(job, MR_JOB_FAILED, "stage 1 (rank 1, member m2");
    assert_says(job, MR_JOB_FAILED, "Prepared");
}

/* ---- pause ----------------------------------------------------------------------------------- */

static void test_pause_is_answered_when_every_rank_stands(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    request(d, job, MR_EVENT_PAUSE);
    assert_int_equal(orders(d, MR_ORDER_PAUSE), 2);
    assert_null(answer(d));
    pause_two(d, job, 4);
    assert_int_equal(job->facts.state, MR_JOB_PAUSED);
    assert_int_equal(answer(d)->reply, MR_REPLY_JOB);
    assert_int_equal(job->facts.step, 4);
    pass(d, 3 * MR_FEED_IDLE_TIMEOUT_MS, 0);
    assert_int_equal(job->facts.state, MR_JOB_PAUSED);
    request(d, job, MR_EVENT_RESUME);
    assert_int_equal(orders(d, MR_ORDER_RUN), 2);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    assert_int_equal(answer(d)->reply, MR_REPLY_JOB);
}

static void test_pause_that_takes_too_long_is_said(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    request(d, job, MR_EVENT_PAUSE);
    pass(d, MR_STEP_WAIT_TIMEOUT_MS, 0);
    assert_int_equal(answer(d)->status.code, MR_CODE_DEADLINE_EXCEEDED);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
}

static void test_pause_before_it_runs_is_refused(void **state) {
    desk *d = *state;
    mr_job_record *job = submit(d, make_spec("job", 1, MR_JOB_MODE_TRAIN, ""));
    request(d, job, MR_EVENT_PAUSE);
    assert_int_equal(answer(d)->status.code, MR_CODE_FAILED_PRECONDITION);
    request(d, job, MR_EVENT_RESUME);
    assert_int_equal(answer(d)->status.code, MR_CODE_FAILED_PRECONDITION);
}

/* ---- saves ----------------------------------------------------------------------------------- */

static void test_commit_waits_for_every_rank(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    saved(d, job, 2, "step-000000000005", 5, "layer_01", "");
    saved(d, job, 2, "step-000000000005", 5, "layer_01", "");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 0);
    saved(d, job, 1, "step-000000000005", 5, "layer_00", "");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 1);
    for (size_t i = 0; i < d->actions.count; i++) {
        const mr_action *action = &d->actions.items[i];
        if (action->kind != MR_ACTION_COMMIT)
            continue;
        assert_int_equal(action->save->file_count, 2);
        assert_string_equal(action->save->files[0].name, "layer_00");
        assert_string_equal(action->save->files[1].name, "layer_01");
        assert_int_equal(action->epoch, job->facts.epoch);
    }
    committed(d, job, "step-000000000005", MR_OK);
    assert_int_equal(orders(d, MR_ORDER_COMMITTED), 2);
    assert_string_equal(job->facts.checkpoint_tag, "step-000000000005");
    saved(d, job, 2, "step-000000000005", 5, "layer_01", ""); /* once more, too late */
    saved(d, job, 1, "step-000000000005", 5, "layer_00", "");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 0);
}

/* Two replicas of one stage share its two layers out. */
static void test_a_layer_that_nobody_wrote_fails_the_save(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, false, "/ckpt");
    job->spec->saved_layers = 2;
    saved(d, job, 1, "step-000000000005", 5, "layer_00-model_states.safetensors", "");
    saved(d, job, 2, "step-000000000005", 5, "layer_00-model_states.safetensors", "");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 0);
    assert_int_equal(count_of(d, MR_ACTION_DISCARD), 1);
    assert_string_equal(job->save_failed_text,
                        "the ranks wrote weights of 1 layers; the job has 2");
    saved(d, job, 1, "step-000000000006", 6, "layer_00-model_states.safetensors", "");
    saved(d, job, 2, "step-000000000006", 6, "layer_01-model_states.safetensors", "");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 1);
}

static void test_full_disk_fails_the_save_and_not_the_job(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    saved(d, job, 1, "step-000000000005", 5, "layer_00", "");
    saved(d, job, 2, "step-000000000005", 5, "layer_01", "no space left");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 0);
    assert_int_equal(count_of(d, MR_ACTION_DISCARD), 1);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
}

static void test_two_stages_that_disagree_are_not_committed(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    saved(d, job, 1, "mine", 5, "layer_00", "");
    saved(d, job, 2, "mine", 6, "layer_01", "");
    assert_int_equal(count_of(d, MR_ACTION_COMMIT), 0);
    assert_int_equal(count_of(d, MR_ACTION_DISCARD), 1);
}

static void test_save_without_a_tag_takes_the_steps_name(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    request(d, job, MR_EVENT_SAVE);
    assert_int_equal(orders(d, MR_ORDER_SAVE), 2);
    saved(d, job, 1, "step-000000000003", 3, "layer_00", "");
    saved(d, job, 2, "step-000000000003", 3, "layer_01", "");
    committed(d, job, "step-000000000003", MR_OK);
    const mr_action *reply = answer(d);
    assert_int_equal(reply->reply, MR_REPLY_CHECKPOINT);
    assert_string_equal(reply->tag, "step-000000000003");
    assert_int_equal(reply->step, 3);
}

static const mr_action *set(desk *d, const mr_job_record *job, const char *old_file) {
    mr_event event = {.kind = MR_EVENT_SET, .job = job->facts.id, .request = ++d->requests};
    event.u.set.owned_spec = make_spec("job", 2, MR_JOB_MODE_TRAIN, "");
    event.u.set.old_file = old_file;
    take(d, event);
    return answer(d);
}

static void test_setting_goes_to_rank_0_and_is_stored(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    mr_job_record *queued = submit(d, make_spec("queued", 2, MR_JOB_MODE_TRAIN, ""));
    assert_int_equal(set(d, queued, "text")->reply, MR_REPLY_JOB);
    assert_int_equal(orders(d, MR_ORDER_SET), 0); /* its start will have it */
    assert_int_equal(set(d, job, "text")->reply, MR_REPLY_JOB);
    assert_int_equal(orders(d, MR_ORDER_SET), 1);
    assert_int_equal(count_of(d, MR_ACTION_STORE), 1);
    assert_int_equal(set(d, job, "another text")->status.code, MR_CODE_ABORTED);
    assert_int_equal(orders(d, MR_ORDER_SET), 0);
}

static void test_save_while_paused_shows_checkpointing(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    request(d, job, MR_EVENT_PAUSE);
    pause_two(d, job, 4);
    request(d, job, MR_EVENT_SAVE);
    assert_int_equal(job->facts.state, MR_JOB_CHECKPOINTING);
    saved(d, job, 1, "step-000000000004", 4, "layer_00", "");
    saved(d, job, 2, "step-000000000004", 4, "layer_01", "");
    committed(d, job, "step-000000000004", MR_ERROR(RESOURCE_EXHAUSTED, "disk is full"));
    assert_int_equal(answer(d)->status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_int_equal(job->facts.state, MR_JOB_PAUSED);
}

static void test_save_that_never_comes_is_given_up(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    request(d, job, MR_EVENT_SAVE);
    saved(d, job, 1, "step-000000000003", 3, "layer_00", "");
    pass(d, MR_SAVE_TIMEOUT_MS, 0);
    assert_int_equal(answer(d)->status.code, MR_CODE_DEADLINE_EXCEEDED);
    assert_non_null(strstr(answer(d)->status.text, "stage 1"));
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void finish(desk *d, const mr_job_record *job, uint64_t member, uint64_t step) {
    mr_event event = about(job, member, MR_EVENT_FINISHED);
    event.u.finished.step = step;
    take(d, event);
}

static void test_success_waits_for_the_last_checkpoint(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    finish(d, job, 1, 10);
    finish(d, job, 2, 10);
    assert_says(job, MR_JOB_RUNNING, "saving the last step");
    saved(d, job, 1, "step-000000000010", 10, "layer_00", "");
    saved(d, job, 2, "step-000000000010", 10, "layer_01", "");
    lost(d, 2); /* it is not needed any more */
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    committed(d, job, "step-000000000010", MR_OK);
    assert_int_equal(job->facts.state, MR_JOB_SUCCEEDED);
    assert_int_equal(orders(d, MR_ORDER_RELEASE), 1);
    assert_int_equal(mr_registry_idle_count(&d->state.registry), 0);
    take(d, about(job, 1, MR_EVENT_RELEASED));
    assert_int_equal(mr_registry_idle_count(&d->state.registry), 1);
}

static void test_lost_last_checkpoint_is_a_failure(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    saved(d, job, 1, "step-000000000010", 10, "layer_00", "no space left");
    saved(d, job, 2, "step-000000000010", 10, "layer_01", "");
    finish(d, job, 1, 10);
    finish(d, job, 2, 10);
    assert_says(job, MR_JOB_FAILED, "no space left");
}

static void test_inference_ends_with_its_feed(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_INFERENCE, "/ckpt");
    finish(d, job, 2, 0); /* only the first rank knows the feed */
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    finish(d, job, 1, 0);
    assert_int_equal(job->facts.state, MR_JOB_SUCCEEDED);
}

static void test_job_that_nobody_feeds_fails(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    mr_event event = about(job, 1, MR_EVENT_FEED_STATE);
    take(d, event); /* closed */
    pass(d, MR_FEED_IDLE_TIMEOUT_MS - MR_TICK_PERIOD_MS, 0);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    pass(d, MR_TICK_PERIOD_MS, 0);
    assert_says(job, MR_JOB_FAILED, "no client has fed the job for 60 s");
}

/* A feed that runs dry for one replica alone (deepspeed.md 85: its peers waited for ever). */
static void test_replica_that_nobody_feeds_is_named(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    job->spec->ranks[1] = (mr_spec_rank){.stage = 0, .first = true}; /* two replicas of a stage */
    mr_event event = about(job, 2, MR_EVENT_FEED_STATE);
    event.u.feed_state.open = true;
    take(d, event);
    pass(d, MR_FEED_IDLE_TIMEOUT_MS, 0);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    event.u.feed_state.open = false;
    take(d, event);
    pass(d, MR_FEED_IDLE_TIMEOUT_MS - MR_TICK_PERIOD_MS, 0);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    pass(d, MR_TICK_PERIOD_MS, 0);
    assert_says(job, MR_JOB_FAILED, "no client has fed replica 1 for 60 s");
}

static void test_cancel_frees_the_members(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    uint64_t epoch = job->facts.epoch;
    request(d, job, MR_EVENT_CANCEL);
    assert_int_equal(job->facts.state, MR_JOB_CANCELLED);
    assert_int_equal(orders(d, MR_ORDER_ABORT), 2);
    assert_true(job->facts.epoch > epoch);
    mr_event old = about(job, 1, MR_EVENT_RELEASED);
    old.epoch = epoch;
    take(d, old); /* the stage may answer with the epoch it knew */
    take(d, about(job, 2, MR_EVENT_RELEASED));
    assert_int_equal(mr_registry_idle_count(&d->state.registry), 2);
    request(d, job, MR_EVENT_CANCEL);
    assert_int_equal(answer(d)->reply, MR_REPLY_JOB);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void test_primary_failure_is_named_before_a_secondary_one(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    failed(d, job, 1, "RG0: neighbour is gone", true);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    failed(d, job, 2, "loss is not finite", false);
    assert_says(job, MR_JOB_FAILED, "stage 1 (rank 1, member m2 at stage-2): DATA_LOSS: loss is");
    assert_int_equal(orders(d, MR_ORDER_ABORT), 2);
}

static void test_secondary_failure_alone_is_named_after_a_while(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    failed(d, job, 1, "RG0: neighbour is gone", true);
    pass(d, MR_SECONDARY_WAIT_MS - MR_TICK_PERIOD_MS, 0);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
    pass(d, MR_TICK_PERIOD_MS, 0);
    assert_says(job, MR_JOB_FAILED, "stage 0");
}

static void test_silent_stage_is_the_cause_of_what_others_saw(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    pass(d, MR_SECONDARY_WAIT_MS, 2);
    failed(d, job, 1, "RG0: waited for stage 1", true);
    pass(d, MR_HEARTBEAT_TIMEOUT_MS, 2);
    assert_says(job, MR_JOB_FAILED, "member m2");
    assert_says(job, MR_JOB_FAILED, "no heartbeat");
}

static void test_old_epochs_are_deaf(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    mr_event event = about(job, 2, MR_EVENT_FAILED);
    event.u.failed.text = "late words";
    event.epoch--;
    take(d, event);
    assert_int_equal(d->actions.count, 0);
    assert_int_equal(job->facts.state, MR_JOB_RUNNING);
}

static void test_stage_at_work_for_a_dead_epoch_is_told_to_stop(void **state) {
    desk *d = *state;
    attach(d, 1);
    mr_event event = {.kind = MR_EVENT_HEARTBEAT, .member = 1, .job = "gone-7", .epoch = 3};
    event.u.heartbeat.instruction = "F1";
    take(d, event);
    assert_int_equal(orders(d, MR_ORDER_ABORT), 1);
    assert_string_equal(d->actions.items[0].job_id, "gone-7");
    assert_int_equal(d->actions.items[0].epoch, 4);
}

static void test_member_that_does_not_let_go_is_lost(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    request(d, job, MR_EVENT_CANCEL);
    take(d, about(job, 1, MR_EVENT_RELEASED));
    pass(d, MR_ABORT_TIMEOUT_MS, 0);
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 1);
    assert_int_equal(count_of(d, MR_ACTION_CLOSE), 1);
    assert_int_equal(mr_registry_find(&d->state.registry, 2)->state, MR_MEMBER_LOST);
    pass(d, MR_MEMBER_FORGET_MS, 0);
    assert_null(mr_registry_find(&d->state.registry, 2));
}

/* ---- drain ----------------------------------------------------------------------------------- */

static void drain(desk *d, const char *member_id) {
    mr_event event = {.kind = MR_EVENT_DRAIN, .request = ++d->requests};
    event.u.drain.member_id = member_id;
    take(d, event);
}

/* By its own word, twice, and nobody waits for an answer. */
static void test_leaving_stage_leaves_a_checkpoint(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    take(d, about(job, 2, MR_EVENT_LEAVING));
    assert_int_equal(job->facts.state, MR_JOB_DRAINING);
    assert_int_equal(orders(d, MR_ORDER_PAUSE), 2);
    take(d, about(job, 2, MR_EVENT_LEAVING));
    assert_int_equal(orders(d, MR_ORDER_PAUSE), 0);
    pause_two(d, job, 6);
    assert_int_equal(orders(d, MR_ORDER_SAVE), 2);
    saved(d, job, 1, "step-000000000006", 6, "layer_00", "");
    saved(d, job, 2, "step-000000000006", 6, "layer_01", "");
    committed(d, job, "step-000000000006", MR_OK);
    assert_says(job, MR_JOB_FAILED, "was drained; saved as step-000000000006");
    take(d, about(job, 1, MR_EVENT_RELEASED));
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 0);
    take(d, about(job, 2, MR_EVENT_RELEASED));
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 1);
}

static void test_idle_stage_that_leaves_is_told_to_exit(void **state) {
    desk *d = *state;
    attach(d, 1);
    take(d, (mr_event){.kind = MR_EVENT_LEAVING, .member = 1});
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 1);
    assert_int_equal(mr_registry_idle_count(&d->state.registry), 0);
}

static void test_drained_stage_leaves_a_checkpoint(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    drain(d, "m2");
    assert_int_equal(answer(d)->reply, MR_REPLY_MEMBER);
    assert_int_equal(job->facts.state, MR_JOB_DRAINING);
    assert_int_equal(orders(d, MR_ORDER_PAUSE), 2);
    pause_two(d, job, 6);
    assert_int_equal(orders(d, MR_ORDER_SAVE), 2);
    saved(d, job, 1, "step-000000000006", 6, "layer_00", "");
    saved(d, job, 2, "step-000000000006", 6, "layer_01", "");
    committed(d, job, "step-000000000006", MR_OK);
    assert_says(job, MR_JOB_FAILED, "was drained; saved as step-000000000006");
    take(d, about(job, 1, MR_EVENT_RELEASED));
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 0);
    take(d, about(job, 2, MR_EVENT_RELEASED));
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 1);
    assert_int_equal(mr_registry_idle_count(&d->state.registry), 1);
    lost(d, 2);
    assert_string_equal(mr_member_state_name(mr_registry_find(&d->state.registry, 2)), "drained");
}

static void test_drain_without_a_folder_fails_at_once(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "");
    drain(d, "m1");
    assert_says(job, MR_JOB_FAILED, "was drained; nothing was saved");
}

/* Both stages of a machine that is taken away; what they ask for twice is done once. */
static void test_stages_that_leave_are_drained_together(void **state) {
    desk *d = *state;
    mr_job_record *job = run_two(d, MR_JOB_MODE_TRAIN, "/ckpt");
    take(d, about(job, 1, MR_EVENT_LEAVING));
    assert_int_equal(job->facts.state, MR_JOB_DRAINING);
    assert_int_equal(orders(d, MR_ORDER_PAUSE), 2);
    assert_int_equal(count_of(d, MR_ACTION_ANSWER), 0);
    take(d, about(job, 2, MR_EVENT_LEAVING));
    take(d, about(job, 2, MR_EVENT_LEAVING));
    assert_int_equal(orders(d, MR_ORDER_PAUSE), 0);
    pause_two(d, job, 6);
    saved(d, job, 1, "step-000000000006", 6, "layer_00", "");
    saved(d, job, 2, "step-000000000006", 6, "layer_01", "");
    committed(d, job, "step-000000000006", MR_OK);
    assert_says(job, MR_JOB_FAILED, "was drained; saved as step-000000000006");
    take(d, about(job, 1, MR_EVENT_RELEASED));
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 1);
    take(d, about(job, 2, MR_EVENT_RELEASED));
    assert_int_equal(orders(d, MR_ORDER_SHUTDOWN), 1);
    assert_int_equal(mr_registry_idle_count(&d->state.registry), 0);
}

/* ---- store and start ------------------------------------------------------------------------- */

static void stored(desk *d, uint64_t number, mr_status status) {
    mr_event event = {.kind = MR_EVENT_STORED};
    event.u.stored.number = number;
    event.u.stored.status = status;
    take(d, event);
}

static void test_nothing_starts_while_the_store_fails(void **state) {
    desk *d = *state;
    mr_job_record *job = submit(d, make_spec("job", 1, MR_JOB_MODE_TRAIN, ""));
    stored(d, job->facts.number, MR_ERROR(RESOURCE_EXHAUSTED, "no space left"));
    attach(d, 1);
    assert_says(job, MR_JOB_QUEUED, "no space left");
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = ++d->requests};
    event.u.submit.owned_spec = make_spec("other", 1, MR_JOB_MODE_TRAIN, "");
    event.u.submit.request_id = "";
    event.u.submit.checkpoint_path = "";
    take(d, event);
    assert_int_equal(answer(d)->status.code, MR_CODE_UNAVAILABLE);
    d->now_ms += MR_STORE_RETRY_MS;
    take(d, (mr_event){.kind = MR_EVENT_TICK});
    assert_int_equal(count_of(d, MR_ACTION_STORE), 1);
    stored(d, job->facts.number, MR_OK);
    assert_int_equal(job->facts.state, MR_JOB_STARTING);
}

static void restore(desk *d, uint64_t number, mr_job_state job_state) {
    mr_job_facts facts = {.number = number, .state = job_state, .epoch = 10 * number};
    (void)snprintf(facts.id, sizeof(facts.id), "job-%d", (int)number);
    (void)snprintf(facts.name, sizeof(facts.name), "job%d", (int)number);
    mr_event event = {.kind = MR_EVENT_RESTORE};
    event.u.restore.facts = &facts;
    event.u.restore.owned_spec = make_spec(facts.name, 1, MR_JOB_MODE_TRAIN, "");
    take(d, event);
}

static void test_restored_jobs_keep_their_place_and_burn_their_epochs(void **state) {
    desk *d = *state;
    restore(d, 1, MR_JOB_SUCCEEDED);
    restore(d, 2, MR_JOB_RUNNING);
    restore(d, 3, MR_JOB_QUEUED);
    mr_job_record *running = mr_jobs_find(&d->state.jobs, 2);
    assert_says(running, MR_JOB_FAILED, "coordinator restarted while it was RUNNING");
    assert_true(running->facts.epoch > 20);
    mr_job_record *queued = mr_jobs_find(&d->state.jobs, 3);
    assert_int_equal(queued->facts.state, MR_JOB_QUEUED);
    attach(d, 1);
    assert_int_equal(queued->facts.state, MR_JOB_STARTING);
    assert_true(queued->facts.epoch > running->facts.epoch);
    assert_int_equal(submit(d, make_spec("new", 1, MR_JOB_MODE_TRAIN, ""))->facts.number, 4);
}

static void test_no_memory_changes_nothing(void **state) {
    desk *d = *state;
    attach(d, 1);
    for (uint64_t n = 1;; n++) {
        mr_event event = {.kind = MR_EVENT_SUBMIT, .request = 1};
        event.u.submit.owned_spec = make_spec("job", 1, MR_JOB_MODE_TRAIN, "");
        event.u.submit.request_id = "";
        event.u.submit.checkpoint_path = "";
        mr_alloc_fail_at(n);
        mr_status status = mr_decide(&d->state, &event, &d->actions);
        mr_alloc_fail_at(0);
        bool refused = !mr_status_is_ok(status) ||
                       (d->actions.count == 1 && d->actions.items[0].reply == MR_REPLY_STATUS &&
                        d->actions.items[0].status.code == MR_CODE_RESOURCE_EXHAUSTED);
        if (!refused)
            break;
        assert_int_equal(d->state.jobs.count, 0);
        assert_int_equal(mr_registry_idle_count(&d->state.registry), 1);
    }
    assert_int_equal(d->state.jobs.count, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_queue_is_first_come_first_served),
        TEST(test_epoch_is_above_what_the_folder_has_seen),
        TEST(test_other_schedule_fails_the_job),
        TEST(test_late_preparation_names_the_late_stage),
        TEST(test_pause_is_answered_when_every_rank_stands),
        TEST(test_pause_that_takes_too_long_is_said),
        TEST(test_pause_before_it_runs_is_refused),
        TEST(test_commit_waits_for_every_rank),
        TEST(test_a_layer_that_nobody_wrote_fails_the_save),
        TEST(test_full_disk_fails_the_save_and_not_the_job),
        TEST(test_two_stages_that_disagree_are_not_committed),
        TEST(test_save_without_a_tag_takes_the_steps_name),
        TEST(test_setting_goes_to_rank_0_and_is_stored),
        TEST(test_save_while_paused_shows_checkpointing),
        TEST(test_save_that_never_comes_is_given_up),
        TEST(test_success_waits_for_the_last_checkpoint),
        TEST(test_lost_last_checkpoint_is_a_failure),
        TEST(test_inference_ends_with_its_feed),
        TEST(test_job_that_nobody_feeds_fails),
        TEST(test_replica_that_nobody_feeds_is_named),
        TEST(test_cancel_frees_the_members),
        TEST(test_primary_failure_is_named_before_a_secondary_one),
        TEST(test_secondary_failure_alone_is_named_after_a_while),
        TEST(test_silent_stage_is_the_cause_of_what_others_saw),
        TEST(test_old_epochs_are_deaf),
        TEST(test_stage_at_work_for_a_dead_epoch_is_told_to_stop),
        TEST(test_member_that_does_not_let_go_is_lost),
        TEST(test_drained_stage_leaves_a_checkpoint),
        TEST(test_leaving_stage_leaves_a_checkpoint),
        TEST(test_idle_stage_that_leaves_is_told_to_exit),
        TEST(test_drain_without_a_folder_fails_at_once),
        TEST(test_stages_that_leave_are_drained_together),
        TEST(test_nothing_starts_while_the_store_fails),
        TEST(test_restored_jobs_keep_their_place_and_burn_their_epochs),
        TEST(test_no_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
