/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.c: the optimizers' updates, element by element in one pass; formulas in device.h. */
#include "daemon/device/cpu/kernels/declare.h"

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
        vf g = v_load_left(gradient + i, left) * options->gradient_scale;
        vf m = v_fma(beta1, v_load_left(exp_avg + i, left), rest1 * g);
        vf v = v_fma(beta2, v_load_left(exp_avg_sq + i, left), rest2 * (g * g));
        vf p = v_load_left(parameter + i, left) * keep;
        vf update = m / (v_sqrt(v * root) + options->eps);
        v_store_left(parameter + i, v_fma(step, update, p), left);
        v_store_left(exp_avg + i, m, left);
        v_store_left(exp_avg_sq + i, v, left);
    }
}

void MR_KERNEL(adam)(const mr_adamw *options, const float *gradient, float *parameter,
                     float *exp_avg, float *exp_avg_sq, size_t n) {
    const vf beta1 = v_set(options->beta1);
    const vf beta2 = v_set(options->beta2);
    const vf rest1 = v_set(1.0f - options->beta1);
    const vf rest2 = v_set(1.0f - options->beta2);
    const vf decay = v_set(options->weight_decay);
    const vf step = v_set(-options->lr / options->bias_correction1);
    const vf root = v_set(1.0f / options->bias_correction2);
    for (size_t i = 0; i < n; i += V_LANES) {
        size_t left = n - i;
        vf p = v_load_left(parameter + i, left);
        vf g = v_fma(decay, p, v_load_left(gradient + i, left) * options->gradient_scale);
        vf m = v_fma(beta1, v_load_left(exp_avg + i, left), rest1 * g);
        vf v = v_fma(beta2, v_load_left(exp_avg_sq + i, left), rest2 * (g * g));
        vf update = m / (v_sqrt(v * root) + options->eps);
        v_store_left(parameter + i, v_fma(step, update, p), left);
        v_store_left(exp_avg + i, m, left);
        v_store_left(exp_avg_sq + i, v, left);
    }
}

void MR_KERNEL(sgd)(const mr_sgd *options, const float *gradient, float *parameter,
                    float *momentum, size_t n) {
    const vf decay = v_set(options->weight_decay);
    const vf keep = v_set(options->momentum);
    const vf step = v_set(-options->lr);
    for (size_t i = 0; i < n; i += V_LANES) {
        size_t left = n - i;
        vf p = v_load_left(parameter + i, left);
        vf g = v_fma(decay, p, v_load_left(gradient + i, left) * options->gradient_scale);
        if (momentum != NULL) {
            vf m = v_fma(keep, v_load_left(momentum + i, left), g);
            v_store_left(momentum + i, m, left);
            g = options->nesterov ? v_fma(keep, m, g) : m;
        }
        v_store_left(parameter + i, v_fma(step, g, p), left);
    }
}

/* 1, -1, or 0 where x is neither above nor below 0. */
V_INLINE vf optimizer_sign(vf x) {
    vf zero = v_set(0.0f);
    return v_select(x > 0.0f, v_set(1.0f), v_select(x < 0.0f, v_set(-1.0f), zero));
}

void MR_KERNEL(lion)(const mr_lion *options, const float *gradient, float *parameter,
                     float *exp_avg, size_t n) {
    const vf beta1 = v_set(options->beta1);
    const vf beta2 = v_set(options->beta2);
    const vf rest1 = v_set(1.0f - options->beta1);
    const vf rest2 = v_set(1.0f - options->beta2);
    const vf keep = v_set(1.0f - options->lr * options->weight_decay);
    const vf step = v_set(-options->lr);
    for (size_t i = 0; i < n; i += V_LANES) {
        size_t left = n - i;
        vf g = v_load_left(gradient + i, left) * options->gradient_scale;
        vf m = v_load_left(exp_avg + i, left);
        vf update = optimizer_sign(v_fma(beta1, m, rest1 * g));
        vf p = v_load_left(parameter + i, left) * keep;
        v_store_left(parameter + i, v_fma(step, update, p), left);
        v_store_left(exp_avg + i, v_fma(beta2, m, rest2 * g), left);
    }
}
