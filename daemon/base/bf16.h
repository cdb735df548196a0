/* SPDX-License-Identifier: Apache-2.0 */
/* bf16.h: one bf16 number on the host: the upper half of an f32's bits. A few numbers at a time;
 * whole tensors are converted by their device (mr_device_ops.cast).
 * Owner: base. Pure, any thread. */
#ifndef MR_BASE_BF16_H
#define MR_BASE_BF16_H

#include <stdint.h>

/* Exact. */
float mr_bf16_widen(uint16_t x);
/* Rounded to nearest even; what is not a number stays so. */
uint16_t mr_bf16_round(float x);

#endif
