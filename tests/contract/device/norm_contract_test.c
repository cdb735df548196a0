/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: layer norm, plain and behind a residual sum with dropout, forward and backward.
 * Method: every device against double loops of the definition, odd widths and heights; outputs that
 * are overwritten start as not-a-number, those that are added to at random; finite differences. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float eps = 1e-5f;

static const size_t shapes[][2] = {{1, 1}, {3, 17}, {17, 3}, {65, 65}, {130, 384}, {2, 1000}};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

typedef struct norm_reference {
    double *y;
    double *mean;
    double *rstd;
} norm_reference;

static norm_reference reference_forward(const double *x, const bench_tensor *w,
                                        const bench_tensor *shift, size_t R, size_t C) {
    norm_reference ref = {malloc(R * C * sizeof(double)), malloc(R * sizeof(double)),
                          malloc(R * sizeof(double))};
    for (size_t r = 0; r < R; r++) {
        double mean = 0.0;
        double variance = 0.0;
        for (size_t c = 0; c < C; c++)
            mean += x[r * C + c] / (double)C;
        for (size_t c = 0; c < C; c++)
            variance += pow(x[r * C + c] - mean, 2.0) / (double)C;
        ref.mean[r] = mean;
        ref.rstd[r] = 1.0 / sqrt(variance + (double)eps);
        for (size_t c = 0; c < C; c++)
            ref.y[r * C + c] = (x[r * C + c] - mean) * ref.rstd[r] * (double)w->host[c] +
                               (double)shift->host[c];
    }
    return ref;
}

static void reference_free(norm_reference ref) {
    free(ref.y);
    free(ref.mean);
    free(ref.rstd);
}

/* mean near 0 is compared against the size of x, not of itself: x is drawn around 1. */
static bench_tensor draw_x(bench *b, size_t R, size_t C) {
    bench_tensor x = bench_random(b, 1.0f, R, C, 0);
    for (size_t i = 0; i < x.n; i++)
        x.host[i] += 1.0f;
    bench_push(b, &x);
    return x;
}

static void forward_case(bench *b, size_t R, size_t C) {
    bench_tensor x = draw_x(b, R, C);
    bench_tensor w = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor shift = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor y = bench_poison(b, R, C, 0);
    bench_tensor mean = bench_poison_f32(b, R, 0, 0);
    bench_tensor rstd = bench_poison_f32(b, R, 0, 0);
    double *values = bench_doubles(&x);
    norm_reference ref = reference_forward(values, &w, &shift, R, C);
    b->ops->layernorm_forward(b->device, &x.on, &w.on, &shift.on, eps, &y.on, &mean.on, &rstd.on);
    bench_expect(b, &y, ref.y, "y");
    bench_expect(b, &mean, ref.mean, "mean");
    bench_expect(b, &rstd, ref.rstd, "rstd");
    reference_free(ref);
    free(values);
}

static void residual_case(bench *b, size_t R, size_t C, const mr_dropout *dropout) {
    bench_tensor x = draw_x(b, R, C);
    bench_tensor branch = bench_random(b, 1.0f, R, C, 0);
    bench_tensor w = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor shift = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor sum = bench_poison(b, R, C, 0);
    bench_tensor y = bench_poison(b, R, C, 0);
    bench_tensor mean = bench_poison_f32(b, R, 0, 0);
    bench_tensor rstd = bench_poison_f32(b, R, 0, 0);
    double *values = bench_doubles(&x);
    for (size_t i = 0; i < R * C; i++)
        values[i] += (double)branch.host[i] * bench_mask(dropout, i);
    b->ops->residual_layernorm_forward(b->device, &x.on, &branch.on, dropout, &w.on, &shift.on,
                                       eps, &sum.on, &y.on, &mean.on, &rstd.on);
    bench_expect(b, &sum, values, "sum");
    for (size_t i = 0; i < R * C; i++)
        values[i] = (double)sum.host[i]; /* rounded once, as the norm sees it */
    norm_reference ref = reference_forward(values, &w, &shift, R, C);
    bench_expect(b, &y, ref.y, "y");
    bench_expect(b, &mean, ref.mean, "mean");
    bench_expect(b, &rstd, ref.rstd, "rstd");
    reference_free(ref);
    free(values);
}

static void reference_backward(const bench_tensor *dy, const bench_tensor *x, const bench_tensor *w,
                               const bench_tensor *mean, const bench_tensor *rstd, size_t R,
                               size_t C, double *dx, double *dw, double *db) {
    for (size_t r = 0; r < R; r++) {
        double mean_g = 0.0;
        double mean_gx = 0.0;
        double scale = (double)rstd->host[r];
        for (size_t c = 0; c < C; c++) {
            size_t i = r * C + c;
            double xhat = ((double)x->host[i] - (double)mean->host[r]) * scale;
            double g = (double)dy->host[i] * (double)w->host[c];
            mean_g += g / (double)C;
            mean_gx += g * xhat / (double)C;
            dw[c] += (double)dy->host[i] * xhat;
            db[c] += (double)dy->host[i];
        }
        for (size_t c = 0; c < C; c++) {
            size_t i = r * C + c;
            double xhat = ((double)x->host[i] - (double)mean->host[r]) * scale;
            dx[i] = scale * ((double)dy->host[i] * (double)w->host[c] - mean_g - xhat * mean_gx);
        }
    }
}

/* where: what dx is written over: 0 a tensor of its own, 1 dy, 2 the residual. */
static void backward_case(bench *b, size_t R, size_t C, bool with_residual, int where) {
    bench_tensor x = draw_x(b, R, C);
    bench_tensor dy = bench_random(b, 1.0f, R, C, 0);
    bench_tensor w = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor residual = bench_random(b, 1.0f, R, C, 0);
    bench_tensor mean = bench_random_f32(b, 1.0f, R, 0, 0);
    bench_tensor rstd = bench_random_f32(b, 1.0f, R, 0, 0);
    bench_tensor dw = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor db = bench_random_f32(b, 1.0f, C, 0, 0);
    bench_tensor own = bench_poison(b, R, C, 0);
    bench_tensor *dx = where == 0 ? &own : where == 1 ? &dy : &residual;
    double *expected = bench_doubles(&own);
    double *expected_w = bench_doubles(&dw);
    double *expected_b = bench_doubles(&db);
    reference_backward(&dy, &x, &w, &mean, &rstd, R, C, expected, expected_w, expected_b);
    for (size_t i = 0; with_residual && i < R * C; i++)
        expected[i] += (double)residual.host[i];
    b->ops->layernorm_backward_weight(b->device, &dy.on, &x.on, &mean.on, &rstd.on, &dw.on, &db.on);
    b->ops->layernorm_backward_input(b->device, &dy.on, &x.on, &w.on, &mean.on, &rstd.on,
                                     with_residual ? &residual.on : NULL, &dx->on);
    bench_expect(b, dx, expected, "dx");
    bench_expect(b, &dw, expected_w, "dw");
    bench_expect(b, &db, expected_b, "db");
    free(expected);
    free(expected_w);
    free(expected_b);
}

static void test_norm_of_any_size_matches_double_loops(void **state) {
    (void)state;
    mr_dropout dropout = {.key = mr_random_key_make(9, MR_RANDOM_DROPOUT, 2, 3, 4),
                          .probability = 0.25f};
    mr_dropout none = {.key = dropout.key};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < SHAPES; i++) {
            bench b;
            size_t R = shapes[i][0];
            size_t C = shapes[i][1];
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            if (C > 1) /* one element has no variance: y is all rounding */
                forward_case(&b, R, C);
            if (C > 1) {
                residual_case(&b, R, C, &dropout);
                residual_case(&b, R, C, &none);
            }
            backward_case(&b, R, C, false, 0);
            backward_case(&b, R, C, true, 0);
            backward_case(&b, R, C, true, 1);
            backward_case(&b, R, C, true, 2);
            bench_close(&b);
        }
}

static double probe(bench *b, bench_tensor *x, const bench_tensor *w, const bench_tensor *shift,
                    const bench_tensor *direction, bench_tensor *y, bench_tensor *mean,
                    bench_tensor *rstd) {
    double sum = 0.0;
    bench_push(b, x);
    b->ops->layernorm_forward(b->device, &x->on, &w->on, &shift->on, eps, &y->on, &mean->on,
                              &rstd->on);
    bench_fetch(b, y);
    for (size_t i = 0; i < y->n; i++)
        sum += (double)y->host[i] * (double)direction->host[i];
    return sum;
}

static void test_norm_gradient_matches_finite_differences(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        /* A step that two bytes can tell apart is too long for a slope. */
        if (bench_is_half(bench_rows[row].dtype) || !bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor x = bench_random(&b, 2.0f, 3, 19, 0);
        bench_tensor w = bench_random_f32(&b, 1.0f, 19, 0, 0);
        bench_tensor shift = bench_random_f32(&b, 1.0f, 19, 0, 0);
        bench_tensor direction = bench_random(&b, 1.0f, 3, 19, 0);
        bench_tensor y = bench_poison(&b, 3, 19, 0);
        bench_tensor mean = bench_poison_f32(&b, 3, 0, 0);
        bench_tensor rstd = bench_poison_f32(&b, 3, 0, 0);
        bench_tensor dx = bench_poison(&b, 3, 19, 0);
        (void)probe(&b, &x, &w, &shift, &direction, &y, &mean, &rstd);
        b.ops->layernorm_backward_input(b.device, &direction.on, &x.on, &w.on, &mean.on, &rstd.on,
                                        NULL, &dx.on);
        bench_fetch(&b, &dx);
        const float step = 1.0f / 64.0f;
        for (size_t i = 0; i < x.n; i++) {
            float at = x.host[i];
            x.host[i] = at + step;
            double above = probe(&b, &x, &w, &shift, &direction, &y, &mean, &rstd);
            x.host[i] = at - step;
            double below = probe(&b, &x, &w, &shift, &direction, &y, &mean, &rstd);
            x.host[i] = at;
            double slope = (above - below) / (2.0 * (double)step);
            assert_true(fabs(slope - (double)dx.host[i]) < 1e-3);
        }
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm_of_any_size_matches_double_loops),
        cmocka_unit_test(test_norm_gradient_matches_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
