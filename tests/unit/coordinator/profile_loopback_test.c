/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: through the wire, a job with partition: profile is measured by its stages, cut where their
 * times say, and its profile is kept with it over a restart and good for the next job.
 * Method: a real coordinator, two stages that report made-up times. The job has four layers:
 * embedding, block, layernorm, head. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/coordinator/rig.h"

enum { TEXT_BYTES = 2048, LAYERS = 4 };

static void job_text(const rig *r, char out_text[TEXT_BYTES]) {
    char text[TEXT_BYTES];
    rig_job_text(r, "measured", 2, 3, NULL, text, sizeof(text));
    const char *from = strstr(text, "partition: uniform");
    assert_non_null(from);
    (void)snprintf(out_text, TEXT_BYTES, "%.*spartition: profile%s", (int)(from - text), text,
                   from + strlen("partition: uniform"));
}

/* Reports forward times, in seconds, in answer to PROFILE; everything else costs nothing. */
static void send_times(rig_stage *stage, const double *forward, size_t count) {
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_PROFILE);
    Millrace__V1__LayerCost costs[LAYERS];
    Millrace__V1__LayerCost *list[LAYERS];
    Millrace__V1__Profiled body = MILLRACE__V1__PROFILED__INIT;
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    for (size_t i = 0; i < count; i++) {
        millrace__v1__layer_cost__init(&costs[i]);
        costs[i].forward = forward[i];
        list[i] = &costs[i];
    }
    (void)snprintf(stage->job_id, sizeof(stage->job_id), "%s", order->profile->job_id);
    stage->epoch = order->profile->epoch;
    assert_non_null(strstr(order->profile->job_file, "partition: profile"));
    body.job_id = stage->job_id;
    body.epoch = stage->epoch;
    body.costs = list;
    body.n_costs = count;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_PROFILED;
    report.profiled = &body;
    rig_stage_send(stage, &report);
    rig_free(order);
}

static void expect_bounds(rig_stage *stage, uint32_t middle) {
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_PREPARE);
    assert_int_equal(order->prepare->n_bounds, 3);
    assert_int_equal(order->prepare->bounds[0], 0);
    assert_int_equal(order->prepare->bounds[1], middle);
    assert_int_equal(order->prepare->bounds[2], LAYERS);
    rig_free(order);
}

static Millrace__V1__Job *submit(rig *r, const char *text, const char *profile,
                                 Millrace__V1__JobMode mode) {
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = (char *)(uintptr_t)text;
    request.base_directory = r->folder;
    request.profile = (char *)(uintptr_t)profile;
    request.mode = mode;
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "Submit", &request.base, &response);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return (Millrace__V1__Job *)response;
}

static mr_status get_profile(rig *r, const char *job, char **out_json) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job;
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(r, "GetProfile", &request.base, &response);
    if (mr_status_is_ok(status))
        *out_json = mr_strdup(((Millrace__V1__ProfileResponse *)response)->json);
    rig_free(response);
    return status;
}

static void cancel(rig *r, const char *job) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)job;
    ProtobufCMessage *response = NULL;
    assert_int_equal(rig_call(r, "Cancel", &request.base, &response).code, MR_CODE_OK);
    rig_free(response);
}

static void release(rig_stage *stage) {
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_ABORT);
    rig_stage_released(stage, order->abort->epoch);
    rig_free(order);
}

static void test_measured_cut_kept_and_used_again(void **state) {
    (void)state;
    static const double quick[LAYERS] = {1, 1, 1, 1};
    static const double slow[LAYERS] = {3, 3, 3, 3};
    rig r;
    rig_stage stages[2];
    char text[TEXT_BYTES];
    char *json = NULL;
    char *again = NULL;
    rig_start(&r);
    rig_stage_attach(&r, &stages[0], "one:1");
    rig_stage_attach(&r, &stages[1], "two:1");
    job_text(&r, text);
    Millrace__V1__Job *job = submit(&r, text, "", MILLRACE__V1__JOB_MODE__JOB_MODE_TRAIN);
    assert_int_equal(get_profile(&r, job->id, &json).code, MR_CODE_NOT_FOUND);
    send_times(&stages[0], quick, LAYERS);
    send_times(&stages[1], slow, LAYERS);
    expect_bounds(&stages[0], 3); /* three quick layers against one slow one */
    expect_bounds(&stages[1], 3);
    assert_int_equal(get_profile(&r, job->id, &json).code, MR_CODE_OK);
    assert_non_null(strstr(json, "\"address\":\"two:1\""));
    Millrace__V1__Job *now =
        rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_STARTING);
    assert_int_equal(now->stages[1]->layer_first, 3);
    assert_true(now->predicted_step_seconds == 15); /* 1F1B: 3 + 4 microbatches of 3 */
    rig_free(now);
    cancel(&r, job->id);
    release(&stages[0]);
    release(&stages[1]);

    Millrace__V1__Job *next = submit(&r, text, json, MILLRACE__V1__JOB_MODE__JOB_MODE_TRAIN);
    expect_bounds(&stages[0], 3); /* nobody is asked */
    expect_bounds(&stages[1], 3);
    cancel(&r, next->id);
    release(&stages[0]);
    release(&stages[1]);
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);

    rig_restart(&r);
    assert_int_equal(get_profile(&r, job->id, &again).code, MR_CODE_OK);
    assert_string_equal(json, again);
    mr_free(again);
    mr_free(json);
    rig_free(next);
    rig_free(job);
    rig_stop(&r);
}

static void test_a_job_that_only_measures_succeeds(void **state) {
    (void)state;
    static const double times[LAYERS] = {1, 2, 1, 4};
    rig r;
    rig_stage stages[2];
    char text[TEXT_BYTES];
    char *json = NULL;
    rig_start(&r);
    rig_stage_attach(&r, &stages[0], "one:1");
    rig_stage_attach(&r, &stages[1], "two:1");
    job_text(&r, text);
    Millrace__V1__Job *job = submit(&r, text, "", MILLRACE__V1__JOB_MODE__JOB_MODE_PROFILE);
    send_times(&stages[0], times, LAYERS);
    send_times(&stages[1], times, LAYERS);
    for (size_t i = 0; i < 2; i++) {
        rig_free(rig_stage_expect(&stages[i], MILLRACE__V1__STAGE_ORDER__ORDER_RELEASE));
        rig_stage_released(&stages[i], stages[i].epoch);
    }
    Millrace__V1__Job *end =
        rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED);
    assert_int_equal(end->mode, MILLRACE__V1__JOB_MODE__JOB_MODE_PROFILE);
    assert_int_equal(get_profile(&r, job->id, &json).code, MR_CODE_OK);
    mr_free(json);
    rig_free(end);
    rig_free(job);
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);
    rig_stop(&r);
}

static void test_times_that_cannot_be_fail_the_job_with_words(void **state) {
    (void)state;
    static const double good[LAYERS] = {1, 1, 1, 1};
    static const double bad[LAYERS] = {1, -1, 1, 1};
    rig r;
    rig_stage stages[2];
    char text[TEXT_BYTES];
    rig_start(&r);
    rig_stage_attach(&r, &stages[0], "one:1");
    rig_stage_attach(&r, &stages[1], "two:1");
    job_text(&r, text);
    for (int round = 0; round < 2; round++) {
        Millrace__V1__Job *job = submit(&r, text, "", MILLRACE__V1__JOB_MODE__JOB_MODE_TRAIN);
        send_times(&stages[0], good, LAYERS);
        send_times(&stages[1], round == 0 ? bad : good, round == 0 ? LAYERS : LAYERS - 1);
        Millrace__V1__Job *end =
            rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED);
        const char *words = round == 0 ? "stage 1 (rank 1, member m2 at two:1): INVALID_ARGUMENT: "
                                         "forward is -1"
                                       : "rank 1: a device has costs of 3 layers";
        if (strstr(end->reason, words) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", end->reason, words);
        release(&stages[0]);
        release(&stages[1]);
        rig_free(end);
        rig_free(job);
    }
    rig_stage_leave(&stages[0]);
    rig_stage_leave(&stages[1]);
    rig_stop(&r);
}

static void test_a_profile_of_another_job_is_refused(void **state) {
    (void)state;
    rig r;
    char text[TEXT_BYTES];
    rig_start(&r);
    job_text(&r, text);
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = text;
    request.base_directory = r.folder;
    request.profile = "{\"schema\":\"millrace.profile/v1\",\"model_hash\":\"x\","
                      "\"micro_batch_size\":2,\"sequence_length\":16,\"precision\":\"fp32\","
                      "\"optimizer\":\"adamw\",\"layers\":[0],\"classes\":[{\"type\":\"relu\","
                      "\"layer\":0,\"layers\":1}],\"devices\":[{\"device\":\"cpu\",\"threads\":1,"
                      "\"address\":\"\",\"memory_bytes\":0,\"loss\":0,\"zero\":0,\"norm\":0,"
                      "\"optimizer\":0,\"link\":0,\"link_byte\":0,\"costs\":[{\"forward\":1,"
                      "\"backward_input\":1,\"backward_weight\":1,\"saved_bytes\":0}]}]}";
    ProtobufCMessage *response = NULL;
    mr_status status = rig_call(&r, "Submit", &request.base, &response);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "the profile's model_hash is x; the job's is"));
    request.profile = "{}";
    status = rig_call(&r, "Submit", &request.base, &response);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "profile: schema"));
    rig_stop(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measured_cut_kept_and_used_again),
        cmocka_unit_test(test_a_job_that_only_measures_succeeds),
        cmocka_unit_test(test_times_that_cannot_be_fail_the_job_with_words),
        cmocka_unit_test(test_a_profile_of_another_job_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
