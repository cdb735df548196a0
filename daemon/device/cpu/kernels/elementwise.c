/* SPDX-License-Identifier: Apache-2.0 */
/* elementwise.c: conversions, sums, dropout, activations and their derivatives, element by element.
 * A tail shorter than a vector runs through the same expressions in a padded vector. GELU is the
 * tanh form (arXiv:1606.08415): with u = sqrt(2/pi) (x + 0.044715 x^3), (1 + tanh u) / 2 =
 * sigmoid(2u), so y = x s with s = sigmoid(2u), y' = s + x s (1 - s) 2u'. */
#include "daemon/device/cpu/kernels/declare.h"

#include "daemon/device/cpu/kernels/mask.h"
#include "daemon/device/cpu/kernels/vector.h"

/* The two conversions of one type of two bytes. */
#define ELEMENTWISE_HALF(type)                                                                     \
    void MR_KERNEL(widen_##type)(const uint16_t *x, float *y, size_t n) {                          \
        vh part = {0};                                                                             \
        size_t i = 0;                                                                              \
        for (; i + V_LANES <= n; i += V_LANES) {                                                   \
            memcpy(&part, x + i, sizeof(part));                                                    \
            v_store(y + i, v_widen_##type(part));                                                  \
        }                                                                                          \
        if (i < n) {                                                                               \
            memcpy(&part, x + i, (n - i) * sizeof(*x));                                            \
            v_store_n(y + i, v_widen_##type(part), n - i);                                         \
        }                                                                                          \
    }                                                                                              \
    void MR_KERNEL(narrow_##type)(const float *x, uint16_t *y, size_t n) {                         \
        vh part;                                                                                   \
        size_t i = 0;                                                                              \
        for (; i + V_LANES <= n; i += V_LANES) {                                                   \
            part = v_narrow_##type(v_load(x + i));                                                 \
            memcpy(y + i, &part, sizeof(part));                                                    \
        }                                                                                          \
        if (i < n) {                                                                               \
            part = v_narrow_##type(v_load_n(x + i, n - i));                                        \
            memcpy(y + i, &part, (n - i) * sizeof(*y));                                            \
        }                                                                                          \
    }
ELEMENTWISE_HALF(bf16)
ELEMENTWISE_HALF(f16)
#undef ELEMENTWISE_HALF

void MR_KERNEL(accumulate)(float *a, const float *b, size_t n) {
    size_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(a + i, v_load(a + i) + v_load(b + i));
    if (i < n)
        v_store_n(a + i, v_load_n(a + i, n - i) + v_load_n(b + i, n - i), n - i);
}

static void elementwise_add_plain(const float *a, const float *b, float *out, size_t n) {
    size_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        v_store(out + i, v_load(a + i) + v_load(b + i));
    if (i < n)
        v_store_n(out + i, v_load_n(a + i, n - i) + v_load_n(b + i, n - i), n - i);
}

void MR_KERNEL(add)(const float *a, const float *b, const mr_dropout *dropout, uint64_t first,
                    float *out, size_t n) {
    if (!mask_is_needed(dropout)) {
        elementwise_add_plain(a, b, out, n);
        return;
    }
    for (size_t at = 0; at < n; at += MASK_CHUNK) {
        float buffer[MASK_FLOATS];
        size_t count = n - at < MASK_CHUNK ? n - at : MASK_CHUNK;
        const float *mask = mask_fill(dropout, first + at, count, buffer);
        size_t i = 0;
        for (; i + V_LANES <= count; i += V_LANES)
            v_store(out + at + i,
                    v_fma(v_load(b + at + i), v_load(mask + i), v_load(a + at + i)));
        size_t rest = count - i;
        if (rest > 0)
            v_store_n(out + at + i,
                      v_fma(v_load_n(b + at + i, rest), v_load(mask + i),
                            v_load_n(a + at + i, rest)),
                      rest);
    }
}

void MR_KERNEL(dropout)(const float *x, const mr_dropout *dropout, uint64_t first, float *y,
                        size_t n) {
    if (!mask_is_needed(dropout)) {
        if (y != x)
            memcpy(y, x, n * sizeof(float));
        return;
    }
    for (size_t at = 0; at < n; at += MASK_CHUNK) {
        float buffer[MASK_FLOATS];
        size_t count = n - at < MASK_CHUNK ? n - at : MASK_CHUNK;
        const float *mask = mask_fill(dropout, first + at, count, buffer);
        size_t i = 0;
        for (; i + V_LANES <= count; i += V_LANES)
            v_store(y + at + i, v_load(x + at + i) * v_load(mask + i));
        size_t rest = count - i;
        if (rest > 0)
            v_store_n(y + at + i, v_load_n(x + at + i, rest) * v_load(mask + i), rest);
    }
}

#define GELU_A 0.044715f
#define GELU_2C 1.5957691216057308f /* 2 sqrt(2/pi) */

V_INLINE vf gelu_sigmoid(vf x, vf square) {
    return v_sigmoid(x * v_fma(square, v_set(GELU_2C * GELU_A), v_set(GELU_2C)));
}

V_INLINE vf gelu_forward(vf x) {
    return x * gelu_sigmoid(x, x * x);
}

V_INLINE vf gelu_backward(vf x, vf dy) {
    vf square = x * x;
    vf s = gelu_sigmoid(x, square);
    vf slope = v_fma(square, v_set(3.0f * GELU_2C * GELU_A), v_set(GELU_2C)); /* 2u' */
    return dy * v_fma(x * slope, s * (1.0f - s), s);
}

V_INLINE vf silu_forward(vf x) {
    return x * v_sigmoid(x);
}

V_INLINE vf silu_backward(vf x, vf dy) {
    vf s = v_sigmoid(x);
    return dy * v_fma(x, s * (1.0f - s), s);
}

/* Not a number stays so: it is not below zero. */
V_INLINE vf relu_forward(vf x) {
    return v_select(x < 0.0f, v_set(0.0f), x);
}

V_INLINE vf relu_backward(vf x, vf dy) {
    return v_select(x > 0.0f, dy, v_set(0.0f));
}

#define POINTWISE_LOOPS(name)                                                                      \
    static void name##_forward_all(const float *x, float *y, size_t n) {                           \
        size_t i = 0;                                                                              \
        for (; i + V_LANES <= n; i += V_LANES)                                                     \
            v_store(y + i, name##_forward(v_load(x + i)));                                         \
        if (i < n)                                                                                 \
            v_store_n(y + i, name##_forward(v_load_n(x + i, n - i)), n - i);                       \
    }                                                                                              \
    static void name##_backward_all(const float *x, const float *dy, float *dx, size_t n) {        \
        size_t i = 0;                                                                              \
        for (; i + V_LANES <= n; i += V_LANES)                                                     \
            v_store(dx + i, name##_backward(v_load(x + i), v_load(dy + i)));                       \
        if (i < n)                                                                                 \
            v_store_n(dx + i, name##_backward(v_load_n(x + i, n - i), v_load_n(dy + i, n - i)),    \
                      n - i);                                                                      \
    }

POINTWISE_LOOPS(relu)
POINTWISE_LOOPS(gelu)
POINTWISE_LOOPS(silu)

void MR_KERNEL(pointwise_forward)(mr_pointwise kind, const float *x, float *y, size_t n) {
    if (kind == MR_POINTWISE_RELU)
        relu_forward_all(x, y, n);
    else if (kind == MR_POINTWISE_GELU_TANH)
        gelu_forward_all(x, y, n);
    else
        silu_forward_all(x, y, n);
}

void MR_KERNEL(pointwise_backward)(mr_pointwise kind, const float *x, const float *dy, float *dx,
                                   size_t n) {
    if (kind == MR_POINTWISE_RELU)
        relu_backward_all(x, dy, dx, n);
    else if (kind == MR_POINTWISE_GELU_TANH)
        gelu_backward_all(x, dy, dx, n);
    else
        silu_backward_all(x, dy, dx, n);
}
