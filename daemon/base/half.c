/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/base/half.h"

#include <string.h>

#include "daemon/base/status.h"

enum {
    HALF_F16_SHIFT = 13,   /* an f32's mantissa is longer by so many bits */
    HALF_F16_BIAS = 112,   /* and its exponent greater by this */
    HALF_F16_INFINITE = 31 /* the exponent of what is infinite or no number */
};

static uint32_t half_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static float half_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static float half_widen_f16(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
    uint32_t exponent = (uint32_t)x >> 10 & 31u;
    uint32_t mantissa = x & 0x3ffu;
    if (exponent == 0) /* a multiple of the smallest number, 2^-24 */
        return half_float(sign | half_bits((float)mantissa * 0x1p-24f));
    if (exponent == HALF_F16_INFINITE)
        return half_float(sign | 0x7f800000u | (mantissa != 0 ? 0x400000u : 0u) |
                          mantissa << HALF_F16_SHIFT);
    return half_float(sign | (exponent + HALF_F16_BIAS) << 23 | mantissa << HALF_F16_SHIFT);
}

static uint16_t half_round_f16(float x) {
    uint32_t bits = half_bits(x);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t size = bits & 0x7fffffffu;
    if (size > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (size >> HALF_F16_SHIFT & 0x3ffu));
    if (size >= 0x477ff000u) /* 65520 and above: nearer to infinity than to the largest number */
        return (uint16_t)(sign | 0x7c00u);
    if (size < 0x38800000u) /* below 2^-14: the sum's last place is 2^-24 */
        return (uint16_t)(sign | (half_bits(half_float(size) + 0.5f) - half_bits(0.5f)));
    uint32_t rounded = size + 0xfffu + (size >> HALF_F16_SHIFT & 1u);
    return (uint16_t)(sign | (rounded - ((uint32_t)HALF_F16_BIAS << 23)) >> HALF_F16_SHIFT);
}

static uint16_t half_round_bf16(float x) {
    uint32_t bits = half_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* quiet, so that no payload rounds to infinity */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float mr_half_widen(mr_dtype dtype, uint16_t x) {
    MR_ASSERT(dtype == MR_DTYPE_BF16 || dtype == MR_DTYPE_F16);
    return dtype == MR_DTYPE_F16 ? half_widen_f16(x) : half_float((uint32_t)x << 16);
}

uint16_t mr_half_round(mr_dtype dtype, float x) {
    MR_ASSERT(dtype == MR_DTYPE_BF16 || dtype == MR_DTYPE_F16);
    return dtype == MR_DTYPE_F16 ? half_round_f16(x) : half_round_bf16(x);
}
