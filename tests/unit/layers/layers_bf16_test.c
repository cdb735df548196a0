/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a layer in bf16 computes what it computes in f32, up to rounding, with the same bits for
 * any number of threads; and a layer that the feed hands f32 takes it in its own type.
 * Method: every layer of layer_cases in bf16 beside the same layer in f32 with the very numbers
 * that bf16 left of inputs and weights; results compared by relative L2, that is the norm of the
 * difference over the norm of f32's. The bound: a few roundings, of 2^-9 each on average, lie
 * between input and result, and in sums over rows terms cancel but their errors do not. Matrices
 * are made smaller first, as in a trained model: attention scores of size s magnify a rounding s
 * times. Gradients of parameters are compared without what stood in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/layers/layer_fixture.h"

static const double bound = 1e-2;

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
static const layer_case wide_head = {
    "wide lm_head",
    {.type = MR_LAYER_TYPE_LM_HEAD, .vocab = 509, .dim = 65},
    {.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {3, 67, 65}, .needs_gradient = true},
};
static const layer_case *const wide_cases[] = {&wide_block, &wide_head};
enum { WIDE_CASES = sizeof wide_cases / sizeof wide_cases[0], GRADIENT_BEFORE = 4 /* 1 / 0.25 */ };

static void copy_numbers(const layer_fixture *from, const mr_tensor *source,
                         const layer_fixture *to, const mr_tensor *target) {
    float *host = fixture_read(from, source);
    fixture_write(to, target, host);
    mr_free(host);
}

/* f's matrix becomes smaller by a power of two, to about 1/sqrt(width), and g's the same. */
static void copy_parameter(const layer_fixture *f, const mr_tensor *source, const layer_fixture *g,
                           const mr_tensor *target) {
    bool matrix = source->shape.dim_count == 2;
    float *host = fixture_read(f, source);
    int power = matrix ? (int)ceil(log2(sqrt((double)source->shape.dims[1]))) - 1 : 0;
    for (size_t i = 0; i < fixture_elements(source); i++)
        host[i] = ldexpf(host[i], -power);
    fixture_write(f, source, host);
    fixture_write(g, target, host);
    mr_free(host);
}

/* g computes in f32 with what bf16 left of f's numbers. */
static void copy_inputs(const layer_fixture *f, const layer_fixture *g) {
    if (f->x.shape.dtype != MR_DTYPE_I32)
        copy_numbers(f, &f->x, g, &g->x);
    copy_numbers(f, &f->dy, g, &g->dy);
    for (size_t i = 0; i < f->description.parameter_count; i++)
        copy_parameter(f, &f->parameters[i], g, &g->parameters[i]);
}

/* before: what stood in every element and is not part of the result. */
static void expect_close(const char *name, const char *what, const layer_fixture *f,
                         const mr_tensor *narrow, const layer_fixture *g, const mr_tensor *wide,
                         double before) {
    float *a = fixture_read(f, narrow);
    float *b = fixture_read(g, wide);
    double difference = 0;
    double size = 0;
    for (size_t i = 0; i < fixture_elements(wide); i++) {
        difference += pow((double)a[i] - (double)b[i], 2);
        size += pow((double)b[i] - before, 2);
    }
    mr_free(a);
    mr_free(b);
    if (!(sqrt(difference) <= bound * sqrt(size)))
        fail_msg("%s: %s differs by %.3g of its size", name, what, sqrt(difference / size));
}

static void expect_results_close(const char *name, layer_fixture *f, layer_fixture *g) {
    expect_close(name, "y", f, &f->y, g, &g->y, 0);
    if (fixture_dx(f) != NULL)
        expect_close(name, "dx", f, &f->dx, g, &g->dx, 0);
    for (size_t i = 0; i < f->description.parameter_count; i++) {
        assert_int_equal(f->gradients[i].shape.dtype, MR_DTYPE_F32);
        expect_close(name, f->description.parameters[i].name, f, &f->gradients[i], g,
                     &g->gradients[i], 1.0 / GRADIENT_BEFORE);
    }
}

static void compare_case(mr_device *device, const layer_case *narrow, const layer_case *wide) {
    layer_fixture f;
    layer_fixture g;
    fixture_init(&f, device, narrow, 7);
    fixture_init(&g, device, wide, 7);
    assert_int_equal(f.y.shape.dtype, MR_DTYPE_BF16);
    copy_inputs(&f, &g);
    fixture_forward(&f);
    fixture_backward(&f);
    fixture_forward(&g);
    fixture_backward(&g);
    expect_results_close(wide->name, &f, &g);
    fixture_deinit(&f);
    fixture_deinit(&g);
}

static void test_every_layer_is_close_to_itself_in_f32(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    for (size_t i = 0; i < layer_case_count + WIDE_CASES; i++) {
        const layer_case *wide =
            i < layer_case_count ? &layer_cases[i] : wide_cases[i - layer_case_count];
        layer_case narrow = fixture_bf16(wide);
        compare_case(device, &narrow, wide);
    }
    mr_device_destroy(device);
}

/* As the first layer of a model that takes numbers: f32 comes in, bf16 goes out. */
static void test_f32_of_a_feed_is_taken_in_the_layers_type(void **state) {
    (void)state;
    mr_device *device = fixture_device(2);
    for (size_t i = 0; i < layer_case_count; i++) {
        layer_case narrow = layer_cases[i];
        if (narrow.input.dtype == MR_DTYPE_I32)
            continue;
        narrow.spec.precision = MR_DTYPE_BF16;
        compare_case(device, &narrow, &layer_cases[i]);
    }
    mr_device_destroy(device);
}

static void expect_same(const char *name, layer_fixture *f, layer_fixture *g) {
    bool same = fixture_same_bits(f, &f->y, g, &g->y);
    if (fixture_dx(f) != NULL)
        same = same && fixture_same_bits(f, &f->dx, g, &g->dx);
    for (size_t i = 0; i < f->description.parameter_count; i++)
        same = same && fixture_same_bits(f, &f->gradients[i], g, &g->gradients[i]);
    if (!same)
        fail_msg("%s: bits differ", name);
}

/* The second run also uses memory that is not fresh, as a stage's slots are. */
static void test_one_and_two_threads_give_equal_bits(void **state) {
    (void)state;
    mr_device *one = fixture_device(1);
    mr_device *two = fixture_device(2);
    for (size_t i = 0; i < layer_case_count + WIDE_CASES; i++) {
        layer_case narrow = fixture_bf16(i < layer_case_count ? &layer_cases[i]
                                                              : wide_cases[i - layer_case_count]);
        layer_fixture f;
        layer_fixture g;
        fixture_init(&f, one, &narrow, 3);
        fixture_init(&g, two, &narrow, 3);
        fixture_forward(&f);
        fixture_backward(&f);
        fixture_forward(&g);
        fixture_poison(&g);
        fixture_forward(&g);
        fixture_backward(&g);
        expect_same(narrow.name, &f, &g);
        fixture_deinit(&f);
        fixture_deinit(&g);
    }
    mr_device_destroy(two);
    mr_device_destroy(one);
}

static void test_second_pass_allocates_nothing(void **state) {
    (void)state;
    mr_device *device = fixture_device(2);
    for (size_t i = 0; i < layer_case_count; i++) {
        layer_case narrow = fixture_bf16(&layer_cases[i]);
        layer_fixture f;
        fixture_init(&f, device, &narrow, 4);
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
        cmocka_unit_test(test_every_layer_is_close_to_itself_in_f32),
        cmocka_unit_test(test_f32_of_a_feed_is_taken_in_the_layers_type),
        cmocka_unit_test(test_one_and_two_threads_give_equal_bits),
        cmocka_unit_test(test_second_pass_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
