/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c: losses, sums of squares and the optimizer's update.
 * Cross-entropy of a row: with m the largest logit and s the sum of exp(logit - m), the loss is
 * log s + m - logit[label] and the gradient exp(logit - m)/s, less one at the label. Rows stay in
 * cache over the three passes. */
#include <math.h>

#include "daemon/device/cpu/kernels/declare.h"

V_INLINE vf loss_load(const float *p, size_t n) {
    return n >= V_LANES ? v_load(p) : v_load_n(p, n);
}

V_INLINE void loss_store(float *p, vf x, size_t n) {
    if (n >= V_LANES)
        v_store(p, x);
    else
        v_store_n(p, x, n);
}

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
            loss_store(dlogits + i, loss_load(dlogits + i, V - i) * scale, V - i);
        dlogits[label] -= entropy->scale;
    }
}

double MR_KERNEL(squared_error)(const float *y, const float *target, float factor, float *dy,
                                size_t n) {
    vd sums[2] = {{0}, {0}};
    for (size_t i = 0; i < n; i += V_LANES) {
        vf d = loss_load(y + i, n - i) - loss_load(target + i, n - i);
        v_square_add(d, sums);
        if (dy != NULL)
            loss_store(dy + i, d * factor, n - i);
    }
    return v_sum_double(sums[0] + sums[1]);
}

double MR_KERNEL(sum_of_squares)(const float *x, size_t n) {
    vd sums[2] = {{0}, {0}};
    for (size_t i = 0; i < n; i += V_LANES)
        v_square_add(loss_load(x + i, n - i), sums);
    return v_sum_double(sums[0] + sums[1]);
}

void MR_KERNEL(adamw)(const mr_adamw *options, const float *gradient, float *parameter,
                      float *exp_avg, float *exp_avg_sq, size_t n) {
    const vf beta1 = v_set(options->beta1);
    const vf beta2 = v_set(options->beta2);
    const vf rest1 = v_set(1.0f - options->beta1);
    const vf rest2 = v_set(1.0f - options->beta2);
    const vf keep = v_set(1.0f - options->lr * options->weight_decay);
    const vf step = v_set(-options->lr / options->bias_correction1);
    const vf root = v_set(1.0f / options->bias_correction2);
    for (size_t i = 0; i < n; i += V_LANES) {
        size_t left = n - i;
        vf g = loss_load(gradient + i, left) * options->gradient_scale;
        vf m = v_fma(beta1, loss_load(exp_avg + i, left), rest1 * g);
        vf v = v_fma(beta2, loss_load(exp_avg_sq + i, left), rest2 * (g * g));
        vf p = loss_load(parameter + i, left) * keep;
        vf update = m / (v_sqrt(v * root) + options->eps);
        loss_store(parameter + i, v_fma(step, update, p), left);
        loss_store(exp_avg + i, m, left);
        loss_store(exp_avg_sq + i, v, left);
    }
}
