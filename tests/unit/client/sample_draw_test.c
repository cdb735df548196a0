/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: tokens are drawn by softmax(logits / temperature) among the k likeliest, the same for the
 * same seed and number. Method: frequencies over many draws against the exact probabilities; edge
 * cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "client/sample.h"

static uint32_t draw(const mr_sample_settings *settings, const float *logits, size_t V,
                     uint64_t index) {
    uint32_t order[16];
    uint32_t token = UINT32_MAX;
    assert_true(V <= 16);
    mr_status status = mr_sample_token(settings, logits, V, index, order, &token);
    assert_int_equal(status.code, MR_CODE_OK);
    assert_true(token < V);
    return token;
}

static void test_temperature_zero_takes_the_likeliest_and_of_equals_the_lowest(void **state) {
    (void)state;
    static const float logits[6] = {1, 3, -2, 3, 0, 2.5f};
    for (uint64_t i = 0; i < 50; i++)
        assert_int_equal(draw(&(mr_sample_settings){.seed = i}, logits, 6, i), 1);
}

static void test_top_one_takes_the_likeliest_at_any_temperature(void **state) {
    (void)state;
    static const float logits[4] = {0, 0.1f, 0.2f, 0.15f};
    const mr_sample_settings settings = {.temperature = 100, .top_k = 1, .seed = 4};
    for (uint64_t i = 0; i < 50; i++)
        assert_int_equal(draw(&settings, logits, 4, i), 2);
}

static void check_frequencies(double temperature, size_t top_k, const float *logits, size_t V,
                              const double *probabilities) {
    enum { DRAWS = 20000 };
    unsigned counts[16] = {0};
    const mr_sample_settings settings = {.temperature = temperature, .top_k = top_k, .seed = 77};
    for (uint64_t i = 0; i < DRAWS; i++)
        counts[draw(&settings, logits, V, i)]++;
    for (size_t v = 0; v < V; v++) {
        double p = probabilities[v];
        double deviation = sqrt(p * (1 - p) / DRAWS);
        assert_true(fabs((double)counts[v] / DRAWS - p) <= 5 * deviation);
    }
}

static void test_frequencies_are_softmax_of_scaled_scores(void **state) {
    (void)state;
    static const float logits[5] = {0.5f, -1, 2, 1, 0};
    double p[5];
    double sum = 0;
    for (size_t i = 0; i < 5; i++)
        sum += p[i] = exp((double)logits[i] / 0.8);
    for (size_t i = 0; i < 5; i++)
        p[i] /= sum;
    check_frequencies(0.8, 0, logits, 5, p);
    check_frequencies(0.8, 9, logits, 5, p); /* more than there are: all */
}

static void test_top_k_leaves_the_rest_out(void **state) {
    (void)state;
    static const float logits[6] = {0, 5, 1, 4, -3, 4.5f};
    double p[6] = {0};
    double sum = exp(5.0) + exp(4.0) + exp(4.5);
    p[1] = exp(5.0) / sum;
    p[3] = exp(4.0) / sum;
    p[5] = exp(4.5) / sum;
    check_frequencies(1, 3, logits, 6, p);
}

static void test_seed_and_number_decide(void **state) {
    (void)state;
    static const float logits[8] = {0};
    mr_sample_settings settings = {.temperature = 1, .seed = 5};
    size_t other_seed = 0;
    size_t other_number = 0;
    for (uint64_t i = 0; i < 400; i++) {
        uint32_t token = draw(&settings, logits, 8, i);
        assert_int_equal(draw(&settings, logits, 8, i), token);
        other_number += draw(&settings, logits, 8, i + 1) != token;
        other_seed +=
            draw(&(mr_sample_settings){.temperature = 1, .seed = 6}, logits, 8, i) != token;
    }
    assert_true(other_number > 300);
    assert_true(other_seed > 300);
}

static void test_huge_scores_do_not_overflow(void **state) {
    (void)state;
    static const float logits[3] = {3e38f, -3e38f, 3e38f};
    const mr_sample_settings settings = {.temperature = 0.1, .seed = 1};
    for (uint64_t i = 0; i < 50; i++)
        assert_int_not_equal(draw(&settings, logits, 3, i), 1);
}

static void test_a_score_that_is_not_finite_is_refused_by_token(void **state) {
    (void)state;
    const float logits[3] = {0, NAN, 1};
    uint32_t order[3];
    uint32_t token;
    const mr_sample_settings settings = {.temperature = 1};
    mr_status status = mr_sample_token(&settings, logits, 3, 0, order, &token);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "token 1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temperature_zero_takes_the_likeliest_and_of_equals_the_lowest),
        cmocka_unit_test(test_top_one_takes_the_likeliest_at_any_temperature),
        cmocka_unit_test(test_frequencies_are_softmax_of_scaled_scores),
        cmocka_unit_test(test_top_k_leaves_the_rest_out),
        cmocka_unit_test(test_seed_and_number_decide),
        cmocka_unit_test(test_huge_scores_do_not_overflow),
        cmocka_unit_test(test_a_score_that_is_not_finite_is_refused_by_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
