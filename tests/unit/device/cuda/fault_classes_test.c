/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: errors of CUDA have our codes, and those that lose the card say so, with the likely Xid.
 * Method: one error of each class, by its number in CUDA's own table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/cuda/fault.h"

static void test_each_class_has_its_code(void **state) {
    (void)state;
    static const struct {
        int code;
        mr_cuda_fault fault;
        mr_code ours;
        bool sticky;
        int xid;
        const char *name;
    } cases[] = {
        {2, MR_CUDA_FAULT_MEMORY, MR_CODE_RESOURCE_EXHAUSTED, false, 0,
         "cudaErrorMemoryAllocation (2)"},
        {35, MR_CUDA_FAULT_MISSING, MR_CODE_UNAVAILABLE, false, 0, "cudaErrorInsufficientDriver"},
        {46, MR_CUDA_FAULT_GONE, MR_CODE_UNAVAILABLE, true, 79, "cudaErrorDevicesUnavailable"},
        {214, MR_CUDA_FAULT_HARDWARE, MR_CODE_DATA_LOSS, true, 48, "cudaErrorECCUncorrectable"},
        {220, MR_CUDA_FAULT_HARDWARE, MR_CODE_DATA_LOSS, true, 74, "cudaErrorNvlinkUncorrectable"},
        {700, MR_CUDA_FAULT_KERNEL, MR_CODE_INTERNAL, true, 31, "cudaErrorIllegalAddress (700)"},
        {719, MR_CUDA_FAULT_KERNEL, MR_CODE_INTERNAL, true, 13, "cudaErrorLaunchFailure (719)"},
        {801, MR_CUDA_FAULT_TYPES, MR_CODE_UNIMPLEMENTED, false, 0, "cudaErrorNotSupported (801)"},
        {1, MR_CUDA_FAULT_OTHER, MR_CODE_INTERNAL, false, 0, "cudaErrorInvalidValue (1)"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_status status = mr_cuda_fault_status(cases[i].code, "adamw");
        assert_int_equal(mr_cuda_fault_of(cases[i].code), cases[i].fault);
        assert_int_equal(status.code, cases[i].ours);
        assert_int_equal(mr_cuda_fault_is_sticky(cases[i].code), cases[i].sticky);
        assert_int_equal(mr_cuda_fault_xid(cases[i].code), cases[i].xid);
        assert_ptr_equal(strstr(status.text, "adamw: "), status.text);
        assert_non_null(strstr(status.text, cases[i].name));
        assert_int_equal(strstr(status.text, "the card is lost") != NULL, cases[i].sticky);
        assert_int_equal(strstr(status.text, "Xid") != NULL, cases[i].xid != 0);
    }
}

static void test_no_error_is_none(void **state) {
    (void)state;
    assert_int_equal(mr_cuda_fault_of(0), MR_CUDA_FAULT_NONE);
    assert_int_equal(mr_cuda_fault_status(0, "adamw").code, MR_CODE_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_class_has_its_code),
        cmocka_unit_test(test_no_error_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
