/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a unary call ends exactly as its handler, its deadline, its limit or its bytes say, with
 * the text across the wire. Method: the rig's Jobs service over loopback. Calls that no right
 * client could make are made with service descriptors written here: other names, other message
 * types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "millrace/v1/group.pb-c.h"
#include "millrace/v1/link.pb-c.h"
#include "tests/unit/rpc/rig.h"

static rig test_rig;

static int start(void **state) {
    (void)state;
    rig_start(&test_rig, "127.0.0.1:0");
    return 0;
}

static int stop(void **state) {
    (void)state;
    rig_stop(&test_rig);
    return 0;
}

static void test_answer_comes_back(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) {
        Millrace__V1__Job *job;
        rig_ok(rig_get(&test_rig, "tiny-gpt", 5000, &job));
        assert_string_equal(job->name, "tiny-gpt");
        protobuf_c_message_free_unpacked(&job->base, NULL);
    }
}

static void test_status_text_crosses_the_wire(void **state) {
    (void)state;
    Millrace__V1__Job *job;
    mr_status status = rig_get(&test_rig, "status", 5000, &job);
    rig_fails(status, MR_CODE_FAILED_PRECONDITION, "");
    assert_string_equal(status.text, "état: 100% ünfit\nline two");
}

static void test_deadline_passes_names_the_target(void **state) {
    (void)state;
    Millrace__V1__Job *job;
    int64_t start_ms = mr_clock_now_ms();
    mr_status status = rig_get(&test_rig, "silent", 300, &job);
    rig_fails(status, MR_CODE_DEADLINE_EXCEEDED, mr_rpc_server_address(test_rig.server));
    int64_t took_ms = mr_clock_now_ms() - start_ms;
    assert_in_range(took_ms, 250, 3000);
}

static void test_method_without_handler_is_unimplemented(void **state) {
    (void)state;
    Millrace__V1__ListRequest request = MILLRACE__V1__LIST_REQUEST__INIT;
    ProtobufCMessage *response;
    rig_fails(mr_rpc_channel_call(test_rig.channel, &millrace__v1__jobs__descriptor, "List",
                                  &request.base, 5000, &response),
              MR_CODE_UNIMPLEMENTED, "/millrace.v1.Jobs/List");
}

/* Calls millrace.v1.Jobs/METHOD with any message. */
static mr_status call_as(const char *method, const ProtobufCMessage *request) {
    const ProtobufCMethodDescriptor methods[] = {
        {method, request->descriptor, &millrace__v1__job__descriptor}};
    const unsigned by_name[] = {0};
    ProtobufCServiceDescriptor service = {.magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
                                          .name = "millrace.v1.Jobs",
                                          .n_methods = 1,
                                          .methods = methods,
                                          .method_indices_by_name = by_name};
    ProtobufCMessage *response = NULL;
    mr_status status =
        mr_rpc_channel_call(test_rig.channel, &service, method, request, 5000, &response);
    if (mr_status_is_ok(status))
        protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static void test_unknown_method_is_named(void **state) {
    (void)state;
    Millrace__V1__ListRequest request = MILLRACE__V1__LIST_REQUEST__INIT;
    rig_fails(call_as("Levitate", &request.base), MR_CODE_UNIMPLEMENTED,
              "/millrace.v1.Jobs/Levitate");
}

static void test_other_message_type_is_undecodable(void **state) {
    (void)state;
    Millrace__V1__LinkCredit credit = MILLRACE__V1__LINK_CREDIT__INIT;
    credit.taken = 300; /* a varint where JobRequest has a string */
    unsigned handled = rig_latch_count("get");
    mr_status status = call_as("Get", &credit.base);
    rig_fails(status, MR_CODE_INVALID_ARGUMENT, "millrace.v1.JobRequest of 3 bytes");
    rig_fails(status, MR_CODE_INVALID_ARGUMENT, "job");
    assert_int_equal(rig_latch_count("get"), handled);
}

static void test_string_that_is_not_utf8_is_refused(void **state) {
    (void)state;
    Millrace__V1__Job *job;
    mr_status status = rig_get(&test_rig, "tiny\xff", 5000, &job);
    rig_fails(status, MR_CODE_INVALID_ARGUMENT,
              "millrace.v1.JobRequest.job is not UTF-8 at offset 4 of 5");
}

static void test_string_with_nul_is_refused(void **state) {
    (void)state;
    Millrace__V1__GroupFrame frame = MILLRACE__V1__GROUP_FRAME__INIT;
    frame.job_id = (char *)(uintptr_t)"abc"; /* field 1, a string: decodes as JobRequest.job */
    rig_ok(call_as("Get", &frame.base));
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    uint8_t with_nul[] = {'a', 0, 'b'};
    response.payload = (ProtobufCBinaryData){sizeof(with_nul), with_nul};
    ProtobufCMessageDescriptor descriptor = *response.base.descriptor;
    ProtobufCFieldDescriptor field = {.name = "payload",
                                      .id = 1,
                                      .label = PROTOBUF_C_LABEL_NONE,
                                      .type = PROTOBUF_C_TYPE_BYTES,
                                      .offset = offsetof(Millrace__V1__FeedResponse, payload)};
    ProtobufCIntRange ranges[] = {{1, 0}, {0, 1}};
    descriptor.fields = &field;
    descriptor.n_fields = 1;
    descriptor.field_ranges = ranges;
    descriptor.n_field_ranges = 1;
    response.base.descriptor = &descriptor;
    rig_fails(call_as("Get", &response.base), MR_CODE_INVALID_ARGUMENT,
              "millrace.v1.JobRequest.job has a NUL byte at offset 1 of 3");
}

static char *long_name(size_t bytes) {
    char *name = malloc(bytes + 1);
    assert_non_null(name);
    memset(name, 'x', bytes);
    name[bytes] = '\0';
    return name;
}

static void test_message_over_the_services_limit_is_refused(void **state) {
    (void)state;
    Millrace__V1__Job *job = NULL;
    char *name = long_name((1 << 20) + 1);
    unsigned handled = rig_latch_count("get");
    rig_fails(rig_get(&test_rig, name, 5000, &job), MR_CODE_RESOURCE_EXHAUSTED,
              "is over the limit of 1048576");
    assert_int_equal(rig_latch_count("get"), handled);
    name[1 << 19] = '\0'; /* half of it is fine, and the connection lives */
    rig_ok(rig_get(&test_rig, name, 5000, &job));
    assert_int_equal(strlen(job->name), 1 << 19);
    protobuf_c_message_free_unpacked(&job->base, NULL);
    free(name);
}

static void test_message_over_the_wires_limit_is_refused_before_sending(void **state) {
    (void)state;
    Millrace__V1__Job *job;
    char *name = long_name((64 << 20) + 1);
    rig_fails(rig_get(&test_rig, name, 5000, &job), MR_CODE_RESOURCE_EXHAUSTED,
              "millrace.v1.JobRequest of 67108870 bytes is over the limit of 67108864");
    free(name);
}

static void test_nobody_there_is_unavailable_and_named(void **state) {
    (void)state;
    const mr_rpc_credentials plain = {.insecure = false};
    rig alone = {.server = NULL};
    rig_ok(mr_rpc_channel_create("localhost:1", &plain, &alone.channel));
    Millrace__V1__Job *job;
    mr_status status = rig_get(&alone, "x", 5000, &job);
    rig_fails(status, MR_CODE_UNAVAILABLE, "127.0.0.1:1");
    mr_rpc_channel_destroy(alone.channel);
}

static void test_server_stream_ends_after_its_messages(void **state) {
    (void)state;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    rig_client client = {.greedy = true};
    unsigned ends = rig_latch_count("client-end");
    unsigned watch_ends = rig_latch_count("watch-end");
    rig_ok(mr_rpc_channel_open(test_rig.channel, &millrace__v1__jobs__descriptor, "Watch",
                               &request.base, &rig_client_events, &client, 5000, &client.stream));
    mr_rpc_stream_receive(client.stream);
    rig_latch_wait("client-end", ends + 1);
    rig_ok(client.end);
    assert_int_equal(client.messages, 3);
    /* The server's end may come after the client's: the next test must not take it for its own. */
    rig_latch_wait("watch-end", watch_ends + 1);
    rig_ok(rig_server_end());
    mr_rpc_stream_unref(client.stream);
}

static void test_watch_learns_that_its_client_left(void **state) {
    (void)state;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)"forever";
    rig_client client = {.greedy = true};
    unsigned ends = rig_latch_count("client-end");
    unsigned watch_ends = rig_latch_count("watch-end");
    unsigned messages = rig_latch_count("client-message");
    rig_ok(mr_rpc_channel_open(test_rig.channel, &millrace__v1__jobs__descriptor, "Watch",
                               &request.base, &rig_client_events, &client, 0, &client.stream));
    mr_rpc_stream_receive(client.stream);
    rig_latch_wait("client-message", messages + 1);
    mr_rpc_stream_cancel(client.stream);
    rig_latch_wait("client-end", ends + 1);
    rig_fails(client.end, MR_CODE_CANCELLED, "cancelled here");
    rig_latch_wait("watch-end", watch_ends + 1);
    rig_fails(rig_server_end(), MR_CODE_CANCELLED, "is gone");
    mr_rpc_stream_unref(client.stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_comes_back),
        cmocka_unit_test(test_status_text_crosses_the_wire),
        cmocka_unit_test(test_deadline_passes_names_the_target),
        cmocka_unit_test(test_method_without_handler_is_unimplemented),
        cmocka_unit_test(test_unknown_method_is_named),
        cmocka_unit_test(test_other_message_type_is_undecodable),
        cmocka_unit_test(test_string_that_is_not_utf8_is_refused),
        cmocka_unit_test(test_string_with_nul_is_refused),
        cmocka_unit_test(test_message_over_the_services_limit_is_refused),
        cmocka_unit_test(test_message_over_the_wires_limit_is_refused_before_sending),
        cmocka_unit_test(test_nobody_there_is_unavailable_and_named),
        cmocka_unit_test(test_server_stream_ends_after_its_messages),
        cmocka_unit_test(test_watch_learns_that_its_client_left),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
