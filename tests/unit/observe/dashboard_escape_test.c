/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: whatever clients, stages and job files put into a status, the page shows it as text; and a
 * timeline shows a step only when every stage has told of it. Method: a status in which every text
 * is markup, and one box of a timeline that has such a name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/dashboard/dashboard.h"

#define EVIL "<evil a='1' b=\"quoted\">&"

static mr_history *history;
static mr_timeline *timeline;
static mr_event_stream *events;

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

static int setup(void **state) {
    (void)state;
    ok(mr_history_create(&history));
    ok(mr_timeline_create(&timeline));
    ok(mr_event_stream_create(&events));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mr_event_stream_destroy(events);
    mr_timeline_destroy(timeline);
    mr_history_destroy(history);
    return 0;
}

static char *evil_status(void) {
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:[{s:s, s:s, s:s, s:s, s:i, s:i, s:n, s:s, s:[{s:i, s:i, s:[i,i], "
        "s:s}], s:[{s:s, s:s, s:i, s:i}]}], s:[{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i}]}",
        "role", EVIL, "address", EVIL, "version", EVIL, "jobs", "id", EVIL, "name", EVIL, "state",
        EVIL, "reason", EVIL, "step", 3, "total_steps", 9, "loss", "checkpoint", EVIL, "stages",
        "rank", 0, "stage", 0, "layers", 0, 2, "member", EVIL, "checkpoints", "tag", EVIL, "path",
        EVIL, "step", 2, "bytes", 7, "members", "id", EVIL, "state", EVIL, "device", EVIL,
        "address", EVIL, "status_address", EVIL, "job", EVIL, "instruction", EVIL, "rank", 0);
    assert_non_null(root);
    char *text = json_dumps(root, 0);
    json_decref(root);
    assert_non_null(text);
    return text;
}

static char *render(const char *status, bool with_jobs, bool logarithmic) {
    char *html = NULL;
    size_t bytes = 0;
    const mr_dashboard_view view = {
        .status = status,
        .reason = EVIL,
        .history = with_jobs ? history : NULL,
        .timeline = timeline,
        .events = events,
        .job = EVIL,
        .logarithmic = logarithmic,
    };
    ok(mr_dashboard_render(&view, &html, &bytes));
    assert_int_equal(strlen(html), bytes);
    return html;
}

static void tell_span(const char *name, uint32_t stage) {
    mr_timeline_span *spans = mr_alloc_array(1, sizeof(*spans));
    assert_non_null(spans);
    spans[0] = (mr_timeline_span){.start_ns = 1000, .end_ns = stage == 0 ? 4000 : 2000};
    (void)snprintf(spans[0].name, sizeof(spans[0].name), "%s", name);
    const mr_timeline_stage one = {.stage = stage, .rank = stage, .span_count = 1};
    ok(mr_timeline_add(timeline, EVIL, 3, &one, spans));
}

static size_t count_of(const char *html, const char *word) {
    size_t count = 0;
    for (const char *at = html; (at = strstr(at, word)) != NULL; at++)
        count++;
    return count;
}

static void test_every_text_from_outside_is_escaped(void **state) {
    (void)state;
    char *status = evil_status();
    const mr_history_step steps[] = {{.step = 1, .loss = 2}, {.step = 2, .loss = NAN}};
    ok(mr_history_add(history, EVIL, &steps[0]));
    ok(mr_history_add(history, EVIL, &steps[1]));
    assert_true(mr_event_stream_add(events, "job", "",
                                    "{\"message\":\"<evil>\",\"<evil>\":\"<evil>\"}"));
    ok(mr_timeline_expect(timeline, EVIL, 3, 1));
    tell_span("<evil>", 0);
    for (int i = 0; i < 4; i++) {
        char *html = render(status, i % 2 == 0, i / 2 == 0);
        assert_null(strstr(html, "<evil"));
        assert_true(count_of(html, "&lt;evil") > 5);
        assert_null(strstr(html, "a='1'"));
        assert_null(strstr(html, "\"quoted\""));
        mr_free(html);
    }
    free(status);
}

static void test_step_is_shown_when_all_stages_have_told(void **state) {
    (void)state;
    char *status = evil_status();
    ok(mr_timeline_expect(timeline, EVIL, 3, 2));
    tell_span("F0", 1);
    char *html = render(status, true, false);
    assert_null(strstr(html, "class=\"forward\" x="));
    mr_free(html);
    tell_span("F0", 0);
    html = render(status, true, false);
    assert_int_equal(count_of(html, "class=\"forward\" x="), 2);
    assert_int_equal(count_of(html, "slowest</strong>"), 1);
    mr_free(html);
    free(status);
}

static void test_answer_that_nobody_waits_for_is_refused(void **state) {
    (void)state;
    const mr_timeline_stage one = {.stage = 0, .span_count = 0};
    mr_timeline_span *spans = mr_alloc_array(1, sizeof(*spans));
    mr_status status = mr_timeline_add(timeline, "job", 1, &one, spans);
    assert_int_equal(status.code, MR_CODE_NOT_FOUND);
    status = mr_timeline_expect(timeline, "job", 1, MR_TIMELINE_STAGES_MAX + 1);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
}

static void test_no_status_is_still_a_page(void **state) {
    (void)state;
    char *html = render("nonsense", true, false);
    assert_non_null(strstr(html, "No job was submitted yet."));
    assert_non_null(strstr(html, "No stage is attached."));
    mr_free(html);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_text_from_outside_is_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_step_is_shown_when_all_stages_have_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_answer_that_nobody_waits_for_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_no_status_is_still_a_page, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
