/* SPDX-License-Identifier: Apache-2.0 */
/* vector.h: one vector of floats, V_LANES wide, and the few operations on it that C's operators on
 * vector types do not give. Each kernel file is compiled once per instruction set with one of
 * MR_ISA_AVX512, MR_ISA_AVX2 or MR_ISA_PLAIN defined; everything that differs between them is here.
 * Fused multiply-add is only ever written as v_fma, and the compiler's own contraction is off
 * (C17 mode), so that an expression has the same bits wherever it is inlined.
 * These are bodies in a header, against the style: a kernel without inlining is no kernel.
 * Owner: device/cpu/kernels; not for others. */
#ifndef MR_DEVICE_CPU_KERNELS_VECTOR_H
#define MR_DEVICE_CPU_KERNELS_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(MR_ISA_AVX512)
enum { V_LANES = 16 };
#define MR_ISA_NAME avx512
#elif defined(MR_ISA_AVX2)
enum { V_LANES = 8 };
#define MR_ISA_NAME avx2
#elif defined(MR_ISA_PLAIN)
enum { V_LANES = 4 };
#define MR_ISA_NAME plain
#else
#error "define MR_ISA_AVX512, MR_ISA_AVX2 or MR_ISA_PLAIN"
#endif

#if defined(MR_ISA_AVX512) || defined(MR_ISA_AVX2)
#include <immintrin.h>
#endif

/* cpu_avx2_layernorm_forward and so on: one name per instruction set. */
#define MR_ISA_JOIN_(isa, name) cpu_##isa##_##name
#define MR_ISA_JOIN(isa, name) MR_ISA_JOIN_(isa, name)
#define MR_KERNEL(name) MR_ISA_JOIN(MR_ISA_NAME, name)

#define V_INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(V_LANES * 4)));
typedef int32_t vi __attribute__((vector_size(V_LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(V_LANES * 4)));
/* Half as many lanes, twice as wide. */
typedef float vf_half __attribute__((vector_size(V_LANES * 2)));
typedef double vd __attribute__((vector_size(V_LANES * 4)));
typedef uint64_t vw __attribute__((vector_size(V_LANES * 4)));

V_INLINE vf v_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof(x));
    return x;
}
V_INLINE void v_store(float *p, vf x) {
    memcpy(p, &x, sizeof(x));
}
/* V_LANES numbers of two bytes: bf16 are the upper halves of as many floats' bits. */
typedef uint16_t vh __attribute__((vector_size(V_LANES * 2)));

V_INLINE vf v_widen_bf16(vh x) {
    return (vf)(__builtin_convertvector(x, vu) << 16);
}
/* To nearest even. Not a number stays so: its upper half is kept and made quiet. */
V_INLINE vh v_narrow_bf16(vf x) {
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    vu quiet = (bits >> 16) | 0x40u;
    vu is_nan = (vu)((bits & 0x7fffffffu) > 0x7f800000u);
    return __builtin_convertvector((quiet & is_nan) | (rounded & ~is_nan), vh);
}
/* f16: by the processor where it can, with the same bits. The rest is base/half.c in vectors. */
#if defined(MR_ISA_AVX512)
V_INLINE vf v_widen_f16(vh x) {
    return (vf)_mm512_cvtph_ps((__m256i)x);
}
V_INLINE vh v_narrow_f16(vf x) {
    return (vh)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(MR_ISA_AVX2)
V_INLINE vf v_widen_f16(vh x) {
    return (vf)_mm256_cvtph_ps((__m128i)x);
}
V_INLINE vh v_narrow_f16(vf x) {
    return (vh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
V_INLINE vf v_widen_f16(vh x) {
    vu bits = __builtin_convertvector(x, vu);
    vu sign = (bits & 0x8000u) << 16;
    vu exponent = bits & 0x7c00u;
    vu mantissa = bits & 0x3ffu;
    vu small = (vu)(__builtin_convertvector(mantissa, vf) * 0x1p-24f);
    vu normal = ((bits & 0x7fffu) << 13) + (112u << 23);
    vu beyond = 0x7f800000u | (mantissa << 13) | ((vu)(mantissa != 0u) & 0x400000u);
    vu is_small = (vu)(exponent == 0u);
    vu is_beyond = (vu)(exponent == 0x7c00u);
    return (vf)(sign | (small & is_small) | (beyond & is_beyond) |
                (normal & ~is_small & ~is_beyond));
}
V_INLINE vh v_narrow_f16(vf x) {
    const vf half = {0.5f, 0.5f, 0.5f, 0.5f};
    vu bits = (vu)x;
    vu sign = (bits >> 16) & 0x8000u;
    vu size = bits & 0x7fffffffu;
    vu quiet = 0x7e00u | ((size >> 13) & 0x3ffu);
    vu small = (vu)((vf)size + half) - (vu)half;
    vu normal = (size + 0xfffu + ((size >> 13) & 1u) - (112u << 23)) >> 13;
    vu is_nan = (vu)(size > 0x7f800000u);
    vu is_large = (vu)(size >= 0x477ff000u) & ~is_nan;
    vu is_small = (vu)(size < 0x38800000u);
    vu is_normal = ~is_nan & ~is_large & ~is_small;
    return __builtin_convertvector(sign | (quiet & is_nan) | (0x7c00u & is_large) |
                                       (small & is_small) | (normal & is_normal),
                                   vh);
}
#endif
V_INLINE vf v_set(float x) {
    return x - (vf){0};
}
V_INLINE vf v_select(vi mask, vf yes, vf no) {
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/* The first n < V_LANES elements; the others read as zero and are not written. */
#if defined(MR_ISA_AVX512)
V_INLINE vf v_load_n(const float *p, size_t n) {
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
V_INLINE void v_store_n(float *p, vf x, size_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
}
#else
V_INLINE vf v_load_n(const float *p, size_t n) {
    vf x = {0};
    memcpy(&x, p, n * sizeof(float));
    return x;
}
V_INLINE void v_store_n(float *p, vf x, size_t n) {
    memcpy(p, &x, n * sizeof(float));
}
#endif

/* A whole vector where left, the elements from p on, has one; else what there is. */
V_INLINE vf v_load_left(const float *p, size_t left) {
    return left >= V_LANES ? v_load(p) : v_load_n(p, left);
}
V_INLINE void v_store_left(float *p, vf x, size_t left) {
    if (left >= V_LANES)
        v_store(p, x);
    else
        v_store_n(p, x, left);
}

/* a b + c, rounded once where the instruction set can. max and min give b when one is not a
 * number, so that such values pass through clamps written as v_max(bound, x). */
#if defined(MR_ISA_AVX512)
V_INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
V_INLINE vf v_max(vf a, vf b) {
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
V_INLINE vf v_min(vf a, vf b) {
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
V_INLINE vf v_sqrt(vf a) {
    return (vf)_mm512_sqrt_ps((__m512)a);
}
/* Products of the lower halves of 64-bit lanes. */
V_INLINE vw v_mul_low(vw a, vw b) {
    return (vw)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}
#elif defined(MR_ISA_AVX2)
V_INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
V_INLINE vf v_max(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
V_INLINE vf v_min(vf a, vf b) {
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
V_INLINE vf v_sqrt(vf a) {
    return (vf)_mm256_sqrt_ps((__m256)a);
}
V_INLINE vw v_mul_low(vw a, vw b) {
    return (vw)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
#else
V_INLINE vf v_fma(vf a, vf b, vf c) {
    return a * b + c;
}
V_INLINE vf v_max(vf a, vf b) {
    return v_select(a > b, a, b);
}
V_INLINE vf v_min(vf a, vf b) {
    return v_select(a < b, a, b);
}
V_INLINE vf v_sqrt(vf a) {
    for (size_t i = 0; i < V_LANES; i++)
        a[i] = __builtin_sqrtf(a[i]);
    return a;
}
V_INLINE vw v_mul_low(vw a, vw b) {
    return (a & 0xffffffffu) * (b & 0xffffffffu);
}
#endif

/* a0 b0 a1 b1 ... of the lower and of the upper halves. */
#if defined(MR_ISA_AVX512)
V_INLINE vf v_zip_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
V_INLINE vf v_zip_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
}
#elif defined(MR_ISA_AVX2)
V_INLINE vf v_zip_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
V_INLINE vf v_zip_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#else
V_INLINE vf v_zip_low(vf a, vf b) {
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
V_INLINE vf v_zip_high(vf a, vf b) {
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
#endif

/* Sum and maximum of all lanes, halves added to halves. */
V_INLINE float v_sum(vf x) {
    for (size_t w = V_LANES / 2; w > 0; w /= 2)
        for (size_t i = 0; i < w; i++)
            x[i] += x[i + w];
    return x[0];
}
V_INLINE double v_sum_double(vd x) {
    for (size_t w = V_LANES / 4; w > 0; w /= 2)
        for (size_t i = 0; i < w; i++)
            x[i] += x[i + w];
    return x[0];
}
V_INLINE float v_max_lane(vf x) {
    for (size_t w = V_LANES / 2; w > 0; w /= 2)
        for (size_t i = 0; i < w; i++)
            x[i] = x[i] > x[i + w] ? x[i] : x[i + w];
    return x[0];
}

/* acc[0] += lower lanes, acc[1] += upper lanes, of x squared, in double precision. */
V_INLINE void v_square_add(vf x, vd acc[2]) {
    vf_half half[2];
    memcpy(half, &x, sizeof(x));
    for (int h = 0; h < 2; h++) {
        vd wide = __builtin_convertvector(half[h], vd);
        acc[h] += wide * wide;
    }
}

/* exp(x), x clamped to [-87, 88]; not a number stays so. x = n ln 2 + r, |r| <= ln 2 / 2; the
 * polynomial is a minimax fit of (exp(r) - 1 - r) / r^2 made for this file (relative error of the
 * whole 3e-9 before rounding, about 1e-7 after). */
V_INLINE vf v_exp(vf x) {
    const vf magic = v_set(12582912.0f); /* 1.5 x 2^23: adding it rounds to an integer */
    x = v_min(v_set(88.0f), v_max(v_set(-87.0f), x));
    vf t = v_fma(x, v_set(0x1.715476p+0f), magic);
    vf n = t - magic;
    vf r = v_fma(n, v_set(-0x1.62e4p-1f), x); /* ln 2 in two parts; the first has 13 bits */
    r = v_fma(n, v_set(-0x1.7f7d1cp-20f), r);
    vf p = v_set(0x1.6a23ccp-10f);
    p = v_fma(p, r, v_set(0x1.123a20p-7f));
    p = v_fma(p, r, v_set(0x1.5558f2p-5f));
    p = v_fma(p, r, v_set(0x1.555492p-3f));
    p = v_fma(p, r, v_set(0x1.fffffcp-2f));
    p = v_fma(p, r * r, r) + 1.0f;
    vu power = ((vu)t << 23) + 0x3f800000u; /* 2^n: n sits in t's lowest bits */
    return p * (vf)power;
}

/* 1 / (1 + exp(-x)). */
V_INLINE vf v_sigmoid(vf x) {
    return 1.0f / (1.0f + v_exp(-x));
}

#endif
