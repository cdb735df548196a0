/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the trace is valid Chrome trace JSON of the newest spans, and recording takes no memory.
 * Method: rings smaller than what is written; the JSON read by an independent parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/trace.h"

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static mr_trace *trace;
static mr_trace_track *track;

static int setup(void **state) {
    (void)state;
    ok(mr_trace_create("stage \"0\"", &trace));
    ok(mr_trace_track_add(trace, "exec", 4, &track));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mr_trace_destroy(trace);
    return 0;
}

static json_t *render(uint64_t steps) {
    char *text = NULL;
    size_t bytes = 0;
    json_error_t error;
    ok(mr_trace_render(trace, steps, &text, &bytes));
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        fail_msg("line %d: %s in %s", error.line, error.text, text);
    mr_free(text);
    return root;
}

static void test_ring_keeps_the_newest(void **state) {
    (void)state;
    mr_trace_span spans[8];
    assert_int_equal(mr_trace_read(track, spans, 8), 0);
    for (uint32_t i = 0; i < 10; i++)
        mr_trace_add(track, "a-name-of-more-than-sixteen-bytes", i, i, i, i + 1);
    assert_int_equal(mr_trace_read(track, spans, 8), 4);
    assert_int_equal(spans[0].step, 6);
    assert_int_equal(spans[3].step, 9);
    assert_string_equal(spans[3].name, "a-name-of-more-");
    assert_int_equal(mr_trace_read(track, spans, 2), 2);
    assert_int_equal(spans[0].step, 8);
    mr_trace_add(NULL, "nothing", 0, 0, 0, 0);
}

static void test_recording_takes_no_memory(void **state) {
    (void)state;
    uint64_t before = mr_alloc_count();
    for (uint32_t i = 0; i < 1000; i++)
        mr_trace_add(track, "F0", i, 0, i, i + 1);
    assert_int_equal(mr_alloc_count(), before);
}

static void test_json_names_process_track_and_spans(void **state) {
    (void)state;
    mr_trace_add(track, "F3.1", 7, 3, 1234567, 2345678);
    mr_trace_add(track, "OP", 7, UINT32_MAX, 3000000, 3000001);
    json_t *root = render(0);
    const json_t *events = json_object_get(root, "traceEvents");
    assert_int_equal(json_array_size(events), 4);
    const json_t *process = json_array_get(events, 0);
    assert_string_equal(json_string_value(json_object_get(process, "name")), "process_name");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(process, "args"), "name")),
        "stage \"0\"");
    const json_t *span = json_array_get(events, 2);
    assert_string_equal(json_string_value(json_object_get(span, "ph")), "X");
    assert_string_equal(json_string_value(json_object_get(span, "name")), "F3.1");
    assert_true(json_number_value(json_object_get(span, "ts")) == 1234.567);
    assert_true(json_number_value(json_object_get(span, "dur")) == 1111.111);
    const json_t *arguments = json_object_get(span, "args");
    assert_int_equal(json_integer_value(json_object_get(arguments, "step")), 7);
    assert_int_equal(json_integer_value(json_object_get(arguments, "micro_batch")), 3);
    arguments = json_object_get(json_array_get(events, 3), "args");
    assert_null(json_object_get(arguments, "micro_batch"));
    assert_true(
        json_is_integer(json_object_get(json_object_get(root, "otherData"), "wall_offset_ns")));
    json_decref(root);
}

static void test_last_steps_only(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        mr_trace_add(track, "F0", i, 0, i, i + 1);
    json_t *root = render(2);
    assert_int_equal(json_array_size(json_object_get(root, "traceEvents")), 4);
    json_decref(root);
}

static void test_track_limits_are_named(void **state) {
    (void)state;
    mr_trace_track *more = NULL;
    mr_status status = mr_trace_track_add(trace, "none", 0, &more);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    for (int i = 1; i < MR_TRACE_TRACKS_MAX; i++)
        ok(mr_trace_track_add(trace, "more", 1, &more));
    status = mr_trace_track_add(trace, "last", 1, &more);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(status.text, "last is one too many"));
    mr_trace_process_set(trace, "stage 5");
    json_decref(render(0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ring_keeps_the_newest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_recording_takes_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json_names_process_track_and_spans, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_steps_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_track_limits_are_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
