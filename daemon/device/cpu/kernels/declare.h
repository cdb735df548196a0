/* SPDX-License-Identifier: Apache-2.0 */
/* declare.h: the kernels of the instruction set that is being compiled; contracts in kernels.h.
 * Owner: device/cpu/kernels; not for others. */
#ifndef MR_DEVICE_CPU_KERNELS_DECLARE_H
#define MR_DEVICE_CPU_KERNELS_DECLARE_H

#include "daemon/device/cpu/kernels/kernels.h"
#include "daemon/device/cpu/kernels/vector.h"

void MR_KERNEL(widen_bf16)(const uint16_t *x, float *y, size_t n);
void MR_KERNEL(narrow_bf16)(const float *x, uint16_t *y, size_t n);
void MR_KERNEL(widen_f16)(const uint16_t *x, float *y, size_t n);
void MR_KERNEL(narrow_f16)(const float *x, uint16_t *y, size_t n);
void MR_KERNEL(accumulate)(float *a, const float *b, size_t n);
void MR_KERNEL(add)(const float *a, const float *b, const mr_dropout *dropout, uint64_t first,
                    float *out, size_t n);
void MR_KERNEL(dropout)(const float *x, const mr_dropout *dropout, uint64_t first, float *y,
                        size_t n);
void MR_KERNEL(pointwise_forward)(mr_pointwise kind, const float *x, float *y, size_t n);
void MR_KERNEL(pointwise_backward)(mr_pointwise kind, const float *x, const float *dy, float *dx,
                                   size_t n);
void MR_KERNEL(norm_forward)(const mr_cpu_norm *norm, size_t first, size_t last);
void MR_KERNEL(norm_backward_input)(const mr_cpu_norm_backward *norm, size_t first, size_t last);
void MR_KERNEL(norm_backward_weight)(const mr_cpu_norm_backward *norm, size_t first, size_t last,
                                     float *out);
void MR_KERNEL(column_sums)(const float *dy, size_t rows, size_t columns, float *out);
void MR_KERNEL(cross_entropy)(const mr_cpu_cross_entropy *entropy, size_t first, size_t last);
void MR_KERNEL(logit_sum)(const float *x, size_t n, float *out_max, float *out_sum);
void MR_KERNEL(logit_gradient)(const float *x, float max, float factor, float *dx, size_t n);
double MR_KERNEL(squared_error)(const float *y, const float *target, float factor, float *dy,
                                size_t n);
double MR_KERNEL(sum_of_squares)(const float *x, size_t n);
void MR_KERNEL(adamw)(const mr_adamw *options, const float *gradient, float *parameter,
                      float *exp_avg, float *exp_avg_sq, size_t n);
void MR_KERNEL(adam)(const mr_adamw *options, const float *gradient, float *parameter,
                     float *exp_avg, float *exp_avg_sq, size_t n);
void MR_KERNEL(sgd)(const mr_sgd *options, const float *gradient, float *parameter,
                    float *momentum, size_t n);
void MR_KERNEL(lion)(const mr_lion *options, const float *gradient, float *parameter,
                     float *exp_avg, size_t n);
void MR_KERNEL(attention_forward)(const mr_cpu_attention *attention);
void MR_KERNEL(attention_backward)(const mr_cpu_attention *attention);

#endif
