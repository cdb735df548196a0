/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what ranks say that they hold is kept for each rank as long as the job is known, replaced
 * when its settings change, and believed of nobody but the job's own members in its present epoch.
 * Method: events in, the record is looked at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/coordinator/decide.h"

typedef struct desk {
    mr_coordinator_state state;
    mr_actions actions;
} desk;

static int setup(void **state) {
    desk *d = mr_alloc(sizeof(*d));
    assert_non_null(d);
    *state = d;
    return 0;
}

static int teardown(void **state) {
    desk *d = *state;
    mr_actions_deinit(&d->actions);
    mr_coordinator_state_deinit(&d->state);
    mr_free(d);
    return 0;
}

static void take(desk *d, mr_event event) {
    event.now_ms = 1000;
    event.wall_ms = 1700000000000;
    assert_int_equal(mr_decide(&d->state, &event, &d->actions).code, MR_CODE_OK);
}

/* Two members take a job of two ranks; it builds its layers then. */
static mr_job_record *start_two(desk *d) {
    mr_job_spec *spec = NULL;
    assert_int_equal(mr_job_spec_ended("job", "text", "/", MR_JOB_MODE_TRAIN, &spec).code,
                     MR_CODE_OK);
    spec->rank_count = 2;
    spec->ranks = mr_alloc_array(2, sizeof(*spec->ranks));
    assert_non_null(spec->ranks);
    spec->total_steps = 10;
    (void)snprintf(spec->schedule_hash, sizeof(spec->schedule_hash), "hash");
    for (uint64_t number = 1; number <= 2; number++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "stage-%d", (int)number);
        mr_event event = {.kind = MR_EVENT_ATTACHED, .member = number};
        event.u.attached = (mr_member_info){.instance_id = name,
                                            .device = "cpu",
                                            .address = name,
                                            .status_address = "",
                                            .version = ""};
        take(d, event);
    }
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = 1};
    event.u.submit.owned_spec = spec;
    event.u.submit.request_id = "";
    event.u.submit.checkpoint_path = "";
    take(d, event);
    assert_int_equal(d->state.jobs.records[0]->facts.state, MR_JOB_STARTING);
    return d->state.jobs.records[0];
}

static mr_event about(const mr_job_record *job, uint64_t member, mr_event_kind kind) {
    return (mr_event){
        .kind = kind, .member = member, .job = job->facts.id, .epoch = job->facts.epoch};
}

static void prepared(desk *d, const mr_job_record *job, uint64_t member, const char *hash,
                     uint64_t weights) {
    mr_event event = about(job, member, MR_EVENT_PREPARED);
    event.u.prepared.schedule_hash = hash;
    event.u.prepared.held = (mr_memory_bytes){.weights = weights, .activations = 7};
    take(d, event);
}

static void resized(desk *d, mr_event event, uint64_t activations) {
    event.u.resized.held = (mr_memory_bytes){.weights = 100, .activations = activations};
    take(d, event);
}

static void test_each_rank_holds_what_it_said(void **state) {
    desk *d = *state;
    mr_job_record *job = start_two(d);
    assert_false(job->ranks[0].held_known);
    prepared(d, job, 1, "hash", 100);
    assert_true(job->ranks[0].held_known);
    assert_false(job->ranks[1].held_known);
    prepared(d, job, 2, "hash", 200);
    assert_int_equal(job->ranks[0].held.weights, 100);
    assert_int_equal(job->ranks[1].held.weights, 200);
    assert_int_equal(job->ranks[1].held.activations, 7);
}

static void test_other_size_replaces_it_on_that_rank(void **state) {
    desk *d = *state;
    mr_job_record *job = start_two(d);
    prepared(d, job, 1, "hash", 100);
    prepared(d, job, 2, "hash", 100);
    resized(d, about(job, 2, MR_EVENT_RESIZED), 3);
    assert_int_equal(job->ranks[0].held.activations, 7);
    assert_int_equal(job->ranks[1].held.activations, 3);
    assert_int_equal(job->facts.state, MR_JOB_STARTING);
}

static void test_other_epoch_job_and_member_are_not_believed(void **state) {
    desk *d = *state;
    mr_job_record *job = start_two(d);
    prepared(d, job, 1, "hash", 100);
    mr_event stale = about(job, 1, MR_EVENT_RESIZED);
    stale.epoch--;
    resized(d, stale, 3);
    mr_event foreign = about(job, 1, MR_EVENT_RESIZED);
    foreign.job = "another";
    resized(d, foreign, 3);
    resized(d, about(job, 9, MR_EVENT_RESIZED), 3);
    assert_int_equal(job->ranks[0].held.activations, 7);
    assert_false(job->ranks[1].held_known);
}

static void test_refused_preparation_says_nothing(void **state) {
    desk *d = *state;
    mr_job_record *job = start_two(d);
    prepared(d, job, 1, "another", 100);
    assert_int_equal(job->facts.state, MR_JOB_FAILED);
    assert_false(job->ranks[0].held_known);
}

static void test_ended_job_remembers_what_was_held(void **state) {
    desk *d = *state;
    mr_job_record *job = start_two(d);
    prepared(d, job, 1, "hash", 100);
    mr_event cancel = about(job, 0, MR_EVENT_CANCEL);
    cancel.request = 2;
    take(d, cancel);
    assert_int_equal(job->facts.state, MR_JOB_CANCELLED);
    resized(d, about(job, 1, MR_EVENT_RESIZED), 3); /* on its way when the job ended */
    assert_true(job->ranks[0].held_known);
    assert_int_equal(job->ranks[0].held.activations, 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_each_rank_holds_what_it_said),
        TEST(test_other_size_replaces_it_on_that_rank),
        TEST(test_other_epoch_job_and_member_are_not_believed),
        TEST(test_refused_preparation_says_nothing),
        TEST(test_ended_job_remembers_what_was_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
