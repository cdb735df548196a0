/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the job file's settings beside the model's layers refuse a value of a wrong type, one
 * beyond each bound and one that another setting rules out, each with line, key, value and what
 * would be right. job_errors_test.c has the general rules; here each field of topology, loss_scale,
 * checkpoint.load, data and seeds has its own lines.
 * Method: a table of edits of a good file, each with the line and the start of the only error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/job_text.h"

#define FP16(scale) "precision: fp16\nloss_scale: {" scale "}"
#define TOPOLOGY "topology: {pipe: 2, data: 1, model: 1}"
#define CHECKPOINT "checkpoint: {dir: checkpoints, every_steps: 100, keep: 3, initial: false}"

static void test_axes_of_the_topology_are_checked(void **state) {
    static const job_mistake mistakes[] = {
        {"data: 1", "data: two", 13,
         "pipeline.topology.data is two; it must be a whole number, 1 to 1024"},
        {"data: 1", "data: 0", 13, "pipeline.topology.data is 0; it must be 1 to 1024"},
        {"data: 1", "data: 1025", 13, "pipeline.topology.data is 1025; it must be 1 to 1024"},
        {"model: 1}", "model: [1]}", 13,
         "pipeline.topology.model is a list; it must be a whole number, 1 to 1024"},
        {"model: 1}", "model: 0}", 13, "pipeline.topology.model is 0; it must be 1 to 1024"},
        {"model: 1}", "model: 1025}", 13, "pipeline.topology.model is 1025; it must be 1 to 1024"},
        {"model: 1}", "models: 1}", 13,
         "pipeline.topology.models is not a key of a job file; did you mean model?"},
        {TOPOLOGY, "topology: 4", 13, "pipeline.topology is 4; it must be a mapping"},
        {"pipe: 2, data: 1, model: 1}", "model: 3}", 7,
         "layer 1 (transformer_block): heads is 8; pipeline.topology.model, 3, must divide it"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_settings_of_the_pipeline_are_checked(void **state) {
    static const job_mistake mistakes[] = {
        {"chunks: 1", "zero_stage: one", 16,
         "pipeline.zero_stage is one; it must be a whole number, 0 to 1"},
        {"chunks: 1", "zero_stage: 3", 16, "pipeline.zero_stage is 3; it must be 0 to 1"},
        {"activation_checkpoint_interval: 0", "activation_checkpoint_interval: all", 17,
         "pipeline.activation_checkpoint_interval is all; it must be a whole number, 0 to 16384"},
        {"activation_checkpoint_interval: 0", "activation_checkpoint_interval: 16385", 17,
         "pipeline.activation_checkpoint_interval is 16385; it must be 0 to 16384"},
        {"activation_checkpoint_interval: 0", "activation_checkpoint_interval: -1", 17,
         "pipeline.activation_checkpoint_interval is -1; it must be 0 to 16384"},
        {"chunks: 1", "checkpointable_layers: {a: linear}", 16,
         "pipeline.checkpointable_layers is a mapping; it must be a list of at least one"},
        {"partition: parameters", "partition: profile\n  profile: 7", 15,
         "pipeline.profile is 7, which is not a text; write it in quotes"},
        {"partition: parameters", "partition: profile\n  profile: ''", 15,
         "pipeline.profile is the text \"\"; it must be a text of 1 to"},
        {"partition: parameters", "profile: p.json", 14,
         "pipeline.profile is given but pipeline.partition is not profile"},
        {"pipe: 2, data: 1, model: 1}\n  partition: parameters",
         "pipe: 1, data: 1, model: 2}\n  partition: profile", 14,
         "pipeline.partition is profile and pipeline.topology.model is 2; whole layers are timed, "
         "so it must be 1"},
        {"partition: parameters", "partition: weights\n  layer_weights: [1, 1e13]", 15,
         "pipeline.layer_weights[1] is 1e13; it must be a number of at least 0 and at most 1e+12"},
        {"partition: parameters", "partition: weights\n  layer_weights: [1, .nan]", 15,
         "pipeline.layer_weights[1] is .nan; it must be a number"},
        {"partition: parameters", "partition: [0, -1, 9]", 14,
         "pipeline.partition[1] is -1; it must be a whole number, 0 to 16384"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_the_loss_scale_is_checked(void **state) {
    static const job_mistake mistakes[] = {
        {"precision: fp32", FP16("fixed: on"), 22,
         "loss_scale.fixed is on; it must be a number of at least 0"},
        {"precision: fp32", FP16("fixed: -1"), 22,
         "loss_scale.fixed is -1; it must be a number of at least 0 and at most"},
        {"precision: fp32", FP16("fixed: 1e13"), 22, "loss_scale.fixed is 1e13; it must be a"},
        {"precision: fp32", FP16("initial: [1]"), 22, "loss_scale.initial is a list; it must be a"},
        {"precision: fp32", FP16("initial: 0.5"), 22,
         "loss_scale.initial is 0.5; it must be a number of at least 1 and at most"},
        {"precision: fp32", FP16("initial: .inf"), 22, "loss_scale.initial is .inf; it must be a"},
        {"precision: fp32", FP16("window: 1.5"), 22,
         "loss_scale.window is 1.5; it must be a whole number"},
        {"precision: fp32", FP16("window: 0"), 22, "loss_scale.window is 0; it must be 1 to"},
        {"precision: fp32", FP16("window: 4294967296"), 22,
         "loss_scale.window is 4294967296; it must be 1 to 4294967295"},
        {"precision: fp32", FP16("hysteresis: true"), 22,
         "loss_scale.hysteresis is true; it must be a whole number"},
        {"precision: fp32", FP16("hysteresis: 0"), 22,
         "loss_scale.hysteresis is 0; it must be 1 to 4294967295"},
        {"precision: fp32", FP16("min: small"), 22, "loss_scale.min is small; it must be a number"},
        {"precision: fp32", FP16("min: 0"), 22,
         "loss_scale.min is 0; it must be a number above 0 and at most"},
        {"precision: fp32", FP16("initial: 2, min: 4"), 22,
         "loss_scale.initial is 2; it must be at least loss_scale.min, 4"},
        {"precision: fp32", "precision: bf16\nloss_scale: {window: 5}", 22,
         "loss_scale.window is given but precision is not fp16; it belongs to fp16"},
        {"precision: fp32", "precision: fp32\nloss_scale: {fixed: 8}", 22,
         "loss_scale.fixed is given but precision is not fp16; it belongs to fp16"},
        {"precision: fp32", FP16("maximum: 8"), 22,
         "loss_scale.maximum is not a key of a job file"},
        {"precision: fp32", "precision: fp16\nloss_scale: 128", 22,
         "loss_scale is 128; it must be a mapping"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_what_is_loaded_and_read_is_checked(void **state) {
    static const job_mistake mistakes[] = {
        {"initial: false", "initial: false, load: {path: 3}", 23,
         "checkpoint.load.path is 3, which is not a text; write it in quotes"},
        {"initial: false", "initial: false, load: {path: ''}", 23,
         "checkpoint.load.path is the text \"\"; it must be a text of 1 to"},
        {"initial: false", "initial: false, load: {path: a, strict: no}", 23,
         "checkpoint.load.strict is no; it must be true or false"},
        {"initial: false", "initial: false, load: {path: a, optimizer: 1}", 23,
         "checkpoint.load.optimizer is 1; it must be true or false"},
        {"initial: false", "initial: false, load: {strict: false}", 23,
         "checkpoint.load.path is missing; checkpoint.load.strict needs a checkpoint to load"},
        {"initial: false", "initial: false, load: {path: a, strict: false, optimizer: true}", 23,
         "checkpoint.load.optimizer is true; it must be false where checkpoint.load.strict is"},
        {"initial: false", "initial: false, load: step-1", 23,
         "checkpoint.load is step-1; it must be a mapping"},
        {"initial: false", "initial: false, load: {from: a}", 23,
         "checkpoint.load.from is not a key of a job file"},
        {"train: corpus.txt", "train: corpus.txt, eval: [a]", 22,
         "data.eval is a list; it must be a text of 1 to"},
        {"train: corpus.txt", "train: corpus.txt, eval: 5", 22,
         "data.eval is 5, which is not a text; write it in quotes"},
        {"train: corpus.txt", "train: corpus.txt, eval: ''", 22,
         "data.eval is the text \"\"; it must be a text of 1 to"},
        {"every_steps: 100", "every_steps: often", 23,
         "checkpoint.every_steps is often; it must be a whole number"},
        {"keep: 3", "keep: 1000000000000", 23,
         "checkpoint.keep is 1000000000000; it must be 0 to 999999999999"},
        {"initial: false", "initial: 0", 23, "checkpoint.initial is 0; it must be true or false"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_the_seeds_and_the_input_are_checked(void **state) {
    static const job_mistake mistakes[] = {
        {"seed_layers: true", "seed_layers: 1", 11,
         "model.seed_layers is 1; it must be true or false"},
        {"seed_layers: true", "seed_fn: mine", 11,
         "model.seed_fn is mine; it must be a seed function of this build: "},
        {"seed: 1234", "seed: -1", 3, "seed is -1; it must be 0 or more"},
        {"seed: 1234", "seed: [1]", 3, "seed is a list; it must be a whole number"},
        {"  layers:\n", "  input: []\n  layers:\n", 5,
         "model.input is an empty list; it must be a list of 1 to 5 sizes"},
        {"  layers:\n", "  input: [1, 2, 3, 4, 5, 6]\n  layers:\n", 5,
         "model.input is too long; it must be a list of 1 to 5 sizes"},
        {"  layers:\n", "  input: [3, four]\n  layers:\n", 5,
         "model.input[1] is four; it must be a whole number, 1 to 16777216"},
        {"  layers:\n", "  input: [3, 16777217]\n  layers:\n", 5,
         "model.input[1] is 16777217; it must be a whole number, 1 to 16777216"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axes_of_the_topology_are_checked),
        cmocka_unit_test(test_settings_of_the_pipeline_are_checked),
        cmocka_unit_test(test_the_loss_scale_is_checked),
        cmocka_unit_test(test_what_is_loaded_and_read_is_checked),
        cmocka_unit_test(test_the_seeds_and_the_input_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
