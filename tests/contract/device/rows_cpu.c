/* SPDX-License-Identifier: Apache-2.0 */
/* rows_cpu.c: the devices that every machine has. Another table (tests/gpu/rows_cuda.c) takes its
 * place where the same tests run on others. */
#include "tests/contract/device/bench.h"

const bench_row bench_rows[] = {
    {.kind = "cpu", .threads = 1, .tolerance = 4e-6},
    {.kind = "cpu", .threads = 2, .tolerance = 4e-6},
    {.kind = "cpu", .instruction_set = "avx2", .threads = 2, .tolerance = 4e-6},
    {.kind = "cpu", .instruction_set = "plain", .threads = 1, .tolerance = 4e-6},
    {.kind = "cpu", .threads = 1, .dtype = MR_DTYPE_BF16, .tolerance = 4e-6},
    {.kind = "cpu", .threads = 2, .dtype = MR_DTYPE_BF16, .tolerance = 4e-6},
    {.kind = "cpu", .instruction_set = "avx2", .threads = 2, .dtype = MR_DTYPE_BF16,
     .tolerance = 4e-6},
    {.kind = "cpu", .instruction_set = "plain", .threads = 1, .dtype = MR_DTYPE_BF16,
     .tolerance = 4e-6},
    {.kind = "cpu", .threads = 1, .dtype = MR_DTYPE_F16, .tolerance = 4e-6},
    {.kind = "cpu", .threads = 2, .dtype = MR_DTYPE_F16, .tolerance = 4e-6},
    {.kind = "cpu", .instruction_set = "avx2", .threads = 2, .dtype = MR_DTYPE_F16,
     .tolerance = 4e-6},
    {.kind = "cpu", .instruction_set = "plain", .threads = 1, .dtype = MR_DTYPE_F16,
     .tolerance = 4e-6},
};
const size_t bench_row_count = sizeof(bench_rows) / sizeof(bench_rows[0]);
