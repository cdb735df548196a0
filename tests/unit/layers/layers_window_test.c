/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: conv2d and maxpool2d compute what their definition says: outputs and every gradient.
 * Method: tests/vectors/window_reference.json, written by window_reference.py from the definition
 * in float64; the layers start from the same float32 numbers, and every element must agree within
 * 2e-5 of the largest of its tensor. A device without the operations is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/model/describe_own.h"
#include "tests/unit/layers/layer_fixture.h"

static const double tolerance = 2e-5;
static const float gradient_start = 0.25f;

static size_t size_of(const json_t *keys, const char *name) {
    const json_t *value = json_object_get(keys, name);
    assert_true(json_is_integer(value));
    return (size_t)json_integer_value(value);
}

static void write_list(const layer_fixture *f, const mr_tensor *to, const json_t *list) {
    size_t n = fixture_elements(to);
    assert_int_equal(json_array_size(list), n);
    float *values = mr_alloc_array(n, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)json_number_value(json_array_get(list, i));
    fixture_write(f, to, values);
    mr_free(values);
}

static void compare_list(const layer_fixture *f, const mr_tensor *tensor, const json_t *list,
                         float start, const char *what) {
    size_t n = fixture_elements(tensor);
    assert_int_equal(json_array_size(list), n);
    float *computed = fixture_read(f, tensor);
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(json_number_value(json_array_get(list, i))));
    for (size_t i = 0; i < n; i++) {
        double wanted = json_number_value(json_array_get(list, i));
        double error = fabs((double)computed[i] - (double)start - wanted);
        if (!(error <= tolerance * largest))
            fail_msg("%s[%zu]: computed %.9g, reference %.9g", what, i,
                     (double)computed[i] - (double)start, wanted);
    }
    mr_free(computed);
}

static layer_case case_of(const json_t *reference) {
    const json_t *keys = json_object_get(reference, "keys");
    const json_t *dims = json_object_get(reference, "input");
    bool convolution = strcmp(json_string_value(json_object_get(reference, "type")), "conv2d") == 0;
    layer_case c = {
        .name = convolution ? "reference of conv2d" : "reference of maxpool2d",
        .input = {.dtype = MR_DTYPE_F32, .dim_count = 4, .needs_gradient = true},
    };
    c.spec.type = convolution ? MR_LAYER_TYPE_CONV2D : MR_LAYER_TYPE_MAXPOOL2D;
    for (size_t i = 0; i < 4; i++)
        c.input.dims[i] = (size_t)json_integer_value(json_array_get(dims, i));
    size_t kernel = size_of(keys, "kernel");
    size_t stride = size_of(keys, "stride");
    size_t padding = size_of(keys, "padding");
    mr_maxpool2d pool = {.kernel = kernel, .stride = stride, .padding = padding};
    memcpy(c.spec.own.bytes, &pool, sizeof(pool));
    if (convolution) {
        mr_conv2d conv = {.in = c.input.dims[1],
                          .out = size_of(keys, "out"),
                          .kernel = kernel,
                          .stride = stride,
                          .padding = padding,
                          .bias = json_is_true(json_object_get(reference, "bias"))};
        memcpy(c.spec.own.bytes, &conv, sizeof(conv));
    }
    return c;
}

static void check_reference(mr_device *device, const json_t *reference) {
    layer_fixture f;
    layer_case c = case_of(reference);
    fixture_init(&f, device, &c, 1);
    size_t parameters = f.description.parameter_count;
    write_list(&f, &f.x, json_object_get(reference, "x"));
    write_list(&f, &f.dy, json_object_get(reference, "dy"));
    if (parameters > 0)
        write_list(&f, &f.parameters[0], json_object_get(reference, "weight"));
    if (parameters > 1)
        write_list(&f, &f.parameters[1], json_object_get(reference, "bias_values"));
    fixture_forward(&f);
    fixture_backward(&f);
    compare_list(&f, &f.y, json_object_get(reference, "y"), 0, "y");
    compare_list(&f, &f.dx, json_object_get(reference, "dx"), 0, "dx");
    if (parameters > 0)
        compare_list(&f, &f.gradients[0], json_object_get(reference, "dweight"), gradient_start,
                     "dweight");
    if (parameters > 1)
        compare_list(&f, &f.gradients[1], json_object_get(reference, "dbias"), gradient_start,
                     "dbias");
    fixture_deinit(&f);
}

static void test_convolution_and_pooling_are_what_their_definition_says(void **state) {
    (void)state;
    json_error_t error;
    json_t *root = json_load_file("tests/vectors/window_reference.json", 0, &error);
    if (root == NULL)
        fail_msg("window_reference.json: %s", error.text);
    const json_t *cases = json_object_get(root, "cases");
    assert_true(json_array_size(cases) >= 7);
    mr_device *device = fixture_device(2);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_reference(device, json_array_get(cases, i));
    mr_device_destroy(device);
    json_decref(root);
}

static void test_a_device_without_the_operations_is_named(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    mr_device_ops without = *device->ops;
    mr_device lesser = {.ops = &without};
    const mr_layer_spec conv = {.type = MR_LAYER_TYPE_CONV2D};
    const mr_layer_spec pool = {.type = MR_LAYER_TYPE_MAXPOOL2D};
    const mr_layer_spec linear = {.type = MR_LAYER_TYPE_LINEAR};
    assert_true(mr_status_is_ok(mr_layer_check_device(&conv, &lesser)));
    without.window_scatter = NULL;
    without.max_pool_backward = NULL;
    mr_status status = mr_layer_check_device(&conv, &lesser);
    assert_int_equal(status.code, MR_CODE_UNIMPLEMENTED);
    assert_string_equal(status.text,
                        "a conv2d needs window_scatter, which a cpu device does not compute");
    status = mr_layer_check_device(&pool, &lesser);
    assert_string_equal(status.text,
                        "a maxpool2d needs max_pool_backward, which a cpu device does not compute");
    assert_true(mr_status_is_ok(mr_layer_check_device(&linear, &lesser)));
    mr_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolution_and_pooling_are_what_their_definition_says),
        cmocka_unit_test(test_a_device_without_the_operations_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
