/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/rpc/rig.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/base/limits.h"

/* ---- latches ---- */

enum { LATCHES_MAX = 16, LATCH_NAME_BYTES = 32 };

static pthread_mutex_t latch_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t latch_changed = PTHREAD_COND_INITIALIZER;
static struct {
    char name[LATCH_NAME_BYTES];
    unsigned count;
} latches[LATCHES_MAX];
static mr_status server_end;

static unsigned *latch_find(const char *name) {
    size_t i = 0;
    while (latches[i].name[0] != '\0' && strcmp(latches[i].name, name) != 0)
        MR_ASSERT(++i < LATCHES_MAX);
    (void)snprintf(latches[i].name, LATCH_NAME_BYTES, "%s", name);
    return &latches[i].count;
}

void rig_latch_reset(void) {
    (void)pthread_mutex_lock(&latch_lock);
    memset(latches, 0, sizeof(latches));
    (void)pthread_mutex_unlock(&latch_lock);
}

void rig_latch_hit(const char *name) {
    (void)pthread_mutex_lock(&latch_lock);
    (*latch_find(name))++;
    (void)pthread_cond_broadcast(&latch_changed);
    (void)pthread_mutex_unlock(&latch_lock);
}

unsigned rig_latch_count(const char *name) {
    (void)pthread_mutex_lock(&latch_lock);
    unsigned count = *latch_find(name);
    (void)pthread_mutex_unlock(&latch_lock);
    return count;
}

void rig_latch_wait(const char *name, unsigned n) {
    struct timespec limit;
    (void)clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += RIG_WAIT_MS / 1000;
    (void)pthread_mutex_lock(&latch_lock);
    int error = 0;
    while (*latch_find(name) < n && error == 0)
        error = pthread_cond_timedwait(&latch_changed, &latch_lock, &limit);
    unsigned count = *latch_find(name);
    (void)pthread_mutex_unlock(&latch_lock);
    if (count < n)
        fail_msg("%s came %u times of %u", name, count, n);
}

/* ---- assertions ---- */

void rig_ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

void rig_fails(mr_status status, mr_code code, const char *text) {
    if (status.code != code || strstr(status.text, text) == NULL)
        fail_msg("got %s: %s; wanted %s with \"%s\"", mr_code_name(status.code), status.text,
                 mr_code_name(code), text);
}

/* ---- the server ---- */

static void jobs_get(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    Millrace__V1__JobRequest *request = (Millrace__V1__JobRequest *)owned_request;
    (void)context;
    rig_latch_hit("get");
    if (strcmp(request->job, "status") == 0) {
        mr_rpc_stream_finish(stream, MR_ERROR(FAILED_PRECONDITION, "état: 100%% ünfit\nline two"));
    } else if (strcmp(request->job, "silent") != 0) {
        Millrace__V1__Job job = MILLRACE__V1__JOB__INIT;
        job.name = request->job;
        rig_ok(mr_rpc_stream_send(stream, &job.base, NULL));
        mr_rpc_stream_finish(stream, MR_OK);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void watch_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)stream;
    (void)context;
    (void)pthread_mutex_lock(&latch_lock);
    server_end = status;
    (void)pthread_mutex_unlock(&latch_lock);
    rig_latch_hit("watch-end");
}

static void jobs_watch(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    Millrace__V1__JobRequest *request = (Millrace__V1__JobRequest *)owned_request;
    (void)context;
    bool forever = strcmp(request->job, "forever") == 0;
    mr_rpc_stream_end_watch(stream, watch_ended, NULL);
    for (int i = 0; i < (forever ? 1 : 3); i++) {
        Millrace__V1__JobEvent event = MILLRACE__V1__JOB_EVENT__INIT;
        rig_ok(mr_rpc_stream_send(stream, &event.base, NULL));
    }
    if (!forever)
        mr_rpc_stream_finish(stream, MR_OK);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

/* The echo keeps what it sends until it is sent. */
static void echo_sent(void *context) {
    free(context);
    rig_latch_hit("echo-sent");
}

static void *feed_opened(mr_rpc_stream *stream, void *service_context) {
    rig_latch_hit("feed-open");
    mr_rpc_stream_receive(stream);
    return service_context;
}

static void feed_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                          mr_rpc_tail *owned_tail, void *context) {
    Millrace__V1__FeedRequest *request = (Millrace__V1__FeedRequest *)owned_message;
    (void)context;
    assert_int_equal(request->payload.len, 0);
    size_t bytes = mr_rpc_tail_bytes(owned_tail);
    void *copy = malloc(bytes + 1);
    assert_non_null(copy);
    rig_ok(mr_rpc_tail_copy(owned_tail, 0, bytes, copy));
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    response.step = request->step;
    response.index = request->index;
    const mr_rpc_raw raw = {.data = copy, .bytes = bytes, .sent = echo_sent, .context = copy};
    mr_status status = mr_rpc_stream_send(stream, &response.base, &raw);
    if (!mr_status_is_ok(status))
        rig_latch_hit("echo-refused"); /* the client may be gone */
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_receive(stream);
}

static void feed_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)context;
    (void)pthread_mutex_lock(&latch_lock);
    server_end = status;
    (void)pthread_mutex_unlock(&latch_lock);
    mr_rpc_stream_finish(stream, MR_OK);
    mr_rpc_stream_unref(stream);
    rig_latch_hit("server-end");
}

mr_status rig_server_end(void) {
    (void)pthread_mutex_lock(&latch_lock);
    mr_status status = server_end;
    (void)pthread_mutex_unlock(&latch_lock);
    return status;
}

mr_status rig_server(const char *listen, const mr_rpc_credentials *credentials,
                     mr_rpc_server **out_server) {
    static const mr_rpc_method jobs[] = {
        {.name = "Get", .on_request = jobs_get},
        {.name = "Watch", .on_request = jobs_watch},
    };
    static const mr_rpc_stream_events feed_events = {.on_message = feed_received,
                                                     .on_end = feed_ended};
    static const mr_rpc_method feed[] = {
        {.name = "Feed", .on_open = feed_opened, .events = &feed_events},
    };
    const mr_rpc_service services[] = {
        {.descriptor = &millrace__v1__jobs__descriptor,
         .methods = jobs,
         .method_count = 2,
         .receive_bytes_max = 1 << 20},
        {.descriptor = &millrace__v1__feed__descriptor,
         .methods = feed,
         .method_count = 1,
         .receive_bytes_max = MR_RPC_MESSAGE_BYTES_MAX},
    };
    mr_rpc_server_options options = {.listen = listen, .services = services, .service_count = 2};
    if (credentials != NULL)
        options.credentials = *credentials;
    return mr_rpc_server_start(&options, out_server);
}

void rig_start(rig *test, const char *listen) {
    const mr_rpc_credentials plain = {.insecure = false};
    rig_latch_reset();
    rig_ok(mr_rpc_start());
    rig_ok(rig_server(listen, NULL, &test->server));
    rig_ok(mr_rpc_channel_create(mr_rpc_server_address(test->server), &plain, &test->channel));
}

void rig_stop(rig *test) {
    mr_rpc_channel_destroy(test->channel);
    mr_rpc_server_stop(test->server, RIG_GRACE_MS);
    mr_rpc_stop();
}

/* ---- the client ---- */

static void client_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                            mr_rpc_tail *owned_tail, void *context) {
    rig_client *client = context;
    client->messages++;
    client->last_bytes = mr_rpc_tail_bytes(owned_tail);
    if (owned_message->descriptor == &millrace__v1__feed_response__descriptor)
        client->last_step = ((Millrace__V1__FeedResponse *)owned_message)->step;
    if (client->copy_to != NULL)
        rig_ok(mr_rpc_tail_copy(owned_tail, 0, client->last_bytes, client->copy_to));
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    if (client->greedy)
        mr_rpc_stream_receive(stream);
    rig_latch_hit("client-message");
}

static void client_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    rig_client *client = context;
    (void)stream;
    client->end = status;
    rig_latch_hit("client-end");
}

const mr_rpc_stream_events rig_client_events = {
    .on_message = client_received,
    .on_end = client_ended,
};

void rig_feed_open(rig *test, rig_client *client, int64_t timeout_ms) {
    rig_ok(mr_rpc_channel_open(test->channel, &millrace__v1__feed__descriptor, "Feed", NULL,
                               &rig_client_events, client, timeout_ms, &client->stream));
}

mr_status rig_get(rig *test, const char *job, int64_t timeout_ms, Millrace__V1__Job **out_job) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job;
    ProtobufCMessage *response = NULL;
    MR_TRY(mr_rpc_channel_call(test->channel, &millrace__v1__jobs__descriptor, "Get", &request.base,
                               timeout_ms, &response));
    *out_job = (Millrace__V1__Job *)response;
    return MR_OK;
}

void rig_sent(void *context) {
    rig_latch_hit(context);
}
