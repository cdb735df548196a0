/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: Adam with coupled decay, SGD and Lion; AdamW has its test beside the losses.
 * Method: every device that has the operation, three steps against the formula in double precision
 * on odd sizes, with and without decay, and SGD without momentum, with it, and with Nesterov's. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>

enum { STEPS = 3 };

static const size_t sizes[] = {1, 3, 17, 65, 40000};

static void adam_case(bench *b, size_t n, float decay) {
    bench_tensor p = bench_random_f32(b, 1.0f, n, 0, 0);
    bench_tensor m = bench_random_f32(b, 0.0f, n, 0, 0);
    bench_tensor v = bench_random_f32(b, 0.0f, n, 0, 0);
    double *ep = bench_doubles(&p);
    double *em = bench_doubles(&m);
    double *ev = bench_doubles(&v);
    for (int step = 1; step <= STEPS; step++) {
        bench_tensor g = bench_random_f32(b, 1.0f, n, 0, 0);
        mr_adamw o = {.lr = 1e-2f,
                      .beta1 = 0.9f,
                      .beta2 = 0.95f,
                      .eps = 1e-8f,
                      .weight_decay = decay,
                      .gradient_scale = 0.5f,
                      .bias_correction1 = (float)(1.0 - pow((double)0.9f, step)),
                      .bias_correction2 = (float)(1.0 - pow((double)0.95f, step))};
        double beta1 = (double)o.beta1;
        double beta2 = (double)o.beta2;
        for (size_t i = 0; i < n; i++) {
            double gradient = 0.5 * (double)g.host[i] + (double)decay * ep[i];
            em[i] = beta1 * em[i] + (1.0 - beta1) * gradient;
            ev[i] = beta2 * ev[i] + (1.0 - beta2) * gradient * gradient;
            ep[i] -= (double)o.lr * (em[i] / (double)o.bias_correction1) /
                     (sqrt(ev[i] / (double)o.bias_correction2) + (double)o.eps);
        }
        b->ops->adam(b->device, &o, &g.on, &p.on, &m.on, &v.on);
    }
    bench_expect(b, &m, em, "exp_avg");
    bench_expect(b, &v, ev, "exp_avg_sq");
    bench_expect(b, &p, ep, "parameter");
    free(ep);
    free(em);
    free(ev);
}

static void sgd_case(bench *b, size_t n, float decay, float momentum, bool nesterov) {
    bench_tensor p = bench_random_f32(b, 1.0f, n, 0, 0);
    bench_tensor m = bench_random_f32(b, 0.0f, n, 0, 0);
    double *ep = bench_doubles(&p);
    double *em = bench_doubles(&m);
    for (int step = 1; step <= STEPS; step++) {
        bench_tensor g = bench_random_f32(b, 1.0f, n, 0, 0);
        mr_sgd o = {.lr = 1e-1f,
                    .momentum = momentum,
                    .weight_decay = decay,
                    .gradient_scale = 0.5f,
                    .nesterov = nesterov};
        double mu = (double)momentum;
        for (size_t i = 0; i < n; i++) {
            double gradient = 0.5 * (double)g.host[i] + (double)decay * ep[i];
            em[i] = momentum > 0 ? mu * em[i] + gradient : 0.0;
            double update = momentum > 0 ? em[i] : gradient;
            if (nesterov)
                update = gradient + mu * em[i];
            ep[i] -= (double)o.lr * update;
        }
        b->ops->sgd(b->device, &o, &g.on, &p.on, momentum > 0 ? &m.on : NULL);
    }
    bench_expect(b, &m, em, "momentum");
    bench_expect(b, &p, ep, "parameter");
    free(ep);
    free(em);
}

static double sign(double x) {
    return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0;
}

/* Element 0 never has a gradient: its sign is 0. */
static void lion_case(bench *b, size_t n, float decay) {
    bench_tensor p = bench_random_f32(b, 1.0f, n, 0, 0);
    bench_tensor m = bench_random_f32(b, 0.0f, n, 0, 0);
    double *ep = bench_doubles(&p);
    double *em = bench_doubles(&m);
    for (int step = 1; step <= STEPS; step++) {
        bench_tensor g = bench_random_f32(b, 1.0f, n, 0, 0);
        mr_lion o = {.lr = 1e-2f,
                     .beta1 = 0.9f,
                     .beta2 = 0.99f,
                     .weight_decay = decay,
                     .gradient_scale = 0.5f};
        double beta1 = (double)o.beta1;
        double beta2 = (double)o.beta2;
        g.host[0] = 0.0f;
        bench_push(b, &g);
        for (size_t i = 0; i < n; i++) {
            double gradient = 0.5 * (double)g.host[i];
            ep[i] -= (double)o.lr * (double)decay * ep[i];
            ep[i] -= (double)o.lr * sign(beta1 * em[i] + (1.0 - beta1) * gradient);
            em[i] = beta2 * em[i] + (1.0 - beta2) * gradient;
        }
        b->ops->lion(b->device, &o, &g.on, &p.on, &m.on);
    }
    bench_expect(b, &m, em, "exp_avg");
    bench_expect(b, &p, ep, "parameter");
    free(ep);
    free(em);
}

static void adam_cases(bench *b, size_t n) {
    if (b->ops->adam == NULL)
        return;
    adam_case(b, n, 0.1f);
    adam_case(b, n, 0.0f);
}

static void sgd_cases(bench *b, size_t n) {
    if (b->ops->sgd == NULL)
        return;
    sgd_case(b, n, 0.1f, 0.0f, false);
    sgd_case(b, n, 0.0f, 0.9f, false);
    sgd_case(b, n, 0.1f, 0.9f, false);
    sgd_case(b, n, 0.1f, 0.9f, true);
}

static void lion_cases(bench *b, size_t n) {
    if (b->ops->lion == NULL)
        return;
    lion_case(b, n, 0.1f);
    lion_case(b, n, 0.0f);
}

static void run_all(void (*cases)(bench *b, size_t n)) {
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            cases(&b, sizes[i]);
            bench_close(&b);
        }
}

static void test_adam_of_any_size_matches_the_formula(void **state) {
    (void)state;
    run_all(adam_cases);
}

static void test_sgd_of_any_size_matches_the_formula(void **state) {
    (void)state;
    run_all(sgd_cases);
}

static void test_lion_of_any_size_matches_the_formula(void **state) {
    (void)state;
    run_all(lion_cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam_of_any_size_matches_the_formula),
        cmocka_unit_test(test_sgd_of_any_size_matches_the_formula),
        cmocka_unit_test(test_lion_of_any_size_matches_the_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
