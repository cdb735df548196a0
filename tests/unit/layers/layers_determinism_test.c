/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the bits of a layer's results depend on its inputs alone (law 1): not on the number of
 * threads, not on when backward-weight runs, not on what its memory held before.
 * Method: every layer of layer_cases, and some large enough that threads share their work, run
 * twice in the two ways; outputs and gradients are compared bit by bit. fixture_deinit checks the
 * guard bytes round every buffer, so these runs also show that no call writes outside the bytes
 * that the description promised. The last test counts the allocations of a second pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/model/describe_own.h"
#include "tests/unit/layers/layer_fixture.h"

static const layer_case wide_block = {
    "wide transformer_block",
    {.type = MR_LAYER_TYPE_TRANSFORMER_BLOCK,
     .dim = 96,
     .heads = 3,
     .kv_heads = 3,
     .ffn = 385,
     .bias = true,
     .causal = true,
     .dropout = 0.1,
     .eps = 1e-5},
    {.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {3, 77, 96}, .needs_gradient = true},
};
static const layer_case wide_embedding = {
    "wide embedding",
    {.type = MR_LAYER_TYPE_EMBEDDING, .vocab = 61, .dim = 131, .positions = 99},
    {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {5, 99}},
};
static const layer_case wide_head = {
    "wide lm_head",
    {.type = MR_LAYER_TYPE_LM_HEAD, .vocab = 509, .dim = 65},
    {.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {3, 67, 65}, .needs_gradient = true},
};
static const layer_case wide_norm = {
    "wide layernorm",
    {.type = MR_LAYER_TYPE_LAYERNORM, .dim = 257, .bias = true, .eps = 1e-5},
    {.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {5, 103, 257}, .needs_gradient = true},
};

static const mr_conv2d wide_conv_keys = {
    .in = 13, .out = 33, .kernel = 3, .stride = 1, .padding = 1, .bias = true};

/* Three groups of samples, the last smaller. */
static layer_case wide_conv(void) {
    layer_case c = {
        "wide conv2d",
        {.type = MR_LAYER_TYPE_CONV2D},
        {.dtype = MR_DTYPE_F32,
         .dim_count = 4,
         .dims = {25, 13, 30, 31},
         .needs_gradient = true},
    };
    memcpy(c.spec.own.bytes, &wide_conv_keys, sizeof(wide_conv_keys));
    return c;
}

static void assert_same(const char *name, const layer_fixture *f, const layer_fixture *g) {
    if (!fixture_same_bits(f, &f->y, g, &g->y))
        fail_msg("%s: outputs differ", name);
    if (f->x.shape.dtype == MR_DTYPE_F32 && !fixture_same_bits(f, &f->dx, g, &g->dx))
        fail_msg("%s: input gradients differ", name);
    for (size_t i = 0; i < f->description.parameter_count; i++)
        if (!fixture_same_bits(f, &f->gradients[i], g, &g->gradients[i]))
            fail_msg("%s: gradients of %s differ", name, f->description.parameters[i].name);
}

static void check_threads(mr_device *one, mr_device *two, const layer_case *c) {
    layer_fixture f;
    layer_fixture g;
    fixture_init(&f, one, c, 7);
    fixture_init(&g, two, c, 7);
    fixture_forward(&f);
    fixture_backward(&f);
    fixture_forward(&g);
    fixture_backward(&g);
    assert_same(c->name, &f, &g);
    fixture_deinit(&f);
    fixture_deinit(&g);
}

static void test_one_and_two_threads_give_equal_bits(void **state) {
    (void)state;
    mr_device *one = fixture_device(1);
    mr_device *two = fixture_device(2);
    for (size_t i = 0; i < layer_case_count; i++)
        check_threads(one, two, &layer_cases[i]);
    check_threads(one, two, &wide_block);
    check_threads(one, two, &wide_embedding);
    check_threads(one, two, &wide_head);
    check_threads(one, two, &wide_norm);
    layer_case conv = wide_conv();
    check_threads(one, two, &conv);
    mr_device_destroy(two);
    mr_device_destroy(one);
}

/* Two microbatches, of which the second has its own memory; they share gradients. */
typedef struct pair {
    layer_fixture first;
    layer_fixture second;
} pair;

static void pair_init(pair *p, mr_device *device, const layer_case *c) {
    fixture_init(&p->first, device, c, 11);
    fixture_init(&p->second, device, c, 12);
    p->second.layer.parameters = p->first.parameters;
    p->second.layer.gradients = p->first.gradients;
    p->second.call.micro_batch = p->first.call.micro_batch + 1;
    fixture_forward(&p->first);
    fixture_forward(&p->second);
}

static void pair_input(layer_fixture *f) {
    mr_layer_backward_input(&f->layer, &f->call, &f->x, &f->dy, fixture_dx(f));
}

static void pair_weight(layer_fixture *f) {
    mr_layer_backward_weight(&f->layer, &f->call, &f->x, &f->dy);
}

static void test_deferred_weight_half_gives_equal_bits(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    for (size_t i = 0; i < layer_case_count; i++) {
        pair fused;
        pair split;
        pair_init(&fused, device, &layer_cases[i]);
        pair_init(&split, device, &layer_cases[i]);
        fixture_backward(&fused.first);
        fixture_backward(&fused.second);
        pair_input(&split.first);
        pair_input(&split.second);
        pair_weight(&split.first);
        pair_weight(&split.second);
        assert_same(layer_cases[i].name, &fused.first, &split.first);
        assert_same(layer_cases[i].name, &fused.second, &split.second);
        fixture_deinit(&fused.first);
        fixture_deinit(&fused.second);
        fixture_deinit(&split.first);
        fixture_deinit(&split.second);
    }
    mr_device_destroy(device);
}

/* As activation checkpointing does: forward again into other memory, then backward from there. */
static void test_forward_repeated_into_used_memory_gives_equal_bits(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    for (size_t i = 0; i < layer_case_count; i++) {
        layer_fixture f;
        layer_fixture g;
        fixture_init(&f, device, &layer_cases[i], 5);
        fixture_init(&g, device, &layer_cases[i], 5);
        fixture_forward(&f);
        fixture_backward(&f);
        fixture_forward(&g);
        pair_input(&g);
        fixture_poison(&g);
        fixture_forward(&g);
        fixture_backward(&g);
        assert_same(layer_cases[i].name, &f, &g);
        fixture_deinit(&f);
        fixture_deinit(&g);
    }
    mr_device_destroy(device);
}

/* A first layer may need no gradient of its input; its own gradients must not change by that. */
static void test_without_input_gradient_weights_get_equal_bits(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    for (size_t i = 0; i < layer_case_count; i++) {
        layer_fixture f;
        layer_fixture g;
        fixture_init(&f, device, &layer_cases[i], 6);
        fixture_init(&g, device, &layer_cases[i], 6);
        fixture_forward(&f);
        fixture_backward(&f);
        fixture_forward(&g);
        mr_layer_backward_input(&g.layer, &g.call, &g.x, &g.dy, NULL);
        mr_layer_backward_weight(&g.layer, &g.call, &g.x, &g.dy);
        f.dx = g.dx; /* not written by the second */
        assert_same(layer_cases[i].name, &f, &g);
        fixture_deinit(&f);
        fixture_deinit(&g);
    }
    mr_device_destroy(device);
}

static void test_second_pass_allocates_nothing(void **state) {
    (void)state;
    mr_device *device = fixture_device(2);
    for (size_t i = 0; i < layer_case_count; i++) {
        layer_fixture f;
        fixture_init(&f, device, &layer_cases[i], 4);
        fixture_forward(&f);
        fixture_backward(&f);
        uint64_t allocations = mr_alloc_count();
        fixture_forward(&f);
        fixture_backward(&f);
        assert_int_equal(mr_alloc_count(), allocations);
        fixture_deinit(&f);
    }
    mr_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_and_two_threads_give_equal_bits),
        cmocka_unit_test(test_deferred_weight_half_gives_equal_bits),
        cmocka_unit_test(test_forward_repeated_into_used_memory_gives_equal_bits),
        cmocka_unit_test(test_without_input_gradient_weights_get_equal_bits),
        cmocka_unit_test(test_second_pass_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
