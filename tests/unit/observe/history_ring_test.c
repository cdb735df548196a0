/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a history holds the newest steps of each job, in order, within its bounds, and what it says
 * is JSON whatever the numbers are. Method: rings are filled past their ends and read back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/history.h"

static mr_history *history;

static int setup(void **state) {
    (void)state;
    assert_true(mr_status_is_ok(mr_history_create(&history)));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mr_history_destroy(history);
    return 0;
}

static void add(const char *job, uint64_t step, double loss) {
    const mr_history_step one = {.step = step, .loss = loss};
    assert_true(mr_status_is_ok(mr_history_add(history, job, &one)));
}

static size_t read_steps(const char *job, uint64_t since, uint64_t *out_first, uint64_t *out_last) {
    mr_history_step *steps = NULL;
    size_t count = 0;
    assert_true(mr_status_is_ok(mr_history_read(history, job, since, &steps, &count)));
    for (size_t i = 1; i < count; i++)
        assert_int_equal(steps[i].step, steps[i - 1].step + 1);
    *out_first = count == 0 ? 0 : steps[0].step;
    *out_last = count == 0 ? 0 : steps[count - 1].step;
    mr_free(steps);
    return count;
}

static void test_full_ring_forgets_the_oldest_steps(void **state) {
    (void)state;
    uint64_t first = 0;
    uint64_t last = 0;
    for (uint64_t step = 1; step <= MR_HISTORY_STEPS_MAX + 100; step++)
        add("a", step, 1);
    assert_int_equal(read_steps("a", 0, &first, &last), MR_HISTORY_STEPS_MAX);
    assert_int_equal(first, 101);
    assert_int_equal(last, MR_HISTORY_STEPS_MAX + 100);
    assert_int_equal(read_steps("a", last - 2, &first, &last), 2);
    assert_int_equal(read_steps("b", 0, &first, &last), 0);
}

static void test_step_taken_back_begins_there_anew(void **state) {
    (void)state;
    uint64_t first = 0;
    uint64_t last = 0;
    for (uint64_t step = 1; step <= 10; step++)
        add("a", step, 1);
    add("a", 5, 2);
    assert_int_equal(read_steps("a", 0, &first, &last), 5);
    assert_int_equal(last, 5);
}

static void test_job_heard_of_longest_ago_is_forgotten(void **state) {
    (void)state;
    char name[16];
    uint64_t first = 0;
    uint64_t last = 0;
    for (int job = 0; job < MR_HISTORY_JOBS_MAX; job++) {
        (void)snprintf(name, sizeof(name), "job-%d", job);
        add(name, 1, 1);
    }
    add("job-0", 2, 1);
    add("one more", 1, 1);
    assert_int_equal(read_steps("job-0", 0, &first, &last), 2);
    assert_int_equal(read_steps("job-1", 0, &first, &last), 0);
    assert_int_equal(read_steps("one more", 0, &first, &last), 1);
}

static void test_numbers_without_a_form_are_null(void **state) {
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    add("a\"b", 1, NAN);
    add("a\"b", 2, INFINITY);
    assert_true(mr_status_is_ok(mr_history_render(history, "a\"b", 0, &text, &bytes)));
    json_t *root = json_loadb(text, bytes, 0, NULL);
    assert_non_null(root);
    json_t *steps = json_object_get(root, "steps");
    assert_int_equal(json_array_size(steps), 2);
    assert_true(json_is_null(json_object_get(json_array_get(steps, 0), "loss")));
    assert_true(json_is_null(json_object_get(json_array_get(steps, 1), "loss")));
    json_decref(root);
    mr_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full_ring_forgets_the_oldest_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_step_taken_back_begins_there_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_job_heard_of_longest_ago_is_forgotten, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_numbers_without_a_form_are_null, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
