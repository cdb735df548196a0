/* SPDX-License-Identifier: Apache-2.0 */
/* A coordinator and first stage that compute nothing, for tests of the client: fake_cluster
 * SCENARIO. It prints its address on stdout, plays one job, checks that microbatches come in order,
 * within the window and with labels shifted by one, says what it saw on stdout and ends when its
 * stdin does. train   QUEUED, then RUNNING; every step is applied; SUCCEEDED break   the same, but
 * the feed is cut once in the middle of step 2 fail    FAILED after step 1, with a reason hang no
 * step is ever applied; CANCELLED when the client asks text    inference: the scores prefer the
 * letter after the last one */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/rpc/runtime.h"
#include "daemon/rpc/server.h"
#include "millrace/v1/feed.pb-c.h"
#include "millrace/v1/jobs.pb-c.h"

/* The job of client_job.yaml. */
enum { STEPS = 5, MICRO_BATCHES = 3, TOKENS = 2 * 4, VOCABULARY = 256, WINDOW = 2 };

/* All state; handlers hold the lock. */
static struct {
    pthread_mutex_t lock;
    const char *scenario;
    char address[128];
    Millrace__V1__JobState state;
    const char *reason;
    bool inference;
    bool broken; /* the cut of "break" is done */
    uint64_t step;
    uint32_t index;
    mr_rpc_stream *watch;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .reason = ""};

static void say(const char *text, unsigned long long number) {
    printf("%s %llu\n", text, number);
    fflush(stdout);
}

/* Something the client must never do. */
static void blame(const char *text, unsigned long long number) {
    say(text, number);
    exit(1);
}

static void must(mr_status status) {
    if (!mr_status_is_ok(status))
        blame(status.text, status.line);
}

static void fill_job(Millrace__V1__Job *job, Millrace__V1__JobStage *stage,
                     Millrace__V1__JobStage **stages) {
    static char id[] = "job-1";
    static char name[] = "tiny";
    static char member[] = "m1";
    *stage = (Millrace__V1__JobStage)MILLRACE__V1__JOB_STAGE__INIT;
    stage->layer_end = 4;
    stage->member_id = member;
    stage->address = fake.address;
    stages[0] = stage;
    *job = (Millrace__V1__Job)MILLRACE__V1__JOB__INIT;
    job->id = id;
    job->name = name;
    job->state = fake.state;
    job->reason = (char *)(uintptr_t)fake.reason;
    job->mode = fake.inference ? MILLRACE__V1__JOB_MODE__JOB_MODE_INFERENCE
                               : MILLRACE__V1__JOB_MODE__JOB_MODE_TRAIN;
    job->epoch = 7;
    job->step = fake.step;
    job->total_steps = STEPS;
    job->loss = 1.0 / (double)(fake.step + 1);
    job->queue_position = fake.state == MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED ? 1 : 0;
    job->n_stages = 1;
    job->stages = stages;
}

static void answer_job(mr_rpc_stream *stream) {
    Millrace__V1__Job job;
    Millrace__V1__JobStage stage;
    Millrace__V1__JobStage *stages[1];
    fill_job(&job, &stage, stages);
    must(mr_rpc_stream_send(stream, &job.base, NULL));
    mr_rpc_stream_finish(stream, MR_OK);
}

/* Tells the watcher the present state, and a step where one was just done. */
static void notify(bool with_step) {
    Millrace__V1__Job job;
    Millrace__V1__JobStage stage;
    Millrace__V1__JobStage *stages[1];
    Millrace__V1__JobEvent event = MILLRACE__V1__JOB_EVENT__INIT;
    Millrace__V1__StepResult step = MILLRACE__V1__STEP_RESULT__INIT;
    if (fake.watch == NULL)
        return;
    fill_job(&job, &stage, stages);
    event.job = &job;
    step.step = fake.step;
    step.loss = job.loss;
    step.gradient_norm = 0.5;
    step.learning_rate = 0.001;
    step.tokens = TOKENS * MICRO_BATCHES;
    step.tokens_per_second = 1000;
    step.bubble = 0.25;
    step.step_seconds = 0.024;
    event.step = with_step ? &step : NULL;
    mr_status ignored = mr_rpc_stream_send(fake.watch, &event.base, NULL);
    (void)ignored; /* the watcher may be gone */
}

static void finish_job(Millrace__V1__JobState state, const char *reason) {
    fake.state = state;
    fake.reason = reason;
    notify(false);
    if (fake.watch != NULL) {
        mr_rpc_stream_finish(fake.watch, MR_OK);
        mr_rpc_stream_unref(fake.watch);
    }
    fake.watch = NULL;
}

/* ---- Jobs -------------------------------------------------------------------------------------
 */

static void on_submit(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    const Millrace__V1__SubmitRequest *request = (Millrace__V1__SubmitRequest *)owned_request;
    pthread_mutex_lock(&fake.lock);
    fake.inference = request->mode == MILLRACE__V1__JOB_MODE__JOB_MODE_INFERENCE;
    fake.state = MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED;
    fake.reason = "needs 2 stages, 1 is idle";
    if (strlen(request->request_id) != 32 || request->base_directory[0] != '/')
        blame("bad submit", 0);
    answer_job(stream);
    pthread_mutex_unlock(&fake.lock);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_watch(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    pthread_mutex_lock(&fake.lock);
    fake.watch = mr_rpc_stream_ref(stream);
    notify(false);
    fake.state = MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING;
    fake.reason = "";
    notify(false);
    pthread_mutex_unlock(&fake.lock);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_get(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    pthread_mutex_lock(&fake.lock);
    answer_job(stream);
    pthread_mutex_unlock(&fake.lock);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_cancel(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    pthread_mutex_lock(&fake.lock);
    say("cancel", 0);
    finish_job(MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED, "a client asked");
    answer_job(stream);
    pthread_mutex_unlock(&fake.lock);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void on_open_feed(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    (void)context;
    char id[] = "job-1";
    char *addresses[1] = {fake.address};
    Millrace__V1__OpenFeedResponse response = MILLRACE__V1__OPEN_FEED_RESPONSE__INIT;
    response.job_id = id;
    response.epoch = 7;
    response.n_addresses = 1;
    response.addresses = addresses;
    must(mr_rpc_stream_send(stream, &response.base, NULL));
    mr_rpc_stream_finish(stream, MR_OK);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

/* ---- Feed -------------------------------------------------------------------------------------
 */

static void send_event(mr_rpc_stream *stream, Millrace__V1__FeedEvent kind, uint64_t step) {
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    response.event = kind;
    response.step = step;
    response.window = WINDOW;
    must(mr_rpc_stream_send(stream, &response.base, NULL));
}

static void *feed_open(mr_rpc_stream *stream, void *context) {
    (void)context;
    pthread_mutex_lock(&fake.lock);
    fake.index = 0;
    say("feed open at", fake.step);
    send_event(stream, MILLRACE__V1__FEED_EVENT__FEED_EVENT_OPEN, fake.step);
    pthread_mutex_unlock(&fake.lock);
    mr_rpc_stream_receive(stream);
    return stream;
}

/* Row b of microbatch m of step s is sample k = (s M + m) B + b; token i of the data is i mod 251.
 */
static void check_tokens(uint64_t step, uint32_t index, const int32_t *tokens) {
    for (uint64_t b = 0; b < 2; b++)
        for (uint64_t t = 0; t < 4; t++) {
            uint64_t k = (step * MICRO_BATCHES + index) * 2 + b;
            if (tokens[b * 4 + t] != (int32_t)((k * 4 + t) % 251) ||
                tokens[TOKENS + b * 4 + t] != (int32_t)((k * 4 + t + 1) % 251))
                blame("wrong tokens at step", step);
        }
}

/* True: the stream goes on. */
static bool feed_train(mr_rpc_stream *stream, const Millrace__V1__FeedRequest *request,
                       const mr_rpc_tail *tail) {
    int32_t tokens[2 * TOKENS];
    bool hang = strcmp(fake.scenario, "hang") == 0;
    uint64_t step = fake.step + (hang ? fake.index / MICRO_BATCHES : 0);
    if (request->step != step || request->index != fake.index % MICRO_BATCHES)
        blame("out of order at step", request->step);
    must(mr_rpc_tail_copy(tail, 0, sizeof(tokens), tokens));
    check_tokens(request->step, request->index, tokens);
    fake.index++;
    if (hang && fake.index > WINDOW * MICRO_BATCHES)
        blame("window passed at step", request->step);
    if (strcmp(fake.scenario, "break") == 0 && request->step == 2 && request->index == 1 &&
        !fake.broken) {
        fake.broken = true;
        mr_rpc_stream_finish(stream, MR_ERROR(UNAVAILABLE, "the test cuts the feed"));
        return false;
    }
    if (hang || fake.index < MICRO_BATCHES)
        return true;
    fake.index = 0;
    send_event(stream, MILLRACE__V1__FEED_EVENT__FEED_EVENT_APPLIED, fake.step);
    fake.step++;
    notify(true);
    if (strcmp(fake.scenario, "fail") == 0) {
        finish_job(MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED, "stage 1 (member m2) is lost");
        mr_rpc_stream_finish(stream, MR_ERROR(ABORTED, "the job has failed"));
        return false;
    }
    if (fake.step < STEPS)
        return true;
    send_event(stream, MILLRACE__V1__FEED_EVENT__FEED_EVENT_END, fake.step);
    mr_rpc_stream_finish(stream, MR_OK);
    finish_job(MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED, "");
    return false;
}

static void logits_sent(void *context) {
    mr_free(context);
}

static bool feed_text(mr_rpc_stream *stream, const Millrace__V1__FeedRequest *request,
                      const mr_rpc_tail *tail) {
    int32_t tokens[TOKENS + 1];
    must(mr_rpc_tail_copy(tail, 0, sizeof(tokens), tokens));
    if (request->n_tensors != 2 || strcmp(request->tensors[1]->name, "position") != 0 ||
        !request->want_logits || request->step != fake.step || tokens[TOKENS] >= 4)
        blame("bad question at step", request->step);
    fake.step++;
    float *logits = mr_alloc_array(VOCABULARY, sizeof(*logits));
    logits[(tokens[tokens[TOKENS]] + 1) % VOCABULARY] = 9;
    char name[] = "logits";
    uint64_t dims[1] = {VOCABULARY};
    Millrace__V1__Tensor tensor = MILLRACE__V1__TENSOR__INIT;
    Millrace__V1__Tensor *tensors[1] = {&tensor};
    tensor.name = name;
    tensor.data_type = MILLRACE__V1__DATA_TYPE__DATA_TYPE_F32;
    tensor.n_dims = 1;
    tensor.dims = dims;
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_RESULT;
    response.step = request->step;
    response.n_tensors = 1;
    response.tensors = tensors;
    mr_rpc_raw raw = {.data = logits,
                      .bytes = VOCABULARY * sizeof(*logits),
                      .sent = logits_sent,
                      .context = logits};
    must(mr_rpc_stream_send(stream, &response.base, &raw));
    return true;
}

static void feed_message(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                         mr_rpc_tail *owned_tail, void *context) {
    (void)context;
    const Millrace__V1__FeedRequest *request = (Millrace__V1__FeedRequest *)owned_message;
    pthread_mutex_lock(&fake.lock);
    bool more = false;
    if (strcmp(request->job_id, "job-1") != 0 || request->epoch != 7)
        blame("another job at epoch", request->epoch);
    else if (fake.inference)
        more = feed_text(stream, request, owned_tail);
    else if (fake.state == MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING)
        more = feed_train(stream, request, owned_tail);
    pthread_mutex_unlock(&fake.lock);
    if (more)
        mr_rpc_stream_receive(stream);
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
}

static void feed_end(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)context;
    pthread_mutex_lock(&fake.lock);
    if (fake.inference && mr_status_is_ok(status) &&
        fake.state == MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING) {
        say("feed closed after", fake.step);
        mr_rpc_stream_finish(stream, MR_OK);
        finish_job(MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED, "");
    }
    pthread_mutex_unlock(&fake.lock);
    mr_rpc_stream_unref(stream);
}

static const mr_rpc_stream_events feed_events = {.on_message = feed_message, .on_end = feed_end};
static const mr_rpc_method jobs_methods[] = {
    {.name = "Submit", .on_request = on_submit},
    {.name = "Watch", .on_request = on_watch},
    {.name = "Get", .on_request = on_get},
    {.name = "Cancel", .on_request = on_cancel},
    {.name = "OpenFeed", .on_request = on_open_feed},
};
static const mr_rpc_method feed_methods[] = {
    {.name = "Feed", .on_open = feed_open, .events = &feed_events},
};

int main(int argc, char **argv) {
    if (argc != 2)
        return 64;
    fake.scenario = argv[1];
    const mr_rpc_service services[] = {
        {.descriptor = &millrace__v1__jobs__descriptor,
         .methods = jobs_methods,
         .method_count = sizeof(jobs_methods) / sizeof(jobs_methods[0])},
        {.descriptor = &millrace__v1__feed__descriptor,
         .methods = feed_methods,
         .method_count = sizeof(feed_methods) / sizeof(feed_methods[0])},
    };
    const mr_rpc_server_options options = {
        .listen = "127.0.0.1:0", .services = services, .service_count = 2};
    mr_rpc_server *server = NULL;
    must(mr_rpc_start());
    must(mr_rpc_server_start(&options, &server));
    pthread_mutex_lock(&fake.lock);
    snprintf(fake.address, sizeof(fake.address), "%s", mr_rpc_server_address(server));
    pthread_mutex_unlock(&fake.lock);
    printf("%s\n", fake.address);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    pthread_mutex_lock(&fake.lock);
    if (fake.watch != NULL)
        finish_job(fake.state, "the test is over");
    pthread_mutex_unlock(&fake.lock);
    mr_rpc_server_stop(server, 1000);
    mr_rpc_stop();
    return 0;
}
