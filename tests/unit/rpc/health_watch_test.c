/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: grpc.health.v1 as the protocol says: Check and Watch by service name, changes told once,
 * the stop of the server told before it. Method: our own client against the rig's server. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "grpc/health/v1/health.pb-c.h"
#include "tests/unit/rpc/rig.h"

typedef Grpc__Health__V1__HealthCheckRequest request_type;
typedef Grpc__Health__V1__HealthCheckResponse response_type;

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

static mr_status check(rig *test, const char *service, int *out_state) {
    request_type request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)(uintptr_t)service;
    ProtobufCMessage *response;
    MR_TRY(mr_rpc_channel_call(test->channel, &grpc__health__v1__health__descriptor, "Check",
                               &request.base, 5000, &response));
    *out_state = (int)((response_type *)response)->status;
    protobuf_c_message_free_unpacked(response, NULL);
    return MR_OK;
}

static void test_check_tells_each_name(void **state) {
    (void)state;
    rig test;
    rig_start(&test, "127.0.0.1:0");
    int seen = -1;
    rig_ok(check(&test, "", &seen));
    assert_int_equal(seen, SERVING);
    rig_ok(check(&test, "millrace.v1.Jobs", &seen));
    assert_int_equal(seen, SERVING);
    rig_fails(check(&test, "readiness", &seen), MR_CODE_NOT_FOUND, "readiness");
    mr_rpc_server_health_set(test.server, "readiness", false);
    mr_rpc_server_health_set(test.server, "", false);
    rig_ok(check(&test, "readiness", &seen));
    assert_int_equal(seen, NOT_SERVING);
    rig_ok(check(&test, "", &seen));
    assert_int_equal(seen, NOT_SERVING);
    rig_ok(check(&test, "millrace.v1.Jobs", &seen));
    assert_int_equal(seen, SERVING);
    rig_stop(&test);
}

typedef struct watch {
    int states[8];
    unsigned count;
    mr_status end;
} watch;

static void watch_told(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                       mr_rpc_tail *owned_tail, void *context) {
    watch *seen = context;
    assert_null(owned_tail);
    seen->states[seen->count++ % 8] = (int)((response_type *)owned_message)->status;
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_receive(stream);
    rig_latch_hit("told");
}

static void watch_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)stream;
    ((watch *)context)->end = status;
    rig_latch_hit("watch-over");
}

static mr_rpc_stream *watch_open(rig *test, const char *service, watch *seen) {
    static const mr_rpc_stream_events events = {.on_message = watch_told, .on_end = watch_ended};
    request_type request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)(uintptr_t)service;
    mr_rpc_stream *stream;
    rig_ok(mr_rpc_channel_open(test->channel, &grpc__health__v1__health__descriptor, "Watch",
                               &request.base, &events, seen, 0, &stream));
    mr_rpc_stream_receive(stream);
    return stream;
}

static void test_watch_tells_now_then_each_change(void **state) {
    (void)state;
    rig test;
    rig_start(&test, "127.0.0.1:0");
    watch seen = {.count = 0};
    mr_rpc_stream *stream = watch_open(&test, "readiness", &seen);
    rig_latch_wait("told", 1);
    mr_rpc_server_health_set(test.server, "readiness", false);
    rig_latch_wait("told", 2);
    mr_rpc_server_health_set(test.server, "readiness", false); /* no change */
    mr_rpc_server_health_set(test.server, "", false);          /* another name */
    mr_rpc_server_health_set(test.server, "readiness", true);
    rig_latch_wait("told", 3);
    mr_rpc_server_stop(test.server, 5000);
    rig_latch_wait("watch-over", 1);
    rig_fails(seen.end, MR_CODE_UNAVAILABLE, "the server stops");
    assert_int_equal(seen.count, 4);
    assert_int_equal(seen.states[0], SERVICE_UNKNOWN);
    assert_int_equal(seen.states[1], NOT_SERVING);
    assert_int_equal(seen.states[2], SERVING);
    assert_int_equal(seen.states[3], NOT_SERVING); /* the stop is told first */
    mr_rpc_stream_unref(stream);
    test.server = NULL;
    rig_stop(&test);
}

static void test_watch_that_leaves_is_forgotten(void **state) {
    (void)state;
    rig test;
    rig_start(&test, "127.0.0.1:0");
    for (unsigned i = 1; i <= 5; i++) {
        watch seen = {.count = 0};
        mr_rpc_stream *stream = watch_open(&test, "", &seen);
        rig_latch_wait("told", i);
        assert_int_equal(seen.states[0], SERVING);
        mr_rpc_stream_cancel(stream);
        rig_latch_wait("watch-over", i);
        mr_rpc_stream_unref(stream);
    }
    rig_stop(&test); /* the service asserts that no watcher is left */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_tells_each_name),
        cmocka_unit_test(test_watch_tells_now_then_each_change),
        cmocka_unit_test(test_watch_that_leaves_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
