/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the optimizer's step is AdamW as DESIGN section 4 writes it, the norm does not depend on
 * the cut into stages, and clipping follows its formula.
 * Method: five steps against a loop in double over every element, with its own bias correction,
 * decay only on parameters of two dimensions and the learning rates of warm-up and cosine written
 * out here; bf16 masters against those of fp32, bit by bit, and their rounded copies; sums of
 * squares against a double loop, and bit by bit between a whole model and its parts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/half.h"
#include "daemon/stage/optimizer.h"
#include "tests/unit/stage/stage_model.h"

enum { STEPS = 5, PARAMETERS_MAX = 64 };

static const double clip_factor = 0.75;

/* The same parameter in double. */
typedef struct shadow {
    size_t n;
    double *p;
    double *m;
    double *v;
} shadow;

static shadow shadow_make(const stage_model *model, const mr_stage_parameter *parameter) {
    shadow s = {.n = stage_elements(&parameter->weight)};
    s.p = mr_alloc_array(s.n, sizeof *s.p);
    s.m = mr_alloc_array(s.n, sizeof *s.m);
    s.v = mr_alloc_array(s.n, sizeof *s.v);
    assert_true(s.p != NULL && s.m != NULL && s.v != NULL);
    float *weight = stage_read(model, &parameter->weight);
    for (size_t i = 0; i < s.n; i++)
        s.p[i] = (double)weight[i];
    mr_free(weight);
    return s;
}

static void shadow_free(shadow *s) {
    mr_free(s->p);
    mr_free(s->m);
    mr_free(s->v);
}

/* Warm-up over 2 steps to 1e-2, then cosine to 1e-3 at step 10 (stage_model.c's job). */
static double wanted_learning_rate(int step) {
    const double pi = 3.14159265358979323846;
    if (step <= 2)
        return 1e-2 * step / 2;
    return 1e-3 + (1e-2 - 1e-3) * (1 + cos(pi * (step - 2) / 8)) / 2;
}

static void shadow_step(shadow *s, const float *gradient, int step, bool decay) {
    double lr = wanted_learning_rate(step);
    for (size_t i = 0; i < s->n; i++) {
        double g = (double)gradient[i] * clip_factor;
        s->m[i] = 0.9 * s->m[i] + 0.1 * g;
        s->v[i] = 0.95 * s->v[i] + 0.05 * g * g;
        double m_hat = s->m[i] / (1 - pow(0.9, step));
        double v_hat = s->v[i] / (1 - pow(0.95, step));
        s->p[i] -= decay ? lr * 0.1 * s->p[i] : 0;
        s->p[i] -= lr * m_hat / (sqrt(v_hat) + 1e-8);
    }
}

static void shadow_compare(const stage_model *model, const shadow *s,
                           const mr_stage_parameter *parameter) {
    float *weight = stage_read(model, &parameter->weight);
    float *exp_avg = stage_read(model, &parameter->states[0]);
    float *exp_avg_sq = stage_read(model, &parameter->states[1]);
    for (size_t i = 0; i < s->n; i++)
        if (!(fabs((double)weight[i] - s->p[i]) <= 1e-6 * fmax(1, fabs(s->p[i]))) ||
            !(fabs((double)exp_avg[i] - s->m[i]) <= 1e-6) ||
            !(fabs((double)exp_avg_sq[i] - s->v[i]) <= 1e-6))
            fail_msg("%s[%zu]: computed %.9g, formula %.9g", parameter->description->name, i,
                     (double)weight[i], s->p[i]);
    mr_free(exp_avg_sq);
    mr_free(exp_avg);
    mr_free(weight);
}

static void test_steps_follow_the_formula(void **state) {
    (void)state;
    stage_model m;
    shadow shadows[PARAMETERS_MAX];
    stage_model_init_gpt(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    size_t count = mr_parameters_count(p);
    assert_true(count <= PARAMETERS_MAX);
    for (size_t k = 0; k < count; k++)
        shadows[k] = shadow_make(&m, mr_parameters_at(p, k));
    stage_fill_gradients(&m, p);
    for (int step = 1; step <= STEPS; step++) {
        uint64_t allocations = mr_alloc_count();
        mr_optimizer_step(p, (uint64_t)step, clip_factor);
        assert_int_equal(mr_alloc_count(), allocations);
        for (size_t k = 0; k < count; k++) {
            const mr_stage_parameter *parameter = mr_parameters_at(p, k);
            float *gradient = stage_read(&m, &parameter->gradient);
            shadow_step(&shadows[k], gradient, step, parameter->weight.shape.dim_count >= 2);
            mr_free(gradient);
            shadow_compare(&m, &shadows[k], parameter);
        }
    }
    for (size_t k = 0; k < count; k++)
        shadow_free(&shadows[k]);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

/* Fills gradients, makes every holder's tied gradient the same, and appends the sums. */
static size_t stage_sums(stage_model *m, size_t first, size_t end, double *out) {
    mr_parameters *p = stage_model_parameters(m, first, end, true);
    stage_fill_gradients(m, p);
    const mr_stage_parameter *tied = mr_parameters_find_tie(p, "embed", 0);
    if (tied != NULL) {
        float *same = stage_read(m, &tied->weight);
        stage_write(m, &tied->gradient, same);
        mr_free(same);
    }
    size_t count = mr_parameters_owned_count(p);
    mr_optimizer_sums(p, out);
    mr_parameters_destroy(p);
    return count;
}

static void test_norm_has_the_same_bits_for_every_cut(void **state) {
    (void)state;
    stage_model m;
    double whole[PARAMETERS_MAX];
    double parts[PARAMETERS_MAX];
    stage_model_init_gpt(&m);
    size_t count = stage_sums(&m, 0, 5, whole);
    size_t n = stage_sums(&m, 0, 1, parts);
    n += stage_sums(&m, 1, 4, parts + n);
    n += stage_sums(&m, 4, 5, parts + n); /* holds the tied one and owns nothing */
    assert_int_equal(n, count);
    assert_memory_equal(whole, parts, count * sizeof *whole);
    double norm = mr_optimizer_norm(whole, count);
    assert_true(norm > 0 && norm == mr_optimizer_norm(parts, n));
    stage_model_deinit(&m);
}

static void test_sums_are_those_of_a_double_loop(void **state) {
    (void)state;
    stage_model m;
    double sums[PARAMETERS_MAX];
    stage_model_init_gpt(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    stage_fill_gradients(&m, p);
    mr_optimizer_sums(p, sums);
    for (size_t k = 0; k < mr_parameters_count(p); k++) {
        const mr_tensor *gradient = &mr_parameters_at(p, k)->gradient;
        float *g = stage_read(&m, gradient);
        double wanted = 0;
        for (size_t i = 0; i < stage_elements(gradient); i++)
            wanted += (double)g[i] * (double)g[i];
        assert_true(fabs(sums[k] - wanted) <= 1e-5 * wanted);
        mr_free(g);
    }
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

/* Every compute tensor is its master, or the master rounded where it is a matrix. */
static void check_compute(const stage_model *m, const mr_parameters *p) {
    for (size_t k = 0; k < mr_parameters_count(p); k++) {
        const mr_stage_parameter *item = mr_parameters_at(p, k);
        bool matrix = item->weight.shape.dim_count >= 2;
        assert_int_equal(item->weight.shape.dtype, MR_DTYPE_F32);
        assert_int_equal(item->gradient.shape.dtype, MR_DTYPE_F32);
        assert_int_equal(item->compute.shape.dtype, matrix ? MR_DTYPE_BF16 : MR_DTYPE_F32);
        assert_true((item->compute.data == item->weight.data) == !matrix);
        float *master = stage_read(m, &item->weight);
        float *compute = stage_read(m, &item->compute);
        for (size_t i = 0; i < stage_elements(&item->weight); i++) {
            uint16_t half = mr_half_round(MR_DTYPE_BF16, master[i]);
            float wanted = matrix ? mr_half_widen(MR_DTYPE_BF16, half) : master[i];
            assert_true(compute[i] == wanted);
        }
        mr_free(compute);
        mr_free(master);
    }
}

/* The same gradients move the masters of both precisions to the same bits: nothing of the step is
 * rounded, however small it is. */
static void test_bf16_steps_masters_as_f32_does_and_rounds_copies(void **state) {
    (void)state;
    stage_model wide;
    stage_model narrow;
    stage_model_init_gpt(&wide);
    stage_model_init_gpt_bf16(&narrow);
    mr_parameters *p = stage_model_parameters(&wide, 0, 5, true);
    mr_parameters *q = stage_model_parameters(&narrow, 0, 5, true);
    check_compute(&narrow, q);
    stage_fill_gradients(&wide, p);
    stage_fill_gradients(&narrow, q);
    for (uint64_t step = 1; step <= STEPS; step++) {
        mr_optimizer_step(p, step, clip_factor);
        mr_optimizer_step(q, step, clip_factor);
        check_compute(&narrow, q);
    }
    for (size_t k = 0; k < mr_parameters_count(p); k++) {
        const mr_stage_parameter *a = mr_parameters_at(p, k);
        float *first = stage_read(&wide, &a->weight);
        float *second = stage_read(&narrow, &mr_parameters_at(q, k)->weight);
        assert_memory_equal(first, second, stage_elements(&a->weight) * sizeof *first);
        mr_free(second);
        mr_free(first);
    }
    /* Both uses of the tied matrix read the one copy. */
    assert_ptr_equal(mr_parameters_layer(q, 0)->parameters[0].data,
                     mr_parameters_layer(q, 4)->parameters[0].data);
    assert_ptr_equal(mr_parameters_layer(q, 0)->parameters[0].data,
                     mr_parameters_find_tie(q, "embed", 0)->compute.data);
    mr_parameters_destroy(q);
    mr_parameters_destroy(p);
    stage_model_deinit(&narrow);
    stage_model_deinit(&wide);
}

static void test_clip_factor_follows_the_formula(void **state) {
    (void)state;
    assert_true(mr_optimizer_clip_factor(5, 0) == 1);
    assert_true(mr_optimizer_clip_factor(0.5, 1) == 1);
    assert_true(mr_optimizer_clip_factor(0, 1) == 1);
    assert_true(mr_optimizer_clip_factor(4, 1) == 1 / (4 + 1e-6));
    const double sums[2] = {9, 16};
    assert_true(mr_optimizer_norm(sums, 2) == 5);
    assert_true(mr_optimizer_norm(sums, 0) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_follow_the_formula),
        cmocka_unit_test(test_norm_has_the_same_bits_for_every_cut),
        cmocka_unit_test(test_sums_are_those_of_a_double_loop),
        cmocka_unit_test(test_bf16_steps_masters_as_f32_does_and_rounds_copies),
        cmocka_unit_test(test_clip_factor_follows_the_formula),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
