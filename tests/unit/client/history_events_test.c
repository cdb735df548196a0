/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a job's past is its moments in order; every change of a job's state, reason or checkpoint
 * and of a member's coming, state and going is one event, and what did not change is none.
 * Method: pairs of states as the coordinator gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/history.h"

static json_t *make_job(const char *state, const char *reason, const char *tag, int step) {
    json_t *job = json_pack("{s:s, s:s, s:s, s:s, s:s?, s:s?, s:i, s:i, s:i, s:i, s:i, s:[]}", "id",
                            "j1", "name", "tiny", "mode", "train", "state", state, "reason", reason,
                            "checkpoint_tag", tag, "step", step, "start_step", 0, "created_ms",
                            1000, "started_ms", step > 0 ? 2000 : 0, "ended_ms",
                            strcmp(state, "FAILED") == 0 ? 3000 : 0, "stages");
    assert_non_null(job);
    return job;
}

static json_t *make_member(const char *state, const char *job) {
    json_t *member = json_pack("{s:s, s:s, s:s, s:s, s:s?}", "id", "m1", "device", "cpu", "address",
                               "h:1", "state", state, "job_id", job);
    assert_non_null(member);
    return member;
}

/* The event at that place is this one. */
static void check_event(const json_t *events, size_t index, const char *event, const char *detail) {
    const json_t *item = json_array_get(events, index);
    assert_non_null(item);
    assert_string_equal(json_string_value(json_object_get(item, "event")), event);
    const char *text = json_string_value(json_object_get(item, "detail"));
    assert_string_equal(text ? text : "", detail);
}

static void test_a_jobs_past_is_its_moments_in_order(void **state) {
    (void)state;
    json_t *job = make_job("FAILED", "stage 1 is lost", NULL, 7);
    json_t *events = mr_history_of_job(job);
    assert_int_equal(json_array_size(events), 3);
    check_event(events, 0, "created", "tiny, train");
    check_event(events, 1, "started", "from step 0 on 0 stages");
    check_event(events, 2, "FAILED", "step 7: stage 1 is lost");
    json_decref(events);
    json_decref(job);
    job = make_job("QUEUED", NULL, NULL, 0);
    events = mr_history_of_job(job);
    assert_int_equal(json_array_size(events), 1);
    json_decref(events);
    json_decref(job);
}

static void test_every_change_of_a_job_is_one_event(void **state) {
    (void)state;
    json_t *events = json_array();
    json_t *states[] = {
        make_job("QUEUED", "needs 2 stages", NULL, 0),
        make_job("QUEUED", "needs 1 stage", NULL, 0),
        make_job("RUNNING", NULL, NULL, 1),
        make_job("RUNNING", NULL, NULL, 9),
        make_job("RUNNING", NULL, "step-9", 9),
    };
    mr_history_job_changed(NULL, states[0], 10, events);
    for (size_t i = 0; i + 1 < sizeof(states) / sizeof(states[0]); i++)
        mr_history_job_changed(states[i], states[i + 1], 20, events);
    mr_history_job_changed(states[4], NULL, 30, events);
    assert_int_equal(json_array_size(events), 4);
    check_event(events, 0, "QUEUED", "step 0: needs 2 stages");
    check_event(events, 1, "QUEUED", "step 0: needs 1 stage");
    check_event(events, 2, "RUNNING", "step 1");
    check_event(events, 3, "checkpoint", "step-9");
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        json_decref(states[i]);
    json_decref(events);
}

static void test_a_members_coming_states_and_going_are_events(void **state) {
    (void)state;
    json_t *events = json_array();
    json_t *idle = make_member("idle", NULL);
    json_t *running = make_member("running", "j1");
    mr_history_member_changed(NULL, idle, 10, events);
    mr_history_member_changed(idle, idle, 20, events);
    mr_history_member_changed(idle, running, 30, events);
    mr_history_member_changed(running, NULL, 40, events);
    assert_int_equal(json_array_size(events), 3);
    check_event(events, 0, "attached", "cpu at h:1");
    check_event(events, 1, "running", "job j1");
    check_event(events, 2, "gone", "h:1");
    json_decref(idle);
    json_decref(running);
    json_decref(events);
}

static void test_events_are_sorted_by_time_and_equal_times_stay(void **state) {
    (void)state;
    json_t *events = mr_history_sorted(json_pack(
        "[{s:i, s:s}, {s:i, s:s}, {s:i, s:s}, {s:i, s:s}]", "time_ms", 5, "event", "c", "time_ms",
        1, "event", "a", "time_ms", 5, "event", "d", "time_ms", 3, "event", "b"));
    check_event(events, 0, "a", "");
    check_event(events, 1, "b", "");
    check_event(events, 2, "c", "");
    check_event(events, 3, "d", "");
    json_decref(events);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_jobs_past_is_its_moments_in_order),
        cmocka_unit_test(test_every_change_of_a_job_is_one_event),
        cmocka_unit_test(test_a_members_coming_states_and_going_are_events),
        cmocka_unit_test(test_events_are_sorted_by_time_and_equal_times_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
