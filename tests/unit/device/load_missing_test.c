/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a program without the CUDA library, and one beside a file that is none, says so by name;
 * kinds of device that are none are refused.
 * Method: no library lies beside this test; others are given by path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/cuda/load.h"
#include "daemon/device/device.h"

static void test_kinds_that_are_none_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *kind;
        int threads;
        const char *text;
    } cases[] = {
        {"gpu", 1, "device is \"gpu\"; it must be cpu or cuda:N"},
        {"cuda:", 1, "device is \"cuda:\"; it must be cpu or cuda:N"},
        {"cuda:1x", 1, "device is \"cuda:1x\"; it must be cpu or cuda:N"},
        {"cuda:-1", 1, "device is \"cuda:-1\"; it must be cpu or cuda:N"},
        {"cpu", -1, "threads is -1; it must be in [0, 256]"},
        {"cpu", 257, "threads is 257; it must be in [0, 256]"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_device *device = NULL;
        mr_status status = mr_device_create(
            &(mr_device_options){.kind = cases[i].kind, .threads = cases[i].threads}, &device);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        assert_string_equal(status.text, cases[i].text);
        assert_null(device);
    }
    mr_device_destroy(NULL);
}

static void test_without_the_library_its_name_and_places_are_told(void **state) {
    (void)state;
    mr_device *device = NULL;
    mr_status status = mr_device_create(&(mr_device_options){.kind = "cuda:0"}, &device);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    assert_non_null(strstr(status.text, "device cuda:0: libmillrace_cuda.so is neither beside"));
    assert_non_null(strstr(status.text, "../lib"));
    assert_null(device);
}

static void test_a_library_that_is_none_is_told(void **state) {
    (void)state;
    const mr_device_options options = {.kind = "cuda:0"};
    mr_device *device = NULL;
    mr_status status =
        mr_device_cuda_create_from("/proc/self/status", &options, 0, &device);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    assert_non_null(strstr(status.text, "does not load"));
    status = mr_device_cuda_create_from("libm.so.6", &options, 0, &device);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "libm.so.6 has no mr_device_cuda_entry"));
    assert_null(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_that_are_none_are_refused_by_name),
        cmocka_unit_test(test_without_the_library_its_name_and_places_are_told),
        cmocka_unit_test(test_a_library_that_is_none_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
