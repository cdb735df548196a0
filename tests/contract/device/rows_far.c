/* SPDX-License-Identifier: Apache-2.0 */
/* rows_far.c: the device whose memory the host cannot read (tests/far): that it computes, and that
 * the tests treat a device's memory as a card's. */
#include "tests/contract/device/bench.h"

const bench_row bench_rows[] = {
    {.kind = "far", .threads = 1, .tolerance = 4e-6},
    {.kind = "far", .threads = 2, .dtype = MR_DTYPE_BF16, .tolerance = 4e-6},
};
const size_t bench_row_count = sizeof(bench_rows) / sizeof(bench_rows[0]);
