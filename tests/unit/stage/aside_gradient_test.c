/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: gradients through tensors put aside are the derivative of the loss: over one layer and over
 * several, taken once and twice, side by side and within each other; and none is computed where
 * nothing before the put is trained.
 * Method: one stage, squared error; the gradient of every parameter against the fourth-order
 * difference quotient of the loss, as the layers' own test does. Cuts into stages are compared with
 * the whole, to the bit, by tests/law. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/layers/loss.h"
#include "daemon/stage/pass.h"

enum { B = 3, IN = 4, OUT = 5 };

static const double tolerance = 2e-3; /* of the tensor's largest gradient: f32 losses, h = 2^-6 */

typedef struct rig {
    mr_job *job;
    mr_plan *plan;
    mr_device *device;
    mr_assignment assignment;
    mr_parameters *parameters;
    mr_activations *activations;
    mr_device_memory memory; /* inputs, labels, loss gradient, loss */
    mr_tensor x;
    mr_tensor labels;
    double *loss;
} rig;

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static void rig_fill(const rig *r, const mr_tensor *tensor, unsigned salt) {
    size_t n = 0;
    assert_true(mr_shape_elements(&tensor->shape, &n));
    for (size_t i = 0; i < n; i++) {
        float value = (float)((i * 37 + salt * 11 + i * i) % 17) / 8.0f - 1.0f;
        r->device->ops->copy_in(r->device, (float *)tensor->data + i, &value, sizeof(value));
    }
}

static void rig_init(rig *r, const char *layers, size_t interval) {
    char text[2048];
    mr_device_options options = {.kind = "cpu", .threads = 1};
    *r = (rig){0};
    int bytes = snprintf(text, sizeof(text),
                         "schema: millrace.job/v1\nname: aside\nmodel:\n  layers:\n%s"
                         "  loss: mse\n"
                         "pipeline: {activation_checkpoint_interval: %zu}\n"
                         "batch: {micro_batch_size: %d, sequence_length: 1}\n"
                         "lr_schedule: {total_steps: 3}\n",
                         layers, interval, B);
    ok(mr_job_parse(text, (size_t)bytes, &r->job, NULL));
    ok(mr_plan_make(r->job, false, &r->plan));
    ok(mr_device_create(&options, &r->device));
    r->assignment = (mr_assignment){.job = r->job, .plan = r->plan};
    mr_parameters_options all = {.device = r->device,
                                 .job = r->job,
                                 .descriptions = r->plan->layers,
                                 .layer_end = r->job->layer_count,
                                 .training = true};
    ok(mr_parameters_create(&all, &r->parameters));
    ok(mr_activations_create(r->device, &r->assignment, interval, &r->activations));
    ok(r->device->ops->memory_create(r->device, 4096, &r->memory));
    r->x = (mr_tensor){.data = r->memory.base, .shape = mr_job_input_shape(r->job)};
    r->labels.data = (unsigned char *)r->memory.base + 1024;
    ok(mr_job_label_shape(r->job, &r->labels.shape));
    r->loss = (double *)(void *)((unsigned char *)r->memory.base + 3072);
    rig_fill(r, &r->x, 1);
    rig_fill(r, &r->labels, 2);
    for (size_t k = 0; k < mr_parameters_count(r->parameters); k++)
        rig_fill(r, &mr_parameters_at(r->parameters, k)->weight, (unsigned)k + 3);
}

static void rig_deinit(rig *r) {
    ok(r->device->ops->check(r->device));
    r->device->ops->memory_destroy(r->device, &r->memory);
    mr_activations_destroy(r->activations);
    mr_parameters_destroy(r->parameters);
    mr_device_destroy(r->device);
    mr_plan_destroy(r->plan);
    mr_job_destroy(r->job);
}

/* The loss; with gradients the backward, too. */
static double rig_run(rig *r, bool backward) {
    mr_pass pass = {.device = r->device,
                    .assignment = &r->assignment,
                    .parameters = r->parameters,
                    .activations = r->activations};
    mr_tensor output = mr_pass_forward(&pass, &r->x);
    mr_tensor dy = output;
    double loss = 0;
    r->device->ops->zero(r->device, r->loss, sizeof(*r->loss));
    r->device->ops->mean_squared_error(r->device, &output, &r->labels, 1.0f,
                                       backward ? &dy : NULL, r->loss);
    r->device->ops->copy_out(r->device, &loss, r->loss, sizeof(loss));
    if (!backward)
        return loss;
    mr_parameters_zero_gradients(r->parameters);
    mr_pass_backward(&pass, &r->x, &dy, NULL);
    return loss;
}

static double difference(rig *r, float *weight) {
    const float step = 0x1p-6f;
    const float kept = *weight;
    const int at[4] = {-2, -1, 1, 2};
    double p[4];
    for (int k = 0; k < 4; k++) {
        *weight = kept + (float)at[k] * step;
        p[k] = rig_run(r, false);
    }
    *weight = kept;
    return (8 * (p[2] - p[1]) - (p[3] - p[0])) / (12 * (double)step);
}

/* Device memory is host memory on the CPU device. */
static void check_parameter(rig *r, const mr_stage_parameter *item, const char *what) {
    size_t n = 0;
    double largest = 0;
    float *weight = item->weight.data;
    const float *gradient = item->gradient.data;
    assert_true(mr_shape_elements(&item->weight.shape, &n));
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)gradient[i]));
    assert_true(largest > 0);
    for (size_t i = 0; i < n; i++) {
        double wanted = difference(r, &weight[i]);
        if (!(fabs((double)gradient[i] - wanted) <= tolerance * largest))
            fail_msg("%s: layer %zu, %s[%zu]: computed %.9g, difference quotient %.9g", what,
                     item->layer, item->description->name, i, (double)gradient[i], wanted);
    }
}

static void check_model(const char *what, const char *layers) {
    for (size_t interval = 0; interval <= 3; interval++) {
        rig r;
        rig_init(&r, layers, interval);
        (void)rig_run(&r, true);
        for (size_t k = 0; k < mr_parameters_count(r.parameters); k++)
            if (!mr_parameters_at(r.parameters, k)->description->frozen)
                check_parameter(&r, mr_parameters_at(r.parameters, k), what);
        rig_deinit(&r);
    }
}

static void test_gradients_through_asides_are_difference_quotients(void **state) {
    (void)state;
    check_model("one", "    - {type: linear, in: 4, out: 5, put: a}\n"
                       "    - {type: gelu}\n"
                       "    - {type: linear, in: 5, out: 5}\n"
                       "    - {type: add, take: a}\n"
                       "    - {type: silu}\n"
                       "    - {type: linear, in: 5, out: 2}\n");
    check_model("twice, and at once", "    - {type: linear, in: 4, out: 5, put: a}\n"
                                      "    - {type: add, take: a}\n"
                                      "    - {type: silu}\n"
                                      "    - {type: add, take: a}\n"
                                      "    - {type: linear, in: 5, out: 2}\n");
    check_model("nested and crossed", "    - {type: linear, in: 4, out: 5, put: outer}\n"
                                      "    - {type: gelu, put: inner}\n"
                                      "    - {type: linear, in: 5, out: 5, put: crossed}\n"
                                      "    - {type: add, take: inner}\n"
                                      "    - {type: silu}\n"
                                      "    - {type: add, take: crossed}\n"
                                      "    - {type: add, take: outer}\n"
                                      "    - {type: linear, in: 5, out: 2}\n");
    check_model("at the end", "    - {type: linear, in: 4, out: 5, put: a}\n"
                              "    - {type: gelu}\n"
                              "    - {type: add, take: a}\n");
    check_model("put by what is taken", "    - {type: linear, in: 4, out: 5, put: a}\n"
                                        "    - {type: silu}\n"
                                        "    - {type: add, take: a, put: b}\n"
                                        "    - {type: gelu}\n"
                                        "    - {type: add, take: b}\n");
    check_model("nothing trained before the put",
                "    - {type: linear, in: 4, out: 5, frozen: true, put: a}\n"
                "    - {type: linear, in: 5, out: 5}\n"
                "    - {type: add, take: a}\n"
                "    - {type: linear, in: 5, out: 2}\n");
}

static void test_an_aside_that_needs_no_gradient_takes_no_memory(void **state) {
    (void)state;
    rig trained;
    rig frozen;
    rig_init(&trained, "    - {type: linear, in: 4, out: 5, put: a}\n"
                       "    - {type: linear, in: 5, out: 5}\n"
                       "    - {type: add, take: a}\n", 0);
    rig_init(&frozen, "    - {type: linear, in: 4, out: 5, put: a, frozen: true}\n"
                      "    - {type: linear, in: 5, out: 5}\n"
                      "    - {type: add, take: a}\n", 0);
    assert_true(mr_activation_has_aside(trained.plan, &trained.plan->stages[0], 0));
    assert_false(mr_activation_has_aside(frozen.plan, &frozen.plan->stages[0], 0));
    assert_true(mr_activations_bytes_predicted(frozen.activations) <
                mr_activations_bytes_predicted(trained.activations));
    rig_deinit(&frozen);
    rig_deinit(&trained);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_through_asides_are_difference_quotients),
        cmocka_unit_test(test_an_aside_that_needs_no_gradient_takes_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
