/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the coordinator as clients and stages meet it: every service over a real connection, a
 * whole job with its checkpoint, the faults that a stage can have, and a restart. Method: a
 * coordinator on loopback and stages that speak Control and nothing else (rig.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "tests/unit/coordinator/rig.h"

enum { TEXT_BYTES = 4096 };

#define QUEUED MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED
#define RUNNING MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING
#define PAUSED MILLRACE__V1__JOB_STATE__JOB_STATE_PAUSED
#define SUCCEEDED MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED
#define FAILED MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED
#define CANCELLED MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED

static int setup(void **state) {
    static rig r;
    r = (rig){0};
    rig_start(&r);
    *state = &r;
    return 0;
}

static int teardown(void **state) {
    rig_stop(*state);
    return 0;
}

static mr_status call_about(rig *r, const char *method, const char *job,
                            ProtobufCMessage **out_response) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job;
    return rig_call(r, method, &request.base, out_response);
}

static void call_ok(rig *r, const char *method, const char *job) {
    ProtobufCMessage *response = NULL;
    mr_status status = call_about(r, method, job, &response);
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", method, status.text);
    rig_free(response);
}

/* A job of two stages that runs. */
static Millrace__V1__Job *start_two(rig *r, rig_stage stages[2], const char *checkpoint_dir,
                                    int steps) {
    char text[TEXT_BYTES];
    rig_job_text(r, "pair", 2, steps, checkpoint_dir, text, sizeof(text));
    rig_stage_attach(r, &stages[0], "stage-a:1");
    rig_stage_attach(r, &stages[1], "stage-b:1");
    Millrace__V1__Job *job = rig_submit(r, text, false);
    rig_stages_run(stages, 2);
    rig_free(rig_await_state(r, job->id, RUNNING));
    return job;
}

static void release_two(rig_stage stages[2], Millrace__V1__StageOrder__OrderCase order) {
    for (size_t i = 0; i < 2; i++) {
        Millrace__V1__StageOrder *next = rig_stage_expect(&stages[i], order);
        uint64_t epoch = order == MILLRACE__V1__STAGE_ORDER__ORDER_ABORT ? next->abort->epoch
                                                                         : next->release->epoch;
        rig_stage_released(&stages[i], epoch);
        rig_free(next);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void test_bad_job_file_is_refused_with_line_and_key(void **state) {
    rig *r = *state;
    char text[TEXT_BYTES];
    rig_job_text(r, "bad", 0, 10, NULL, text, sizeof(text));
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = text;
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "Submit", &request.base, &response);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "stages"));

    Millrace__V1__ValidateRequest validate = MILLRACE__V1__VALIDATE_REQUEST__INIT;
    validate.job_file = text;
    status = rig_call(r, "Validate", &validate.base, &response);
    assert_int_equal(status.code, MR_CODE_OK);
    const Millrace__V1__ValidateResponse *verdict = (Millrace__V1__ValidateResponse *)response;
    assert_int_equal(verdict->n_errors, 1);
    assert_non_null(strstr(verdict->errors[0], "line 11"));
    rig_free(response);
}

static void test_plan_is_the_contract_json(void **state) {
    rig *r = *state;
    char text[TEXT_BYTES];
    rig_job_text(r, "good", 2, 10, NULL, text, sizeof(text));
    Millrace__V1__PlanRequest request = MILLRACE__V1__PLAN_REQUEST__INIT;
    request.job_file = text;
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "Plan", &request.base, &response);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_non_null(strstr(((Millrace__V1__PlanResponse *)response)->json, "millrace.plan/v1"));
    rig_free(response);
}

static void test_unknown_names_are_not_found(void **state) {
    rig *r = *state;
    static const char *const methods[] = {"Get", "Pause", "Resume", "Cancel", "OpenFeed"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        ProtobufCMessage *response = NULL;
        mr_status status = call_about(r, methods[i], "nosuch", &response);
        assert_int_equal(status.code, MR_CODE_NOT_FOUND);
        assert_non_null(strstr(status.text, "nosuch"));
    }
    Millrace__V1__DrainStageRequest drain = MILLRACE__V1__DRAIN_STAGE_REQUEST__INIT;
    drain.member_id = "m77";
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "DrainStage", &drain.base, &response);
    assert_int_equal(status.code, MR_CODE_NOT_FOUND);
}

/* ---- a job's life ---------------------------------------------------------------------------- */

static void test_job_waits_for_stages_and_says_so(void **state) {
    rig *r = *state;
    char text[TEXT_BYTES];
    rig_job_text(r, "waits", 2, 10, NULL, text, sizeof(text));
    rig_stage stage;
    rig_stage_attach(r, &stage, "stage-a:1");
    Millrace__V1__Job *job = rig_submit(r, text, false);
    Millrace__V1__Job *waiting = rig_await_state(r, job->id, QUEUED);
    assert_string_equal(waiting->reason, "waits for 1 more stage (needs 2, idle 1)");
    assert_int_equal(waiting->queue_position, 1);
    rig_free(waiting);
    call_ok(r, "Cancel", job->id);
    rig_free(rig_await_state(r, "waits", CANCELLED));
    rig_free(job);
    rig_stage_leave(&stage);
}

static void test_job_runs_saves_and_succeeds(void **state) {
    rig *r = *state;
    rig_stage stages[2];
    Millrace__V1__Job *job = start_two(r, stages, "ckpt", 2);
    char dir[RIG_PATH_BYTES + 8];
    (void)snprintf(dir, sizeof(dir), "%s/ckpt", r->folder);
    assert_int_equal(mkdir(dir, 0700), 0);
    ProtobufCMessage *response = NULL;
    mr_status status = call_about(r, "OpenFeed", "pair", &response);
    assert_int_equal(status.code, MR_CODE_OK);
    const Millrace__V1__OpenFeedResponse *feed = (Millrace__V1__OpenFeedResponse *)response;
    assert_int_equal(feed->n_addresses, 1);
    assert_string_equal(feed->addresses[0], "stage-a:1");
    rig_free(response);

    rig_stage_feed(&stages[0], true);
    rig_stage_step_done(&stages[0], 1, 3.5);
    rig_stage_step_done(&stages[0], 2, 2.5);
    const char *tag = "step-000000000002";
    rig_stage_saved(&stages[0], dir, tag, 2, 0, "");
    rig_stage_finished(&stages[0], 2);
    rig_stage_finished(&stages[1], 2);
    rig_stage_saved(&stages[1], dir, tag, 2, 2, "");
    for (size_t i = 0; i < 2; i++)
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_COMMITTED));
    release_two(stages, MILLRACE__V1__STAGE_ORDER__ORDER_RELEASE);
    Millrace__V1__Job *done = rig_await_state(r, job->id, SUCCEEDED);
    assert_int_equal(done->step, 2);
    assert_true(done->loss > 2.4 && done->loss < 2.6);
    assert_string_equal(done->checkpoint_tag, tag);
    rig_free(done);

    Millrace__V1__ListCheckpointsRequest list = MILLRACE__V1__LIST_CHECKPOINTS_REQUEST__INIT;
    list.job = "pair";
    status = rig_call(r, "ListCheckpoints", &list.base, &response);
    assert_int_equal(status.code, MR_CODE_OK);
    const Millrace__V1__ListCheckpointsResponse *found =
        (Millrace__V1__ListCheckpointsResponse *)response;
    assert_int_equal(found->n_checkpoints, 1);
    assert_string_equal(found->checkpoints[0]->tag, tag);
    assert_true(found->checkpoints[0]->newest);
    rig_free(response);
    rig_free(job);
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);
}

static void test_resume_begins_where_the_checkpoint_stands(void **state) {
    rig *r = *state;
    test_job_runs_saves_and_succeeds(state);
    char text[TEXT_BYTES];
    rig_job_text(r, "pair", 2, 5, "ckpt", text, sizeof(text));
    Millrace__V1__Job *job = rig_submit(r, text, true);
    assert_int_equal(job->start_step, 2);
    call_ok(r, "Cancel", job->id);
    rig_free(job);
    rig_job_text(r, "pair", 2, 1, "ckpt", text, sizeof(text));
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = text;
    request.resume_tag = "step-000000000002";
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "Submit", &request.base, &response);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "total_steps"));
}

static void test_second_job_of_a_name_is_refused(void **state) {
    rig *r = *state;
    char text[TEXT_BYTES];
    rig_job_text(r, "twin", 1, 10, NULL, text, sizeof(text));
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = text;
    request.request_id = "once";
    ProtobufCMessage *first = NULL;
    ProtobufCMessage *again = NULL;
    assert_int_equal(rig_call(r, "Submit", &request.base, &first).code, MR_CODE_OK);
    assert_int_equal(rig_call(r, "Submit", &request.base, &again).code, MR_CODE_OK);
    assert_string_equal(((Millrace__V1__Job *)first)->id, ((Millrace__V1__Job *)again)->id);
    request.request_id = "twice";
    ProtobufCMessage *other = NULL;
    mr_status status = rig_call(r, "Submit", &request.base, &other);
    assert_int_equal(status.code, MR_CODE_ALREADY_EXISTS);
    assert_non_null(strstr(status.text, ((Millrace__V1__Job *)first)->id));
    rig_free(first);
    rig_free(again);
}

/* Pause waits for the last stage, so it is called from another thread. */
typedef struct slow_call {
    rig *r;
    const char *method;
    const ProtobufCMessage *request;
    ProtobufCMessage *response;
    mr_status status;
    pthread_t thread;
} slow_call;

static void *slow_call_run(void *context) {
    slow_call *call = context;
    call->status = rig_call(call->r, call->method, call->request, &call->response);
    return NULL;
}

static void slow_call_start(slow_call *call) {
    assert_int_equal(pthread_create(&call->thread, NULL, slow_call_run, call), 0);
}

static void test_pause_resume_and_save_on_request(void **state) {
    rig *r = *state;
    rig_stage stages[2];
    Millrace__V1__Job *job = start_two(r, stages, "asked", 9);
    char dir[RIG_PATH_BYTES + 8];
    (void)snprintf(dir, sizeof(dir), "%s/asked", r->folder);
    assert_int_equal(mkdir(dir, 0700), 0);

    Millrace__V1__JobRequest about = MILLRACE__V1__JOB_REQUEST__INIT;
    about.job = job->id;
    slow_call pause = {.r = r, .method = "Pause", .request = &about.base};
    slow_call_start(&pause);
    for (size_t i = 0; i < 2; i++)
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_PAUSE));
    rig_stage_paused(&stages[1], 3);
    rig_stage_paused(&stages[0], 3);
    assert_int_equal(pthread_join(pause.thread, NULL), 0);
    assert_int_equal(pause.status.code, MR_CODE_OK);
    assert_int_equal(((Millrace__V1__Job *)pause.response)->state, PAUSED);
    rig_free(pause.response);

    Millrace__V1__SaveCheckpointRequest wanted = MILLRACE__V1__SAVE_CHECKPOINT_REQUEST__INIT;
    wanted.job = job->id;
    wanted.tag = "mine";
    slow_call save = {.r = r, .method = "SaveCheckpoint", .request = &wanted.base};
    slow_call_start(&save);
    for (size_t i = 0; i < 2; i++) {
        Millrace__V1__StageOrder *order =
            rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_SAVE);
        assert_string_equal(order->save->tag, "mine");
        assert_string_equal(order->save->path, dir);
        rig_free(order);
        rig_stage_saved(&stages[i], dir, "mine", 3, i == 0 ? 0 : 2, "");
    }
    assert_int_equal(pthread_join(save.thread, NULL), 0);
    if (!mr_status_is_ok(save.status))
        fail_msg("%s", save.status.text);
    assert_int_equal(((Millrace__V1__Checkpoint *)save.response)->step, 3);
    rig_free(save.response);
    for (size_t i = 0; i < 2; i++)
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_COMMITTED));
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "SaveCheckpoint", &wanted.base, &response);
    assert_int_equal(status.code, MR_CODE_ALREADY_EXISTS);
    wanted.tag = "../escape";
    status = rig_call(r, "SaveCheckpoint", &wanted.base, &response);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);

    call_ok(r, "Resume", job->id);
    for (size_t i = 0; i < 2; i++)
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_RUN));
    wanted.tag = "full";
    slow_call_start(&save);
    for (size_t i = 0; i < 2; i++) {
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_SAVE));
        rig_stage_saved(&stages[i], dir, "full", 4, i == 0 ? 0 : 2,
                        i == 0 ? "" : "no space left on device");
    }
    assert_int_equal(pthread_join(save.thread, NULL), 0);
    assert_int_not_equal(save.status.code, MR_CODE_OK);
    assert_non_null(strstr(save.status.text, "no space left on device"));
    assert_non_null(strstr(save.status.text, "stage 1"));
    call_ok(r, "Cancel", job->id);
    release_two(stages, MILLRACE__V1__STAGE_ORDER__ORDER_ABORT);
    rig_free(job);
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void test_lost_stage_fails_its_job_and_is_named(void **state) {
    rig *r = *state;
    rig_stage stages[2];
    Millrace__V1__Job *job = start_two(r, stages, NULL, 9);
    int64_t begun_ms = mr_clock_now_ms();
    rig_stage_failed(&stages[0], "RG0: stage 1 is gone", true);
    rig_stage_leave(&stages[1]);
    Millrace__V1__Job *failed = rig_await_state(r, job->id, FAILED);
    assert_true(mr_clock_now_ms() - begun_ms < 10000);
    assert_non_null(strstr(failed->reason, "stage 1 (rank 1, member m2 at stage-b:1)"));
    assert_non_null(strstr(failed->reason, "lost"));
    assert_true(failed->epoch > job->epoch);
    Millrace__V1__StageOrder *order =
        rig_stage_expect(&stages[0], MILLRACE__V1__STAGE_ORDER__ORDER_ABORT);
    assert_int_equal(order->abort->epoch, failed->epoch);
    rig_stage_released(&stages[0], order->abort->epoch);
    rig_free(order);
    rig_free(failed);
    rig_free(job);
    /* The one that is left is free again. */
    char text[TEXT_BYTES];
    rig_job_text(r, "next", 1, 9, NULL, text, sizeof(text));
    job = rig_submit(r, text, false);
    rig_stages_run(stages, 1);
    rig_free(rig_await_state(r, "next", RUNNING));
    rig_free(job);
    rig_stage_leave(&stages[0]);
}

static void test_stage_that_attaches_again_replaces_itself(void **state) {
    rig *r = *state;
    rig_stage first;
    rig_stage second;
    rig_stage_attach(r, &first, "stage-a:1");
    rig_stage_attach(r, &second, "stage-a:1");
    rig_stage_expect_end(&first);
    Millrace__V1__ListStagesRequest request = MILLRACE__V1__LIST_STAGES_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    assert_int_equal(rig_call(r, "ListStages", &request.base, &response).code, MR_CODE_OK);
    const Millrace__V1__ListStagesResponse *list = (Millrace__V1__ListStagesResponse *)response;
    size_t idle = 0;
    for (size_t i = 0; i < list->n_members; i++)
        idle += strcmp(list->members[i]->state, "idle") == 0;
    assert_int_equal(idle, 1);
    rig_free(response);
    rig_stage_leave(&second);
}

static void test_drained_stage_is_told_to_exit(void **state) {
    rig *r = *state;
    rig_stage stage;
    rig_stage_attach(r, &stage, "stage-a:1");
    Millrace__V1__DrainStageRequest drain = MILLRACE__V1__DRAIN_STAGE_REQUEST__INIT;
    drain.member_id = "m1";
    ProtobufCMessage *response = NULL;
    assert_int_equal(rig_call(r, "DrainStage", &drain.base, &response).code, MR_CODE_OK);
    assert_string_equal(((Millrace__V1__Member *)response)->state, "draining");
    rig_free(response);
    rig_free(rig_stage_expect(&stage, MILLRACE__V1__STAGE_ORDER__ORDER_SHUTDOWN));
    rig_stage_leave(&stage);
}

static void test_stream_without_register_is_refused(void **state) {
    rig *r = *state;
    rig_stage stage = {0};
    rig_stage_attach(r, &stage, "stage-a:1");
    Millrace__V1__Register hello = MILLRACE__V1__REGISTER__INIT;
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_REGISTER;
    report.register_ = &hello;
    rig_stage_send(&stage, &report); /* twice: a mistake */
    rig_stage_expect_end(&stage);
}

/* ---- watch and restart ----------------------------------------------------------------------- */

typedef struct watcher {
    mr_queue *events;
    mr_status end;
} watcher;

static void watcher_on_message(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                               mr_rpc_tail *owned_tail, void *context) {
    watcher *w = context;
    mr_rpc_tail_destroy(owned_tail);
    mr_status status = mr_queue_push(w->events, &owned_message);
    MR_ASSERT(mr_status_is_ok(status));
    mr_rpc_stream_receive(stream);
}

static void watcher_on_end(mr_rpc_stream *stream, mr_status ended, void *context) {
    (void)stream;
    watcher *w = context;
    ProtobufCMessage *end = NULL;
    w->end = ended;
    mr_status status = mr_queue_push(w->events, &end);
    MR_ASSERT(mr_status_is_ok(status));
}

static const mr_rpc_stream_events watcher_events = {
    .on_message = watcher_on_message,
    .on_end = watcher_on_end,
};

static void test_watch_tells_every_change_and_ends(void **state) {
    rig *r = *state;
    rig_stage stages[2];
    Millrace__V1__Job *job = start_two(r, stages, NULL, 3);
    watcher w = {0};
    assert_int_equal(mr_queue_create(sizeof(ProtobufCMessage *), 256, &w.events).code, MR_CODE_OK);
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = "pair";
    mr_rpc_stream *stream = NULL;
    assert_int_equal(mr_rpc_channel_open(r->channel, &millrace__v1__jobs__descriptor, "Watch",
                                         &request.base, &watcher_events, &w, 0, &stream)
                         .code,
                     MR_CODE_OK);
    mr_rpc_stream_receive(stream);
    ProtobufCMessage *event = NULL;
    assert_int_equal(mr_queue_pop(w.events, &event, RIG_TIMEOUT_MS).code, MR_CODE_OK);
    assert_int_equal(((Millrace__V1__JobEvent *)event)->job->state, RUNNING);
    rig_free(event);
    for (uint64_t step = 1; step <= 3; step++)
        rig_stage_step_done(&stages[0], step, 4.0 - (double)step);
    rig_stage_finished(&stages[0], 3);
    rig_stage_finished(&stages[1], 3);
    uint64_t steps = 0;
    bool ended = false;
    Millrace__V1__JobState last = RUNNING;
    while (!ended) {
        assert_int_equal(mr_queue_pop(w.events, &event, RIG_TIMEOUT_MS).code, MR_CODE_OK);
        ended = event == NULL;
        if (ended)
            break;
        const Millrace__V1__JobEvent *change = (Millrace__V1__JobEvent *)event;
        last = change->job->state;
        if (change->step != NULL)
            assert_int_equal(change->step->step, ++steps);
        rig_free(event);
    }
    assert_int_equal(steps, 3);
    assert_int_equal(last, SUCCEEDED);
    assert_int_equal(w.end.code, MR_CODE_OK);
    release_two(stages, MILLRACE__V1__STAGE_ORDER__ORDER_RELEASE);
    mr_rpc_stream_unref(stream);
    mr_queue_destroy(w.events);
    rig_free(job);
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);
}

/* Sends as fast as the stream takes it. */
static void step_done_patiently(rig_stage *stage, uint64_t step) {
    while (!rig_stage_try_step_done(stage, step, 1.0))
        rig_pause();
}

static void test_slow_watcher_gets_steps_in_order_and_no_change_is_lost(void **state) {
    rig *r = *state;
    /* Whether steps are left out depends on how much the sockets and HTTP/2 windows of the machine
     * hold; that they come in order and that the end comes does not. */
    enum { STEPS = 5000 };
    rig_stage stages[2];
    Millrace__V1__Job *job = start_two(r, stages, NULL, STEPS);
    watcher w = {0};
    assert_int_equal(mr_queue_create(sizeof(ProtobufCMessage *), STEPS + 16, &w.events).code,
                     MR_CODE_OK);
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = "pair";
    mr_rpc_stream *stream = NULL;
    assert_int_equal(mr_rpc_channel_open(r->channel, &millrace__v1__jobs__descriptor, "Watch",
                                         &request.base, &watcher_events, &w, 0, &stream)
                         .code,
                     MR_CODE_OK);
    call_ok(r, "Get", job->id); /* the watch has begun before this was answered */
    for (uint64_t step = 1; step <= STEPS; step++) {
        step_done_patiently(&stages[0], step);
        if (step % 500 == 0)
            rig_stage_heartbeat(&stages[1]);
    }
    rig_stage_finished(&stages[0], STEPS);
    rig_stage_finished(&stages[1], STEPS);
    rig_free(rig_await_state(r, job->id, SUCCEEDED));
    mr_rpc_stream_receive(stream); /* only now does it read */
    uint64_t steps = 0;
    uint64_t last_step = 0;
    Millrace__V1__JobState last = QUEUED;
    for (;;) {
        ProtobufCMessage *event = NULL;
        assert_int_equal(mr_queue_pop(w.events, &event, RIG_TIMEOUT_MS).code, MR_CODE_OK);
        if (event == NULL)
            break;
        const Millrace__V1__JobEvent *change = (Millrace__V1__JobEvent *)event;
        last = change->job->state;
        if (change->step != NULL) {
            assert_true(change->step->step > last_step);
            last_step = change->step->step;
            steps++;
        }
        rig_free(event);
    }
    assert_int_equal(last, SUCCEEDED);
    assert_int_equal(w.end.code, MR_CODE_OK);
    assert_true(steps > 0 && steps <= STEPS);
    mr_rpc_stream_unref(stream);
    mr_queue_destroy(w.events);
    rig_free(job);
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);
}

static void test_restarted_coordinator_knows_its_jobs(void **state) {
    rig *r = *state;
    rig_stage stages[2];
    Millrace__V1__Job *job = start_two(r, stages, NULL, 9);
    char text[TEXT_BYTES];
    rig_job_text(r, "later", 1, 9, NULL, text, sizeof(text));
    rig_free(rig_submit(r, text, false));
    rig_restart(r);
    rig_stage_expect_end(&stages[0]);
    rig_stage_expect_end(&stages[1]);
    Millrace__V1__Job *failed = rig_await_state(r, job->id, FAILED);
    assert_non_null(strstr(failed->reason, "coordinator restarted"));
    assert_true(failed->epoch > job->epoch);
    rig_free(failed);
    rig_free(rig_await_state(r, "later", QUEUED));
    rig_stage_attach(r, &stages[0], "stage-a:1");
    rig_stages_run(stages, 1);
    Millrace__V1__Job *running = rig_await_state(r, "later", RUNNING);
    assert_true(running->epoch > job->epoch + 1);
    rig_free(running);
    rig_free(job);
    rig_stage_leave(&stages[0]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_bad_job_file_is_refused_with_line_and_key),
        TEST(test_plan_is_the_contract_json),
        TEST(test_unknown_names_are_not_found),
        TEST(test_job_waits_for_stages_and_says_so),
        TEST(test_job_runs_saves_and_succeeds),
        TEST(test_resume_begins_where_the_checkpoint_stands),
        TEST(test_second_job_of_a_name_is_refused),
        TEST(test_pause_resume_and_save_on_request),
        TEST(test_lost_stage_fails_its_job_and_is_named),
        TEST(test_stage_that_attaches_again_replaces_itself),
        TEST(test_drained_stage_is_told_to_exit),
        TEST(test_stream_without_register_is_refused),
        TEST(test_watch_tells_every_change_and_ends),
        TEST(test_slow_watcher_gets_steps_in_order_and_no_change_is_lost),
        TEST(test_restarted_coordinator_knows_its_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
