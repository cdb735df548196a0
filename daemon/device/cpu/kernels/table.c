/* SPDX-License-Identifier: Apache-2.0 */
/* table.c: the kernels of the instruction set that is being compiled, as one table. */
#include "daemon/device/cpu/kernels/declare.h"

#define TABLE_TEXT_(x) #x
#define TABLE_TEXT(x) TABLE_TEXT_(x)

extern const mr_cpu_kernels MR_KERNEL(table);

/* Everything but the conversions is the same for both types of two bytes. */
#define TABLE(half)                                                                                \
    .name = TABLE_TEXT(MR_ISA_NAME),                                                               \
    .widen = MR_KERNEL(widen_##half),                                                              \
    .narrow = MR_KERNEL(narrow_##half),                                                            \
    .accumulate = MR_KERNEL(accumulate),                                                           \
    .add = MR_KERNEL(add),                                                                         \
    .dropout = MR_KERNEL(dropout),                                                                 \
    .pointwise_forward = MR_KERNEL(pointwise_forward),                                             \
    .pointwise_backward = MR_KERNEL(pointwise_backward),                                           \
    .norm_forward = MR_KERNEL(norm_forward),                                                       \
    .norm_backward_input = MR_KERNEL(norm_backward_input),                                         \
    .norm_backward_weight = MR_KERNEL(norm_backward_weight),                                       \
    .column_sums = MR_KERNEL(column_sums),                                                         \
    .cross_entropy = MR_KERNEL(cross_entropy),                                                     \
    .logit_sum = MR_KERNEL(logit_sum),                                                             \
    .logit_gradient = MR_KERNEL(logit_gradient),                                                   \
    .squared_error = MR_KERNEL(squared_error),                                                     \
    .sum_of_squares = MR_KERNEL(sum_of_squares),                                                   \
    .adamw = MR_KERNEL(adamw),                                                                     \
    .adam = MR_KERNEL(adam),                                                                       \
    .sgd = MR_KERNEL(sgd),                                                                         \
    .lion = MR_KERNEL(lion),                                                                       \
    .attention_forward = MR_KERNEL(attention_forward),                                             \
    .attention_backward = MR_KERNEL(attention_backward),                                           \

static const mr_cpu_kernels table_f16 = {TABLE(f16)};

const mr_cpu_kernels MR_KERNEL(table) = {TABLE(bf16).f16 = &table_f16};
