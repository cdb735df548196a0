/* SPDX-License-Identifier: Apache-2.0 */
/* rows_cuda.c: the devices of the contract tests on a machine with a card. One row of the CPU stays
 * to tell a fault of a test from one of a kernel. The tolerance is wider than the CPU's: cuBLASLt
 * may cut a sum over k, and CUDA's expf and logf are good to about two units in the last place. */
#include "tests/contract/device/bench.h"

const bench_row bench_rows[] = {
    {.kind = "cpu", .threads = 2, .tolerance = 4e-6},
    {.kind = "cuda:0", .threads = 1, .tolerance = 1e-5, .aligned = true},
    {.kind = "cuda:0", .threads = 1, .dtype = MR_DTYPE_BF16, .tolerance = 1e-5, .aligned = true},
};
const size_t bench_row_count = sizeof(bench_rows) / sizeof(bench_rows[0]);
