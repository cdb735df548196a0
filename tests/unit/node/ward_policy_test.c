/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what follows from every event in every state is what ward.h draws: what is started again
 * and when, what never is, and that a drain always ends. Method: a table of (state before, event)
 * -> (state after, action), then the pauses over all draws, then short lives, told by events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "daemon/node/ward.h"

enum { NOW_MS = 1000000, DRAIN_MS = 25000 };

/* A ward in a state that began just now, with its bound. */
static mr_ward ward_in(mr_ward_state state) {
    mr_ward ward = mr_ward_make(NOW_MS);
    ward.state = state;
    ward.starts = 1;
    ward.deadline_ms = INT64_MAX;
    if (state == MR_WARD_WAITING)
        ward.deadline_ms = NOW_MS + 5000;
    if (state == MR_WARD_STARTING)
        ward.deadline_ms = NOW_MS + MR_NODE_START_TIMEOUT_MS;
    if (state == MR_WARD_READY)
        ward.deadline_ms = NOW_MS + MR_NODE_SILENCE_MS;
    if (state == MR_WARD_STOPPING) {
        ward.draining = true;
        ward.deadline_ms = NOW_MS + DRAIN_MS;
    }
    return ward;
}

static mr_ward_event event_exit(int code, int signal_number) {
    return (mr_ward_event){.kind = MR_WARD_EXITED,
                           .now_ms = NOW_MS + 10,
                           .exit_code = code,
                           .signal_number = signal_number};
}

static mr_ward_event event_of(mr_ward_event_kind kind) {
    return (mr_ward_event){.kind = kind, .now_ms = NOW_MS + 10, .drain_ms = DRAIN_MS};
}

typedef struct rule {
    mr_ward_state before;
    int exit_code; /* of an exit; -1: signal 9; or -2: the event below */
    mr_ward_event_kind kind;
    mr_ward_state after;
    mr_ward_action action;
} rule;

/* Exits: what each code does to a running stage; then every other event. */
static const rule rules[] = {
    {MR_WARD_READY, 0, MR_WARD_EXITED, MR_WARD_ENDED, MR_WARD_NOTHING},
    {MR_WARD_READY, 1, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, 64, MR_WARD_EXITED, MR_WARD_REFUSED, MR_WARD_NOTHING},
    {MR_WARD_READY, 65, MR_WARD_EXITED, MR_WARD_REFUSED, MR_WARD_NOTHING},
    {MR_WARD_READY, 69, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, 70, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, 71, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, 74, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, 75, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, 77, MR_WARD_EXITED, MR_WARD_REFUSED, MR_WARD_NOTHING},
    {MR_WARD_READY, 78, MR_WARD_EXITED, MR_WARD_REFUSED, MR_WARD_NOTHING},
    {MR_WARD_READY, -1, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_STARTING, 0, MR_WARD_EXITED, MR_WARD_ENDED, MR_WARD_NOTHING},
    {MR_WARD_STARTING, 78, MR_WARD_EXITED, MR_WARD_REFUSED, MR_WARD_NOTHING},
    {MR_WARD_STARTING, 70, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_STOPPING, 0, MR_WARD_EXITED, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_STOPPING, 70, MR_WARD_EXITED, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_KILLING, -1, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_KILLING, 0, MR_WARD_EXITED, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_STOPPED, 0, MR_WARD_EXITED, MR_WARD_STOPPED, MR_WARD_NOTHING},
    /* before its time a tick does nothing */
    {MR_WARD_WAITING, -2, MR_WARD_TICK, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_STARTING, -2, MR_WARD_TICK, MR_WARD_STARTING, MR_WARD_NOTHING},
    {MR_WARD_READY, -2, MR_WARD_TICK, MR_WARD_READY, MR_WARD_NOTHING},
    {MR_WARD_STARTING, -2, MR_WARD_SERVES, MR_WARD_READY, MR_WARD_NOTHING},
    {MR_WARD_STOPPING, -2, MR_WARD_SERVES, MR_WARD_STOPPING, MR_WARD_NOTHING},
    {MR_WARD_WAITING, -2, MR_WARD_SERVES, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_STARTING, -2, MR_WARD_ALIVE, MR_WARD_STARTING, MR_WARD_NOTHING},
    {MR_WARD_STARTING, -2, MR_WARD_UNBORN, MR_WARD_WAITING, MR_WARD_NOTHING},
    {MR_WARD_READY, -2, MR_WARD_UNBORN, MR_WARD_READY, MR_WARD_NOTHING},
    {MR_WARD_WAITING, -2, MR_WARD_DRAIN, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_STARTING, -2, MR_WARD_DRAIN, MR_WARD_STOPPING, MR_WARD_TERMINATE},
    {MR_WARD_READY, -2, MR_WARD_DRAIN, MR_WARD_STOPPING, MR_WARD_TERMINATE},
    {MR_WARD_STOPPING, -2, MR_WARD_DRAIN, MR_WARD_STOPPING, MR_WARD_NOTHING},
    {MR_WARD_KILLING, -2, MR_WARD_DRAIN, MR_WARD_KILLING, MR_WARD_NOTHING},
    {MR_WARD_REFUSED, -2, MR_WARD_DRAIN, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_ENDED, -2, MR_WARD_DRAIN, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_STOPPED, -2, MR_WARD_DRAIN, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_WAITING, -2, MR_WARD_DROP, MR_WARD_STOPPED, MR_WARD_NOTHING},
    {MR_WARD_READY, -2, MR_WARD_DROP, MR_WARD_KILLING, MR_WARD_KILL},
    {MR_WARD_STOPPING, -2, MR_WARD_DROP, MR_WARD_KILLING, MR_WARD_KILL},
    {MR_WARD_WAITING, -2, MR_WARD_RELOAD, MR_WARD_STARTING, MR_WARD_START},
    {MR_WARD_REFUSED, -2, MR_WARD_RELOAD, MR_WARD_STARTING, MR_WARD_START},
    {MR_WARD_ENDED, -2, MR_WARD_RELOAD, MR_WARD_STARTING, MR_WARD_START},
    {MR_WARD_READY, -2, MR_WARD_RELOAD, MR_WARD_READY, MR_WARD_NOTHING},
    {MR_WARD_STARTING, -2, MR_WARD_RELOAD, MR_WARD_STARTING, MR_WARD_NOTHING},
    {MR_WARD_STOPPING, -2, MR_WARD_RELOAD, MR_WARD_STOPPING, MR_WARD_NOTHING},
};

static void test_each_event_in_each_state_does_what_the_table_says(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const rule *r = &rules[i];
        mr_ward_event event = r->exit_code == -2
                                  ? event_of(r->kind)
                                  : event_exit(r->exit_code, r->exit_code == -1 ? 9 : 0);
        mr_ward_decision decision = mr_ward_decide(ward_in(r->before), &event);
        if (decision.ward.state != r->after || decision.action != r->action)
            fail_msg("rule %zu: %s becomes %s with action %d", i, mr_ward_state_name(r->before),
                     mr_ward_state_name(decision.ward.state), decision.action);
    }
}

static void test_what_refuses_a_start_keeps_its_exit_code(void **state) {
    (void)state;
    mr_ward_event event = event_exit(78, 0);
    mr_ward ward = mr_ward_decide(ward_in(MR_WARD_STARTING), &event).ward;
    assert_int_equal(ward.last_exit, 78);
    assert_int_equal(ward.reason, MR_WARD_REASON_EXIT);
    assert_true(ward.deadline_ms == INT64_MAX);
}

static void test_the_pause_doubles_up_to_its_bound_and_keeps_its_upper_half(void **state) {
    (void)state;
    int64_t most = MR_NODE_BACKOFF_FIRST_MS;
    for (uint32_t failures = 1; failures < 1000; failures++) {
        assert_int_equal(mr_ward_pause_ms(failures, 0), most);
        assert_int_equal(mr_ward_pause_ms(failures, UINT32_MAX), most - most / 2);
        for (uint32_t draw = 1; draw < 100; draw++) {
            int64_t pause_ms = mr_ward_pause_ms(failures, draw * (UINT32_MAX / 100));
            assert_true(pause_ms >= most / 2 && pause_ms <= most);
        }
        most = most * 2 < MR_NODE_BACKOFF_LAST_MS ? most * 2 : MR_NODE_BACKOFF_LAST_MS;
    }
    assert_int_equal(most, MR_NODE_BACKOFF_LAST_MS);
}

/* Fails a ward once, from its start to its next start; returns the pause between. */
static int64_t fail_once(mr_ward *ward, int64_t *now_ms, int64_t ready_ms) {
    mr_ward_event event = {.kind = MR_WARD_TICK, .now_ms = *now_ms};
    mr_ward_decision decision = mr_ward_decide(*ward, &event);
    assert_int_equal(decision.action, MR_WARD_START);
    event = (mr_ward_event){.kind = MR_WARD_SERVES, .now_ms = *now_ms};
    decision = mr_ward_decide(decision.ward, &event);
    *now_ms += ready_ms;
    event = (mr_ward_event){.kind = MR_WARD_EXITED, .now_ms = *now_ms, .exit_code = 70};
    decision = mr_ward_decide(decision.ward, &event);
    assert_int_equal(decision.ward.state, MR_WARD_WAITING);
    *ward = decision.ward;
    int64_t pause_ms = ward->deadline_ms - *now_ms;
    *now_ms = ward->deadline_ms;
    return pause_ms;
}

static void test_failures_in_a_row_wait_longer_and_a_stable_time_forgets_them(void **state) {
    (void)state;
    int64_t now_ms = NOW_MS;
    mr_ward ward = mr_ward_make(now_ms);
    assert_int_equal(fail_once(&ward, &now_ms, 10), MR_NODE_BACKOFF_FIRST_MS);
    assert_int_equal(fail_once(&ward, &now_ms, 10), 2 * MR_NODE_BACKOFF_FIRST_MS);
    assert_int_equal(fail_once(&ward, &now_ms, MR_NODE_STABLE_MS - 1),
                     4 * MR_NODE_BACKOFF_FIRST_MS);
    assert_int_equal(fail_once(&ward, &now_ms, MR_NODE_STABLE_MS), MR_NODE_BACKOFF_FIRST_MS);
    assert_int_equal(ward.starts, 4);
}

static void test_exit_75_is_no_failure(void **state) {
    (void)state;
    mr_ward ward = ward_in(MR_WARD_READY);
    ward.failures = 7;
    mr_ward_event event = event_exit(75, 0);
    ward = mr_ward_decide(ward, &event).ward;
    assert_int_equal(ward.failures, 0);
    assert_int_equal(ward.deadline_ms - event.now_ms, MR_NODE_BACKOFF_FIRST_MS);
}

static void test_a_silent_stage_is_killed_and_started_again(void **state) {
    (void)state;
    mr_ward ward = ward_in(MR_WARD_READY);
    mr_ward_event event = {.kind = MR_WARD_ALIVE, .now_ms = NOW_MS + MR_NODE_SILENCE_MS - 1};
    ward = mr_ward_decide(ward, &event).ward;
    event = (mr_ward_event){.kind = MR_WARD_TICK, .now_ms = NOW_MS + MR_NODE_SILENCE_MS};
    mr_ward_decision decision = mr_ward_decide(ward, &event);
    assert_int_equal(decision.action, MR_WARD_NOTHING);
    event.now_ms = NOW_MS + 2 * MR_NODE_SILENCE_MS - 1;
    decision = mr_ward_decide(decision.ward, &event);
    assert_int_equal(decision.action, MR_WARD_KILL);
    assert_int_equal(decision.ward.reason, MR_WARD_REASON_SILENT);
    event = event_exit(-1, 9);
    decision = mr_ward_decide(decision.ward, &event);
    assert_int_equal(decision.ward.state, MR_WARD_WAITING);
    assert_int_equal(decision.ward.reason, MR_WARD_REASON_SILENT);
}

static void test_a_late_start_is_killed_unless_it_asks_for_more(void **state) {
    (void)state;
    mr_ward_event extend = {.kind = MR_WARD_EXTEND,
                            .now_ms = NOW_MS + 1000,
                            .extend_ms = 2 * MR_NODE_START_TIMEOUT_MS};
    mr_ward_event tick = {.kind = MR_WARD_TICK, .now_ms = NOW_MS + MR_NODE_START_TIMEOUT_MS};
    mr_ward_decision late = mr_ward_decide(ward_in(MR_WARD_STARTING), &tick);
    assert_int_equal(late.action, MR_WARD_KILL);
    assert_int_equal(late.ward.reason, MR_WARD_REASON_LATE);
    mr_ward extended = mr_ward_decide(ward_in(MR_WARD_STARTING), &extend).ward;
    assert_int_equal(mr_ward_decide(extended, &tick).action, MR_WARD_NOTHING);
    tick.now_ms = extend.now_ms + extend.extend_ms;
    assert_int_equal(mr_ward_decide(extended, &tick).action, MR_WARD_KILL);
    /* A shorter wish shortens nothing. */
    extend.extend_ms = 1;
    extended = mr_ward_decide(ward_in(MR_WARD_STARTING), &extend).ward;
    assert_int_equal(extended.deadline_ms, NOW_MS + MR_NODE_START_TIMEOUT_MS);
}

static void test_a_drain_that_is_not_obeyed_is_a_kill_and_ends(void **state) {
    (void)state;
    mr_ward_event drain = event_of(MR_WARD_DRAIN);
    mr_ward ward = mr_ward_decide(ward_in(MR_WARD_READY), &drain).ward;
    mr_ward_event tick = {.kind = MR_WARD_TICK, .now_ms = drain.now_ms + DRAIN_MS - 1};
    assert_int_equal(mr_ward_decide(ward, &tick).action, MR_WARD_NOTHING);
    tick.now_ms++;
    mr_ward_decision decision = mr_ward_decide(ward, &tick);
    assert_int_equal(decision.action, MR_WARD_KILL);
    mr_ward_event end = event_exit(-1, 9);
    decision = mr_ward_decide(decision.ward, &end);
    assert_int_equal(decision.ward.state, MR_WARD_STOPPED);
    /* Nothing starts it again. */
    mr_ward_event reload = event_of(MR_WARD_RELOAD);
    assert_int_equal(mr_ward_decide(decision.ward, &reload).action, MR_WARD_NOTHING);
    tick.now_ms += 3600000;
    assert_int_equal(mr_ward_decide(decision.ward, &tick).action, MR_WARD_NOTHING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_event_in_each_state_does_what_the_table_says),
        cmocka_unit_test(test_what_refuses_a_start_keeps_its_exit_code),
        cmocka_unit_test(test_the_pause_doubles_up_to_its_bound_and_keeps_its_upper_half),
        cmocka_unit_test(test_failures_in_a_row_wait_longer_and_a_stable_time_forgets_them),
        cmocka_unit_test(test_exit_75_is_no_failure),
        cmocka_unit_test(test_a_silent_stage_is_killed_and_started_again),
        cmocka_unit_test(test_a_late_start_is_killed_unless_it_asks_for_more),
        cmocka_unit_test(test_a_drain_that_is_not_obeyed_is_a_kill_and_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
