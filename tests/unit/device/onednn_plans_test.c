/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: plans are made once per shape, the one unused for longest gives way, and running a known
 * shape allocates nothing of ours.
 * Method: more shapes than are kept, each product checked; the count of allocations around a
 * second use; an allocation that fails at each place of making a plan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/device/cpu/onednn.h"

static mr_onednn_shape shape_of(size_t n) {
    return (mr_onednn_shape){
        .m = 1, .n = n, .k = 1, .a_stride = 1, .b_stride = n, .c_stride = n, .accumulate = true};
}

static void expect_product(mr_onednn *onednn, size_t n) {
    float a = 3.0f;
    float b[MR_DEVICE_PLANS_MAX + 8];
    float c[MR_DEVICE_PLANS_MAX + 8];
    mr_onednn_plan *plan = NULL;
    mr_onednn_shape shape = shape_of(n);
    for (size_t i = 0; i < n; i++) {
        b[i] = (float)i;
        c[i] = 0.5f;
    }
    mr_status status = mr_onednn_plan_get(onednn, &shape, &plan);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_null(mr_onednn_run(plan, 1, &a, b, NULL, c));
    for (size_t i = 0; i < n; i++)
        assert_true(c[i] == 3.0f * (float)i + 0.5f);
}

static void test_more_shapes_than_kept_still_multiply(void **state) {
    (void)state;
    mr_onednn *onednn = NULL;
    mr_status status = mr_onednn_create(2, 1, &onednn);
    assert_int_equal(status.code, MR_CODE_OK);
    for (size_t n = 1; n <= MR_DEVICE_PLANS_MAX + 8; n++)
        expect_product(onednn, n);
    expect_product(onednn, 1);
    uint64_t before = mr_alloc_count();
    expect_product(onednn, 1);
    expect_product(onednn, MR_DEVICE_PLANS_MAX);
    assert_int_equal(mr_alloc_count(), before);
    mr_onednn_destroy(onednn);
}

static void test_no_memory_for_a_plan_is_a_status(void **state) {
    (void)state;
    mr_onednn *onednn = NULL;
    mr_onednn_plan *plan = NULL;
    mr_onednn_shape shape = shape_of(5);
    mr_status status = mr_onednn_create(1, 1, &onednn);
    assert_int_equal(status.code, MR_CODE_OK);
    for (uint64_t n = 1; n <= 2; n++) {
        mr_alloc_fail_at(n);
        status = mr_onednn_plan_get(onednn, &shape, &plan);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
        assert_null(plan);
    }
    status = mr_onednn_plan_get(onednn, &shape, &plan);
    assert_int_equal(status.code, MR_CODE_OK);
    mr_onednn_destroy(onednn);
    mr_onednn_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_shapes_than_kept_still_multiply),
        cmocka_unit_test(test_no_memory_for_a_plan_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
