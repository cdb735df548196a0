/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a stage's parameters start with the same bits however the model is cut, a tied parameter is
 * one weight with an accumulator for each use, and nothing leaks when memory ends early.
 * Method: two small models whole and in parts; weights compared bit by bit; sums whose result
 * depends on their order; every allocation of create made to fail in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/random.h"
#include "tests/unit/stage/stage_model.h"

static void assert_same_weights(const stage_model *m, const mr_parameters *whole,
                                const mr_parameters *part, size_t first) {
    for (size_t i = 0; i < mr_parameters_layer_count(part); i++) {
        const mr_layer *layer = mr_parameters_layer(part, i);
        const mr_layer *same = mr_parameters_layer(whole, first + i);
        assert_int_equal(layer->index, first + i);
        assert_true(mr_shape_equal(&layer->input, &same->input));
        for (size_t j = 0; j < layer->description->parameter_count; j++) {
            float *a = stage_read(m, &layer->parameters[j]);
            float *b = stage_read(m, &same->parameters[j]);
            assert_memory_equal(a, b, stage_elements(&layer->parameters[j]) * sizeof *a);
            mr_free(a);
            mr_free(b);
        }
    }
}

static void test_any_cut_starts_with_the_same_bits(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    const size_t bounds[] = {0, 1, 3, 5};
    mr_parameters *whole = stage_model_parameters(&m, 0, 5, true);
    for (size_t s = 0; s < 3; s++) {
        mr_parameters *part = stage_model_parameters(&m, bounds[s], bounds[s + 1], true);
        assert_same_weights(&m, whole, part, bounds[s]);
        mr_parameters_destroy(part);
    }
    mr_parameters_destroy(whole);
    stage_model_deinit(&m);
}

/* The whole model's weights come from one stream: each begins where those before it end, whoever
 * holds them, and a parameter's bits change when one before it grows. */
static void test_one_stream_for_the_model_gives_any_cut_the_same_bits(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    m.job.seed_layers = false;
    const size_t bounds[] = {0, 2, 5};
    mr_parameters *whole = stage_model_parameters(&m, 0, 5, true);
    for (size_t s = 0; s < 2; s++) {
        mr_parameters *part = stage_model_parameters(&m, bounds[s], bounds[s + 1], true);
        assert_same_weights(&m, whole, part, bounds[s]);
        mr_parameters_destroy(part);
    }
    const mr_layer *block = mr_parameters_layer(whole, 1);
    size_t qkv = 0;
    while (block->description->parameters[qkv].init != MR_INIT_NORMAL)
        qkv++;
    float *drawn = stage_read(&m, &block->parameters[qkv]);
    mr_random_key key = mr_random_key_make(1234, MR_RANDOM_INIT, MR_LAYERS_MAX, 0, 0);
    float expected = 0;
    mr_random_normal(&key, 11 * 12 + 5 * 12, 1, 0.02f, &expected); /* behind wte and wpe */
    assert_true(drawn[0] == expected);
    mr_free(drawn);
    mr_parameters_destroy(whole);
    stage_model_deinit(&m);
}

static double deviation_of(const stage_model *m, const mr_tensor *tensor) {
    size_t n = stage_elements(tensor);
    float *values = stage_read(m, tensor);
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)values[i] * (double)values[i];
    mr_free(values);
    return sqrt(squares / (double)n);
}

static void test_drawn_weights_have_the_described_deviation(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    for (size_t k = 0; k < mr_parameters_count(p); k++) {
        const mr_stage_parameter *item = mr_parameters_at(p, k);
        double wanted = 0;
        if (item->description->init == MR_INIT_ONE)
            wanted = 1;
        if (item->description->init == MR_INIT_NORMAL)
            wanted = 0.02;
        if (item->description->init == MR_INIT_NORMAL_RESIDUAL)
            wanted = 0.01; /* 0.02 / sqrt(2 x 2 blocks) */
        double deviation = deviation_of(&m, &item->weight);
        bool drawn = wanted > 0 && wanted < 1;
        /* 60 elements at least: the estimate's own deviation is below a tenth; four of them. */
        assert_true(fabs(deviation - wanted) <= (drawn ? 0.4 * wanted : 0));
        assert_true(deviation_of(&m, &item->states[0]) == 0);
        assert_true(deviation_of(&m, &item->states[1]) == 0);
    }
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_tied_parameter_is_one_weight_with_an_accumulator_per_use(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    const mr_layer *embedding = mr_parameters_layer(p, 0);
    const mr_layer *head = mr_parameters_layer(p, 4);
    const mr_stage_parameter *tied = mr_parameters_find_tie(p, "embed", 0);
    assert_non_null(tied);
    assert_null(mr_parameters_find_tie(p, "other", 0));
    assert_ptr_equal(embedding->parameters[0].data, head->parameters[0].data);
    assert_ptr_not_equal(embedding->gradients[0].data, head->gradients[0].data);
    assert_int_equal(tied->use_count, 2);
    assert_ptr_equal(tied->gradients[0].data, embedding->gradients[0].data);
    assert_ptr_equal(tied->gradients[1].data, head->gradients[0].data);
    assert_ptr_equal(tied->gradient.data, tied->gradients[0].data);
    assert_ptr_equal(mr_parameters_of_layer(p, 0, 0), tied);
    assert_ptr_equal(mr_parameters_of_layer(p, 4, 0), tied);
    assert_ptr_equal(mr_parameters_at(p, 0), tied);
    /* wte and wpe, twice twelve of a block, two of the norm. */
    assert_int_equal(mr_parameters_count(p), 2 + 24 + 2);
    assert_int_equal(mr_parameters_owned_count(p), 2 + 24 + 2);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_only_the_first_holder_owns_a_tied_parameter(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *first = stage_model_parameters(&m, 0, 3, true);
    mr_parameters *last = stage_model_parameters(&m, 3, 5, true);
    assert_int_equal(mr_parameters_owned_count(first), 2 + 24);
    assert_int_equal(mr_parameters_count(last), 3);
    assert_int_equal(mr_parameters_owned_count(last), 2);
    const mr_stage_parameter *tied = mr_parameters_find_tie(last, "embed", 0);
    assert_non_null(tied);
    assert_false(tied->owned);
    assert_true(mr_parameters_find_tie(first, "embed", 0)->owned);
    assert_int_equal(tied->layer, 4);
    assert_int_equal(tied->init_layer, 0);
    assert_int_equal(tied->use_count, 1);
    mr_parameters_destroy(first);
    mr_parameters_destroy(last);
    stage_model_deinit(&m);
}

static void test_uses_are_summed_in_layer_order(void **state) {
    (void)state;
    /* (1e8 + 1) - 1e8 is 0 in f32; any other order gives 1. */
    const float parts[3] = {1e8f, 1.0f, -1e8f};
    float values[64];
    stage_model m;
    stage_model_init_thrice(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 4, true);
    const mr_stage_parameter *tied = mr_parameters_find_tie(p, "embed", 0);
    assert_non_null(tied);
    assert_int_equal(tied->use_count, 3);
    assert_int_equal(stage_elements(&tied->weight), 64);
    for (size_t use = 0; use < 3; use++) {
        for (size_t i = 0; i < 64; i++)
            values[i] = parts[use];
        stage_write(&m, &tied->gradients[use], values);
    }
    mr_parameters_sum_uses(p, tied);
    float *sum = stage_read(&m, &tied->gradient);
    for (size_t i = 0; i < 64; i++)
        assert_true(sum[i] == 0.0f);
    mr_free(sum);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_zero_gradients_reaches_every_accumulator(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    stage_fill_gradients(&m, p);
    assert_true(deviation_of(&m, &mr_parameters_layer(p, 4)->gradients[0]) > 0.1);
    mr_parameters_zero_gradients(p);
    for (size_t k = 0; k < mr_parameters_count(p); k++)
        for (size_t use = 0; use < mr_parameters_at(p, k)->use_count; use++)
            assert_true(deviation_of(&m, &mr_parameters_at(p, k)->gradients[use]) == 0);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_inference_holds_weights_alone(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, false);
    mr_parameters_bytes bytes = mr_parameters_bytes_held(p);
    assert_true(bytes.weights > 0);
    assert_int_equal(bytes.gradients, 0);
    assert_int_equal(bytes.optimizer, 0);
    assert_null(mr_parameters_layer(p, 1)->gradients);
    assert_null(mr_parameters_at(p, 0)->states[0].data);
    assert_null(mr_parameters_at(p, 0)->gradient.data);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_tie_of_another_shape_is_refused(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *p = NULL;
    mr_parameters_options options = {
        .device = m.device,
        .job = &m.job,
        .descriptions = m.descriptions,
        .layer_first = 3,
        .layer_end = 5,
        .training = true,
    };
    m.descriptions[0].parameters[0].shape.dims[0]++;
    mr_status status = mr_parameters_create(&options, &p);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "tie embed"));
    assert_null(p);
    stage_model_deinit(&m);
}

static void test_layer_that_cannot_be_computed_is_refused(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *p = NULL;
    mr_parameters_options options = {
        .device = m.device,
        .job = &m.job,
        .descriptions = m.descriptions,
        .layer_first = 0,
        .layer_end = 5,
        .training = true,
    };
    m.layers[2].position = MR_POSITION_ROPE;
    mr_status status = mr_parameters_create(&options, &p);
    assert_int_equal(status.code, MR_CODE_UNIMPLEMENTED);
    assert_non_null(strstr(status.text, "layer 2: transformer_block.position"));
    assert_null(p);
    stage_model_deinit(&m);
}

static void test_every_failed_allocation_is_a_status_without_a_leak(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters_options options = {
        .device = m.device,
        .job = &m.job,
        .descriptions = m.descriptions,
        .layer_first = 0,
        .layer_end = 5,
        .training = true,
    };
    uint64_t n = 1;
    mr_parameters *p = NULL;
    while (p == NULL) {
        mr_alloc_fail_at(n);
        mr_status status = mr_parameters_create(&options, &p);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, p != NULL ? MR_CODE_OK : MR_CODE_RESOURCE_EXHAUSTED);
        assert_true(n++ < 100);
    }
    assert_true(n > 7);
    mr_alloc_fail_at(1);
    assert_int_equal(mr_parameters_draw(p).code, MR_CODE_RESOURCE_EXHAUSTED);
    mr_alloc_fail_at(0);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut_starts_with_the_same_bits),
        cmocka_unit_test(test_one_stream_for_the_model_gives_any_cut_the_same_bits),
        cmocka_unit_test(test_drawn_weights_have_the_described_deviation),
        cmocka_unit_test(test_tied_parameter_is_one_weight_with_an_accumulator_per_use),
        cmocka_unit_test(test_only_the_first_holder_owns_a_tied_parameter),
        cmocka_unit_test(test_uses_are_summed_in_layer_order),
        cmocka_unit_test(test_zero_gradients_reaches_every_accumulator),
        cmocka_unit_test(test_inference_holds_weights_alone),
        cmocka_unit_test(test_tie_of_another_shape_is_refused),
        cmocka_unit_test(test_layer_that_cannot_be_computed_is_refused),
        cmocka_unit_test(test_every_failed_allocation_is_a_status_without_a_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
