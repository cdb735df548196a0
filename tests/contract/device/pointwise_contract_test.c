/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: activations, dropout, sums of tensors, copies.
 * Method: every device against double loops on odd sizes, in place where the contract allows it;
 * masks word for word against the generator and by their share of zeros; derivatives by finite
 * differences of the double formula. */
#include "tests/contract/device/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/base/half.h"

static const size_t sizes[] = {1, 3, 17, 65, 1000, 40000};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static double activation(mr_pointwise kind, double x) {
    if (kind == MR_POINTWISE_RELU)
        return x > 0.0 ? x : 0.0;
    if (kind == MR_POINTWISE_SILU)
        return x / (1.0 + exp(-x));
    /* (1 + tanh u) / 2 = 1 / (1 + exp(-2u)), which keeps its digits where tanh is near -1 */
    double u = sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(-2.0 * u));
}

static double slope(mr_pointwise kind, double x) {
    if (kind == MR_POINTWISE_RELU)
        return x > 0.0 ? 1.0 : 0.0;
    double h = 1e-4; /* five points: an error of h^4 */
    return (8.0 * (activation(kind, x + h) - activation(kind, x - h)) -
            (activation(kind, x + 2.0 * h) - activation(kind, x - 2.0 * h))) /
           (12.0 * h);
}

static void pointwise_case(bench *b, mr_pointwise kind, size_t n, bool in_place) {
    bench_tensor x = bench_random(b, 6.0f, n, 0, 0);
    bench_tensor dy = bench_random(b, 1.0f, n, 0, 0);
    bench_tensor y = bench_poison(b, n, 0, 0);
    bench_tensor own = bench_poison(b, n, 0, 0);
    bench_tensor *dx = in_place ? &dy : &own;
    double *expected = bench_doubles(&x);
    double *expected_dx = bench_doubles(&dy);
    for (size_t i = 0; i < n; i++) {
        expected_dx[i] *= slope(kind, expected[i]);
        expected[i] = activation(kind, expected[i]);
    }
    b->ops->pointwise_forward(b->device, kind, &x.on, &y.on);
    b->ops->pointwise_backward(b->device, kind, &x.on, &dy.on, &dx->on);
    bench_expect(b, &y, expected, "y");
    bench_expect(b, dx, expected_dx, "dx");
    free(expected);
    free(expected_dx);
}

static void test_pointwise_of_any_size_matches_double_formulas(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < SIZES; i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            for (int kind = 0; kind < MR_POINTWISE_COUNT; kind++) {
                pointwise_case(&b, (mr_pointwise)kind, sizes[i], false);
                pointwise_case(&b, (mr_pointwise)kind, sizes[i], true);
            }
            bench_close(&b);
        }
}

/* Relative accuracy over the whole range where the result is not tiny. */
static void test_activations_are_accurate_over_their_range(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        enum { N = 16001 };
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        double relative = bench_tolerance(b.dtype, 2e-6);
        bench_tensor x = bench_poison(&b, N, 0, 0);
        bench_tensor y = bench_poison(&b, N, 0, 0);
        for (size_t i = 0; i < N; i++)
            x.host[i] = ((float)i - 8000.0f) / 400.0f;
        bench_push(&b, &x);
        for (int kind = 0; kind < MR_POINTWISE_COUNT; kind++) {
            b.ops->pointwise_forward(b.device, (mr_pointwise)kind, &x.on, &y.on);
            bench_fetch(&b, &y);
            for (size_t i = 0; i < N; i++) {
                double expected = activation((mr_pointwise)kind, (double)x.host[i]);
                double error = fabs((double)y.host[i] - expected);
                double bound = (double)x.host[i] > -4.0 ? relative * fabs(expected) : 1e-6;
                bound = fmax(bound, relative * fabs(expected));
                assert_true(error <= bound);
            }
        }
        bench_close(&b);
    }
}

static void test_not_a_number_passes_through_activations(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor x = bench_poison(&b, 37, 0, 0);
        bench_tensor y = bench_random(&b, 1.0f, 37, 0, 0);
        for (int kind = 0; kind < MR_POINTWISE_COUNT; kind++) {
            b.ops->pointwise_forward(b.device, (mr_pointwise)kind, &x.on, &y.on);
            bench_fetch(&b, &y);
            for (size_t i = 0; i < 37; i++)
                assert_true(isnan(y.host[i]));
        }
        bench_close(&b);
    }
}

static void dropout_case(bench *b, float probability, size_t n, bool in_place) {
    mr_dropout dropout = {.key = mr_random_key_make(5, MR_RANDOM_DROPOUT, n, 3, 4),
                          .probability = probability};
    bench_tensor x = bench_random(b, 1.0f, n, 0, 0);
    bench_tensor own = bench_poison(b, n, 0, 0);
    bench_tensor *y = in_place ? &x : &own;
    bench_tensor a = bench_random(b, 1.0f, n, 0, 0);
    bench_tensor c = bench_random(b, 1.0f, n, 0, 0);
    bench_tensor own_sum = bench_poison(b, n, 0, 0);
    bench_tensor *sum = in_place ? &a : &own_sum;
    double *expected = bench_doubles(&x);
    double *expected_sum = bench_doubles(&a);
    for (size_t i = 0; i < n; i++) {
        expected[i] *= bench_mask(&dropout, i);
        expected_sum[i] += (double)c.host[i] * bench_mask(&dropout, i);
    }
    b->ops->dropout(b->device, &dropout, &x.on, &y->on);
    b->ops->add(b->device, &a.on, &c.on, &dropout, &sum->on);
    bench_expect(b, y, expected, "y");
    bench_expect(b, sum, expected_sum, "sum");
    free(expected);
    free(expected_sum);
}

static void test_dropout_draws_the_generators_words(void **state) {
    (void)state;
    static const float probabilities[] = {0.0f, 0.1f, 0.5f, 0.99f};
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t i = 0; i < SIZES; i++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            for (size_t p = 0; p < 4; p++) {
                dropout_case(&b, probabilities[p], sizes[i], false);
                dropout_case(&b, probabilities[p], sizes[i], true);
            }
            bench_close(&b);
        }
}

static void test_dropout_zeroes_its_share(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        enum { N = 100000 };
        mr_dropout dropout = {.key = mr_random_key_make(6, MR_RANDOM_DROPOUT, 2, 3, 4),
                              .probability = 0.2f};
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        bench_tensor x = bench_poison(&b, N, 0, 0);
        size_t zeros = 0;
        for (size_t i = 0; i < N; i++)
            x.host[i] = 1.0f;
        bench_push(&b, &x);
        b.ops->dropout(b.device, &dropout, &x.on, &x.on);
        bench_fetch(&b, &x);
        for (size_t i = 0; i < N; i++)
            zeros += x.host[i] == 0.0f;
        assert_in_range(zeros, 19400, 20600); /* 20000 and about five deviations */
        bench_close(&b);
    }
}

static void test_sums_and_copies_match_double_loops(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t k = 0; k < SIZES; k++) {
            bench b;
            size_t n = sizes[k];
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            bench_tensor a = bench_random(&b, 1.0f, n, 0, 0);
            bench_tensor c = bench_random(&b, 1.0f, n, 0, 0);
            bench_tensor out = bench_poison(&b, n, 0, 0);
            double *expected = bench_doubles(&a);
            double *expected_c = bench_doubles(&c);
            for (size_t i = 0; i < n; i++)
                expected[i] += expected_c[i];
            b.ops->add(b.device, &a.on, &c.on, NULL, &out.on);
            bench_expect(&b, &out, expected, "sum");
            b.ops->add(b.device, &out.on, &c.on, NULL, &c.on);
            for (size_t i = 0; i < n; i++)
                expected_c[i] += (double)out.host[i]; /* rounded, as the device reads it */
            bench_expect(&b, &c, expected_c, "c");
            b.ops->copy(b.device, out.on.data, a.on.data, bench_bytes(&a));
            for (size_t i = 0; i < n; i++)
                expected[i] = (double)a.host[i];
            bench_expect(&b, &out, expected, "copy");
            b.ops->zero(b.device, out.on.data, bench_bytes(&out));
            memset(expected, 0, n * sizeof(double));
            bench_expect(&b, &out, expected, "zero");
            free(expected);
            free(expected_c);
            bench_close(&b);
        }
}

static void test_accumulated_gradients_match_double_loops(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t k = 0; k < SIZES; k++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            bench_tensor a = bench_random_f32(&b, 1.0f, sizes[k], 0, 0);
            bench_tensor c = bench_random_f32(&b, 1.0f, sizes[k], 0, 0);
            double *expected = bench_doubles(&a);
            for (size_t i = 0; i < sizes[k]; i++)
                expected[i] += (double)c.host[i];
            b.ops->accumulate(b.device, &a.on, &c.on);
            bench_expect(&b, &a, expected, "a");
            free(expected);
            bench_close(&b);
        }
}

/* Numbers whose rounding is known, among them ties, the largest floats and what is no number. */
typedef struct rounding {
    uint32_t from;
    uint32_t to; /* the bits of the f32 that the short number stands for */
} rounding;
enum { ROUNDINGS = 13 };
static const rounding roundings_bf16[ROUNDINGS] = {
    {0x3f800000, 0x3f800000}, /* 1 */
    {0x3f808000, 0x3f800000}, /* a tie: to the even neighbour below */
    {0x3f818000, 0x3f820000}, /* a tie: to the even neighbour above */
    {0x3f808001, 0x3f810000}, {0x3f807fff, 0x3f800000}, {0xbf808001, 0xbf810000},
    {0x00000000, 0x00000000}, {0x80000000, 0x80000000},
    {0x7f7fffff, 0x7f800000}, /* the largest float: infinity is nearer */
    {0x7f7f7fff, 0x7f7f0000}, {0x7f800000, 0x7f800000}, {0xff800000, 0xff800000},
    {0x00800000, 0x00800000}, /* the smallest normal number */
};
static const rounding roundings_f16[ROUNDINGS] = {
    {0x3f800000, 0x3f800000}, /* 1 */
    {0x3f801000, 0x3f800000}, /* a tie: to the even neighbour below */
    {0x3f803000, 0x3f804000}, /* a tie: to the even neighbour above */
    {0x3f801001, 0x3f802000},
    {0xc77fe000, 0xc77fe000}, /* -65504, the largest */
    {0x477fefff, 0x477fe000}, /* below 65520: the largest is nearer */
    {0x477ff000, 0x7f800000}, /* 65520: infinity */
    {0x80000000, 0x80000000}, {0xff800000, 0xff800000},
    {0x38800000, 0x38800000}, /* 2^-14, the smallest normal number */
    {0x387fe000, 0x38800000}, /* a tie just below it: to even */
    {0x33800000, 0x33800000}, /* 2^-24, the smallest of all */
    {0x33000000, 0x00000000}, /* half of it: a tie, to zero */
};

static void cast_case(bench *b, size_t n) {
    const rounding *roundings = b->dtype == MR_DTYPE_F16 ? roundings_f16 : roundings_bf16;
    bench_tensor x = bench_random_f32(b, 3.0f, n, 0, 0);
    for (size_t i = 0; i < ROUNDINGS && i < n; i++)
        memcpy(&x.host[i], &roundings[i].from, sizeof(float));
    if (n > ROUNDINGS) {
        uint32_t hidden = 0x7f800001; /* all of its payload is in the half that goes away */
        memcpy(&x.host[ROUNDINGS], &hidden, sizeof(hidden));
    }
    bench_push(b, &x);
    bench_tensor y = bench_poison(b, n, 0, 0);
    bench_tensor back = bench_poison_f32(b, n, 0, 0);
    b->ops->cast(b->device, &x.on, &y.on);
    b->ops->cast(b->device, &y.on, &back.on);
    bench_fetch(b, &y);
    bench_fetch(b, &back);
    assert_memory_equal(y.host, back.host, n * sizeof(float)); /* widening is exact */
    for (size_t i = 0; i < n; i++) {
        float expected = x.host[i];
        if (b->dtype != MR_DTYPE_F32)
            expected = mr_half_widen(b->dtype, mr_half_round(b->dtype, x.host[i]));
        if (b->dtype != MR_DTYPE_F32 && i < ROUNDINGS)
            memcpy(&expected, &roundings[i].to, sizeof(expected));
        if (isnan(x.host[i]))
            assert_true(isnan(y.host[i]));
        else
            assert_memory_equal(&y.host[i], &expected, sizeof(expected));
    }
}

static void test_cast_rounds_to_nearest_even_and_widens_exactly(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++)
        for (size_t k = 0; k < SIZES; k++) {
            bench b;
            if (!bench_open(&b, &bench_rows[row]))
                continue;
            cast_case(&b, sizes[k]);
            bench_close(&b);
        }
}

static void test_memory_is_zeroed_and_aligned(void **state) {
    (void)state;
    for (size_t row = 0; row < bench_row_count; row++) {
        bench b;
        mr_device_memory memory;
        unsigned char host[5000];
        if (!bench_open(&b, &bench_rows[row]))
            continue;
        mr_status status = b.ops->memory_create(b.device, sizeof(host), &memory);
        assert_int_equal(status.code, MR_CODE_OK);
        assert_int_equal(memory.bytes, sizeof(host));
        assert_int_equal((uintptr_t)memory.base % 64, 0);
        memset(host, 1, sizeof(host));
        b.ops->copy_out(b.device, host, memory.base, sizeof(host));
        for (size_t i = 0; i < sizeof(host); i++)
            assert_int_equal(host[i], 0);
        b.ops->memory_destroy(b.device, &memory);
        status = b.ops->memory_create(b.device, SIZE_MAX / 2, &memory);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointwise_of_any_size_matches_double_formulas),
        cmocka_unit_test(test_activations_are_accurate_over_their_range),
        cmocka_unit_test(test_not_a_number_passes_through_activations),
        cmocka_unit_test(test_dropout_draws_the_generators_words),
        cmocka_unit_test(test_dropout_zeroes_its_share),
        cmocka_unit_test(test_sums_and_copies_match_double_loops),
        cmocka_unit_test(test_accumulated_gradients_match_double_loops),
        cmocka_unit_test(test_cast_rounds_to_nearest_even_and_widens_exactly),
        cmocka_unit_test(test_memory_is_zeroed_and_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
