/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/coordinator/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/checkpoint/safetensors.h"
#include "daemon/rpc/runtime.h"

/* ---- the coordinator ------------------------------------------------------------------------- */

static void *rig_serve(void *context) {
    mr_coordinator_serve(context);
    return NULL;
}

static void rig_open(rig *r) {
    char state[RIG_PATH_BYTES + 16];
    (void)snprintf(state, sizeof(state), "%s/state", r->folder);
    const mr_coordinator_options options = {
        .listen = "127.0.0.1:0",
        .status_listen = "127.0.0.1:0",
        .state_dir = state,
        .log_level = MR_LOG_ERROR,
    };
    mr_status status = mr_coordinator_create(&options, &r->coordinator);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    assert_int_equal(pthread_create(&r->thread, NULL, rig_serve, r->coordinator), 0);
    const mr_rpc_credentials none = {0};
    status = mr_rpc_channel_create(mr_coordinator_address(r->coordinator), &none, &r->channel);
    assert_int_equal(status.code, MR_CODE_OK);
}

static void rig_close(rig *r) {
    int64_t begun_ms = mr_clock_now_ms();
    mr_coordinator_stop(r->coordinator);
    assert_int_equal(pthread_join(r->thread, NULL), 0);
    mr_coordinator_destroy(r->coordinator);
    assert_true(mr_clock_now_ms() - begun_ms < 5000);
    mr_rpc_channel_destroy(r->channel);
}

void rig_start(rig *r) {
    const char *base = getenv("TEST_TMPDIR");
    (void)snprintf(r->folder, sizeof(r->folder), "%s/coordinator.XXXXXX",
                   base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(r->folder));
    mr_status status = mr_rpc_start();
    assert_int_equal(status.code, MR_CODE_OK);
    rig_open(r);
}

void rig_restart(rig *r) {
    rig_close(r);
    rig_open(r);
}

void rig_stop(rig *r) {
    rig_close(r);
    mr_rpc_stop();
    char command[RIG_PATH_BYTES + 16];
    (void)snprintf(command, sizeof(command), "rm -rf %s", r->folder);
    assert_int_equal(system(command), 0);
}

mr_status rig_call(rig *r, const char *method, const ProtobufCMessage *request,
                   ProtobufCMessage **out_response) {
    return mr_rpc_channel_call(r->channel, &millrace__v1__jobs__descriptor, method, request,
                               RIG_TIMEOUT_MS, out_response);
}

void rig_free(void *message) {
    if (message != NULL)
        protobuf_c_message_free_unpacked(message, NULL);
}

void rig_pause(void) {
    const struct timespec pause = {.tv_nsec = 5000000};
    (void)nanosleep(&pause, NULL);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

void rig_job_text(const rig *r, const char *name, int stages, int steps, const char *checkpoint_dir,
                  char *out_text, size_t bytes) {
    char checkpoint[RIG_PATH_BYTES + 64] = "";
    if (checkpoint_dir != NULL)
        (void)snprintf(checkpoint, sizeof(checkpoint), "checkpoint: {dir: %s/%s, keep: 2}\n",
                       r->folder, checkpoint_dir);
    (void)snprintf(out_text, bytes,
                   "schema: millrace.job/v1\n"
                   "name: %s\n"
                   "seed: 1\n"
                   "model:\n"
                   "  layers:\n"
                   "    - {type: embedding, tie: embed, vocab: 256, dim: 32, positions: 16}\n"
                   "    - {type: transformer_block, dim: 32, heads: 2}\n"
                   "    - {type: layernorm, dim: 32}\n"
                   "    - {type: lm_head, tie: embed}\n"
                   "  loss: cross_entropy\n"
                   "pipeline: {stages: %d, partition: uniform, schedule: 1f1b}\n"
                   "batch: {micro_batch_size: 2, micro_batches: 4, sequence_length: 16}\n"
                   "optimizer: {type: adamw, lr: 1e-3}\n"
                   "lr_schedule: {type: constant, total_steps: %d}\n"
                   "precision: fp32\n"
                   "data: {format: bytes, train: corpus.txt}\n"
                   "%s",
                   name, stages, steps, checkpoint);
}

Millrace__V1__Job *rig_submit(rig *r, const char *text, bool resume_newest) {
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = (char *)(uintptr_t)text;
    request.base_directory = r->folder;
    request.resume_newest = resume_newest;
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "Submit", &request.base, &response);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return (Millrace__V1__Job *)response;
}

Millrace__V1__Job *rig_await_state(rig *r, const char *job, Millrace__V1__JobState state) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job;
    Millrace__V1__Job *found = NULL;
    for (int64_t until_ms = mr_clock_now_ms() + RIG_TIMEOUT_MS; mr_clock_now_ms() < until_ms;) {
        rig_free(found);
        ProtobufCMessage *response = NULL;
        mr_status status = rig_call(r, "Get", &request.base, &response);
        if (!mr_status_is_ok(status))
            fail_msg("%s", status.text);
        found = (Millrace__V1__Job *)response;
        if (found->state == state)
            return found;
        rig_pause();
    }
    fail_msg("job %s is in state %d (%s), not %d", job, (int)found->state, found->reason,
             (int)state);
    return NULL;
}

/* ---- stages ---------------------------------------------------------------------------------- */

static void stage_on_message(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                             mr_rpc_tail *owned_tail, void *context) {
    rig_stage *stage = context;
    mr_rpc_tail_destroy(owned_tail);
    mr_status status = mr_queue_push(stage->orders, &owned_message);
    MR_ASSERT(mr_status_is_ok(status));
    mr_rpc_stream_receive(stream);
}

static void stage_on_end(mr_rpc_stream *stream, mr_status ended, void *context) {
    (void)stream;
    (void)ended;
    rig_stage *stage = context;
    ProtobufCMessage *end = NULL;
    mr_status status = mr_queue_push(stage->orders, &end);
    MR_ASSERT(mr_status_is_ok(status));
}

static const mr_rpc_stream_events stage_events = {
    .on_message = stage_on_message,
    .on_end = stage_on_end,
};

void rig_stage_attach(rig *r, rig_stage *stage, const char *name) {
    *stage = (rig_stage){0};
    mr_status status = mr_queue_create(sizeof(ProtobufCMessage *), 256, &stage->orders);
    assert_int_equal(status.code, MR_CODE_OK);
    status = mr_rpc_channel_open(r->channel, &millrace__v1__control__descriptor, "Attach", NULL,
                                 &stage_events, stage, 0, &stage->stream);
    assert_int_equal(status.code, MR_CODE_OK);
    mr_rpc_stream_receive(stage->stream);
    Millrace__V1__Register hello = MILLRACE__V1__REGISTER__INIT;
    hello.instance_id = (char *)(uintptr_t)name;
    hello.address = (char *)(uintptr_t)name;
    hello.device = "cpu";
    hello.threads = 1;
    hello.version = "test";
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_REGISTER;
    report.register_ = &hello;
    rig_stage_send(stage, &report);
    rig_free(rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_REGISTERED));
}

/* Passes over what is only asked for people to look at, as a stage may. */
static Millrace__V1__StageOrder *stage_next(rig_stage *stage) {
    for (;;) {
        ProtobufCMessage *message = NULL;
        mr_status status = mr_queue_pop(stage->orders, &message, RIG_TIMEOUT_MS);
        assert_int_equal(status.code, MR_CODE_OK);
        Millrace__V1__StageOrder *order = (Millrace__V1__StageOrder *)message;
        if (order == NULL ||
            order->order_case != MILLRACE__V1__STAGE_ORDER__ORDER_TELL_SPANS)
            return order;
        rig_free(order);
    }
}

Millrace__V1__StageOrder *rig_stage_expect(rig_stage *stage,
                                           Millrace__V1__StageOrder__OrderCase order) {
    Millrace__V1__StageOrder *next = stage_next(stage);
    assert_non_null(next);
    if (next->order_case != order && next->order_case == MILLRACE__V1__STAGE_ORDER__ORDER_ABORT)
        print_error("aborted: %s\n", next->abort->reason);
    assert_int_equal(next->order_case, order);
    return next;
}

void rig_stage_expect_end(rig_stage *stage) {
    for (Millrace__V1__StageOrder *order; (order = stage_next(stage)) != NULL;)
        rig_free(order);
    mr_rpc_stream_unref(stage->stream);
    mr_queue_destroy(stage->orders);
}

void rig_stage_leave(rig_stage *stage) {
    mr_rpc_stream_cancel(stage->stream);
    rig_stage_expect_end(stage);
}

void rig_stage_send(rig_stage *stage, Millrace__V1__StageReport *report) {
    mr_status status = mr_rpc_stream_send(stage->stream, &report->base, NULL);
    assert_int_equal(status.code, MR_CODE_OK);
}

/* A report about the stage's present job, in a local named report. */
#define RIG_REPORT(Type, INIT, field, NAME)                                                        \
    Millrace__V1__##Type body = INIT;                                                              \
    body.job_id = stage->job_id;                                                                   \
    body.epoch = stage->epoch;                                                                     \
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;                           \
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_##NAME;                                \
    report.field = &body

static void stage_prepared(rig_stage *stage) {
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_PREPARE);
    (void)snprintf(stage->job_id, sizeof(stage->job_id), "%s", order->prepare->job_id);
    (void)snprintf(stage->schedule_hash, sizeof(stage->schedule_hash), "%s",
                   order->prepare->schedule_hash);
    stage->epoch = order->prepare->epoch;
    RIG_REPORT(Prepared, MILLRACE__V1__PREPARED__INIT, prepared, PREPARED);
    body.schedule_hash = stage->schedule_hash;
    unsigned long long step = 0;
    if (order->prepare->checkpoint_path[0] != '\0')
        assert_int_equal(sscanf(strrchr(order->prepare->checkpoint_path, '/'), "/step-%llu", &step),
                         1);
    body.next_step = step;
    rig_stage_send(stage, &report);
    rig_free(order);
}

static void stage_connected(rig_stage *stage) {
    rig_free(rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_CONNECT));
    RIG_REPORT(Connected, MILLRACE__V1__CONNECTED__INIT, connected, CONNECTED);
    rig_stage_send(stage, &report);
}

void rig_stages_run(rig_stage *stages, size_t count) {
    for (size_t i = 0; i < count; i++)
        stage_prepared(&stages[i]);
    for (size_t i = 0; i < count; i++)
        stage_connected(&stages[i]);
    for (size_t i = 0; i < count; i++)
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_RUN));
}

bool rig_stage_try_step_done(rig_stage *stage, uint64_t step, double loss) {
    RIG_REPORT(StepDone, MILLRACE__V1__STEP_DONE__INIT, step_done, STEP_DONE);
    Millrace__V1__StepResult result = MILLRACE__V1__STEP_RESULT__INIT;
    result.step = step;
    result.loss = loss;
    result.tokens = 128;
    body.result = &result;
    return mr_status_is_ok(mr_rpc_stream_send(stage->stream, &report.base, NULL));
}

void rig_stage_step_done(rig_stage *stage, uint64_t step, double loss) {
    assert_true(rig_stage_try_step_done(stage, step, loss));
}

void rig_stage_heartbeat(rig_stage *stage) {
    RIG_REPORT(Heartbeat, MILLRACE__V1__HEARTBEAT__INIT, heartbeat, HEARTBEAT);
    rig_stage_send(stage, &report);
}

void rig_stage_finished(rig_stage *stage, uint64_t step) {
    RIG_REPORT(Finished, MILLRACE__V1__FINISHED__INIT, finished, FINISHED);
    body.step = step;
    rig_stage_send(stage, &report);
}

void rig_stage_paused(rig_stage *stage, uint64_t step) {
    RIG_REPORT(Paused, MILLRACE__V1__PAUSED__INIT, paused, PAUSED);
    body.step = step;
    rig_stage_send(stage, &report);
}

void rig_stage_failed(rig_stage *stage, const char *text, bool secondary) {
    RIG_REPORT(StageFailed, MILLRACE__V1__STAGE_FAILED__INIT, failed, FAILED);
    body.code = MR_CODE_UNAVAILABLE;
    body.text = (char *)(uintptr_t)text;
    body.secondary = secondary;
    rig_stage_send(stage, &report);
}

void rig_stage_released(rig_stage *stage, uint64_t epoch) {
    RIG_REPORT(Released, MILLRACE__V1__RELEASED__INIT, released, RELEASED);
    body.epoch = epoch;
    rig_stage_send(stage, &report);
}

void rig_stage_feed(rig_stage *stage, bool open) {
    RIG_REPORT(FeedState, MILLRACE__V1__FEED_STATE__INIT, feed_state, FEED_STATE);
    body.open = open;
    rig_stage_send(stage, &report);
}

void rig_stage_saved(rig_stage *stage, const char *dir, const char *tag, uint64_t step,
                     uint32_t layer, const char *error) {
    RIG_REPORT(Saved, MILLRACE__V1__SAVED__INIT, saved, SAVED);
    body.tag = (char *)(uintptr_t)tag;
    body.step = step;
    body.optimizer_steps = step;
    body.error = (char *)(uintptr_t)error;
    mr_checkpoint_file written[2] = {0};
    Millrace__V1__SavedFile items[2];
    Millrace__V1__SavedFile *list[2] = {&items[0], &items[1]};
    const float number = 1;
    const mr_safetensors_tensor tensor = {
        .name = "weight", .dtype = MR_SAFETENSORS_F32, .dims = 1, .shape = {1}, .data = &number};
    char folder[RIG_PATH_BYTES + 256];
    mr_status status = mr_layout_save_path(dir, tag, stage->epoch, step, folder, sizeof(folder));
    for (uint32_t i = 0; i < 2 && mr_status_is_ok(status); i++) {
        char file[MR_NAME_BYTES];
        mr_layout_layer_name(layer + i, 0, 1, MR_LAYER_FILE_MODEL, file);
        status = mr_safetensors_write(folder, file, &tensor, 1, &written[i]);
        millrace__v1__saved_file__init(&items[i]);
        items[i].name = written[i].name;
        items[i].bytes = written[i].bytes;
        items[i].sha256 = written[i].sha256;
    }
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    body.files = list;
    body.n_files = 2;
    rig_stage_send(stage, &report);
}
