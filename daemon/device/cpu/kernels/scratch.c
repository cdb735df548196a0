/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/device/cpu/kernels/scratch.h"

#include "daemon/base/alloc.h"
#include "daemon/device/cpu/kernels/kernels.h"

/* Two turned matrices and two blocks of scores. */
bool mr_cpu_attention_scratch(size_t T, size_t D, size_t *out_floats) {
    size_t columns;
    size_t row;
    size_t turned;
    size_t scores;
    size_t sum;
    if (!mr_size_add(T, ATTENTION_PAD - 1, &columns))
        return false;
    columns -= columns % ATTENTION_PAD;
    return mr_size_add(columns, ATTENTION_SKEW, &row) &&
           mr_size_mul(columns, D, &turned) &&
           mr_size_mul(row, ATTENTION_QUERIES, &scores) &&
           mr_size_add(turned, scores, &sum) && mr_size_mul(sum, 2, out_floats);
}
