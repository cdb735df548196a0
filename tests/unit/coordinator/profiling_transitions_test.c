/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a job that is cut by its layers' times is measured, cut and then prepared; what is known is
 * not measured again; and whatever ends it on the way frees its members and is said.
 * Method: single events into mr_decide, specs made by hand. */
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
    int64_t now_ms;
} desk;

static int setup(void **state) {
    desk *d = mr_alloc(sizeof(*d));
    assert_non_null(d);
    d->now_ms = 1000;
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
    event.now_ms = d->now_ms;
    event.wall_ms = 1700000000000 + d->now_ms;
    assert_int_equal(mr_decide(&d->state, &event, &d->actions).code, MR_CODE_OK);
}

static void attach(desk *d, uint64_t number, uint32_t threads) {
    char name[32];
    (void)snprintf(name, sizeof(name), "stage-%d", (int)number);
    mr_event event = {.kind = MR_EVENT_ATTACHED, .member = number};
    event.u.attached = (mr_member_info){.instance_id = name,
                                        .device = "cpu",
                                        .threads = threads,
                                        .address = name,
                                        .status_address = "",
                                        .version = ""};
    take(d, event);
}

static mr_job_spec *spec_make(bool profile_only) {
    mr_job_spec *spec = NULL;
    mr_job_mode mode = profile_only ? MR_JOB_MODE_PROFILE : MR_JOB_MODE_TRAIN;
    assert_int_equal(mr_job_spec_ended("job", "text", "/", mode, &spec).code, MR_CODE_OK);
    spec->profiles = true;
    spec->rank_count = 2;
    spec->ranks = mr_alloc_array(2, sizeof(*spec->ranks));
    for (uint32_t rank = 0; rank < 2; rank++)
        spec->ranks[rank] = (mr_spec_rank){.stage = rank, .first = rank == 0};
    spec->total_steps = profile_only ? 0 : 10;
    (void)snprintf(spec->schedule_hash, sizeof(spec->schedule_hash), "hash");
    return spec;
}

/* What DISK gives back. */
static mr_job_spec *spec_cut(bool profile_only) {
    mr_job_spec *spec = spec_make(profile_only);
    spec->profiles = false;
    spec->bounds = mr_alloc_array(3, sizeof(*spec->bounds));
    spec->bound_count = 3;
    spec->predicted_step_seconds = 0.5;
    return spec;
}

static mr_job_record *submit(desk *d, mr_job_spec *spec) {
    mr_event event = {.kind = MR_EVENT_SUBMIT, .request = 1};
    event.u.submit.owned_spec = spec;
    event.u.submit.request_id = "";
    event.u.submit.checkpoint_path = "";
    take(d, event);
    return d->state.jobs.records[d->state.jobs.count - 1];
}

static mr_event about(const mr_job_record *job, uint64_t member, mr_event_kind kind) {
    return (mr_event){
        .kind = kind, .member = member, .job = job->facts.id, .epoch = job->facts.epoch};
}

static void profiled(desk *d, const mr_job_record *job, uint64_t member) {
    mr_event event = about(job, member, MR_EVENT_PROFILED);
    assert_int_equal(mr_profile_device_create(1, &event.u.profiled.owned_profile).code, MR_CODE_OK);
    take(d, event);
}

static void cut(desk *d, const mr_job_record *job, mr_job_spec *spec, mr_status status) {
    mr_event event = about(job, 0, MR_EVENT_CUT);
    event.u.cut.owned_spec = spec;
    event.u.cut.status = status;
    take(d, event);
}

static size_t orders(const desk *d, mr_order order) {
    size_t count = 0;
    for (size_t i = 0; i < d->actions.count; i++)
        count += d->actions.items[i].kind == MR_ACTION_SEND && d->actions.items[i].order == order;
    return count;
}

static size_t cuts(const desk *d) {
    size_t count = 0;
    for (size_t i = 0; i < d->actions.count; i++)
        count += d->actions.items[i].kind == MR_ACTION_CUT;
    return count;
}

static void assert_says(const mr_job_record *job, mr_job_state state, const char *words) {
    assert_int_equal(job->facts.state, state);
    if (strstr(job->facts.reason, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", job->facts.reason, words);
}

static mr_job_record *measure_two(desk *d, bool profile_only) {
    attach(d, 1, 1);
    attach(d, 2, 1);
    mr_job_record *job = submit(d, spec_make(profile_only));
    assert_int_equal(orders(d, MR_ORDER_PROFILE), 2);
    assert_int_equal(orders(d, MR_ORDER_PREPARE), 0);
    assert_says(job, MR_JOB_STARTING, "2 stages time the layers");
    return job;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_all_times_known_cuts_and_the_cut_prepares(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    profiled(d, job, 2);
    assert_int_equal(cuts(d), 0);
    profiled(d, job, 2); /* again: nothing */
    assert_int_equal(cuts(d), 0);
    profiled(d, job, 1);
    assert_int_equal(cuts(d), 1);
    assert_says(job, MR_JOB_STARTING, "2 stages wait for the cut of the model");
    cut(d, job, spec_cut(false), MR_OK);
    assert_int_equal(orders(d, MR_ORDER_PREPARE), 2);
    assert_int_equal(job->spec->bound_count, 3);
    assert_true(job->facts.predicted_step_seconds == 0.5);
    assert_says(job, MR_JOB_STARTING, "2 stages build their layers");
}

static void test_a_job_that_only_measures_ends_with_its_cut(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, true);
    profiled(d, job, 1);
    profiled(d, job, 2);
    cut(d, job, spec_cut(true), MR_OK);
    assert_int_equal(job->facts.state, MR_JOB_SUCCEEDED);
    assert_int_equal(orders(d, MR_ORDER_PREPARE), 0);
    assert_int_equal(orders(d, MR_ORDER_RELEASE), 2);
}

/* Member 1 is like the profile's, member 2 has more threads. */
static void test_known_members_are_not_measured_again(void **state) {
    desk *d = *state;
    attach(d, 1, 1);
    attach(d, 2, 4);
    mr_job_spec *spec = spec_make(false);
    spec->profile = mr_alloc(sizeof(*spec->profile));
    mr_profile_device *device = NULL;
    assert_int_equal(mr_profile_device_create(0, &device).code, MR_CODE_OK);
    (void)snprintf(device->device, sizeof(device->device), "cpu");
    device->threads = 1;
    assert_int_equal(mr_profile_add(spec->profile, device).code, MR_CODE_OK);
    mr_job_record *job = submit(d, spec);
    assert_says(job, MR_JOB_STARTING, "1 stage time the layers");
    assert_int_equal(orders(d, MR_ORDER_PROFILE), 1);
    profiled(d, job, 2);
    assert_int_equal(cuts(d), 1);
    assert_null(job->ranks[0].profile);
    assert_int_equal(job->ranks[0].profile_entry, 0);
    assert_non_null(job->ranks[1].profile);
}

static void test_a_stage_that_cannot_measure_is_named(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    mr_event event = about(job, 2, MR_EVENT_FAILED);
    event.u.failed.code = MR_CODE_RESOURCE_EXHAUSTED;
    event.u.failed.text = "layer 3: no memory";
    take(d, event);
    assert_says(job, MR_JOB_FAILED, "stage 1 (rank 1, member m2 at stage-2)");
    assert_says(job, MR_JOB_FAILED, "layer 3: no memory");
    assert_int_equal(orders(d, MR_ORDER_ABORT), 2);
}

static void test_a_stage_lost_while_it_measures_is_named(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    profiled(d, job, 1);
    mr_event event = {.kind = MR_EVENT_LOST, .member = 2};
    event.u.lost.text = "stream ended";
    take(d, event);
    assert_says(job, MR_JOB_FAILED, "stage 1 (rank 1, member m2 at stage-2): UNAVAILABLE: lost");
    assert_int_equal(orders(d, MR_ORDER_ABORT), 1);
}

static void test_a_member_that_goes_during_the_cut_ends_the_job(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    profiled(d, job, 1);
    profiled(d, job, 2);
    uint64_t epoch = job->facts.epoch;
    mr_event event = {.kind = MR_EVENT_LOST, .member = 1};
    event.u.lost.text = "stream ended";
    take(d, event);
    assert_says(job, MR_JOB_FAILED, "stage 0");
    mr_event late = about(job, 0, MR_EVENT_CUT); /* comes back all the same */
    late.epoch = epoch;
    late.u.cut.owned_spec = spec_cut(false);
    take(d, late);
    assert_int_equal(d->actions.count, 0);
}

static void test_cancel_while_it_measures_frees_the_members(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    mr_event event = about(job, 0, MR_EVENT_CANCEL);
    event.request = 2;
    take(d, event);
    assert_says(job, MR_JOB_CANCELLED, "cancelled on request");
    assert_int_equal(orders(d, MR_ORDER_ABORT), 2);
    profiled(d, job, 1); /* of the new epoch's number, but nobody waits for it */
    assert_int_equal(cuts(d), 0);
}

static void test_a_stage_that_is_late_with_its_times_is_named(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    profiled(d, job, 1);
    int64_t until_ms = d->now_ms + MR_PROFILE_TIMEOUT_MS + MR_STARTING_SLACK_MS;
    while (d->now_ms < until_ms + MR_TICK_PERIOD_MS) {
        d->now_ms += MR_TICK_PERIOD_MS;
        for (uint64_t member = 1; member <= 2; member++) {
            mr_event beat = {.kind = MR_EVENT_HEARTBEAT, .member = member, .job = ""};
            beat.u.heartbeat.instruction = "";
            take(d, beat);
        }
        take(d, (mr_event){.kind = MR_EVENT_TICK});
    }
    assert_says(job, MR_JOB_FAILED, "stage 1 (rank 1");
    assert_says(job, MR_JOB_FAILED, "no Profiled in 125 s");
}

static void test_a_cut_that_cannot_be_says_why(void **state) {
    desk *d = *state;
    mr_job_record *job = measure_two(d, false);
    profiled(d, job, 1);
    profiled(d, job, 2);
    cut(d, job, NULL, MR_ERROR(RESOURCE_EXHAUSTED, "no cut into 2 stages fits its devices"));
    assert_says(job, MR_JOB_FAILED, "the model was not cut: no cut into 2 stages fits its devices");
    assert_int_equal(orders(d, MR_ORDER_ABORT), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_all_times_known_cuts_and_the_cut_prepares),
        TEST(test_a_job_that_only_measures_ends_with_its_cut),
        TEST(test_known_members_are_not_measured_again),
        TEST(test_a_stage_that_cannot_measure_is_named),
        TEST(test_a_stage_lost_while_it_measures_is_named),
        TEST(test_a_member_that_goes_during_the_cut_ends_the_job),
        TEST(test_cancel_while_it_measures_frees_the_members),
        TEST(test_a_stage_that_is_late_with_its_times_is_named),
        TEST(test_a_cut_that_cannot_be_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
