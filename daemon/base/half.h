/* SPDX-License-Identifier: Apache-2.0 */
/* half.h: one number of a type of two bytes on the host: bf16, the upper half of an f32's bits, or
 * f16, IEEE 754's binary16. A few numbers at a time; whole tensors are converted by their device
 * (mr_device_ops.cast).
 * Owner: base. Pure, any thread. dtype is MR_DTYPE_BF16 or MR_DTYPE_F16. */
#ifndef MR_BASE_HALF_H
#define MR_BASE_HALF_H

#include <stdint.h>

#include "daemon/base/dtype.h"

/* Exact. */
float mr_half_widen(mr_dtype dtype, uint16_t x);
/* Rounded to nearest even; what is too large becomes infinite, what is not a number stays so. */
uint16_t mr_half_round(mr_dtype dtype, float x);

#endif
