/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: cuDNN recognises our attention graphs, has engines for the shapes of our models on an H200,
 * compiles their kernels, and asks for the workspace that we expect: a pattern that matches by
 * accident shows as a workspace of T x T.
 * Method: no card. cuDNN gets a description of one, and libcuda.so.1 is the toolkit's stub, so all
 * runs but loading the compiled kernel (sdpa.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/device/cuda/sdpa.h"

static const char h200[] =
    "{\"maxGridSize\": [2147483647, 65535, 65535], \"maxBlockSize\": [1024, 1024, 64],"
    " \"regsPerBlock\": 65536, \"multiProcessorCount\": 132, \"warpSize\": 32,"
    " \"maxSharedMemoryPerBlock\": 49152, \"maxSharedMemoryPerBlockOptin\": 232448,"
    " \"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": 65536, \"maxCtasPerSM\": 32,"
    " \"maxThreadsPerBlock\": 1024, \"maxThreadsPerSM\": 2048, \"pciDeviceId\": 0,"
    " \"isTccDriver\": 0, \"supportCoopLaunch\": 1, \"totalGlobalMem\": 150000000000,"
    " \"smClockRateKHz\": 1980000, \"memClockRateKHz\": 3201000, \"l2CacheSize\": 62914560,"
    " \"cudaDeviceId\": 0, \"deviceVer\": 900, \"driverVer\": 13000,"
    " \"deviceName\": \"NVIDIA H200\"}";

typedef struct support_case {
    int64_t B;
    int64_t H;
    int64_t HK;
    int64_t T;
    int64_t D;
} support_case;

static const support_case cases[] = {
    {16, 12, 12, 1024, 64}, {16, 25, 25, 1024, 64}, {4, 12, 12, 1000, 64}, {8, 6, 6, 256, 64},
    {2, 32, 8, 8192, 128},  {2, 32, 8, 4096, 128},  {1, 32, 8, 8192, 256},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static mr_sdpa_support query(const support_case *c, bool backward, bool deterministic) {
    mr_sdpa_support support = {0};
    mr_sdpa_shape shape = {.B = c->B,
                           .H = c->H,
                           .HK = c->HK,
                           .T = c->T,
                           .D = c->D,
                           .backward = backward,
                           .deterministic = deterministic};
    mr_status status = mr_sdpa_support_query(&shape, h200, &support);
    print_message("B %d H %d/%d T %d D %d %s%s: engine %d, workspace %lld %s\n", (int)c->B,
                  (int)c->H, (int)c->HK, (int)c->T, (int)c->D, backward ? "backward" : "forward",
                  deterministic ? " in order" : "", (int)support.engine,
                  (long long)support.workspace_bytes, status.text);
    assert_int_equal(status.code, MR_CODE_OK);
    return support;
}

static void test_forward_takes_no_workspace_to_speak_of(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        mr_sdpa_support support = query(&cases[i], false, false);
        assert_int_equal(support.operations, 14);
        assert_in_range(support.workspace_bytes, 0, 256);
    }
}

/* The row sums of dO O, and for shared key heads the gradients of every query head. */
static int64_t backward_bytes(const support_case *c) {
    int64_t rows = c->B * c->H * c->T * 4;
    int64_t heads = c->H == c->HK ? 0 : 2 * c->B * c->H * c->T * c->D * 4;
    return rows + heads;
}

static void test_backward_never_holds_a_matrix_of_rows_by_rows(void **state) {
    (void)state;
    for (int i = 0; i < CASES; i++) {
        mr_sdpa_support support = query(&cases[i], true, false);
        int64_t expected = backward_bytes(&cases[i]);
        assert_int_equal(support.operations, cases[i].H == cases[i].HK ? 22 : 24);
        assert_in_range(support.workspace_bytes, expected, expected + 4096);
    }
}

static void test_backward_in_order_holds_one_matrix_of_two_bytes(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const support_case *c = &cases[i];
        mr_sdpa_support support = query(c, true, true);
        int64_t padded = (c->T + 127) / 128 * 128;
        assert_int_equal(support.operations, 21);
        assert_in_range(support.workspace_bytes, c->B * c->H * c->T * c->T * 2,
                        c->B * c->H * (padded * padded * 2 + c->T * 4) + 4096);
    }
}

static void test_a_shape_that_no_engine_takes_is_refused(void **state) {
    (void)state;
    mr_sdpa_support support;
    mr_sdpa_shape shape = {.B = 1, .H = 1, .HK = 1, .T = 64, .D = 20};
    mr_status status = mr_sdpa_support_query(&shape, h200, &support);
    assert_true(status.code == MR_CODE_UNIMPLEMENTED || status.code == MR_CODE_INTERNAL);
}

static void test_a_card_that_is_none_is_refused(void **state) {
    (void)state;
    mr_sdpa_support support;
    mr_sdpa_shape shape = {.B = 1, .H = 1, .HK = 1, .T = 64, .D = 64};
    mr_status status = mr_sdpa_support_query(&shape, "{\"warpSize\": 32}", &support);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_takes_no_workspace_to_speak_of),
        cmocka_unit_test(test_backward_never_holds_a_matrix_of_rows_by_rows),
        cmocka_unit_test(test_backward_in_order_holds_one_matrix_of_two_bytes),
        cmocka_unit_test(test_a_shape_that_no_engine_takes_is_refused),
        cmocka_unit_test(test_a_card_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
