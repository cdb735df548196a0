/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: dropout acts in training only, its mask is the same in forward and backward, and another
 * mask belongs to every step, microbatch, layer, seed and site.
 * Method: a dropout layer over ones shows its mask in y and, with dy of ones, in dx. A block with
 * dropout is compared with the same block without. The finite-difference test shows that a block's
 * backward uses its forward's masks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/layers/layer_fixture.h"

enum { ELEMENTS = 4099 };

static const layer_case masked = {
    "dropout",
    {.type = MR_LAYER_TYPE_DROPOUT, .dropout = 0.3},
    {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {1, ELEMENTS}, .needs_gradient = true},
};

static void mask_init(layer_fixture *f, mr_device *device) {
    fixture_init(f, device, &masked, 1);
    float *ones = mr_alloc_array(ELEMENTS, sizeof *ones);
    assert_non_null(ones);
    for (size_t i = 0; i < ELEMENTS; i++)
        ones[i] = 1.0f;
    fixture_write(f, &f->x, ones);
    fixture_write(f, &f->dy, ones);
    mr_free(ones);
}

static void test_outside_training_dropout_is_identity(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    layer_fixture f;
    fixture_init(&f, device, &masked, 1);
    f.call.training = false;
    fixture_forward(&f);
    fixture_backward(&f);
    assert_true(fixture_same_bits(&f, &f.x, &f, &f.y));
    assert_true(fixture_same_bits(&f, &f.dy, &f, &f.dx));
    fixture_deinit(&f);
    mr_device_destroy(device);
}

static void test_forward_and_backward_use_one_mask(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    layer_fixture f;
    mask_init(&f, device);
    fixture_forward(&f);
    fixture_backward(&f);
    assert_true(fixture_same_bits(&f, &f.y, &f, &f.dx));
    float *y = fixture_read(&f, &f.y);
    size_t dropped = 0;
    for (size_t i = 0; i < ELEMENTS; i++) {
        assert_true(y[i] == 0.0f || (y[i] > 1.428571f && y[i] < 1.428572f)); /* 1/0.7 */
        dropped += y[i] == 0.0f;
    }
    /* Binomial of 4099 and 0.3: deviation 29.3; six of them. */
    assert_true(dropped > 1229 - 176 && dropped < 1229 + 176);
    mr_free(y);
    fixture_deinit(&f);
    mr_device_destroy(device);
}

static void test_another_identity_draws_another_mask(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    layer_fixture f[6];
    for (size_t i = 0; i < 6; i++)
        mask_init(&f[i], device);
    f[1].call.seed++;
    f[2].call.step++;
    f[3].call.micro_batch++;
    f[4].layer.index++;
    for (size_t i = 0; i < 6; i++)
        fixture_forward(&f[i]);
    for (size_t i = 1; i < 5; i++)
        for (size_t j = 0; j < i; j++)
            assert_false(fixture_same_bits(&f[i], &f[i].y, &f[j], &f[j].y));
    assert_true(fixture_same_bits(&f[0], &f[0].y, &f[5], &f[5].y));
    for (size_t i = 0; i < 6; i++)
        fixture_deinit(&f[i]);
    mr_device_destroy(device);
}

/* The block of layer_cases with dropout, and a copy of it without. */
static layer_case block_case(double dropout) {
    for (size_t i = 0; i < layer_case_count; i++)
        if (layer_cases[i].spec.dropout > 0 &&
            layer_cases[i].spec.type == MR_LAYER_TYPE_TRANSFORMER_BLOCK) {
            layer_case c = layer_cases[i];
            c.spec.dropout = dropout;
            return c;
        }
    fail_msg("no block with dropout among the layers");
    return layer_cases[0];
}

static void test_outside_training_block_is_block_without_dropout(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    layer_case with = block_case(0.25);
    layer_case without = block_case(0);
    layer_fixture f;
    layer_fixture g;
    fixture_init(&f, device, &with, 1);
    fixture_init(&g, device, &without, 1);
    f.call.training = false;
    fixture_forward(&f);
    fixture_backward(&f);
    fixture_forward(&g);
    fixture_backward(&g);
    assert_true(fixture_same_bits(&f, &f.y, &g, &g.y));
    assert_true(fixture_same_bits(&f, &f.dx, &g, &g.dx));
    for (size_t i = 0; i < f.description.parameter_count; i++)
        assert_true(fixture_same_bits(&f, &f.gradients[i], &g, &g.gradients[i]));
    f.call.training = true;
    fixture_forward(&f);
    assert_false(fixture_same_bits(&f, &f.y, &g, &g.y));
    fixture_deinit(&f);
    fixture_deinit(&g);
    mr_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outside_training_dropout_is_identity),
        cmocka_unit_test(test_forward_and_backward_use_one_mask),
        cmocka_unit_test(test_another_identity_draws_another_mask),
        cmocka_unit_test(test_outside_training_block_is_block_without_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
