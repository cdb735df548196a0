/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a stage that computes runs of layers again has the gradients of one that keeps everything,
 * to the bit, and takes the memory that the plan says (law 1, law 6). Named after the field's
 * defects: integer inputs are legal, no random number depends on the interval, and a layer gets
 * the same input whether its run is computed again or not (deepspeed.md 25).
 * Method: all stages of small jobs with dropout in one process; all microbatches go forward before
 * the first goes backward, so that whatever the stage shares among them was overwritten; every
 * accumulator is compared with that of the same job without an interval. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"
#include "daemon/layers/loss.h"
#include "daemon/stage/pass.h"

enum { PIPE_MAX = 3, M = 3, STEP = 5, GRADIENT_BYTES_MAX = 1 << 20 };

static const char tokens_model[] =
    "model:\n"
    "  layers:\n"
    "    - {type: embedding, tie: embed, vocab: 11, dim: 12, positions: 5}\n"
    "    - {type: transformer_block, repeat: 3, dim: 12, heads: 3, dropout: 0.25}\n"
    "    - {type: dropout, p: 0.5}\n"
    "    - {type: layernorm, dim: 12}\n"
    "    - {type: identity}\n"
    "    - {type: lm_head, tie: embed}\n"
    "  loss: cross_entropy\n";
static const char numbers_model[] =
    "model:\n"
    "  layers:\n"
    "    - {type: linear, in: 6, out: 16}\n"
    "    - {type: gelu}\n"
    "    - {type: dropout, p: 0.5}\n"
    "    - {type: linear, in: 16, out: 16}\n"
    "    - {type: silu}\n"
    "    - {type: linear, in: 16, out: 4}\n"
    "    - {type: layernorm, dim: 4}\n" /* saves, so the last layer is computed again, too */
    "  loss: mse\n";

typedef struct pipe_case {
    const char *model;
    const char *precision;
    size_t pipe;
    size_t interval;
    const char *types; /* checkpointable_layers; NULL: not given */
} pipe_case;

typedef struct pipe {
    mr_job *job;
    mr_plan *plan;
    mr_device *device;
    mr_assignment assignments[PIPE_MAX];
    mr_parameters *parameters[PIPE_MAX];
    mr_activations *activations[PIPE_MAX];
    mr_device_memory inputs; /* of each microbatch, then its labels */
    size_t input_stride;
    mr_device_memory loss;
} pipe;

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

static mr_job *pipe_job(const pipe_case *c) {
    char list[128] = "";
    char text[2048];
    mr_job *job = NULL;
    if (c->types != NULL)
        (void)snprintf(list, sizeof(list), "  checkpointable_layers: %s\n", c->types);
    int length = snprintf(text, sizeof(text),
                          "schema: millrace.job/v1\nname: again\n%s"
                          "pipeline:\n  stages: %zu\n  partition: uniform\n  schedule: gpipe\n"
                          "  activation_checkpoint_interval: %zu\n%s"
                          "batch: {micro_batch_size: 2, micro_batches: %d, sequence_length: 5}\n"
                          "lr_schedule: {total_steps: 3}\n"
                          "precision: %s\n",
                          c->model, c->pipe, c->interval, list, M, c->precision);
    ok(mr_job_parse(text, (size_t)length, &job, NULL));
    ok(mr_job_check_runnable(job, MR_JOB_MODE_TRAIN));
    return job;
}

static void pipe_stage_make(pipe *p, size_t s) {
    p->assignments[s] = (mr_assignment){.stage = (uint32_t)s, .job = p->job, .plan = p->plan};
    mr_parameters_options options = {
        .device = p->device,
        .job = p->job,
        .descriptions = p->plan->layers,
        .layer_first = p->plan->bounds[s],
        .layer_end = p->plan->bounds[s + 1],
        .training = true,
    };
    ok(mr_parameters_create(&options, &p->parameters[s]));
    ok(mr_parameters_draw(p->parameters[s]));
    ok(mr_activations_create(p->device, &p->assignments[s],
                                 p->assignments[s].job->checkpoint_interval, &p->activations[s]));
}

/* Inputs and labels are small whole numbers, as integers or as floats by their type. */
static void pipe_fill(pipe *p, const mr_tensor *tensor, size_t salt) {
    size_t elements = 0;
    assert_true(mr_shape_elements(&tensor->shape, &elements));
    for (size_t i = 0; i < elements; i++) {
        int32_t number = (int32_t)((i * 7 + salt * 5 + i * i) % 11);
        float real = (float)number / 8 - 0.5f;
        bool whole = tensor->shape.dtype == MR_DTYPE_I32;
        p->device->ops->copy_in(p->device, (unsigned char *)tensor->data + i * 4,
                                whole ? (const void *)&number : (const void *)&real, 4);
    }
}

static mr_tensor pipe_input(const pipe *p, size_t m) {
    return (mr_tensor){.data = (unsigned char *)p->inputs.base + m * p->input_stride,
                       .shape = mr_job_input_shape(p->job)};
}

static mr_tensor pipe_labels(const pipe *p, size_t m) {
    mr_tensor labels = {.data = (unsigned char *)p->inputs.base + m * p->input_stride +
                                p->input_stride / 2};
    ok(mr_job_label_shape(p->job, &labels.shape));
    return labels;
}

static void pipe_make(pipe *p, const pipe_case *c) {
    mr_device_options cpu = {.kind = "cpu", .threads = 1};
    *p = (pipe){.job = pipe_job(c), .input_stride = 4096};
    ok(mr_plan_make(p->job, false, &p->plan));
    ok(mr_device_create(&cpu, &p->device));
    ok(p->device->ops->memory_create(p->device, M * p->input_stride, &p->inputs));
    ok(p->device->ops->memory_create(p->device, sizeof(double), &p->loss));
    for (size_t s = 0; s < p->plan->stage_count; s++)
        pipe_stage_make(p, s);
    for (size_t m = 0; m < M; m++) {
        mr_tensor input = pipe_input(p, m);
        mr_tensor labels = pipe_labels(p, m);
        pipe_fill(p, &input, m);
        pipe_fill(p, &labels, m + 1);
    }
}

static void pipe_free(pipe *p) {
    ok(p->device->ops->check(p->device));
    for (size_t s = 0; s < p->plan->stage_count; s++) {
        mr_activations_destroy(p->activations[s]);
        mr_parameters_destroy(p->parameters[s]);
    }
    p->device->ops->memory_destroy(p->device, &p->loss);
    p->device->ops->memory_destroy(p->device, &p->inputs);
    mr_device_destroy(p->device);
    mr_plan_destroy(p->plan);
    mr_job_destroy(p->job);
}

static mr_pass pipe_pass(const pipe *p, size_t s, size_t m) {
    return (mr_pass){
        .device = p->device,
        .assignment = &p->assignments[s],
        .parameters = p->parameters[s],
        .activations = p->activations[s],
        .step = STEP,
        .micro_batch = (uint32_t)m,
    };
}

/* What enters stage s: stays in the slot of the stage before, as it stays in a link's. */
static mr_tensor pipe_entering(const pipe *p, size_t s, size_t m) {
    if (s == 0)
        return pipe_input(p, m);
    size_t layers = mr_parameters_layer_count(p->parameters[s - 1]);
    return mr_activations_output(p->activations[s - 1], m, layers - 1);
}

static void pipe_run(pipe *p) {
    size_t last = p->plan->stage_count - 1;
    for (size_t m = 0; m < M; m++) {
        mr_tensor output = {0};
        mr_tensor labels = pipe_labels(p, m);
        for (size_t s = 0; s <= last; s++) {
            mr_pass pass = pipe_pass(p, s, m);
            mr_tensor x = pipe_entering(p, s, m);
            output = mr_pass_forward(&pass, &x);
        }
        mr_loss_run(p->device, p->job->loss, &output, &labels, 1.0f / 16, &output, p->loss.base);
    }
    for (size_t m = 0; m < M; m++) {
        size_t layers = mr_parameters_layer_count(p->parameters[last]);
        mr_tensor dy = mr_activations_output(p->activations[last], m, layers - 1);
        for (size_t s = last + 1; s-- > 0;) {
            mr_pass pass = pipe_pass(p, s, m);
            mr_tensor x = pipe_entering(p, s, m);
            mr_tensor dx = mr_activations_outgoing(p->activations[s], m);
            mr_pass_backward(&pass, &x, &dy, s > 0 ? &dx : NULL);
            dy = dx;
        }
    }
}

/* The loss, then all accumulators of all layers in order; returns the bytes. */
static size_t pipe_read(const pipe *p, unsigned char *out) {
    size_t used = sizeof(double);
    p->device->ops->copy_out(p->device, out, p->loss.base, used);
    for (size_t s = 0; s < p->plan->stage_count; s++) {
        for (size_t i = 0; i < mr_parameters_layer_count(p->parameters[s]); i++) {
            const mr_layer *layer = mr_parameters_layer(p->parameters[s], i);
            for (size_t j = 0; j < layer->description->parameter_count; j++) {
                size_t bytes = 0;
                assert_true(mr_shape_bytes(&layer->gradients[j].shape, &bytes));
                assert_true(used + bytes <= GRADIENT_BYTES_MAX);
                p->device->ops->copy_out(p->device, out + used, layer->gradients[j].data, bytes);
                used += bytes;
            }
        }
    }
    return used;
}

static size_t case_run(const pipe_case *c, unsigned char *out) {
    pipe p;
    pipe_make(&p, c);
    pipe_run(&p);
    size_t used = pipe_read(&p, out);
    pipe_free(&p);
    return used;
}

/* Every interval and cut of one model against one stage that keeps everything. */
static void check_model(const char *model, const char *precision, const char *types) {
    unsigned char *kept = mr_alloc(GRADIENT_BYTES_MAX);
    unsigned char *again = mr_alloc(GRADIENT_BYTES_MAX);
    assert_non_null(kept);
    assert_non_null(again);
    size_t used = case_run(&(pipe_case){.model = model, .precision = precision, .pipe = 1}, kept);
    size_t nonzero = 0;
    for (size_t i = sizeof(double); i < used; i++)
        nonzero += kept[i] != 0;
    assert_true(nonzero > used / 4);
    for (size_t stages = 1; stages <= PIPE_MAX; stages++) {
        for (size_t interval = 0; interval <= 9; interval++) {
            pipe_case c = {model, precision, stages, interval, types};
            assert_int_equal(case_run(&c, again), used);
            if (memcmp(kept, again, used) != 0)
                fail_msg("other bits: %s, %zu stages, interval %zu", precision, stages, interval);
        }
    }
    mr_free(kept);
    mr_free(again);
}

static void test_runs_computed_again_give_the_same_bits(void **state) {
    (void)state;
    check_model(tokens_model, "fp32", NULL);
    check_model(tokens_model, "bf16", NULL);
}

static void test_numbers_as_input_give_the_same_bits(void **state) {
    (void)state;
    check_model(numbers_model, "fp32", NULL);
    check_model(numbers_model, "bf16", NULL);
}

static void test_mixed_runs_give_the_same_bits(void **state) {
    (void)state;
    check_model(tokens_model, "fp32", "[transformer_block]");
    check_model(tokens_model, "bf16", "[transformer_block, layernorm, lm_head]");
    check_model(numbers_model, "fp32", "[linear, gelu]");
}

/* What a slot keeps, by the page: the outputs that leave runs which are computed again, everything
 * of the others. Says, too, what the largest run needs while it is computed again. */
static size_t expected_slot(const pipe *p, const pipe_case *c, size_t s, size_t *out_again) {
    size_t interval = c->interval == 0 ? SIZE_MAX / 2 : c->interval;
    size_t slot = 0;
    *out_again = 0;
    size_t run = 0; /* what the present run takes besides the output that leaves it */
    for (size_t i = p->plan->bounds[s]; i < p->plan->bounds[s + 1]; i++) {
        const mr_layer_description *layer = &p->plan->layers[i];
        bool leaves = (i - p->plan->bounds[s] + 1) % interval == 0 ||
                      i + 1 == p->plan->bounds[s + 1];
        size_t output = 0;
        assert_true(mr_shape_bytes(&layer->output, &output));
        output = mr_arena_rounded(output);
        run += mr_arena_rounded(layer->saved_bytes);
        if (!leaves) {
            run += output;
            continue;
        }
        if (c->interval > 0 && layer->saved_bytes > 0 && i + 1 == p->plan->bounds[s + 1])
            run += output; /* the stage's last layer saves: its output goes aside */
        slot += output + (c->interval == 0 ? run : 0);
        if (c->interval > 0 && run > *out_again)
            *out_again = run;
        run = 0;
    }
    return slot;
}

static size_t expected_rest(const pipe *p, size_t s) {
    size_t retained = 0;
    size_t scratch = 0;
    size_t gradient = 0;
    size_t outgoing = 0;
    for (size_t i = p->plan->bounds[s]; i < p->plan->bounds[s + 1]; i++) {
        const mr_layer_description *layer = &p->plan->layers[i];
        size_t output = 0;
        assert_true(mr_shape_bytes(&layer->output, &output));
        retained = layer->retained_bytes > retained ? layer->retained_bytes : retained;
        scratch = layer->scratch_bytes > scratch ? layer->scratch_bytes : scratch;
        if (i + 1 < p->plan->bounds[s + 1] && output > gradient)
            gradient = output;
    }
    if (s > 0)
        assert_true(mr_shape_bytes(&p->plan->layers[p->plan->bounds[s] - 1].output, &outgoing));
    return mr_arena_rounded(retained) + mr_arena_rounded(scratch) +
           2 * mr_arena_rounded(gradient) + 2 * mr_arena_rounded(outgoing);
}

static void test_the_plan_says_what_the_stage_takes(void **state) {
    (void)state;
    static const char *const precisions[] = {"fp32", "bf16"};
    for (size_t k = 0; k < 4 * PIPE_MAX * 10; k++) {
        pipe_case c = {k % 4 < 2 ? tokens_model : numbers_model, precisions[k % 2],
                       1 + k / 4 % PIPE_MAX, k / 4 / PIPE_MAX, NULL};
        pipe p;
        pipe_make(&p, &c);
        for (size_t s = 0; s < c.pipe; s++) {
            size_t again = 0;
            size_t slot = expected_slot(&p, &c, s, &again);
            assert_int_equal(p.plan->stages[s].peak_in_flight, M);
            assert_int_equal(p.plan->stages[s].activations_bytes,
                             mr_activations_bytes(p.activations[s]));
            assert_int_equal(p.plan->stages[s].activations_bytes,
                             slot * M + again + expected_rest(&p, s));
        }
        pipe_free(&p);
    }
}

/* Layers that are computed again, one bit each: with [layernorm] and interval 1 that is layer 5; a
 * run of two always has another type in it, and a last layer that saves nothing is not needed. */
static void test_runs_with_other_layers_keep_everything(void **state) {
    (void)state;
    static const struct {
        pipe_case job;
        unsigned again;
    } cases[] = {
        {{tokens_model, "fp32", 1, 0, NULL}, 0},
        {{tokens_model, "fp32", 1, 2, "[layernorm]"}, 0},
        {{tokens_model, "fp32", 1, 1, "[layernorm]"}, 1 << 5},
        {{tokens_model, "fp32", 1, 1, "[transformer_block]"}, 1 << 1 | 1 << 2 | 1 << 3},
        {{tokens_model, "fp32", 1, 2, "[embedding, transformer_block]"},
         1 << 0 | 1 << 1 | 1 << 2 | 1 << 3},
        {{tokens_model, "fp32", 1, 4, NULL}, 0x7f},
    };
    size_t bytes[6];
    for (size_t i = 0; i < 6; i++) {
        unsigned again = 0;
        pipe p;
        pipe_make(&p, &cases[i].job);
        bytes[i] = mr_activations_bytes(p.activations[0]);
        for (size_t layer = 0; layer < 8; layer++)
            if (mr_activations_layer(p.activations[0], layer)->again)
                again |= 1u << layer;
        assert_int_equal(again, cases[i].again);
        pipe_free(&p);
    }
    assert_int_equal(bytes[1], bytes[0]);
    assert_true(bytes[3] < bytes[0]);
    assert_true(bytes[4] < bytes[0]);
    assert_true(bytes[5] < bytes[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_computed_again_give_the_same_bits),
        cmocka_unit_test(test_numbers_as_input_give_the_same_bits),
        cmocka_unit_test(test_mixed_runs_give_the_same_bits),
        cmocka_unit_test(test_the_plan_says_what_the_stage_takes),
        cmocka_unit_test(test_runs_with_other_layers_keep_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
