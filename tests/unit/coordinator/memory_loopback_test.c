/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the bytes that ranks report come back to clients, of the job and of the member, beside what
 * the plan predicts; bytes that no device has fail the job with kind, value and bound. Method: a
 * real coordinator, two stages that report what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/limits.h"
#include "tests/unit/coordinator/rig.h"

enum { STAGES = 2 };

static rig r;
static rig_stage stages[STAGES];

static int set_up(void **state) {
    (void)state;
    rig_start(&r);
    rig_stage_attach(&r, &stages[0], "127.0.0.1:1");
    rig_stage_attach(&r, &stages[1], "127.0.0.1:2");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (size_t i = 0; i < STAGES; i++)
        rig_stage_leave(&stages[i]);
    rig_stop(&r);
    return 0;
}

static Millrace__V1__Job *submit(void) {
    char text[4096];
    rig_job_text(&r, "weighed", STAGES, 3, NULL, text, sizeof(text));
    return rig_submit(&r, text, false);
}

static Millrace__V1__MemoryBytes memory_of(uint64_t weights) {
    Millrace__V1__MemoryBytes memory = MILLRACE__V1__MEMORY_BYTES__INIT;
    memory.weights = weights;
    memory.gradients = weights + 1;
    memory.optimizer = weights + 2;
    memory.activations = weights + 3;
    return memory;
}

static void assert_memory(const Millrace__V1__MemoryBytes *memory, uint64_t weights) {
    assert_non_null(memory);
    assert_int_equal(memory->weights, weights);
    assert_int_equal(memory->gradients, weights + 1);
    assert_int_equal(memory->optimizer, weights + 2);
    assert_int_equal(memory->activations, weights + 3);
}

/* Answers Prepare; the stage's job is known then. */
static void prepared(rig_stage *stage, Millrace__V1__MemoryBytes *held) {
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    Millrace__V1__Prepared body = MILLRACE__V1__PREPARED__INIT;
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_PREPARE);
    (void)snprintf(stage->job_id, sizeof(stage->job_id), "%s", order->prepare->job_id);
    stage->epoch = order->prepare->epoch;
    body.job_id = order->prepare->job_id;
    body.epoch = order->prepare->epoch;
    body.schedule_hash = order->prepare->schedule_hash;
    body.memory_held = held;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_PREPARED;
    report.prepared = &body;
    rig_stage_send(stage, &report);
    rig_free(order);
}

static void resized(rig_stage *stage, Millrace__V1__MemoryBytes *held) {
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    Millrace__V1__Resized body = MILLRACE__V1__RESIZED__INIT;
    body.job_id = stage->job_id;
    body.epoch = stage->epoch;
    body.memory_held = held;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_RESIZED;
    report.resized = &body;
    rig_stage_send(stage, &report);
}

static Millrace__V1__Job *await_weights(const char *id, uint64_t weights) {
    for (;;) { /* bounded by the test's own time */
        Millrace__V1__Job *job =
            rig_await_state(&r, id, MILLRACE__V1__JOB_STATE__JOB_STATE_STARTING);
        const Millrace__V1__MemoryBytes *held = job->stages[0]->memory_held;
        if (held != NULL && held->weights == weights)
            return job;
        rig_free(job);
        rig_pause();
    }
}

static void test_held_bytes_are_shown_beside_the_plan(void **state) {
    Millrace__V1__MemoryBytes first = memory_of(1000);
    Millrace__V1__MemoryBytes other = memory_of(5000);
    (void)state;
    Millrace__V1__Job *job = submit();
    assert_int_equal(job->n_stages, STAGES);
    for (size_t i = 0; i < STAGES; i++) {
        assert_non_null(job->stages[i]->memory_predicted);
        assert_true(job->stages[i]->memory_predicted->weights > 0);
        assert_true(job->stages[i]->memory_predicted->activations > 0);
        assert_null(job->stages[i]->memory_held);
    }
    prepared(&stages[0], &first);
    Millrace__V1__Job *shown = await_weights(job->id, 1000);
    assert_memory(shown->stages[0]->memory_held, 1000);
    assert_null(shown->stages[1]->memory_held); /* it still builds */
    rig_free(shown);
    resized(&stages[0], &other);
    shown = await_weights(job->id, 5000);
    assert_memory(shown->stages[0]->memory_held, 5000);
    rig_free(shown);
    rig_free(job);
}

static void test_member_shows_what_its_rank_holds(void **state) {
    Millrace__V1__MemoryBytes held = memory_of(1000);
    Millrace__V1__ListStagesRequest request = MILLRACE__V1__LIST_STAGES_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    (void)state;
    assert_int_equal(rig_call(&r, "ListStages", &request.base, &response).code, MR_CODE_OK);
    assert_null(((Millrace__V1__ListStagesResponse *)response)->members[0]->memory_predicted);
    rig_free(response);
    Millrace__V1__Job *job = submit();
    prepared(&stages[0], &held);
    rig_free(await_weights(job->id, 1000));
    assert_int_equal(rig_call(&r, "ListStages", &request.base, &response).code, MR_CODE_OK);
    const Millrace__V1__ListStagesResponse *list = (Millrace__V1__ListStagesResponse *)response;
    assert_int_equal(list->n_members, STAGES);
    assert_memory(list->members[0]->memory_held, 1000);
    assert_int_equal(list->members[0]->memory_predicted->weights,
                     job->stages[0]->memory_predicted->weights);
    assert_non_null(list->members[1]->memory_predicted);
    assert_null(list->members[1]->memory_held);
    rig_free(response);
    rig_free(job);
}

static void test_bytes_of_no_device_fail_the_job(void **state) {
    Millrace__V1__MemoryBytes held = memory_of(1000);
    (void)state;
    held.optimizer = MR_DEVICE_BYTES_MAX + 1;
    Millrace__V1__Job *job = submit();
    prepared(&stages[0], &held);
    Millrace__V1__Job *shown =
        rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED);
    assert_non_null(strstr(shown->reason, "memory_held.optimizer is 1125899906842625"));
    assert_non_null(strstr(shown->reason, "1125899906842624"));
    rig_free(shown);
    rig_free(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_held_bytes_are_shown_beside_the_plan, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_member_shows_what_its_rank_holds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bytes_of_no_device_fail_the_job, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
