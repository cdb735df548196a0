/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: products of activations and weights, bias gradients, embeddings.
 * Method: every device against double loops on random data, odd sizes and sizes that cross the
 * borders of blocks; outputs that are overwritten start as not-a-number, outputs that are added to
 * start at random. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t sizes[][3] = {
    {1, 1, 1}, {3, 17, 65}, {17, 3, 1}, {1, 65, 17}, {65, 65, 65}, {300, 40, 200}, {130, 200, 300},
    {513, 33, 800},
};

typedef struct linear_case {
    size_t R;
    size_t IN;
    size_t OUT;
} linear_case;

static void forward_case(bench *b, linear_case s, bool with_bias) {
    bench_tensor x = bench_random(b, 1.0f, s.R, s.IN, 0);
    bench_tensor w = bench_random(b, 1.0f, s.OUT, s.IN, 0);
    bench_tensor bias = bench_random_f32(b, 1.0f, s.OUT, 0, 0);
    bench_tensor y = bench_poison(b, s.R, s.OUT, 0);
    double *expected = bench_doubles(&y);
    for (size_t r = 0; r < s.R; r++)
        for (size_t o = 0; o < s.OUT; o++) {
            double sum = with_bias ? (double)bias.host[o] : 0.0;
            for (size_t i = 0; i < s.IN; i++)
                sum += (double)x.host[r * s.IN + i] * (double)w.host[o * s.IN + i];
            expected[r * s.OUT + o] = sum;
        }
    b->ops->linear_forward(b->device, &x.on, &w.on, with_bias ? &bias.on : NULL, &y.on);
    bench_expect(b, &y, expected, "y");
    free(expected);
}

static void backward_input_case(bench *b, linear_case s) {
    bench_tensor dy = bench_random(b, 1.0f, s.R, s.OUT, 0);
    bench_tensor w = bench_random(b, 1.0f, s.OUT, s.IN, 0);
    bench_tensor dx = bench_poison(b, s.R, s.IN, 0);
    double *expected = bench_doubles(&dx);
    for (size_t r = 0; r < s.R; r++)
        for (size_t i = 0; i < s.IN; i++) {
            double sum = 0.0;
            for (size_t o = 0; o < s.OUT; o++)
                sum += (double)dy.host[r * s.OUT + o] * (double)w.host[o * s.IN + i];
            expected[r * s.IN + i] = sum;
        }
    b->ops->linear_backward_input(b->device, &dy.on, &w.on, &dx.on);
    bench_expect(b, &dx, expected, "dx");
    free(expected);
}

static void backward_weight_case(bench *b, linear_case s, bool with_bias) {
    bench_tensor dy = bench_random(b, 1.0f, s.R, s.OUT, 0);
    bench_tensor x = bench_random(b, 1.0f, s.R, s.IN, 0);
    bench_tensor dw = bench_random_f32(b, 3.0f, s.OUT, s.IN, 0);
    bench_tensor dbias = bench_random_f32(b, 3.0f, s.OUT, 0, 0);
    double *expected_w = bench_doubles(&dw);
    double *expected_bias = bench_doubles(&dbias);
    for (size_t r = 0; r < s.R; r++)
        for (size_t o = 0; o < s.OUT; o++) {
            double g = (double)dy.host[r * s.OUT + o];
            if (with_bias)
                expected_bias[o] += g;
            for (size_t i = 0; i < s.IN; i++)
                expected_w[o * s.IN + i] += g * (double)x.host[r * s.IN + i];
        }
    b->ops->linear_backward_weight(b->device, &dy.on, &x.on, &dw.on,
                                   with_bias ? &dbias.on : NULL);
    bench_expect(b, &dw, expected_w, "dw");
    bench_expect(b, &dbias, expected_bias, "dbias");
    free(expected_w);
    free(expected_bias);
}

static void test_linear_of_any_size_matches_double_loops(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            bench b;
            linear_case s = {sizes[i][0], sizes[i][1], sizes[i][2]};
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            for (int with_bias = 0; with_bias <= 1; with_bias++) {
                forward_case(&b, s, with_bias);
                backward_weight_case(&b, s, with_bias);
            }
            backward_input_case(&b, s);
            bench_close(&b);
        }
}

/* x [B, T, IN] counts as B T rows. */
static void test_linear_with_three_dimensions_takes_all_but_the_last_as_rows(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor x = bench_random(&b, 1.0f, 2, 3, 4);
        bench_tensor w = bench_random(&b, 1.0f, 5, 4, 0);
        bench_tensor y = bench_poison(&b, 2, 3, 5);
        double *expected = bench_doubles(&y);
        for (size_t i = 0; i < 30; i++) {
            expected[i] = 0.0;
            for (size_t k = 0; k < 4; k++)
                expected[i] += (double)x.host[i / 5 * 4 + k] * (double)w.host[i % 5 * 4 + k];
        }
        b.ops->linear_forward(b.device, &x.on, &w.on, NULL, &y.on);
        bench_expect(&b, &y, expected, "y");
        free(expected);
        bench_close(&b);
    }
}

static void embedding_case(bench *b, size_t B, size_t T, size_t C, size_t V, bool positions) {
    bench_tensor tokens = bench_integers(b, (int32_t)V, B, T);
    bench_tensor wte = bench_random(b, 1.0f, V, C, 0);
    bench_tensor wpe = bench_random(b, 1.0f, T + 1, C, 0);
    bench_tensor y = bench_poison(b, B, T, C);
    bench_tensor dy = bench_random(b, 1.0f, B, T, C);
    bench_tensor dwte = bench_random_f32(b, 1.0f, V, C, 0);
    bench_tensor dwpe = bench_random_f32(b, 1.0f, T + 1, C, 0);
    double *expected = bench_doubles(&y);
    double *expected_wte = bench_doubles(&dwte);
    double *expected_wpe = bench_doubles(&dwpe);
    for (size_t r = 0; r < B * T; r++)
        for (size_t c = 0; c < C; c++) {
            size_t token = (size_t)tokens.host_i32[r];
            expected[r * C + c] = (double)wte.host[token * C + c];
            expected_wte[token * C + c] += (double)dy.host[r * C + c];
            if (positions) {
                expected[r * C + c] += (double)wpe.host[r % T * C + c];
                expected_wpe[r % T * C + c] += (double)dy.host[r * C + c];
            }
        }
    b->ops->embedding_forward(b->device, &tokens.on, &wte.on, positions ? &wpe.on : NULL, &y.on);
    b->ops->embedding_backward(b->device, &tokens.on, &dy.on, &dwte.on,
                               positions ? &dwpe.on : NULL);
    bench_expect(b, &y, expected, "y");
    bench_expect(b, &dwte, expected_wte, "dwte");
    bench_expect(b, &dwpe, expected_wpe, "dwpe");
    free(expected);
    free(expected_wte);
    free(expected_wpe);
}

static void test_embedding_of_any_size_matches_double_loops(void **state) {
    (void)state;
    static const size_t shapes[][4] = {
        {1, 1, 1, 1}, {2, 3, 17, 5}, {3, 17, 65, 2}, {2, 40, 300, 9}};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < 4; i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            for (int positions = 0; positions <= 1; positions++)
                embedding_case(&b, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3],
                               positions);
            bench_close(&b);
        }
}

static void expect_latched(bench *b, const char *text) {
    mr_status status = b->ops->check(b->device);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text, text);
    mr_device *device = b->device;
    for (size_t i = 0; i < b->used; i++) {
        b->ops->memory_destroy(b->device, &b->memory[i]);
        free(b->hosts[i]);
    }
    mr_device_destroy(device);
}

static void test_token_outside_the_vocabulary_latches_the_first_error(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor tokens = bench_integers(&b, 4, 2, 3);
        bench_tensor wte = bench_random(&b, 1.0f, 4, 5, 0);
        bench_tensor y = bench_poison(&b, 2, 3, 5);
        bench_tensor dwte = bench_random_f32(&b, 1.0f, 4, 5, 0);
        tokens.host_i32[2] = 4;
        tokens.host_i32[5] = -7;
        bench_push(&b, &tokens);
        b.ops->embedding_forward(b.device, &tokens.on, &wte.on, NULL, &y.on);
        tokens.host_i32[2] = -1;
        bench_push(&b, &tokens);
        b.ops->embedding_backward(b.device, &tokens.on, &y.on, &dwte.on, NULL);
        expect_latched(&b, "token at position 2 is 4; it must be in [0, 4)");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_of_any_size_matches_double_loops),
        cmocka_unit_test(test_linear_with_three_dimensions_takes_all_but_the_last_as_rows),
        cmocka_unit_test(test_embedding_of_any_size_matches_double_loops),
        cmocka_unit_test(test_token_outside_the_vocabulary_latches_the_first_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
