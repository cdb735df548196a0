/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: attention, forward and backward, with and without the causal mask and dropout.
 * Method: every device against double loops that follow the definition (scores, softmax, mask of
 * factors, weighted sum, and its derivative by the chain rule), odd sizes and sizes that cross the
 * borders of blocks; and finite differences through the double loops' own input. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct attention_case {
    size_t B;
    size_t T;
    size_t NH;
    size_t D;
    bool causal;
    const mr_dropout *dropout;
} attention_case;

/* Probabilities of row i of one head; returns log-sum-exp. */
static double row_probabilities(const attention_case *s, const double *qkv, size_t b, size_t h,
                                size_t i, double *p) {
    size_t C = s->NH * s->D;
    const double *q = qkv + (b * s->T + i) * 3 * C + h * s->D;
    size_t count = s->causal ? i + 1 : s->T;
    double max = -INFINITY;
    double sum = 0.0;
    for (size_t j = 0; j < count; j++) {
        const double *k = qkv + (b * s->T + j) * 3 * C + C + h * s->D;
        p[j] = 0.0;
        for (size_t d = 0; d < s->D; d++)
            p[j] += q[d] * k[d] / sqrt((double)s->D);
        max = fmax(max, p[j]);
    }
    for (size_t j = 0; j < count; j++)
        sum += exp(p[j] - max);
    for (size_t j = 0; j < s->T; j++)
        p[j] = j < count ? exp(p[j] - max) / sum : 0.0;
    return max + log(sum);
}

static double factor_at(const attention_case *s, size_t b, size_t h, size_t i, size_t j) {
    return bench_mask(s->dropout, ((b * s->NH + h) * s->T + i) * s->T + j);
}

static void reference_forward(const attention_case *s, const double *qkv, double *out,
                              double *lse) {
    size_t C = s->NH * s->D;
    double *p = malloc(s->T * sizeof(double));
    for (size_t b = 0; b < s->B; b++)
        for (size_t h = 0; h < s->NH; h++)
            for (size_t i = 0; i < s->T; i++) {
                double *o = out + (b * s->T + i) * C + h * s->D;
                lse[(b * s->NH + h) * s->T + i] = row_probabilities(s, qkv, b, h, i, p);
                memset(o, 0, s->D * sizeof(double));
                for (size_t j = 0; j < s->T; j++)
                    for (size_t d = 0; d < s->D; d++)
                        o[d] += p[j] * factor_at(s, b, h, i, j) *
                                qkv[(b * s->T + j) * 3 * C + 2 * C + h * s->D + d];
            }
    free(p);
}

/* Row i of one head: adds to dqkv. dp: scratch [T]. out: forward's, as it was rounded: the mean of
 * dp is dout out, and in bf16 that is what the operation can know of it. */
static void reference_backward_row(const attention_case *s, const double *qkv,
                                   const bench_tensor *out, const double *dout, size_t b, size_t h,
                                   size_t i, const double *p, double *dp, double *dqkv) {
    size_t C = s->NH * s->D;
    const double *o = dout + (b * s->T + i) * C + h * s->D;
    size_t q = (b * s->T + i) * 3 * C + h * s->D;
    double mean = 0.0;
    for (size_t j = 0; j < s->T; j++) {
        size_t v = (b * s->T + j) * 3 * C + 2 * C + h * s->D;
        double factor = factor_at(s, b, h, i, j);
        dp[j] = 0.0;
        for (size_t d = 0; d < s->D; d++) {
            dp[j] += o[d] * qkv[v + d] * factor;
            dqkv[v + d] += p[j] * factor * o[d];
        }
    }
    for (size_t d = 0; d < s->D; d++)
        mean += o[d] * (double)out->host[(b * s->T + i) * C + h * s->D + d];
    for (size_t j = 0; j < s->T; j++) {
        size_t k = (b * s->T + j) * 3 * C + C + h * s->D;
        double ds = p[j] * (dp[j] - mean) / sqrt((double)s->D);
        for (size_t d = 0; d < s->D; d++) {
            dqkv[q + d] += ds * qkv[k + d];
            dqkv[k + d] += ds * qkv[q + d];
        }
    }
}

static void reference_backward(const attention_case *s, const double *qkv, const bench_tensor *out,
                               const double *dout, double *dqkv) {
    size_t C = s->NH * s->D;
    double *p = malloc(2 * s->T * sizeof(double));
    memset(dqkv, 0, s->B * s->T * 3 * C * sizeof(double));
    for (size_t b = 0; b < s->B; b++)
        for (size_t h = 0; h < s->NH; h++)
            for (size_t i = 0; i < s->T; i++) {
                (void)row_probabilities(s, qkv, b, h, i, p);
                reference_backward_row(s, qkv, out, dout, b, h, i, p, p + s->T, dqkv);
            }
    free(p);
}

static void attention_run(bench *b, const attention_case *s) {
    size_t C = s->NH * s->D;
    bench_tensor qkv = bench_random(b, 2.0f, s->B, s->T, 3 * C);
    bench_tensor out = bench_poison(b, s->B, s->T, C);
    bench_tensor lse = bench_poison_f32(b, s->B, s->NH, s->T);
    bench_tensor dout = bench_random(b, 1.0f, s->B, s->T, C);
    bench_tensor dqkv = bench_poison(b, s->B, s->T, 3 * C);
    double *x = bench_doubles(&qkv);
    double *dy = bench_doubles(&dout);
    double *expected = bench_doubles(&out);
    double *expected_lse = bench_doubles(&lse);
    double *expected_dqkv = bench_doubles(&dqkv);
    reference_forward(s, x, expected, expected_lse);
    b->ops->attention_forward(b->device, &qkv.on, s->NH, s->causal, s->dropout, &out.on, &lse.on);
    bench_expect(b, &out, expected, "out");
    bench_expect(b, &lse, expected_lse, "lse");
    reference_backward(s, x, &out, dy, expected_dqkv);
    b->ops->attention_backward(b->device, &dout.on, &qkv.on, &out.on, &lse.on, s->NH, s->causal,
                               s->dropout, &dqkv.on);
    bench_expect(b, &dqkv, expected_dqkv, "dqkv");
    free(x);
    free(dy);
    free(expected);
    free(expected_lse);
    free(expected_dqkv);
}

static void test_attention_of_any_size_matches_double_loops(void **state) {
    (void)state;
    static const size_t shapes[][4] = {{1, 1, 1, 1},  {2, 3, 1, 17},  {1, 17, 3, 3}, {2, 65, 2, 16},
                                       {1, 130, 1, 64}, {1, 65, 2, 20}, {2, 40, 2, 33}};
    static const float probabilities[] = {0.0f, 0.3f};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            for (int what = 0; what < 4; what++) {
                mr_dropout dropout = {.key = mr_random_key_make(1, MR_RANDOM_DROPOUT, 2, 3, 4),
                                      .probability = probabilities[what / 2]};
                attention_case s = {.B = shapes[i][0],
                                    .T = shapes[i][1],
                                    .NH = shapes[i][2],
                                    .D = shapes[i][3],
                                    .causal = what % 2 == 0,
                                    .dropout = &dropout};
                attention_run(&b, &s);
            }
            bench_close(&b);
        }
}

static void test_attention_without_dropout_takes_null(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        attention_case s = {.B = 2, .T = 9, .NH = 2, .D = 8, .causal = true};
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        attention_run(&b, &s);
        bench_close(&b);
    }
}

/* sum(out * direction) as a function of qkv, by the device. */
static double probe(bench *b, bench_tensor *qkv, const bench_tensor *direction, bench_tensor *out,
                    bench_tensor *lse) {
    double sum = 0.0;
    bench_push(b, qkv);
    b->ops->attention_forward(b->device, &qkv->on, 2, true, NULL, &out->on, &lse->on);
    bench_fetch(b, out);
    for (size_t i = 0; i < out->n; i++)
        sum += (double)out->host[i] * (double)direction->host[i];
    return sum;
}

static void test_attention_gradient_matches_finite_differences(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        /* A step that two bytes can tell apart is too long for a slope. */
        if (bench_is_half(bench_rows[row].dtype) || !bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor qkv = bench_random(&b, 1.0f, 1, 5, 3 * 8);
        bench_tensor direction = bench_random(&b, 1.0f, 1, 5, 8);
        bench_tensor out = bench_poison(&b, 1, 5, 8);
        bench_tensor lse = bench_poison_f32(&b, 1, 2, 5);
        bench_tensor dqkv = bench_poison(&b, 1, 5, 3 * 8);
        (void)probe(&b, &qkv, &direction, &out, &lse);
        b.ops->attention_backward(b.device, &direction.on, &qkv.on, &out.on, &lse.on, 2, true, NULL,
                                  &dqkv.on);
        bench_fetch(&b, &dqkv);
        const float step = 1.0f / 64.0f;
        for (size_t i = 0; i < qkv.n; i++) {
            float at = qkv.host[i];
            qkv.host[i] = at + step;
            double above = probe(&b, &qkv, &direction, &out, &lse);
            qkv.host[i] = at - step;
            double below = probe(&b, &qkv, &direction, &out, &lse);
            qkv.host[i] = at;
            double slope = (above - below) / (2.0 * (double)step);
            assert_true(fabs(slope - (double)dqkv.host[i]) < 2e-3);
        }
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_of_any_size_matches_double_loops),
        cmocka_unit_test(test_attention_without_dropout_takes_null),
        cmocka_unit_test(test_attention_gradient_matches_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
