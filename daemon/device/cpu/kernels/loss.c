/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c: losses and sums of squares.
 * Cross-entropy of a row: with m the largest logit and s the sum of exp(logit - m), the loss is
 * log s + m - logit[label] and the gradient exp(logit - m)/s, less one at the label. Rows stay in
 * cache over the three passes. */
#include <math.h>

#include "daemon/device/cpu/kernels/declare.h"

static float loss_row_max(const float *x, size_t n) {
    vf top = v_set(-INFINITY);
    size_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        top = v_max(v_load(x + i), top);
    float max = v_max_lane(top);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* Sum of exp(x - max), which are also stored where out is not NULL; out may be x. The padding of
 * the last vector is cut off before it is added. */
static float loss_row_exp(const float *x, float max, size_t n, float *out) {
    vf sums[2] = {{0}, {0}};
    const vf shift = v_set(max);
    size_t i = 0;
    for (size_t k = 0; i + V_LANES <= n; i += V_LANES, k ^= 1) {
        vf e = v_exp(v_load(x + i) - shift);
        sums[k] += e;
        if (out != NULL)
            v_store(out + i, e);
    }
    if (i < n) {
        float last[V_LANES] = {0};
        v_store_n(last, v_exp(v_load_n(x + i, n - i) - shift), n - i);
        sums[0] += v_load(last);
        if (out != NULL)
            v_store_n(out + i, v_load(last), n - i);
    }
    return v_sum(sums[0] + sums[1]);
}

void MR_KERNEL(cross_entropy)(const mr_cpu_cross_entropy *entropy, size_t first, size_t last) {
    size_t V = entropy->V;
    for (size_t r = first; r < last; r++) {
        const float *logits = entropy->logits + r * V;
        float *dlogits = entropy->dlogits == NULL ? NULL : entropy->dlogits + r * V;
        int32_t label = entropy->labels[r];
        entropy->loss[r] = 0.0;
        if (label < 0) {
            if (dlogits != NULL)
                memset(dlogits, 0, V * sizeof(float));
            continue;
        }
        float at_label = logits[label];
        float max = loss_row_max(logits, V);
        float sum = loss_row_exp(logits, max, V, dlogits);
        entropy->loss[r] = log((double)sum) + ((double)max - (double)at_label);
        if (dlogits == NULL)
            continue;
        const vf scale = v_set(entropy->scale / sum);
        for (size_t i = 0; i < V; i += V_LANES)
            v_store_left(dlogits + i, v_load_left(dlogits + i, V - i) * scale, V - i);
        dlogits[label] -= entropy->scale;
    }
}

void MR_KERNEL(logit_sum)(const float *x, size_t n, float *out_max, float *out_sum) {
    *out_max = loss_row_max(x, n);
    *out_sum = loss_row_exp(x, *out_max, n, NULL);
}

void MR_KERNEL(logit_gradient)(const float *x, float max, float factor, float *dx, size_t n) {
    const vf shift = v_set(max);
    for (size_t i = 0; i < n; i += V_LANES)
        v_store_left(dx + i, v_exp(v_load_left(x + i, n - i) - shift) * factor, n - i);
}

double MR_KERNEL(squared_error)(const float *y, const float *target, float factor, float *dy,
                                size_t n) {
    vd sums[2] = {{0}, {0}};
    for (size_t i = 0; i < n; i += V_LANES) {
        vf d = v_load_left(y + i, n - i) - v_load_left(target + i, n - i);
        v_square_add(d, sums);
        if (dy != NULL)
            v_store_left(dy + i, d * factor, n - i);
    }
    return v_sum_double(sums[0] + sums[1]);
}

double MR_KERNEL(sum_of_squares)(const float *x, size_t n) {
    vd sums[2] = {{0}, {0}};
    for (size_t i = 0; i < n; i += V_LANES)
        v_square_add(v_load_left(x + i, n - i), sums);
    return v_sum_double(sums[0] + sums[1]);
}
