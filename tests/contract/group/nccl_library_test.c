/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: NCCL and the CUDA runtime are found at run time or their absence is said by name. Method: a
 * path where nothing is, a library that is not NCCL, and whatever this machine has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/cuda/nccl/calls.h"
#include "daemon/device/cuda/nccl/library.h"

static void test_missing_library_is_named(void **state) {
    mr_nccl_library *library = NULL;
    (void)state;
    mr_status status = mr_nccl_library_open("/nowhere/libcudart.so", NULL, &library);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    assert_non_null(strstr(status.text, "/nowhere/libcudart.so"));
    assert_null(library);
}

static void test_library_without_the_functions_is_refused(void **state) {
    mr_nccl_library *library = NULL;
    (void)state;
    mr_status status = mr_nccl_library_open("libm.so.6", "libm.so.6", &library);
    assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
    assert_non_null(strstr(status.text, "cudaSetDevice"));
}

static void test_installed_libraries_are_opened_or_their_absence_is_said(void **state) {
    mr_nccl_library *library = NULL;
    int version = 0;
    (void)state;
    mr_status status = mr_nccl_library_open(NULL, NULL, &library);
    if (!mr_status_is_ok(status)) {
        assert_int_equal(status.code, MR_CODE_UNAVAILABLE);
        (void)printf("not opened: %s\n", status.text);
        return;
    }
    assert_int_equal(mr_nccl_library_calls(library)->ncclGetVersion(&version), ncclSuccess);
    (void)printf("opened NCCL %d; compiled against %d\n", version, NCCL_VERSION_CODE);
    mr_nccl_library_close(library);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_library_is_named),
        cmocka_unit_test(test_library_without_the_functions_is_refused),
        cmocka_unit_test(test_installed_libraries_are_opened_or_their_absence_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
