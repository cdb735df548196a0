/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the gradient that every layer computes is the derivative of its own forward, for its input
 * and for every element of every parameter.
 * Method: project the output on random dy, p = sum dy_i y_i in double; compare each element of dx
 * and of every parameter's gradient with the fourth-order central difference of p,
 *   (8 (p(+h) - p(-h)) - (p(+2h) - p(-2h))) / 12h, h = 2^-6.
 * Numbers are multiples of 2^-11, so that steps are exact. Tolerance: 3e-4 of the tensor's largest
 * gradient plus 1e-4.
 * Three seeds, odd sizes. Gradients start at 0.25, so that one which overwrites is seen.
 * Fifteen faults were put into daemon/layers one at a time, and each made this test fail: in the
 * block the by-pass of either norm, gelu's slope, the mask of either branch or of attention in
 * backward, a mask of another site, attn.proj's weight from the unmasked gradient, mlp.proj's from
 * the values before gelu, ln_2's from x, the biases left out; the embedding's positions left out;
 * the linear's bias left out; a residual added by the layernorm; the head's gradient added as a
 * bias, too. What it cannot see is a wrong function that is differentiated rightly:
 * layers_reference_test does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/layers/layer_fixture.h"

static const float step = 0x1p-6f;
static const double tolerance_relative = 3e-4;
static const double tolerance_absolute = 1e-4;
static const float gradient_start = 0.25f;

static double projection(layer_fixture *f, const float *dy) {
    fixture_forward(f);
    float *y = fixture_read(f, &f->y);
    double sum = 0;
    for (size_t i = 0; i < fixture_elements(&f->y); i++)
        sum += (double)dy[i] * (double)y[i];
    mr_free(y);
    return sum;
}

/* Derivative of the projection by element i of tensor, whose host copy is values. */
static double difference(layer_fixture *f, const mr_tensor *tensor, float *values, size_t i,
                         const float *dy) {
    const float kept = values[i];
    const int at[4] = {-2, -1, 1, 2};
    double p[4];
    for (int k = 0; k < 4; k++) {
        values[i] = kept + (float)at[k] * step;
        fixture_write(f, tensor, values);
        p[k] = projection(f, dy);
    }
    values[i] = kept;
    fixture_write(f, tensor, values);
    return (8 * (p[2] - p[1]) - (p[3] - p[0])) / (12 * (double)step);
}

static void compare(layer_fixture *f, const char *name, const char *what, const mr_tensor *tensor,
                    const mr_tensor *gradient, float start) {
    size_t n = fixture_elements(tensor);
    float *values = fixture_read(f, tensor);
    float *computed = fixture_read(f, gradient);
    float *dy = fixture_read(f, &f->dy);
    double largest = 0;
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)computed[i] - (double)start));
    double tolerance = tolerance_relative * largest + tolerance_absolute;
    for (size_t i = 0; i < n; i++) {
        double wanted = difference(f, tensor, values, i, dy);
        double error = fabs((double)computed[i] - (double)start - wanted);
        worst = fmax(worst, error);
        if (!(error <= tolerance))
            fail_msg("%s, %s[%zu]: computed %.9g, difference quotient %.9g, tolerance %.3g", name,
                     what, i, (double)computed[i] - (double)start, wanted, tolerance);
    }
    print_message("%-32s %-16s worst %.1e of tolerance %.1e\n", name, what, worst, tolerance);
    mr_free(dy);
    mr_free(computed);
    mr_free(values);
}

static void check_case(mr_device *device, const layer_case *c, uint64_t seed) {
    layer_fixture f;
    fixture_init(&f, device, c, seed);
    fixture_forward(&f);
    fixture_backward(&f);
    if (fixture_dx(&f) != NULL)
        compare(&f, c->name, "x", &f.x, &f.dx, 0);
    for (size_t i = 0; i < f.description.parameter_count; i++)
        compare(&f, c->name, f.description.parameters[i].name, &f.parameters[i], &f.gradients[i],
                gradient_start);
    fixture_deinit(&f);
}

static void test_every_layer_gradient_is_difference_quotient(void **state) {
    (void)state;
    mr_device *device = fixture_device(1);
    for (size_t i = 0; i < layer_case_count; i++)
        for (uint64_t seed = 1; seed <= 3; seed++)
            check_case(device, &layer_cases[i], seed);
    mr_device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layer_gradient_is_difference_quotient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
