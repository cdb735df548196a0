/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: SGD, Adam and Lion as the job file describes them: state tensors, decay on matrices only,
 * clip factor, learning rate; bf16 copies follow; and the field's regression on the loss scale.
 * Method: five steps against loops in double with the formulas written out here; and two linear
 * layers of one weight each, weight 1, input 1, target 0, squared error, two microbatches, SGD with
 * lr 0.1: 1/M counted once leaves 0.8 in both, counted for each stage or not at all does not
 * (deepspeed.md 88; DeepSpeed #7773, #8152). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/half.h"
#include "daemon/layers/loss.h"
#include "daemon/stage/optimizer.h"
#include "tests/unit/stage/stage_model.h"

enum { STEPS = 5, PARAMETERS_MAX = 64, LAYERS = 5 };

static const double clip_factor = 0.75;

typedef struct kind_case {
    mr_optimizer_kind kind;
    double momentum;
    bool nesterov;
    size_t state_count;
} kind_case;

static const kind_case kinds[] = {
    {MR_OPTIMIZER_ADAMW, 0, false, 2}, {MR_OPTIMIZER_ADAM, 0, false, 2},
    {MR_OPTIMIZER_SGD, 0, false, 0},   {MR_OPTIMIZER_SGD, 0.9, false, 1},
    {MR_OPTIMIZER_SGD, 0.9, true, 1},  {MR_OPTIMIZER_LION, 0, false, 1},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static void model_set(stage_model *m, const kind_case *kind) {
    m->job.optimizer = kind->kind;
    m->job.momentum = kind->momentum;
    m->job.nesterov = kind->nesterov;
    m->job.lr_kind = MR_LR_CONSTANT;
    m->job.warmup_steps = 0;
}

/* One element in double: the weight and up to two states. */
typedef struct element {
    double p;
    double s[2];
} element;

static void element_step(const kind_case *kind, element *e, double g, int step, double decay) {
    const double lr = 1e-2; /* stage_model.c's job */
    double wg = g + decay * e->p;
    double sign = 0;
    switch (kind->kind) {
    case MR_OPTIMIZER_SGD:
        e->s[0] = kind->momentum * e->s[0] + wg;
        e->p -= lr * (kind->nesterov ? wg + kind->momentum * e->s[0] : e->s[0]);
        break;
    case MR_OPTIMIZER_LION:
        sign = 0.9 * e->s[0] + 0.1 * g;
        e->p -= lr * decay * e->p;
        e->p -= lr * (double)((sign > 0) - (sign < 0));
        e->s[0] = 0.95 * e->s[0] + 0.05 * g;
        break;
    default: /* adam, and adamw whose gradient has no decay */
        if (kind->kind == MR_OPTIMIZER_ADAMW) {
            e->p -= lr * decay * e->p;
            wg = g;
        }
        e->s[0] = 0.9 * e->s[0] + 0.1 * wg;
        e->s[1] = 0.95 * e->s[1] + 0.05 * wg * wg;
        e->p -= lr * e->s[0] / (1 - pow(0.9, step)) /
                (sqrt(e->s[1] / (1 - pow(0.95, step))) + 1e-8);
        break;
    }
}

/* All steps of one parameter, from the weights it was drawn with. */
static void parameter_check(const stage_model *m, const kind_case *kind,
                            const mr_stage_parameter *item, const float *drawn) {
    float *gradient = stage_read(m, &item->gradient);
    float *weight = stage_read(m, &item->weight);
    float *first = kind->state_count > 0 ? stage_read(m, &item->states[0]) : NULL;
    double decay = item->weight.shape.dim_count >= 2 ? 0.1 : 0;
    for (size_t i = 0; i < stage_elements(&item->weight); i++) {
        element e = {.p = (double)drawn[i]};
        for (int step = 1; step <= STEPS; step++)
            element_step(kind, &e, (double)gradient[i] * clip_factor, step, decay);
        if (!(fabs((double)weight[i] - e.p) <= 2e-6 * fmax(1, fabs(e.p))) ||
            (first != NULL && !(fabs((double)first[i] - e.s[0]) <= 5e-6 * fmax(1, fabs(e.s[0])))))
            fail_msg("%s of %s[%zu]: computed %.9g, formula %.9g", mr_optimizer_name(kind->kind),
                     item->description->name, i, (double)weight[i], e.p);
    }
    mr_free(first);
    mr_free(weight);
    mr_free(gradient);
}

static void kind_check(const kind_case *kind) {
    stage_model m;
    float *drawn[PARAMETERS_MAX];
    stage_model_init_gpt(&m);
    model_set(&m, kind);
    mr_parameters *p = stage_model_parameters(&m, 0, LAYERS, true);
    size_t count = mr_parameters_count(p);
    assert_in_range(count, 1, PARAMETERS_MAX);
    for (size_t k = 0; k < count; k++)
        drawn[k] = stage_read(&m, &mr_parameters_at(p, k)->weight);
    stage_fill_gradients(&m, p);
    uint64_t allocations = mr_alloc_count();
    for (uint64_t step = 1; step <= STEPS; step++)
        mr_optimizer_step(p, step, clip_factor);
    assert_int_equal(mr_alloc_count(), allocations);
    for (size_t k = 0; k < count; k++) {
        parameter_check(&m, kind, mr_parameters_at(p, k), drawn[k]);
        mr_free(drawn[k]);
    }
    mr_parameters_destroy(p);
    stage_model_deinit(&m);
}

static void test_each_kind_follows_its_formula(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++)
        kind_check(&kinds[i]);
}

static void test_only_the_states_of_the_kind_are_held(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        stage_model m;
        stage_model_init_gpt(&m);
        model_set(&m, &kinds[i]);
        mr_parameters *p = stage_model_parameters(&m, 0, LAYERS, true);
        mr_parameters_bytes bytes = mr_parameters_bytes_held(p);
        assert_int_equal(mr_parameters_states(p).count, kinds[i].state_count);
        assert_int_equal(bytes.optimizer, kinds[i].state_count * bytes.weights);
        for (size_t k = 0; k < mr_parameters_count(p); k++)
            for (size_t s = 0; s < MR_OPTIMIZER_STATES_MAX; s++)
                assert_true((mr_parameters_at(p, k)->states[s].data != NULL) ==
                            (s < kinds[i].state_count));
        mr_parameters_destroy(p);
        stage_model_deinit(&m);
    }
}

static void test_bf16_copies_follow_every_kind(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        stage_model m;
        stage_model_init_gpt_bf16(&m);
        model_set(&m, &kinds[i]);
        mr_parameters *p = stage_model_parameters(&m, 0, LAYERS, true);
        stage_fill_gradients(&m, p);
        mr_optimizer_step(p, 1, clip_factor);
        const mr_stage_parameter *tied = mr_parameters_find_tie(p, "embed", 0);
        float *master = stage_read(&m, &tied->weight);
        float *compute = stage_read(&m, &tied->compute);
        for (size_t e = 0; e < stage_elements(&tied->weight); e++) {
            uint16_t half = mr_half_round(MR_DTYPE_BF16, master[e]);
            assert_true(compute[e] == mr_half_widen(MR_DTYPE_BF16, half));
        }
        mr_free(compute);
        mr_free(master);
        mr_parameters_destroy(p);
        stage_model_deinit(&m);
    }
}

static void test_a_device_without_the_operation_refuses_the_job(void **state) {
    (void)state;
    stage_model m;
    stage_model_init_gpt(&m);
    m.job.optimizer = MR_OPTIMIZER_LION;
    mr_device_ops poor = *m.device->ops;
    mr_device device = {.ops = &poor};
    poor.lion = NULL;
    mr_parameters_options options = {.device = &device,
                                     .job = &m.job,
                                     .descriptions = m.descriptions,
                                     .layer_end = LAYERS,
                                     .training = true};
    mr_parameters *p = NULL;
    mr_status status = mr_parameters_create(&options, &p);
    assert_int_equal(status.code, MR_CODE_UNIMPLEMENTED);
    assert_string_equal(status.text,
                        "optimizer.type is lion, which a cpu device does not compute");
    assert_null(p);
    stage_model_deinit(&m);
}

/* Forward and backward of one microbatch through both layers; parts[i] holds layer i. */
static void pair_run(stage_model *m, mr_parameters *const parts[2], const size_t at[2],
                     uint64_t micro_batch, double *loss) {
    float values[5] = {1, 0, 0, 0, 0}; /* input, two outputs, target, a gradient */
    float back = 0;
    unsigned char memory[3][256] = {{0}};
    mr_tensor tensors[5];
    for (size_t i = 0; i < 5; i++)
        tensors[i] = (mr_tensor){.data = &values[i], .shape = m->descriptions[0].output};
    mr_tensor through = {.data = &back, .shape = m->descriptions[0].output};
    mr_layer_call call = {.device = m->device,
                          .training = true,
                          .micro_batch = micro_batch,
                          .saved = memory[0],
                          .retained = memory[1],
                          .scratch = memory[2]};
    const mr_layer *layers[2];
    for (size_t i = 0; i < 2; i++) {
        layers[i] = mr_parameters_layer(parts[i], at[i]);
        assert_true(m->descriptions[i].saved_bytes <= sizeof memory[0]);
        assert_true(m->descriptions[i].retained_bytes <= sizeof memory[1]);
        assert_true(m->descriptions[i].scratch_bytes <= sizeof memory[2]);
        mr_layer_forward(layers[i], &call, &tensors[i], &tensors[i + 1]);
    }
    double terms = mr_loss_terms(MR_LOSS_MSE, &tensors[2].shape, &tensors[3].shape);
    float scale = (float)(1.0 / (terms * (double)m->job.micro_batches));
    mr_loss_run(m->device, MR_LOSS_MSE, &tensors[2], &tensors[3], scale, &tensors[4], loss);
    mr_layer_backward_input(layers[1], &call, &tensors[1], &tensors[4], &through);
    mr_layer_backward_weight(layers[1], &call, &tensors[1], &tensors[4]);
    mr_layer_backward_input(layers[0], &call, &tensors[0], &through, NULL);
    mr_layer_backward_weight(layers[0], &call, &tensors[0], &through);
}

static void pair_check(bool two_stages) {
    stage_model m;
    stage_model_init_pair(&m);
    mr_parameters *whole = two_stages ? NULL : stage_model_parameters(&m, 0, 2, true);
    mr_parameters *parts[2] = {whole, whole};
    const size_t at[2] = {0, two_stages ? 0 : 1};
    const float one = 1;
    double loss = 0;
    for (size_t i = 0; i < 2; i++) {
        if (two_stages)
            parts[i] = stage_model_parameters(&m, i, i + 1, true);
        stage_write(&m, &mr_parameters_of_layer(parts[i], at[i], 0)->weight, &one);
    }
    for (uint64_t micro_batch = 0; micro_batch < m.job.micro_batches; micro_batch++)
        pair_run(&m, parts, at, micro_batch, &loss);
    assert_true(loss == 2.0);
    for (size_t i = 0; i < (two_stages ? 2u : 1u); i++)
        mr_optimizer_step(parts[i], 1, mr_optimizer_clip_factor(8, m.job.grad_clip));
    for (size_t i = 0; i < 2; i++) {
        float *weight = stage_read(&m, &mr_parameters_of_layer(parts[i], at[i], 0)->weight);
        assert_true(weight[0] == 0.8f);
        mr_free(weight);
    }
    for (size_t i = 0; i < (two_stages ? 2u : 1u); i++)
        mr_parameters_destroy(parts[i]);
    stage_model_deinit(&m);
}

static void test_the_loss_is_scaled_exactly_once(void **state) {
    (void)state;
    pair_check(false);
    pair_check(true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_follows_its_formula),
        cmocka_unit_test(test_only_the_states_of_the_kind_are_held),
        cmocka_unit_test(test_bf16_copies_follow_every_kind),
        cmocka_unit_test(test_a_device_without_the_operation_refuses_the_job),
        cmocka_unit_test(test_the_loss_is_scaled_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
