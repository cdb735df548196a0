/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: reflection, in both versions, names the services and gives each file with all it imports,
 * the asked one first. Method: our own client; the files are told apart by their first field, the
 * name. foreign_client_test does the same with Python's protobuf. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection/v1alpha/reflection.pb-c.h"
#include "tests/unit/rpc/rig.h"

/* The case of an answer that holds files. */
#define FOUND                                                                                      \
    GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE

typedef Grpc__Reflection__V1__ServerReflectionRequest request_type;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_type;

static rig test_rig;
static response_type *answer; /* the newest; the test's to free */

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

static int clean(void **state) {
    (void)state;
    rig_latch_reset();
    return 0;
}

static void answered(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                     mr_rpc_tail *owned_tail, void *context) {
    (void)stream;
    (void)context;
    assert_null(owned_tail);
    answer = (response_type *)owned_message;
    rig_latch_hit("answer");
}

static void ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)stream;
    (void)context;
    rig_latch_hit(mr_status_is_ok(status) ? "end-ok" : "end-bad");
}

static mr_rpc_stream *open_as(const ProtobufCServiceDescriptor *service) {
    static const mr_rpc_stream_events events = {.on_message = answered, .on_end = ended};
    mr_rpc_stream *stream;
    rig_ok(mr_rpc_channel_open(test_rig.channel, service, "ServerReflectionInfo", NULL, &events,
                               NULL, 8000, &stream));
    return stream;
}

static const response_type *ask(mr_rpc_stream *stream, const request_type *request) {
    static unsigned asked;
    if (rig_latch_count("answer") == 0)
        asked = 0;
    if (answer != NULL)
        protobuf_c_message_free_unpacked(&answer->base, NULL);
    answer = NULL;
    rig_ok(mr_rpc_stream_send(stream, &request->base, NULL));
    mr_rpc_stream_receive(stream);
    rig_latch_wait("answer", ++asked);
    return answer;
}

static void finish(mr_rpc_stream *stream) {
    protobuf_c_message_free_unpacked(&answer->base, NULL);
    answer = NULL;
    mr_rpc_stream_finish(stream, MR_OK);
    mr_rpc_stream_receive(stream);
    rig_latch_wait("end-ok", 1);
    mr_rpc_stream_unref(stream);
}

/* Is the i-th file of the answer the one of that name? */
static bool file_is(const response_type *response, size_t i, const char *name) {
    const ProtobufCBinaryData *file =
        &response->file_descriptor_response->file_descriptor_proto[i];
    size_t length = strlen(name);
    return file->len > length + 2 && file->data[0] == 0x0a && file->data[1] == length &&
           memcmp(file->data + 2, name, length) == 0;
}

static void list_services(const ProtobufCServiceDescriptor *service) {
    mr_rpc_stream *stream = open_as(service);
    request_type request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES;
    request.list_services = (char *)(uintptr_t)"*";
    const response_type *response = ask(stream, &request);
    assert_non_null(response->list_services_response);
    static const char *const names[] = {
        "millrace.v1.Jobs", "millrace.v1.Feed", "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"};
    assert_int_equal(response->list_services_response->n_service, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(response->list_services_response->service[i]->name, names[i]);
    finish(stream);
}

static void test_services_are_listed(void **state) {
    (void)state;
    list_services(&grpc__reflection__v1__server_reflection__descriptor);
}

/* The answer is read with v1's types: on the wire the versions are the same. */
static void test_services_are_listed_by_alpha_too(void **state) {
    (void)state;
    const ProtobufCMethodDescriptor methods[] = {
        {"ServerReflectionInfo", &grpc__reflection__v1__server_reflection_request__descriptor,
         &grpc__reflection__v1__server_reflection_response__descriptor}};
    ProtobufCServiceDescriptor alpha =
        grpc__reflection__v1alpha__server_reflection__descriptor;
    alpha.methods = methods;
    list_services(&alpha);
}

static const response_type *ask_symbol(mr_rpc_stream *stream, const char *symbol) {
    request_type request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
    request.file_containing_symbol = (char *)(uintptr_t)symbol;
    return ask(stream, &request);
}

static void test_files_come_by_symbol_with_their_imports(void **state) {
    (void)state;
    static const struct {
        const char *symbol;
        const char *file;
        const char *import;
    } rows[] = {
        {"millrace.v1.Jobs", "millrace/v1/jobs.proto", NULL},
        {"millrace.v1.Jobs.Submit", "millrace/v1/jobs.proto", NULL},
        {"millrace.v1.SubmitRequest", "millrace/v1/jobs.proto", NULL},
        {"millrace.v1.SubmitRequest.job_file", "millrace/v1/jobs.proto", NULL},
        {"millrace.v1.JobState", "millrace/v1/jobs.proto", NULL},
        {"millrace.v1.Control", "millrace/v1/control.proto", "millrace/v1/jobs.proto"},
        {"millrace.v1.LinkFrame", "millrace/v1/link.proto", "millrace/v1/tensor.proto"},
        {"grpc.health.v1.Health", "grpc/health/v1/health.proto", NULL},
        {"grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto", NULL},
        {"grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto", NULL},
        {"grpc.reflection.v1alpha.ErrorResponse", "grpc/reflection/v1alpha/reflection.proto", NULL},
    };
    mr_rpc_stream *stream = open_as(&grpc__reflection__v1__server_reflection__descriptor);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const response_type *response = ask_symbol(stream, rows[i].symbol);
        if (response->file_descriptor_response == NULL || response->message_response_case != FOUND)
            fail_msg("%s was not found", rows[i].symbol);
        assert_true(file_is(response, 0, rows[i].file));
        size_t files = response->file_descriptor_response->n_file_descriptor_proto;
        assert_int_equal(files, rows[i].import != NULL ? 2 : 1);
        if (rows[i].import != NULL)
            assert_true(file_is(response, 1, rows[i].import));
        assert_string_equal(response->original_request->file_containing_symbol, rows[i].symbol);
    }
    finish(stream);
}

static void test_unknown_symbols_and_files_are_errors(void **state) {
    (void)state;
    mr_rpc_stream *stream = open_as(&grpc__reflection__v1__server_reflection__descriptor);
    static const char *const symbols[] = {"", "millrace.v1", "millrace.v1.", "millrace.v1.Job2",
                                          "millrace.v1.Job.nothing", "Jobs", ".",
                                          "millrace.v1.Jobs."};
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        const response_type *response = ask_symbol(stream, symbols[i]);
        assert_int_equal(
            response->message_response_case,
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE);
        assert_int_equal(response->error_response->error_code, MR_CODE_NOT_FOUND);
    }
    request_type request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    const response_type *response = ask(stream, &request);
    assert_int_equal(response->error_response->error_code, MR_CODE_INVALID_ARGUMENT);
    request.message_request_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME;
    request.file_by_filename = (char *)(uintptr_t)"millrace/v1/feed.proto";
    response = ask(stream, &request);
    assert_true(file_is(response, 0, "millrace/v1/feed.proto"));
    request.file_by_filename = (char *)(uintptr_t)"feed.proto";
    response = ask(stream, &request);
    assert_int_equal(response->error_response->error_code, MR_CODE_NOT_FOUND);
    finish(stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_services_are_listed, clean),
        cmocka_unit_test_setup(test_services_are_listed_by_alpha_too, clean),
        cmocka_unit_test_setup(test_files_come_by_symbol_with_their_imports, clean),
        cmocka_unit_test_setup(test_unknown_symbols_and_files_are_errors, clean),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
