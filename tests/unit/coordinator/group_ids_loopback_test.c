/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: ids that ranks make while they prepare reach every rank with Connect, a client sees which
 * group has one but not the id itself, and what cannot be an id fails the job. Method: a real
 * coordinator, two stages that report what the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/coordinator/rig.h"

enum { STAGES = 2, ID_BYTES = 128 };

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
    rig_job_text(&r, "with-ids", STAGES, 3, NULL, text, sizeof(text));
    return rig_submit(&r, text, false);
}

/* Answers Prepare with one id, or without: key NULL. */
static void prepared(rig_stage *stage, const char *key, unsigned char *id, size_t bytes) {
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    Millrace__V1__Prepared body = MILLRACE__V1__PREPARED__INIT;
    Millrace__V1__GroupId group = MILLRACE__V1__GROUP_ID__INIT;
    Millrace__V1__GroupId *list[1] = {&group};
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_PREPARE);
    group.group_key = (char *)(uintptr_t)key;
    group.id = (ProtobufCBinaryData){.data = id, .len = bytes};
    body.job_id = order->prepare->job_id;
    body.epoch = order->prepare->epoch;
    body.schedule_hash = order->prepare->schedule_hash;
    body.n_group_ids = key == NULL ? 0 : 1;
    body.group_ids = list;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_PREPARED;
    report.prepared = &body;
    rig_stage_send(stage, &report);
    rig_free(order);
}

static void connect_expect(rig_stage *stage, const char *key, const unsigned char *id) {
    Millrace__V1__StageOrder *order =
        rig_stage_expect(stage, MILLRACE__V1__STAGE_ORDER__ORDER_CONNECT);
    assert_int_equal(order->connect->n_group_ids, 1);
    assert_string_equal(order->connect->group_ids[0]->group_key, key);
    assert_int_equal(order->connect->group_ids[0]->id.len, ID_BYTES);
    assert_memory_equal(order->connect->group_ids[0]->id.data, id, ID_BYTES);
    rig_free(order);
}

static void test_id_of_one_rank_reaches_all(void **state) {
    unsigned char id[ID_BYTES];
    char key[128];
    (void)state;
    for (size_t i = 0; i < ID_BYTES; i++)
        id[i] = (unsigned char)(i * 7 + 1);
    Millrace__V1__Job *job = submit();
    assert_true(job->n_groups > 0);
    (void)snprintf(key, sizeof(key), "%s/%s/%u", job->groups[0]->kind, job->groups[0]->key,
                   job->groups[0]->ranks[0]);
    prepared(&stages[0], key, id, ID_BYTES);
    prepared(&stages[1], NULL, NULL, 0);
    connect_expect(&stages[0], key, id);
    connect_expect(&stages[1], key, id);
    Millrace__V1__Job *shown =
        rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_STARTING);
    assert_null(strchr(job->groups[0]->id, ':')); /* before: none */
    const char *fingerprint = strchr(shown->groups[0]->id, ':');
    assert_non_null(fingerprint);
    assert_int_equal(strlen(fingerprint), 9);
    rig_free(shown);
    rig_free(job);
}

static void test_id_that_cannot_be_fails_the_job(void **state) {
    unsigned char id[ID_BYTES + 1] = {1};
    (void)state;
    Millrace__V1__Job *job = submit();
    prepared(&stages[0], "tied/embed", id, ID_BYTES + 1);
    Millrace__V1__Job *shown =
        rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED);
    assert_non_null(strstr(shown->reason, "129 bytes"));
    rig_free(shown);
    rig_free(job);
}

static void test_key_of_two_ranks_fails_the_job(void **state) {
    unsigned char id[ID_BYTES] = {1};
    (void)state;
    Millrace__V1__Job *job = submit();
    prepared(&stages[0], "tied/embed", id, ID_BYTES);
    prepared(&stages[1], "tied/embed", id, ID_BYTES);
    Millrace__V1__Job *shown =
        rig_await_state(&r, job->id, MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED);
    assert_non_null(strstr(shown->reason, "tied/embed comes twice"));
    rig_free(shown);
    rig_free(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_id_of_one_rank_reaches_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_id_that_cannot_be_fails_the_job, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_key_of_two_ranks_fails_the_job, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
