/* SPDX-License-Identifier: Apache-2.0 */
/* norm.c: layer norm over rows (arXiv:1607.06450). With xhat = (x - mean) rstd:
 *   y = xhat w + b
 *   dx = rstd (g - mean(g) - xhat mean(g xhat)),  g = dy w
 *   dw = sum over rows of dy xhat,  db = sum over rows of dy.
 * A row is read from L1 or L2 after its first pass. Its sums run in four vectors of lanes, added
 * in a fixed tree. */
#include "daemon/device/cpu/kernels/declare.h"

#include "daemon/device/cpu/kernels/mask.h"

enum { NORM_SUMS = 4, NORM_STEP = NORM_SUMS * V_LANES };

V_INLINE float norm_total(const vf sums[NORM_SUMS]) {
    return v_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static float norm_row_sum(const float *x, size_t C) {
    vf sums[NORM_SUMS] = {0};
    size_t i = 0;
    for (; i + NORM_STEP <= C; i += NORM_STEP)
        for (size_t k = 0; k < NORM_SUMS; k++)
            sums[k] += v_load(x + i + k * V_LANES);
    for (; i + V_LANES <= C; i += V_LANES)
        sums[0] += v_load(x + i);
    if (i < C)
        sums[1] += v_load_n(x + i, C - i);
    return norm_total(sums);
}

/* Sum of (x - mean)^2. The padding of the last vector is made to add nothing. */
static float norm_row_squares(const float *x, float mean, size_t C) {
    vf sums[NORM_SUMS] = {0};
    const vf m = v_set(mean);
    size_t i = 0;
    for (; i + NORM_STEP <= C; i += NORM_STEP)
        for (size_t k = 0; k < NORM_SUMS; k++) {
            vf d = v_load(x + i + k * V_LANES) - m;
            sums[k] = v_fma(d, d, sums[k]);
        }
    for (; i + V_LANES <= C; i += V_LANES) {
        vf d = v_load(x + i) - m;
        sums[0] = v_fma(d, d, sums[0]);
    }
    if (i < C) {
        float last[V_LANES] = {0};
        v_store_n(last, v_load_n(x + i, C - i) - m, C - i);
        vf d = v_load(last);
        sums[1] = v_fma(d, d, sums[1]);
    }
    return norm_total(sums);
}

static void norm_row_apply(const mr_cpu_norm *norm, const float *x, float mean, float rstd,
                           float *y) {
    const vf scale = v_set(rstd);
    const vf shift = v_set(-mean);
    size_t C = norm->C;
    size_t i = 0;
    for (; i + V_LANES <= C; i += V_LANES)
        v_store(y + i, v_fma((v_load(x + i) + shift) * scale, v_load(norm->w + i),
                             v_load(norm->b + i)));
    if (i < C) {
        size_t n = C - i;
        v_store_n(y + i,
                  v_fma((v_load_n(x + i, n) + shift) * scale, v_load_n(norm->w + i, n),
                        v_load_n(norm->b + i, n)),
                  n);
    }
}

void MR_KERNEL(norm_forward)(const mr_cpu_norm *norm, size_t first, size_t last) {
    size_t C = norm->C;
    for (size_t r = first; r < last; r++) {
        const float *x = norm->x + r * C;
        if (norm->branch != NULL) {
            MR_KERNEL(add)(x, norm->branch + r * C, norm->dropout, (uint64_t)r * C,
                           norm->sum + r * C, C);
            x = norm->sum + r * C;
        }
        float mean = norm_row_sum(x, C) / (float)C;
        float variance = norm_row_squares(x, mean, C) / (float)C;
        float rstd = 1.0f / __builtin_sqrtf(variance + norm->eps);
        norm_row_apply(norm, x, mean, rstd, norm->y + r * C);
        norm->mean[r] = mean;
        norm->rstd[r] = rstd;
    }
}

/* Sums over the row of g and of g xhat, g = dy w. */
static void norm_row_gradient_sums(const float *dy, const float *x, const float *w, float mean,
                                   float rstd, size_t C, float *out_g, float *out_gx) {
    vf g_sums[NORM_SUMS] = {0};
    vf gx_sums[NORM_SUMS] = {0};
    const vf scale = v_set(rstd);
    const vf shift = v_set(-mean);
    size_t i = 0;
    for (; i + NORM_STEP <= C; i += NORM_STEP)
        for (size_t k = 0; k < NORM_SUMS; k++) {
            size_t at = i + k * V_LANES;
            vf g = v_load(dy + at) * v_load(w + at);
            g_sums[k] += g;
            gx_sums[k] = v_fma(g, (v_load(x + at) + shift) * scale, gx_sums[k]);
        }
    for (; i < C; i += V_LANES) {
        size_t n = C - i;
        bool whole = n >= V_LANES;
        vf g = whole ? v_load(dy + i) * v_load(w + i) : v_load_n(dy + i, n) * v_load_n(w + i, n);
        vf centred = (whole ? v_load(x + i) : v_load_n(x + i, n)) + shift;
        g_sums[0] += g;
        gx_sums[0] = v_fma(g, centred * scale, gx_sums[0]);
    }
    *out_g = norm_total(g_sums);
    *out_gx = norm_total(gx_sums);
}

void MR_KERNEL(norm_backward_input)(const mr_cpu_norm_backward *norm, size_t first, size_t last) {
    size_t C = norm->C;
    const float *w = norm->w;
    for (size_t r = first; r < last; r++) {
        const float *dy = norm->dy + r * C;
        const float *x = norm->x + r * C;
        const float *residual = norm->residual == NULL ? NULL : norm->residual + r * C;
        float *dx = norm->dx + r * C;
        float sum_g;
        float sum_gx;
        norm_row_gradient_sums(dy, x, w, norm->mean[r], norm->rstd[r], C, &sum_g, &sum_gx);
        const vf scale = v_set(norm->rstd[r]);
        const vf shift = v_set(-norm->mean[r]);
        const vf mean_g = v_set(-sum_g / (float)C);
        const vf mean_gx = v_set(-sum_gx / (float)C);
        for (size_t i = 0; i < C; i += V_LANES) {
            size_t n = C - i;
            bool whole = n >= V_LANES;
            vf g = whole ? v_load(dy + i) : v_load_n(dy + i, n);
            g = v_fma(g, whole ? v_load(w + i) : v_load_n(w + i, n), mean_g);
            vf xhat = ((whole ? v_load(x + i) : v_load_n(x + i, n)) + shift) * scale;
            vf out = v_fma(xhat, mean_gx, g) * scale;
            if (residual != NULL)
                out += whole ? v_load(residual + i) : v_load_n(residual + i, n);
            if (whole)
                v_store(dx + i, out);
            else
                v_store_n(dx + i, out, n);
        }
    }
}

/* A strip of columns, at most NORM_STRIP vectors wide, goes down the rows in registers. */
enum { NORM_STRIP = 4 };

V_INLINE void norm_weight_strip(const mr_cpu_norm_backward *norm, size_t first, size_t last,
                                size_t column, size_t vectors, size_t rest, float *out) {
    vf dw[NORM_STRIP] = {0};
    vf db[NORM_STRIP] = {0};
    size_t C = norm->C;
    for (size_t r = first; r < last; r++) {
        const float *dy = norm->dy + r * C + column;
        const float *x = norm->x + r * C + column;
        const vf scale = v_set(norm->rstd[r]);
        const vf shift = v_set(-norm->mean[r]);
        for (size_t k = 0; k < vectors; k++) {
            vf g = rest > 0 ? v_load_n(dy, rest) : v_load(dy + k * V_LANES);
            vf value = rest > 0 ? v_load_n(x, rest) : v_load(x + k * V_LANES);
            db[k] += g;
            dw[k] = v_fma(g, (value + shift) * scale, dw[k]);
        }
    }
    for (size_t k = 0; k < vectors; k++) {
        size_t at = column + k * V_LANES;
        if (rest > 0) {
            v_store_n(out + at, dw[k], rest);
            v_store_n(out + C + at, db[k], rest);
        } else {
            v_store(out + at, dw[k]);
            v_store(out + C + at, db[k]);
        }
    }
}

void MR_KERNEL(norm_backward_weight)(const mr_cpu_norm_backward *norm, size_t first, size_t last,
                                     float *out) {
    size_t C = norm->C;
    size_t i = 0;
    for (; i + NORM_STRIP * V_LANES <= C; i += NORM_STRIP * V_LANES)
        norm_weight_strip(norm, first, last, i, NORM_STRIP, 0, out);
    for (; i + V_LANES <= C; i += V_LANES)
        norm_weight_strip(norm, first, last, i, 1, 0, out);
    if (i < C)
        norm_weight_strip(norm, first, last, i, 1, C - i, out);
}

V_INLINE void norm_sum_strip(const float *dy, size_t rows, size_t columns, size_t column,
                             size_t vectors, size_t rest, float *out) {
    vf sums[NORM_STRIP] = {0};
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < vectors; k++) {
            const float *at = dy + r * columns + column + k * V_LANES;
            sums[k] += rest > 0 ? v_load_n(at, rest) : v_load(at);
        }
    for (size_t k = 0; k < vectors; k++) {
        if (rest > 0)
            v_store_n(out + column, sums[k], rest);
        else
            v_store(out + column + k * V_LANES, sums[k]);
    }
}

void MR_KERNEL(column_sums)(const float *dy, size_t rows, size_t columns, float *out) {
    size_t i = 0;
    for (; i + NORM_STRIP * V_LANES <= columns; i += NORM_STRIP * V_LANES)
        norm_sum_strip(dy, rows, columns, i, NORM_STRIP, 0, out);
    for (; i + V_LANES <= columns; i += V_LANES)
        norm_sum_strip(dy, rows, columns, i, 1, 0, out);
    if (i < columns)
        norm_sum_strip(dy, rows, columns, i, 1, columns - i, out);
}
