/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.h: what one task does, as a table of functions; one table per instruction set.
 * A kernel works alone on the range it is given, knows no threads, allocates nothing and cannot
 * fail. All of them compute in f32; a bf16 or f16 tensor goes through widen and narrow, a few rows
 * at a time (staging, device_cpu.h), so that its floats never leave the cache. Numbers may lie at
 * any address. Pointers of different names do not overlap unless said.
 * Owner: device/cpu. Thread: any of the pool.
 * Not here: how work is cut into ranges (the family files of device/cpu). */
#ifndef MR_DEVICE_CPU_KERNELS_KERNELS_H
#define MR_DEVICE_CPU_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/device/device.h"

/* Rows [first, last) of x [R, C]. branch NULL: plain layer norm of x, sum untouched. */
typedef struct mr_cpu_norm {
    size_t C;
    float eps;
    const float *x;
    const float *branch;
    const mr_dropout *dropout; /* of branch; NULL or probability 0: none */
    const float *w;
    const float *b;
    float *sum;
    float *y;
    float *mean;
    float *rstd;
} mr_cpu_norm;

typedef struct mr_cpu_norm_backward {
    size_t C;
    const float *dy;
    const float *x;
    const float *w;
    const float *mean;
    const float *rstd;
    const float *residual; /* NULL: none */
    float *dx;             /* may be dy or residual */
} mr_cpu_norm_backward;

typedef struct mr_cpu_cross_entropy {
    size_t V;
    const float *logits;
    const int32_t *labels; /* in [-1, V) */
    float scale;
    float *dlogits; /* NULL, or may be logits */
    double *loss;   /* [R]: of each row */
} mr_cpu_cross_entropy;

/* Attention of one head of one sequence. Strides in floats. */
typedef struct mr_cpu_attention {
    size_t T;
    size_t D; /* size of a head */
    float scale;
    bool causal;
    const float *q; /* row t at q + t stride */
    const float *k;
    const float *v;
    size_t stride;
    float *out; /* row t at out + t out_stride; const in backward */
    size_t out_stride;
    float *lse; /* [T]; const in backward */
    const mr_dropout *dropout; /* NULL: none */
    uint64_t dropout_first;    /* element of (0, 0) */
    const float *dout;         /* backward: as out */
    float *dq;                 /* backward: rows at stride */
    float *dk;
    float *dv;
    float *scratch; /* mr_cpu_attention_scratch floats */
} mr_cpu_attention;

typedef struct mr_cpu_kernels {
    const char *name;
    const struct mr_cpu_kernels *f16; /* the same with conversions of f16; NULL in that one */
    /* y = x, exactly; x is bf16, or f16. */
    void (*widen)(const uint16_t *x, float *y, size_t n);
    /* y = x, rounded to nearest even; y is bf16, or f16. */
    void (*narrow)(const float *x, uint16_t *y, size_t n);
    /* a += b */
    void (*accumulate)(float *a, const float *b, size_t n);
    /* out = a + dropout(b), elements [first, first + n) of the mask; dropout NULL: none. out may be
     * a or b. */
    void (*add)(const float *a, const float *b, const mr_dropout *dropout, uint64_t first,
                float *out, size_t n);
    /* y = dropout(x); y may be x. */
    void (*dropout)(const float *x, const mr_dropout *dropout, uint64_t first, float *y, size_t n);
    /* y may be x; dx may be dy. */
    void (*pointwise_forward)(mr_pointwise kind, const float *x, float *y, size_t n);
    void (*pointwise_backward)(mr_pointwise kind, const float *x, const float *dy, float *dx,
                               size_t n);
    void (*norm_forward)(const mr_cpu_norm *norm, size_t first, size_t last);
    void (*norm_backward_input)(const mr_cpu_norm_backward *norm, size_t first, size_t last);
    /* out [2C]: sums over the rows of dy xhat, then of dy. */
    void (*norm_backward_weight)(const mr_cpu_norm_backward *norm, size_t first, size_t last,
                                 float *out);
    /* out [columns] = sums over rows of dy [rows, columns]. */
    void (*column_sums)(const float *dy, size_t rows, size_t columns, float *out);
    void (*cross_entropy)(const mr_cpu_cross_entropy *entropy, size_t first, size_t last);
    /* The largest of x [n] and the sum of exp(x - max). */
    void (*logit_sum)(const float *x, size_t n, float *out_max, float *out_sum);
    /* dx = factor exp(x - max), may be x. */
    void (*logit_gradient)(const float *x, float max, float factor, float *dx, size_t n);
    /* Returns the sum of (y - target)^2; dy = factor (y - target), NULL or may be y. */
    double (*squared_error)(const float *y, const float *target, float factor, float *dy,
                            size_t n);
    double (*sum_of_squares)(const float *x, size_t n);
    void (*adamw)(const mr_adamw *options, const float *gradient, float *parameter, float *exp_avg,
                  float *exp_avg_sq, size_t n);
    void (*adam)(const mr_adamw *options, const float *gradient, float *parameter, float *exp_avg,
                 float *exp_avg_sq, size_t n);
    /* momentum NULL: none. */
    void (*sgd)(const mr_sgd *options, const float *gradient, float *parameter, float *momentum,
                size_t n);
    void (*lion)(const mr_lion *options, const float *gradient, float *parameter, float *exp_avg,
                 size_t n);
    void (*attention_forward)(const mr_cpu_attention *attention);
    void (*attention_backward)(const mr_cpu_attention *attention);
} mr_cpu_kernels;

/* Floats of scratch that either attention kernel needs; false on overflow. */
bool mr_cpu_attention_scratch(size_t T, size_t D, size_t *out_floats);

/* The table of the best instruction set that this processor and this build have. */
const mr_cpu_kernels *mr_cpu_kernels_choose(void);
/* Every table that this processor can run, best first; for tests. */
size_t mr_cpu_kernels_all(const mr_cpu_kernels *out_tables[3]);

#endif
