/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a fault point is silent without a hook and does what the hook says with one. Method: a hook
 * that counts the points it meets and fails the named one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/fault.h"

typedef struct plan {
    const char *failing;
    int met;
} plan;

static mr_status plan_hook(void *context, const char *point) {
    plan *self = context;
    self->met++;
    if (strcmp(point, self->failing) == 0)
        return MR_ERROR(DATA_LOSS, "%s fails on purpose", point);
    return MR_OK;
}

static mr_status two_points(void) {
    MR_TRY(mr_fault("test.fault.first"));
    MR_TRY(mr_fault("test.fault.second"));
    return MR_OK;
}

static void test_points_are_silent_without_a_hook(void **state) {
    (void)state;
    assert_true(mr_status_is_ok(two_points()));
}

static void test_hook_sees_every_point_and_fails_the_named_one(void **state) {
    (void)state;
    plan seen = {.failing = "test.fault.second"};
    mr_fault_hook_set(plan_hook, &seen);
    mr_status status = two_points();
    assert_int_equal(status.code, MR_CODE_DATA_LOSS);
    assert_int_equal(seen.met, 2);
    seen = (plan){.failing = "test.fault.first"};
    status = two_points();
    assert_string_equal(status.text, "test.fault.first fails on purpose");
    assert_int_equal(seen.met, 1);
    mr_fault_hook_set(NULL, NULL);
    assert_true(mr_status_is_ok(two_points()));
    assert_int_equal(seen.met, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_points_are_silent_without_a_hook),
        cmocka_unit_test(test_hook_sees_every_point_and_fails_the_named_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
