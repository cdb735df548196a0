/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: both losses have the value of their formula, and doutput is scale times the derivative.
 * Method: the value against a loop in double over the host's copy; the gradient against the
 * fourth-order central difference (step 2^-6, exact in f32) of that value, three seeds, odd sizes,
 * with a label that counts as nothing. Tolerance 2e-6 + 2e-5 relative: the loss is summed in double
 * and only the softmax of a row is f32. Also: doutput over output in place, evaluation without a
 * gradient, and addition into *loss.
 * Checked by hand that it fails when the onehot, the scale or the factor 2 of the square is
 * dropped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/layers/loss.h"
#include "tests/unit/layers/layer_fixture.h"

enum { ROWS = 7, V = 11, ELEMENTS = ROWS * V };

static const float scale = 0.125f;
static const double loss_start = 10.0;

typedef struct loss_fixture {
    mr_device *device;
    mr_device_memory memory;
    mr_tensor output;
    mr_tensor doutput;
    mr_tensor labels;
    double *loss;
    float values[ELEMENTS];
    int32_t tokens[ROWS];
    float targets[ELEMENTS];
} loss_fixture;

/* kind decides what the labels are. */
static void loss_init(loss_fixture *f, mr_loss kind, uint64_t seed) {
    enum { PLACE = 512 };
    *f = (loss_fixture){.device = fixture_device(1)};
    mr_status status = f->device->ops->memory_create(f->device, 4 * PLACE, &f->memory);
    assert_true(mr_status_is_ok(status));
    unsigned char *base = f->memory.base;
    mr_shape logits = {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {ROWS, V}};
    mr_shape tokens = {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {1, ROWS}};
    f->output = (mr_tensor){base, logits};
    f->doutput = (mr_tensor){base + PLACE, logits};
    f->labels = (mr_tensor){base + (size_t)2 * PLACE, kind == MR_LOSS_MSE ? logits : tokens};
    f->loss = (double *)(void *)(base + (size_t)3 * PLACE);
    for (size_t i = 0; i < ELEMENTS; i++) {
        f->values[i] = 4.0f * fixture_number(seed, 1, i);
        f->targets[i] = fixture_number(seed, 2, i);
    }
    for (size_t i = 0; i < ROWS; i++)
        f->tokens[i] = (int32_t)(i * seed % V);
    f->tokens[3] = kind == MR_LOSS_CROSS_ENTROPY ? -1 : 0;
    if (kind == MR_LOSS_MSE)
        f->device->ops->copy_in(f->device, f->labels.data, f->targets, sizeof f->targets);
    else
        f->device->ops->copy_in(f->device, f->labels.data, f->tokens, sizeof f->tokens);
}

static void loss_deinit(loss_fixture *f) {
    assert_true(mr_status_is_ok(f->device->ops->check(f->device)));
    f->device->ops->memory_destroy(f->device, &f->memory);
    mr_device_destroy(f->device);
}

/* The loss that the device adds for these values. */
static double loss_run(loss_fixture *f, mr_loss kind, const float *values, mr_tensor *doutput) {
    double sum = loss_start;
    f->device->ops->copy_in(f->device, f->output.data, values, sizeof f->values);
    f->device->ops->copy_in(f->device, f->loss, &sum, sizeof sum);
    mr_loss_run(f->device, kind, &f->output, &f->labels, scale, doutput, f->loss);
    f->device->ops->copy_out(f->device, &sum, f->loss, sizeof sum);
    return sum - loss_start;
}

static double loss_formula(const loss_fixture *f, mr_loss kind) {
    double total = 0;
    for (size_t r = 0; r < ROWS; r++) {
        double exps = 0;
        for (size_t v = 0; v < V; v++) {
            double difference = (double)f->values[r * V + v] - (double)f->targets[r * V + v];
            total += kind == MR_LOSS_MSE ? difference * difference : 0;
            exps += exp((double)f->values[r * V + v]);
        }
        if (kind == MR_LOSS_CROSS_ENTROPY && f->tokens[r] >= 0)
            total += log(exps) - (double)f->values[r * V + (size_t)f->tokens[r]];
    }
    return total;
}

static void loss_compare(loss_fixture *f, mr_loss kind, const float *gradient) {
    const float step = 0x1p-6f;
    const int at[4] = {-2, -1, 1, 2};
    float values[ELEMENTS];
    memcpy(values, f->values, sizeof values);
    for (size_t i = 0; i < ELEMENTS; i++) {
        double p[4];
        for (int k = 0; k < 4; k++) {
            values[i] = f->values[i] + (float)at[k] * step;
            p[k] = loss_run(f, kind, values, NULL);
        }
        values[i] = f->values[i];
        double wanted = (double)scale * (8 * (p[2] - p[1]) - (p[3] - p[0])) / (12 * (double)step);
        double error = fabs((double)gradient[i] - wanted);
        if (!(error <= 2e-6 + 2e-5 * fabs(wanted)))
            fail_msg("element %zu: computed %.9g, difference quotient %.9g", i,
                     (double)gradient[i], wanted);
    }
}

static void check_loss(mr_loss kind) {
    for (uint64_t seed = 1; seed <= 3; seed++) {
        loss_fixture f;
        float gradient[ELEMENTS];
        float in_place[ELEMENTS];
        loss_init(&f, kind, seed);
        double loss = loss_run(&f, kind, f.values, &f.doutput);
        assert_true(fabs(loss - loss_formula(&f, kind)) < 1e-5 * fabs(loss));
        f.device->ops->copy_out(f.device, gradient, f.doutput.data, sizeof gradient);
        assert_true(loss_run(&f, kind, f.values, NULL) == loss);
        assert_true(loss_run(&f, kind, f.values, &f.output) == loss);
        f.device->ops->copy_out(f.device, in_place, f.output.data, sizeof in_place);
        assert_memory_equal(gradient, in_place, sizeof gradient);
        loss_compare(&f, kind, gradient);
        loss_deinit(&f);
    }
}

static void test_cross_entropy_gradient_is_difference_quotient(void **state) {
    (void)state;
    check_loss(MR_LOSS_CROSS_ENTROPY);
}

static void test_mean_squared_error_gradient_is_difference_quotient(void **state) {
    (void)state;
    check_loss(MR_LOSS_MSE);
}

static void test_no_loss_touches_nothing(void **state) {
    (void)state;
    loss_fixture f;
    loss_init(&f, MR_LOSS_NONE, 1);
    assert_true(loss_run(&f, MR_LOSS_NONE, f.values, &f.output) == 0);
    float after[ELEMENTS];
    f.device->ops->copy_out(f.device, after, f.output.data, sizeof after);
    assert_memory_equal(after, f.values, sizeof after);
    loss_deinit(&f);
}

static void test_terms_are_tokens_or_elements(void **state) {
    (void)state;
    mr_shape output = {.dtype = MR_DTYPE_F32, .dim_count = 3, .dims = {2, 3, 5}};
    mr_shape labels = {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {2, 3}};
    assert_true(mr_loss_terms(MR_LOSS_CROSS_ENTROPY, &output, &labels) == 6);
    assert_true(mr_loss_terms(MR_LOSS_MSE, &output, &output) == 30);
    assert_true(mr_loss_terms(MR_LOSS_NONE, &output, &labels) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy_gradient_is_difference_quotient),
        cmocka_unit_test(test_mean_squared_error_gradient_is_difference_quotient),
        cmocka_unit_test(test_no_loss_touches_nothing),
        cmocka_unit_test(test_terms_are_tokens_or_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
