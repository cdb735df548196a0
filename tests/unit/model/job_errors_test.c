/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every kind of mistake in a job file is refused with its line, key, value and what would be
 * right, and one mistake gives one error.
 * Method: a table of edits of a good file, each with the line and the start of the only error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/job_text.h"

#define OPTIMIZER "type: adamw, lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8"
#define TOPOLOGY "topology: {pipe: 2, data: 1, model: 1}"

static void test_wrong_keys_are_refused(void **state) {
    static const job_mistake mistakes[] = {
        {"seed: 1234", "sed: 1234", 3, "sed is not a key of a job file; did you mean seed?"},
        {"chunks: 1", "chunk: 1", 16,
         "pipeline.chunk is not a key of a job file; did you mean chunks?"},
        {"chunks: 1", "keep: 1", 16,
         "pipeline.keep is not a key of a job file; did you mean checkpoint.keep?"},
        {"precision: fp32", "xyzzy: fp32", 21,
         "xyzzy is not a key of a job file; known: schema, name, seed, model, pipeline, batch,"},
        {"seed: 1234", "model.loss: mse", 3, "model.loss is not a key of a job file; known: "},
        {"seed: 1234", "\"\": 1", 3, " is not a key of a job file; known: schema"},
        {"seed: 1234", "<<: {name: x}", 3, "<< is not a key of a job file; known: schema"},
        {"seed: 1234", "name: again", 3, "name is given twice; the first is on line 2"},
        {"  chunks: 1", "  schedule: gpipe", 16,
         "pipeline.schedule is given twice; the first is on line 15"},
        {"precision: fp32", "batch: {}", 21, "batch is given twice; the first is on line 18"},
        {"dim: 64, heads: 8", "dim: 64, headz: 8, heads: 8", 7,
         "model.layers[1].headz is not a key of a layer of type transformer_block; did you mean "
         "heads?"},
        {"{type: layernorm, dim: 64}", "{type: layernorm, dim: 64, heads: 8}", 8,
         "model.layers[2].heads is not a key of a layer of type layernorm; known: type, repeat, "
         "name, tie, put, take, frozen, dim, eps"},
        {"dim: 64, heads: 8", "dim: 64, heads: 8, dim: 64", 7,
         "model.layers[1].dim is given twice; the first is on line 7"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_missing_keys_are_named(void **state) {
    static const job_mistake mistakes[] = {
        {"schema: millrace.job/v1\n", "", 0, "schema is missing; it must be millrace.job/v1"},
        {"name: tiny-gpt\n", "", 0, "name is missing; it must be a name of 1 to 63 letters"},
        {"micro_batch_size: 4, ", "", 18,
         "batch.micro_batch_size is missing; it must be a whole number, 1 to 16777216"},
        {", sequence_length: 32", "", 18, "batch.sequence_length is missing; "},
        {"train: corpus.txt, ", "", 22, "data.train is missing; it must name the files"},
        {"dir: checkpoints, ", "", 23,
         "checkpoint.dir is missing; checkpoint.every_steps needs a folder"},
        {"type: layernorm, ", "", 8,
         "model.layers[2].type is missing; it must be embedding, transformer_block, layernorm, "
         "lm_head, linear, conv2d, maxpool2d, flatten, relu, gelu, silu, dropout, identity or add"},
        {", heads: 8", "", 7,
         "model.layers[1].heads is missing; it must be a whole number, 1 to 16777216"},
        {"vocab: 256, ", "", 6, "model.layers[0].vocab is missing"},
        {"{type: layernorm, dim: 64}", "{type: layernorm}", 8, "model.layers[2].dim is missing"},
        {"{type: layernorm, dim: 64}", "{type: linear, in: 64}", 8,
         "model.layers[2].out is missing"},
        {"tie: embed}", "vocab: 256}", 9,
         "model.layers[3].dim is missing; an lm_head needs dim and vocab, or a tie"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_wrong_types_are_refused(void **state) {
    static const job_mistake mistakes[] = {
        {"micro_batches: 8", "micro_batches: \"8\"", 18,
         "batch.micro_batches is the text \"8\"; it must be a whole number, 1 to 4096"},
        {"micro_batches: 8", "micro_batches: 8.0", 18,
         "batch.micro_batches is 8.0; it must be a whole number, 1 to 4096"},
        {"micro_batches: 8", "micro_batches: 1e3", 18, "batch.micro_batches is 1e3; it must be"},
        {"micro_batches: 8", "micro_batches: 010", 18, "batch.micro_batches is 010; it must be"},
        {"micro_batches: 8", "micro_batches: 0x8", 18, "batch.micro_batches is 0x8; it must be"},
        {"micro_batches: 8", "micro_batches: 1_0", 18, "batch.micro_batches is 1_0; it must be"},
        {"micro_batches: 8", "micro_batches: eight", 18, "batch.micro_batches is eight; it must"},
        {"micro_batches: 8", "micro_batches: ", 18, "batch.micro_batches is empty; it must be a"},
        {"micro_batches: 8", "micro_batches: null", 18, "batch.micro_batches is null; it must be"},
        {"micro_batches: 8", "micro_batches: [8]", 18, "batch.micro_batches is a list; it must"},
        {"micro_batches: 8", "micro_batches: {a: 8}", 18, "batch.micro_batches is a mapping; it"},
        {"lr: 1e-3", "lr: .inf", 19,
         "optimizer.lr is .inf; it must be a number above 0 and at most 1000"},
        {"lr: 1e-3", "lr: nan", 19, "optimizer.lr is nan; it must be a number above 0"},
        {"lr: 1e-3", "lr: 1e999", 19, "optimizer.lr is 1e999; it must be a number above 0"},
        {"lr: 1e-3", "lr: '1e-3'", 19, "optimizer.lr is the text \"1e-3\"; it must be a number"},
        {"[0.9, 0.95]", "0.9", 19,
         "optimizer.betas is 0.9; it must be a list of two numbers, each of at least 0 and below "
         "1"},
        {"[0.9, 0.95]", "[0.9, 0.95, 0]", 19,
         "optimizer.betas is a list; it must be a list of two"},
        {"[0.9, 0.95]", "[0.9, x]", 19, "optimizer.betas[1] is x; it must be a number of at least"},
        {"shuffle: true", "shuffle: yes", 22, "data.shuffle is yes; it must be true or false"},
        {"shuffle: true", "shuffle: \"true\"", 22, "data.shuffle is the text \"true\"; it must be"},
        {"shuffle: true", "shuffle: 1", 22, "data.shuffle is 1; it must be true or false"},
        {"name: tiny-gpt", "name: off", 2,
         "name is off, which is not a text; write it in quotes if it is meant as one"},
        {"name: tiny-gpt", "name: 123", 2, "name is 123, which is not a text; write it in quotes"},
        {"name: tiny-gpt", "name: 1e3", 2, "name is 1e3, which is not a text"},
        {"name: tiny-gpt", "name: ~", 2, "name is ~; it must be 1 to 63 letters, digits"},
        {"name: tiny-gpt", "name: a/b", 2, "name is a/b; it must be 1 to 63 letters, digits"},
        {"name: tiny-gpt", "name: ..", 2, "name is ..; it must be 1 to 63 letters, digits"},
        {"name: tiny-gpt", "name: \xc3\xa9", 2, "name is \xc3\xa9; it must be 1 to 63 letters"},
        {"name: tiny-gpt", "name: ''", 2, "name is the text \"\"; it must be 1 to 63 letters"},
        {"train: corpus.txt", "train: ''", 22, "data.train is the text \"\"; it must be a text of"},
        {"{type: layernorm, dim: 64}", "layernorm", 8,
         "model.layers[2] is layernorm; it must be a mapping such as {type: layernorm, dim: 64}"},
        {"precision: fp32", "precision: [fp32]", 21,
         "precision is a list; it must be fp32, bf16 or fp16"},
        {"partition: parameters", "partition: {a: 1}", 14,
         "pipeline.partition is a mapping; it must be uniform, parameters, weights, type:REGEX or "
         "profile, or a list of bounds such as [0, 4, 9]"},
        {"partition: parameters", "partition: [0, four, 9]", 14,
         "pipeline.partition[1] is four; it must be a whole number, 0 to 16384"},
        {"partition: parameters", "partition: weights\n  layer_weights: 3", 15,
         "pipeline.layer_weights is 3; it must be a list with one number for each layer"},
        {"partition: parameters", "partition: weights\n  layer_weights: [1, -2]", 15,
         "pipeline.layer_weights[1] is -2; it must be a number of at least 0"},
        {"chunks: 1", "zero_stage: 2", 16, "pipeline.zero_stage is 2; it must be 0 to 1"},
        {"chunks: 1", "zero_stage: -1", 16, "pipeline.zero_stage is -1; it must be "},
        {"chunks: 1", "checkpointable_layers: linear", 16,
         "pipeline.checkpointable_layers is linear; it must be a list of at least one layer type"},
        {"chunks: 1", "checkpointable_layers: []", 16,
         "pipeline.checkpointable_layers is a list; it must be a list of at least one layer type"},
        {"chunks: 1", "checkpointable_layers: [linear, linaer]", 16,
         "pipeline.checkpointable_layers[1] is linaer; it must be embedding"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
    job_text_refuse_first("schema: millrace.job/v1\nname: x\nbatch: 3\nmodel: [1]\n", 3,
                          "batch is 3; it must be a mapping");
}

static void test_values_out_of_bounds_are_refused(void **state) {
    static const job_mistake mistakes[] = {
        {TOPOLOGY, "stages: 0", 13, "pipeline.stages is 0; it must be 1 to 1024"},
        {TOPOLOGY, "stages: 1025", 13, "pipeline.stages is 1025; it must be 1 to 1024"},
        {TOPOLOGY, "stages: -1", 13, "pipeline.stages is -1; it must be 1 to 1024"},
        {TOPOLOGY, "stages: 99999999999999999999999", 13,
         "pipeline.stages is 99999999999999999999999; it must be 1 to 1024"},
        {"seed: 1234", "seed: 18446744073709551616", 3,
         "seed is 18446744073709551616; it must be 0 or more"},
        {"micro_batches: 8", "micro_batches: 4097", 18,
         "batch.micro_batches is 4097; it must be 1 to 4096"},
        {"micro_batch_size: 4", "micro_batch_size: 0", 18,
         "batch.micro_batch_size is 0; it must be 1 to 16777216"},
        {"total_steps: 300", "total_steps: 0", 20, "lr_schedule.total_steps is 0; it must be 1 to"},
        {"lr: 1e-3", "lr: 0", 19, "optimizer.lr is 0; it must be a number above 0 and at most"},
        {"lr: 1e-3", "lr: -1e-3", 19, "optimizer.lr is -1e-3; it must be a number above 0"},
        {"[0.9, 0.95]", "[0.9, 1]", 19,
         "optimizer.betas[1] is 1; it must be a number of at least 0 and below 1"},
        {"eps: 1e-8", "eps: 0", 19, "optimizer.eps is 0; it must be a number above 0"},
        {"grad_clip: 1.0", "grad_clip: -1", 19,
         "optimizer.grad_clip is -1; it must be a number of at least 0"},
        {"heads: 8", "heads: 8, dropout: 1", 7,
         "model.layers[1].dropout is 1; it must be a number of at least 0 and below 1"},
        {"{type: layernorm, dim: 64}", "{type: dropout, p: 1.5}", 8,
         "model.layers[2].p is 1.5; it must be a number of at least 0 and below 1"},
        {"vocab: 256", "vocab: 0", 6, "model.layers[0].vocab is 0; it must be 1 to 16777216"},
        {"vocab: 256", "vocab: 16777217", 6,
         "model.layers[0].vocab is 16777217; it must be 1 to 16777216"},
        {"repeat: 6", "repeat: 0", 7, "model.layers[1].repeat is 0; it must be 1 to 16384"},
        {"repeat: 6", "repeat: 16384", 6,
         "model.layers has 16387 layers; it may have at most 16384"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
    char name[256] = "name: ";
    memset(name + 6, 'n', MR_NAME_BYTES);
    job_text_refuse(job_text_edit("name: tiny-gpt", name), 2,
                    "name is nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn...; it must be 1 to 63");
}

static void test_what_is_put_aside_must_be_taken_as_it_is(void **state) {
    static const job_mistake mistakes[] = {
        {"{type: layernorm, dim: 64}", "{type: layernorm, dim: 64, put: a}", 8,
         "layer 7 (layernorm): put a is taken by no later layer"},
        {"{type: layernorm, dim: 64}", "{type: add, take: a}", 8,
         "layer 7 (add): take is a; it must be what an earlier layer puts"},
        {"{type: layernorm, dim: 64}", "{type: add}", 8,
         "layer 7 (add): take is missing; it must be what an earlier layer puts"},
        {"{type: layernorm, dim: 64}", "{type: layernorm, dim: 64, take: a}", 8,
         "layer 7 (layernorm): take is given, but a layer of type layernorm takes nothing"},
        {"dim: 64, heads: 8", "dim: 64, heads: 8, put: a", 7,
         "layer 2 (transformer_block): put a is already put by layer 1"},
        {"{type: layernorm, dim: 64}",
         "{type: linear, in: 64, out: 32, put: a}\n    - {type: linear, in: 32, out: 64}\n"
         "    - {type: add, take: a}",
         10, "layer 9 (add): take a is f32 [4, 32, 32], but the input is f32 [4, 32, 64]"},
        {"{type: layernorm, dim: 64}", "{type: layernorm, dim: 64, put: -a}", 8,
         "model.layers[2].put is -a"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_words_of_later_versions_list_what_exists(void **state) {
    static const job_mistake mistakes[] = {
        {"schedule: 1f1b", "schedule: zb-h1", 15,
         "pipeline.schedule zb-h1 is not supported by this version; it must be gpipe or 1f1b"},
        {"schedule: 1f1b", "schedule: interleaved", 15,
         "pipeline.schedule interleaved is not supported by this version"},
        {"schedule: 1f1b", "schedule: file:x.txt", 15,
         "pipeline.schedule file:x.txt is not supported by this version"},
        {"schedule: 1f1b", "schedule: 2f2b", 15,
         "pipeline.schedule is 2f2b; it must be gpipe or 1f1b"},
        {"schedule: 1f1b", "schedule: inference", 15, "pipeline.schedule is inference; it must be"},
        {"partition: parameters", "partition: best", 14,
         "pipeline.partition is best; it must be uniform, parameters, weights, type:REGEX or "
         "profile, or a list of bounds such as [0, 4, 9]"},
        {"partition: parameters", "partition: parameters\n  profile: p.json", 15,
         "pipeline.profile is given but pipeline.partition is not profile"},
        {"precision: fp32", "precision: fp8", 21,
         "precision is fp8; it must be fp32, bf16 or fp16"},
        {"format: bytes", "format: nyp", 22,
         "data.format is nyp; it must be bytes, llmc, megatron or npy"},
        {"type: adamw", "type: rmsprop", 19,
         "optimizer.type is rmsprop; it must be adamw, adam, sgd or lion"},
        {"chunks: 1", "chunks: 2", 16,
         "pipeline.chunks greater than 1 is not supported by this version: it is 2; it must be 1"},
        {"heads: 8", "heads: 8, kv_heads: 2", 7,
         "model.layers[1].kv_heads other than heads is not supported by this version: it is 2; it "
         "must be 8"},
        {"heads: 8", "heads: 8, norm: rmsnorm", 7,
         "model.layers[1].norm rmsnorm is not supported by this version; it must be layernorm"},
        {"heads: 8", "heads: 8, activation: swiglu", 7,
         "model.layers[1].activation swiglu is not supported by this version"},
        {"heads: 8", "heads: 8, position: rope", 7,
         "model.layers[1].position rope is not supported by this version; it must be none"},
        {"type: layernorm", "type: rmsnorm", 8,
         "model.layers[2].type rmsnorm is not supported by this version; it must be embedding"},
        {"{type: layernorm, dim: 64}", "{type: conv2d, in: 3, out: 0, kernel: 3}", 8,
         "model.layers[2].out is 0; it must be 1 to 16777216"},
        {"{type: layernorm, dim: 64}", "{type: conv2d, in: 3, out: 4, kernel: 3, padding: 3}", 8,
         "model.layers[2].padding is 3; it must be less than kernel, 3"},
        {"{type: layernorm, dim: 64}", "{type: conv2d, in: 3, out: 4, kernel: 3, pading: 1}", 8,
         "model.layers[2].pading is not a key of a layer of type conv2d; did you mean padding?"},
        {"{type: layernorm, dim: 64}", "{type: maxpool2d, kernel: 3, padding: 2}", 8,
         "model.layers[2].padding is 2; it must be at most half of kernel, 1"},
        {"{type: layernorm, dim: 64}", "{type: maxpool2d, kernel: 3}", 8,
         "layer 7 (maxpool2d): the input is f32 [4, 32, 64]; it must be [N, C, H, W]"},
        {"  layers:\n", "  input: [3, 32, 32]\n  layers:\n", 5,
         "model.input is given but the first layer is an embedding, which takes tokens"},
        {"  layers:\n", "  input: [3, 0]\n  layers:\n", 5,
         "model.input[1] is 0; it must be a whole number, 1 to 16777216"},
        {"  layers:\n", "  input: 3\n  layers:\n", 5,
         "model.input is 3; it must be a list of 1 to 5 sizes"},
        {"type: layernorm", "type: batchnorm", 8,
         "model.layers[2].type is batchnorm; it must be embedding, transformer_block"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_patterns_that_cannot_cut_are_refused(void **state) {
    static const job_mistake mistakes[] = {
        {"partition: parameters", "partition: 'type:block|[a-'", 14,
         "pipeline.partition: pattern block|[a-: missing terminating ] for character class (byte "
         "9)"},
        {"partition: parameters", "partition: type:(?<=a*)b", 14,
         "pipeline.partition: pattern (?<=a*)b: lookbehind assertion is not fixed length"},
        {"partition: parameters", "partition: type:\\C", 14, "pipeline.partition: pattern \\C: "},
        {"partition: parameters", "partition: type:conv", 14,
         "pipeline.partition: pattern conv is in no layer's type or name"},
        {"partition: parameters", "partition: type:block:2", 14,
         "pipeline.partition: pattern block:2 is in no layer's type or name"},
        {"partition: parameters", "partition: type:a|((((\\w+)+)+)+)+-$", 14,
         "pipeline.partition: pattern a|((((\\w+)+)+)+)+-$ needs over 10000 steps in"},
        {"heads: 8", "heads: 8, name: 'a b'", 7,
         "model.layers[1].name is the text \"a b\"; it must be 1 to 63 letters"},
        {"heads: 8", "heads: 8, name: 12", 7, "model.layers[1].name is 12, which is not a text"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_a_pattern_that_is_too_long_is_refused(void **state) {
    (void)state;
    char text[320];
    int wrote = snprintf(text, sizeof(text), "partition: type:%0256d", 0);
    assert_in_range(wrote, 256, sizeof(text) - 1);
    job_text_refuse(job_text_edit("partition: parameters", text), 14,
                    "pipeline.partition: pattern 0000000");
    text[strlen(text) - 1] = '\0'; /* 255 bytes are a pattern, in no layer's name */
    job_text_refuse(job_text_edit("partition: parameters", text), 14,
                    "pipeline.partition: pattern 0000000");
}

static void test_fields_of_another_optimizer_are_refused(void **state) {
    static const job_mistake mistakes[] = {
        {"type: adamw", "type: lion", 19,
         "optimizer.eps is given but optimizer.type is lion; it belongs to adamw and adam"},
        {", eps: 1e-8", ", momentum: 0.9", 19,
         "optimizer.momentum is given but optimizer.type is adamw; it belongs to sgd"},
        {"type: adamw", "type: adam, nesterov: false", 19,
         "optimizer.nesterov is given but optimizer.type is adam; it belongs to sgd"},
        {OPTIMIZER, "type: sgd, betas: [0.9, 0.95]", 19,
         "optimizer.betas is given but optimizer.type is sgd; it belongs to adamw, adam and lion"},
        {OPTIMIZER, "type: sgd, nesterov: true", 19,
         "optimizer.nesterov is true but optimizer.momentum is 0; it must be above 0 and below 1"},
        {OPTIMIZER, "type: sgd, momentum: 1", 19,
         "optimizer.momentum is 1; it must be a number of at least 0 and below 1"},
        {OPTIMIZER, "type: sgd, momentum: 0.9, nesterov: 1", 19,
         "optimizer.nesterov is 1; it must be true or false"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

/* More stages than layers among them, which the field lets pass (deepspeed.md 10). */
static void test_fields_that_contradict_are_refused(void **state) {
    static const job_mistake mistakes[] = {
        {TOPOLOGY, TOPOLOGY "\n  stages: 2", 14,
         "pipeline.stages and pipeline.topology.pipe are both given; stages: N is short for"},
        {"pipe: 2", "pipe: 10", 13,
         "pipeline.topology.pipe is 10; it must be at most 9, the number of layers"},
        {TOPOLOGY, "stages: 10", 13, "pipeline.stages is 10; it must be at most 9, the number of"},
        {"partition: parameters", "partition: [0, 9]", 14,
         "pipeline.partition has 2 bounds; for 2 stages it must have 3"},
        {"partition: parameters", "partition: []", 14, "pipeline.partition has 0 bounds; for 2"},
        {"partition: parameters", "partition: [1, 4, 9]", 14,
         "pipeline.partition[0] is 1; it must be 0"},
        {"partition: parameters", "partition: [0, 0, 9]", 14,
         "pipeline.partition[1] is 0; it must be greater than the bound before it, 0"},
        {"partition: parameters", "partition: [0, 4, 8]", 14,
         "pipeline.partition[2] is 8; it must be 9, the number of layers"},
        {"partition: parameters", "partition: [0, 4, 10]", 14,
         "pipeline.partition[2] is 10; it must be 9, the number of layers"},
        {"partition: parameters", "partition: [0, 12, 9]", 14,
         "pipeline.partition[1] is 12; it must be less than 9, the number of layers"},
        {"partition: parameters", "partition: weights", 14,
         "pipeline.layer_weights is missing; partition: weights needs one number for each of the "
         "9 layers"},
        {"partition: parameters", "partition: weights\n  layer_weights: [1, 2]", 15,
         "pipeline.layer_weights has 2 numbers; it must have 9, the number of layers"},
        {"partition: parameters", "layer_weights: [1, 2]", 14,
         "pipeline.layer_weights is given but pipeline.partition is not weights"},
        {"heads: 8", "heads: 7", 7, "model.layers[1].heads is 7; it must divide dim, which is 64"},
        {"{type: layernorm, dim: 64}", "{type: layernorm, dim: 32}", 8,
         "layer 7 (layernorm): dim is 32 but the input is f32 [4, 32, 64]; it must be 64"},
        {"{type: layernorm, dim: 64}", "{type: linear, in: 65, out: 64}", 8,
         "layer 7 (linear): in is 65 but the input is f32 [4, 32, 64]; it must be 64"},
        {"{type: layernorm, dim: 64}", "{type: embedding, vocab: 256, dim: 64}", 8,
         "layer 7 (embedding): the input is f32 [4, 32, 64]; an embedding needs tokens"},
        {"sequence_length: 32", "sequence_length: 33", 6,
         "layer 0 (embedding): positions is 32; it must be at least the sequence length, 33"},
        {"tie: embed}", "tie: embed, dim: 32}", 9,
         "model.layers[3] has a weight of [256, 32] but its tie embed shares [256, 64]"},
        {"tie: embed}", "vocab: 256, dim: 64}", 6,
         "model.layers[0].tie is embed, which no other layer has; a tie joins at least two"},
        {"    - {type: lm_head, tie: embed}\n", "    - {type: lm_head, tie: embed}\n    - gelu\n",
         10, "model.layers[4] is gelu; it must be a mapping"},
        {"{type: layernorm, dim: 64}", "{type: lm_head, tie: embed}", 9,
         "layer 8 (lm_head): dim is 64 but the input is f32 [4, 32, 256]; it must be 256"},
        {"warmup_steps: 20", "warmup_steps: 301", 20,
         "lr_schedule.warmup_steps is 301; it must be at most 300, the total steps"},
        {"min_lr: 6e-4", "min_lr: 2e-3", 20,
         "lr_schedule.min_lr is 0.002; it must be at most optimizer.lr, 0.001"},
        {"loss: cross_entropy", "loss: mse", 10,
         "model.loss is mse but data.train gives tokens as labels; it must be cross_entropy"},
        {"vocab: 256", "vocab: 255", 6,
         "the embedding's vocab is 255; data.format bytes needs at least 256"},
        {"vocab: 256", "vocab: 16777216, repeat: 1, positions: 16777216, dim: 16777216 } #", 6,
         "layer 0 (embedding): wte.weight of 16777216 x 16777216 elements is too large"},
    };
    (void)state;
    JOB_TEXT_REFUSE_ALL(mistakes);
}

static void test_models_that_cannot_be_are_refused(void **state) {
    char text[512];
    static const char format[] = "schema: millrace.job/v1\n"
                                 "name: a\n"
                                 "model: {layers: [\n"
                                 "  {type: embedding, vocab: 256, dim: 8},\n"
                                 "  %s]}\n"
                                 "batch: {micro_batch_size: 1, sequence_length: 2}\n"
                                 "lr_schedule: {total_steps: 5}\n"
                                 "data: {train: x}\n";
    (void)state;
    (void)snprintf(text, sizeof(text), format, "{type: layernorm, dim: 8}");
    job_text_refuse(text, 5,
                    "model.loss is cross_entropy but the last layer is layernorm; it must be an "
                    "lm_head, or a linear");
    (void)snprintf(text, sizeof(text), format, "{type: linear, in: 8, out: 100}");
    job_text_refuse(text, 5, "the last layer has 100 outputs; it must have at least 256");
    job_text_refuse("schema: millrace.job/v1\nname: a\n"
                    "model: {loss: none, layers: [{type: relu}]}\n"
                    "batch: {micro_batch_size: 1, sequence_length: 2}\n",
                    3, "model.layers does not say what size the input has; give model.input");
    job_text_refuse("schema: millrace.job/v1\nname: a\n"
                    "model: {layers: [{type: linear, in: 3, out: 3}]}\n"
                    "batch: {micro_batch_size: 1, sequence_length: 2}\n"
                    "lr_schedule: {total_steps: 5}\ndata: {train: x}\n",
                    3, "data.train gives tokens but the first layer is linear");
    job_text_refuse("schema: millrace.job/v1\nname: a\n"
                    "model: {layers: [{type: embedding, vocab: 256, dim: 8}]}\n"
                    "batch: {micro_batch_size: 16777216, sequence_length: 16777216}\n"
                    "lr_schedule: {total_steps: 5}\n",
                    3, "layer 0 (embedding): the model is too large: a job may have at most");
    job_text_refuse("schema: millrace.job/v1\nname: a\nmodel: {layers: []}\n"
                    "batch: {micro_batch_size: 1, sequence_length: 2}\n"
                    "lr_schedule: {total_steps: 5}\n",
                    3, "model.layers is an empty list; it must be a list of 1 to 16384 layers");
}

static void test_all_mistakes_are_listed_in_file_order(void **state) {
    static const char text[] = "schema: millrace.job/v1\n"
                               "name: a\n"
                               "precision: fp64\n"
                               "model:\n"
                               "  layers: [{type: embedding, vocab: 256}]\n"
                               "  los: mse\n"
                               "batch: {micro_batch_size: 0, sequence_length: 2}\n"
                               "lr_schedule: {total_steps: 5, warmup_steps: 9}\n";
    static const size_t lines[] = {3, 5, 6, 7, 8};
    mr_job *job = NULL;
    mr_job_errors errors;
    (void)state;
    mr_status status = mr_job_parse(text, strlen(text), &job, &errors);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(errors.count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(errors.items[i].line, lines[i]);
    assert_string_equal(status.text, "line 3: precision is fp64; it must be fp32, bf16 or fp16");
}

static void test_errors_stop_at_their_maximum(void **state) {
    char text[8192] = "name: a\n";
    mr_job *job = NULL;
    mr_job_errors errors;
    (void)state;
    for (size_t i = 0; i < 50; i++)
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "unknown_%zu: 1\n", i);
    mr_status status = mr_job_parse(text, strlen(text), &job, &errors);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(errors.count, MR_JOB_ERRORS_MAX);
}

/* Good files that can be planned but not run: each names its field. */
static void test_jobs_that_lack_what_a_run_needs_are_planned_but_not_run(void **state) {
    (void)state;
    static const struct {
        const char *from;
        const char *to;
        const char *text;
    } cases[] = {
        {", total_steps: 300", "", "lr_schedule.total_steps is missing"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_job *job = job_text_parse(job_text_edit(cases[i].from, cases[i].to));
        mr_status status = mr_job_check_runnable(job, MR_JOB_MODE_TRAIN);
        assert_int_not_equal(status.code, MR_CODE_OK);
        assert_memory_equal(status.text, cases[i].text, strlen(cases[i].text));
        mr_job_destroy(job);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_keys_are_refused),
        cmocka_unit_test(test_missing_keys_are_named),
        cmocka_unit_test(test_wrong_types_are_refused),
        cmocka_unit_test(test_values_out_of_bounds_are_refused),
        cmocka_unit_test(test_what_is_put_aside_must_be_taken_as_it_is),
        cmocka_unit_test(test_words_of_later_versions_list_what_exists),
        cmocka_unit_test(test_fields_of_another_optimizer_are_refused),
        cmocka_unit_test(test_patterns_that_cannot_cut_are_refused),
        cmocka_unit_test(test_a_pattern_that_is_too_long_is_refused),
        cmocka_unit_test(test_fields_that_contradict_are_refused),
        cmocka_unit_test(test_models_that_cannot_be_are_refused),
        cmocka_unit_test(test_all_mistakes_are_listed_in_file_order),
        cmocka_unit_test(test_errors_stop_at_their_maximum),
        cmocka_unit_test(test_jobs_that_lack_what_a_run_needs_are_planned_but_not_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
