/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: cross-entropy, mean squared error, sums of squares, AdamW.
 * Method: every device against double loops on odd sizes, in place and without gradient; labels
 * that count for nothing and labels that are wrong; finite differences of the loss; three AdamW
 * steps against the formula in double precision. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Returns the loss; writes scale (softmax - onehot). */
static double reference_entropy(const double *logits, const int32_t *labels, size_t R, size_t V,
                                double scale, double *dlogits) {
    double loss = 0.0;
    for (size_t r = 0; r < R; r++) {
        double max = -INFINITY;
        double sum = 0.0;
        for (size_t v = 0; v < V; v++)
            max = fmax(max, logits[r * V + v]);
        for (size_t v = 0; v < V; v++)
            sum += exp(logits[r * V + v] - max);
        for (size_t v = 0; v < V; v++) {
            double p = exp(logits[r * V + v] - max) / sum;
            double hit = (int32_t)v == labels[r] ? 1.0 : 0.0;
            dlogits[r * V + v] = labels[r] < 0 ? 0.0 : scale * (p - hit);
        }
        if (labels[r] >= 0)
            loss += log(sum) + max - logits[r * V + (size_t)labels[r]];
    }
    return loss;
}

typedef enum entropy_form { ENTROPY_APART, ENTROPY_IN_PLACE, ENTROPY_NO_GRADIENT } entropy_form;

static void entropy_case(bench *b, size_t R, size_t V, entropy_form form) {
    bench_tensor logits = bench_random(b, 5.0f, R, V, 0);
    bench_tensor labels = bench_integers(b, (int32_t)V, R, 0);
    bench_tensor own = bench_poison(b, R, V, 0);
    bench_tensor *dlogits = form == ENTROPY_IN_PLACE ? &logits : &own;
    double *loss = bench_scalar(b, 100.0);
    if (R > 2) {
        labels.host_i32[1] = -1;
        bench_push(b, &labels);
    }
    double *values = bench_doubles(&logits);
    double *expected = bench_doubles(&own);
    double expected_loss =
        100.0 + reference_entropy(values, labels.host_i32, R, V, 0.125, expected);
    b->ops->cross_entropy(b->device, &logits.on, &labels.on, 0.125f,
                          form == ENTROPY_NO_GRADIENT ? NULL : &dlogits->on, loss);
    assert_true(fabs(bench_scalar_fetch(b, loss) - expected_loss) <
                b->tolerance * (expected_loss + 1.0));
    if (form != ENTROPY_NO_GRADIENT)
        bench_expect(b, dlogits, expected, "dlogits");
    free(values);
    free(expected);
}

static void test_cross_entropy_of_any_size_matches_double_loops(void **state) {
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {3, 17}, {17, 3}, {65, 65}, {130, 256}, {2, 20001}};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < 6; i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            entropy_case(&b, shapes[i][0], shapes[i][1], ENTROPY_APART);
            entropy_case(&b, shapes[i][0], shapes[i][1], ENTROPY_IN_PLACE);
            entropy_case(&b, shapes[i][0], shapes[i][1], ENTROPY_NO_GRADIENT);
            bench_close(&b);
        }
}

static void test_cross_entropy_gradient_matches_finite_differences(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        /* A step that two bytes can tell apart is too long for a slope. */
        if (bench_is_half(bench_rows[row].dtype) || !bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor logits = bench_random(&b, 2.0f, 3, 7, 0);
        bench_tensor labels = bench_integers(&b, 7, 3, 0);
        bench_tensor dlogits = bench_poison(&b, 3, 7, 0);
        double *loss = bench_scalar(&b, 0.0);
        b.ops->cross_entropy(b.device, &logits.on, &labels.on, 1.0f, &dlogits.on, loss);
        bench_fetch(&b, &dlogits);
        const float step = 1.0f / 64.0f;
        for (size_t i = 0; i < logits.n; i++) {
            double losses[2];
            for (int side = 0; side < 2; side++) {
                float at = logits.host[i];
                double zero = 0.0;
                logits.host[i] = side == 0 ? at - step : at + step;
                bench_push(&b, &logits);
                b.ops->copy_in(b.device, loss, &zero, sizeof(zero));
                b.ops->cross_entropy(b.device, &logits.on, &labels.on, 1.0f, NULL, loss);
                losses[side] = bench_scalar_fetch(&b, loss);
                logits.host[i] = at;
            }
            double slope = (losses[1] - losses[0]) / (2.0 * (double)step);
            assert_true(fabs(slope - (double)dlogits.host[i]) < 1e-4);
        }
        bench_close(&b);
    }
}

static void test_label_outside_the_vocabulary_latches(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor logits = bench_random(&b, 2.0f, 3, 7, 0);
        bench_tensor labels = bench_integers(&b, 7, 3, 0);
        double *loss = bench_scalar(&b, 0.0);
        labels.host_i32[2] = 7;
        bench_push(&b, &labels);
        b.ops->cross_entropy(b.device, &logits.on, &labels.on, 1.0f, NULL, loss);
        mr_status status = b.ops->check(b.device);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        assert_string_equal(status.text, "label at position 2 is 7; it must be -1 or in [0, 7)");
        for (size_t i = 0; i < b.used; i++) {
            b.ops->memory_destroy(b.device, &b.memory[i]);
            free(b.hosts[i]);
        }
        mr_device_destroy(b.device);
    }
}

static void squares_case(bench *b, size_t n, entropy_form form) {
    bench_tensor y = bench_random(b, 1.0f, n, 0, 0);
    bench_tensor target = bench_random_f32(b, 1.0f, n, 0, 0);
    bench_tensor x = bench_random_f32(b, 1.0f, n, 0, 0);
    bench_tensor own = bench_poison(b, n, 0, 0);
    bench_tensor *dy = form == ENTROPY_IN_PLACE ? &y : &own;
    double *loss = bench_scalar(b, 3.0);
    double *squares = bench_scalar(b, (double)NAN);
    double *expected = bench_doubles(&y);
    double expected_loss = 3.0;
    double expected_squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        expected_squares += (double)x.host[i] * (double)x.host[i];
        expected[i] -= (double)target.host[i];
        expected_loss += expected[i] * expected[i];
        expected[i] *= 2.0 * 0.25;
    }
    b->ops->sum_of_squares(b->device, &x.on, squares);
    b->ops->mean_squared_error(b->device, &y.on, &target.on, 0.25f,
                               form == ENTROPY_NO_GRADIENT ? NULL : &dy->on, loss);
    double error = fabs(bench_scalar_fetch(b, squares) - expected_squares);
    assert_true(error <= 1e-12 * expected_squares);
    error = fabs(bench_scalar_fetch(b, loss) - expected_loss);
    assert_true(error <= b->tolerance * expected_loss);
    if (form != ENTROPY_NO_GRADIENT)
        bench_expect(b, dy, expected, "dy");
    free(expected);
}

static void test_squares_of_any_size_match_double_loops(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 17, 65, 40000};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < 5; i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            squares_case(&b, sizes[i], ENTROPY_APART);
            squares_case(&b, sizes[i], ENTROPY_IN_PLACE);
            squares_case(&b, sizes[i], ENTROPY_NO_GRADIENT);
            bench_close(&b);
        }
}

static void adamw_case(bench *b, size_t n, float decay) {
    bench_tensor p = bench_random_f32(b, 1.0f, n, 0, 0);
    bench_tensor m = bench_random_f32(b, 0.0f, n, 0, 0);
    bench_tensor v = bench_random_f32(b, 0.0f, n, 0, 0);
    double *ep = bench_doubles(&p);
    double *em = bench_doubles(&m);
    double *ev = bench_doubles(&v);
    for (int step = 1; step <= 3; step++) {
        bench_tensor g = bench_random_f32(b, 1.0f, n, 0, 0);
        mr_adamw options = {
            .lr = 1e-2f,
            .beta1 = 0.9f,
            .beta2 = 0.95f,
            .eps = 1e-8f,
            .weight_decay = decay,
            .gradient_scale = 0.5f,
            .bias_correction1 = (float)(1.0 - pow((double)0.9f, step)),
            .bias_correction2 = (float)(1.0 - pow((double)0.95f, step)),
        };
        for (size_t i = 0; i < n; i++) {
            double gradient = (double)g.host[i] * (double)options.gradient_scale;
            double beta1 = (double)options.beta1;
            double beta2 = (double)options.beta2;
            em[i] = beta1 * em[i] + (1.0 - beta1) * gradient;
            ev[i] = beta2 * ev[i] + (1.0 - beta2) * gradient * gradient;
            ep[i] -= (double)options.lr * (double)decay * ep[i];
            ep[i] -= (double)options.lr * (em[i] / (double)options.bias_correction1) /
                     (sqrt(ev[i] / (double)options.bias_correction2) + (double)options.eps);
        }
        b->ops->adamw(b->device, &options, &g.on, &p.on, &m.on, &v.on);
    }
    bench_expect(b, &m, em, "exp_avg");
    bench_expect(b, &v, ev, "exp_avg_sq");
    bench_expect(b, &p, ep, "parameter");
    free(ep);
    free(em);
    free(ev);
}

static void test_adamw_of_any_size_matches_the_formula(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 17, 65, 40000};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < 5; i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            adamw_case(&b, sizes[i], 0.1f);
            adamw_case(&b, sizes[i], 0.0f);
            bench_close(&b);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy_of_any_size_matches_double_loops),
        cmocka_unit_test(test_cross_entropy_gradient_matches_finite_differences),
        cmocka_unit_test(test_label_outside_the_vocabulary_latches),
        cmocka_unit_test(test_squares_of_any_size_match_double_loops),
        cmocka_unit_test(test_adamw_of_any_size_matches_the_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
