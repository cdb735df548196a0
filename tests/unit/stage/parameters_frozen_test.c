/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a frozen parameter has a weight and nothing else, and the memory that a plan counts for it
 * is the memory that the stage takes.
 * Method: a small model with one block frozen by name and one norm frozen whole; accumulators,
 * states and bytes looked at one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/stage/stage_model.h"

static void describe_again(stage_model *m) {
    mr_status status = mr_job_describe(&m->job, m->descriptions);
    assert_true(mr_status_is_ok(status));
}

static void test_a_frozen_parameter_has_a_weight_alone(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    (void)snprintf(m.layers[1].frozen_names, sizeof(m.layers[1].frozen_names),
                   "attn.qkv.weight ln_1.bias");
    m.layers[3].frozen = true;
    describe_again(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    size_t frozen = 0;
    for (size_t k = 0; k < mr_parameters_count(p); k++) {
        const mr_stage_parameter *item = mr_parameters_at(p, k);
        bool trains = !item->description->frozen;
        frozen += !trains;
        assert_non_null(item->weight.data);
        assert_int_equal(item->owned, trains);
        assert_int_equal(item->gradient.data != NULL, trains);
        assert_int_equal(item->states[0].data != NULL, trains);
        assert_int_equal(item->states[1].data != NULL, trains);
    }
    assert_int_equal(frozen, 4);
    assert_int_equal(mr_parameters_owned_count(p), mr_parameters_count(p) - frozen);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

/* A norm's backward writes both gradients, so its frozen half writes where nobody reads. */
static void test_frozen_vectors_beside_trained_ones_share_one_scrap(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    for (size_t i = 1; i <= 2; i++)
        (void)snprintf(m.layers[i].frozen_names, sizeof(m.layers[i].frozen_names), "ln_1.bias");
    m.layers[3].frozen = true;
    describe_again(&m);
    mr_parameters *p = stage_model_parameters(&m, 0, 5, true);
    const mr_layer *first = mr_parameters_layer(p, 1);
    const mr_layer *second = mr_parameters_layer(p, 2);
    assert_string_equal(first->description->parameters[1].name, "ln_1.bias");
    assert_non_null(first->gradients[1].data);
    assert_ptr_equal(first->gradients[1].data, second->gradients[1].data);
    for (size_t k = 0; k < mr_parameters_count(p); k++)
        assert_ptr_not_equal(mr_parameters_at(p, k)->gradient.data, first->gradients[1].data);
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_frozen_parameters_take_no_memory_for_gradients_and_states(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    mr_parameters *all = stage_model_parameters(&m, 1, 4, true);
    mr_parameters_bytes before = mr_parameters_bytes_held(all);
    mr_parameters_destroy(all);
    m.layers[2].frozen = true;
    describe_again(&m);
    mr_parameters *some = stage_model_parameters(&m, 1, 4, true);
    mr_parameters_bytes after = mr_parameters_bytes_held(some);
    assert_int_equal(after.weights, before.weights);
    assert_true(after.gradients < before.gradients * 6 / 10); /* one of two blocks */
    assert_int_equal(after.optimizer, 2 * after.gradients);
    mr_parameters_destroy(some);
    stage_model_deinit(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_frozen_parameter_has_a_weight_alone),
        cmocka_unit_test(test_frozen_vectors_beside_trained_ones_share_one_scrap),
        cmocka_unit_test(test_frozen_parameters_take_no_memory_for_gradients_and_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
