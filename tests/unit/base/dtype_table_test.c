/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: element types have the wire's numbers, their sizes and their safetensors names; a number
 * outside the table is harmless. Method: the whole table, and the clocks beside it: they never go
 * back and agree with each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/base/clock.h"
#include "daemon/base/dtype.h"

static void test_table_is_the_wire_s_and_safetensors_s(void **state) {
    (void)state;
    static const struct {
        mr_dtype dtype;
        int number;
        size_t bytes;
        const char *name;
    } rows[] = {
        {MR_DTYPE_F32, 1, 4, "F32"}, {MR_DTYPE_BF16, 2, 2, "BF16"}, {MR_DTYPE_F16, 3, 2, "F16"},
        {MR_DTYPE_I32, 4, 4, "I32"}, {MR_DTYPE_I64, 5, 8, "I64"},   {MR_DTYPE_U8, 6, 1, "U8"},
    };
    assert_int_equal(sizeof(rows) / sizeof(rows[0]), MR_DTYPE_COUNT - 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(rows[i].dtype, rows[i].number);
        assert_int_equal(mr_dtype_bytes(rows[i].dtype), rows[i].bytes);
        assert_string_equal(mr_dtype_name(rows[i].dtype), rows[i].name);
    }
}

static void test_unknown_type_has_no_bytes_and_no_name(void **state) {
    (void)state;
    static const mr_dtype unknown[] = {MR_DTYPE_NONE, MR_DTYPE_COUNT, (mr_dtype)-1, (mr_dtype)99};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(mr_dtype_bytes(unknown[i]), 0);
        assert_string_equal(mr_dtype_name(unknown[i]), "?");
    }
}

static void test_clock_never_goes_back_and_its_units_agree(void **state) {
    (void)state;
    int64_t before_ns = mr_clock_now_ns();
    for (int i = 0; i < 1000; i++) {
        int64_t ms = mr_clock_now_ms();
        int64_t after_ns = mr_clock_now_ns();
        assert_true(before_ns / 1000000 <= ms && ms <= after_ns / 1000000);
        before_ns = after_ns;
    }
    assert_true(mr_clock_wall_ms() > (int64_t)1600000000 * 1000); /* after 2020 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_the_wire_s_and_safetensors_s),
        cmocka_unit_test(test_unknown_type_has_no_bytes_and_no_name),
        cmocka_unit_test(test_clock_never_goes_back_and_its_units_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
