/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a job file means what DESIGN section 4 says, in YAML and in JSON, written out or short.
 * Method: texts are read and the struct is compared field by field with what a person reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/job_text.h"

static void check_layers(const mr_job *job) {
    assert_int_equal(job->layer_count, 9);
    assert_int_equal(job->block_count, 6);
    assert_int_equal(job->layers[0].type, MR_LAYER_TYPE_EMBEDDING);
    assert_string_equal(job->layers[0].tie, "embed");
    assert_int_equal(job->layers[0].vocab, 256);
    assert_int_equal(job->layers[0].dim, 64);
    assert_int_equal(job->layers[0].positions, 32);
    for (size_t i = 1; i <= 6; i++) {
        const mr_layer_spec *block = &job->layers[i];
        assert_int_equal(block->type, MR_LAYER_TYPE_TRANSFORMER_BLOCK);
        assert_int_equal(block->heads, 8);
        assert_int_equal(block->kv_heads, 8);
        assert_int_equal(block->ffn, 256);
        assert_int_equal(block->norm, MR_NORM_LAYERNORM);
        assert_int_equal(block->activation, MR_ACTIVATION_GELU_TANH);
        assert_int_equal(block->position, MR_POSITION_NONE);
        assert_true(block->bias);
        assert_true(block->causal);
        assert_true(block->dropout == 0);
        assert_true(block->eps == 1e-5);
        assert_string_equal(block->tie, "");
    }
    assert_int_equal(job->layers[7].type, MR_LAYER_TYPE_LAYERNORM);
    assert_int_equal(job->layers[7].dim, 64);
    assert_int_equal(job->layers[8].type, MR_LAYER_TYPE_LM_HEAD);
    assert_int_equal(job->layers[8].vocab, 256); /* both from the tie */
    assert_int_equal(job->layers[8].dim, 64);
}

static void check_rest(const mr_job *job) {
    assert_string_equal(job->name, "tiny-gpt");
    assert_int_equal(job->seed, 1234);
    assert_int_equal(job->loss, MR_LOSS_CROSS_ENTROPY);
    assert_true(job->seed_layers);
    assert_int_equal(job->pipe, 2);
    assert_int_equal(job->data, 1);
    assert_int_equal(job->model, 1);
    assert_int_equal(job->partition, MR_PARTITION_PARAMETERS);
    assert_int_equal(job->schedule, MR_SCHEDULE_1F1B);
    assert_int_equal(job->chunks, 1);
    assert_int_equal(job->checkpoint_interval, 0);
    assert_int_equal(job->micro_batch_size, 4);
    assert_int_equal(job->micro_batches, 8);
    assert_int_equal(job->sequence_length, 32);
    assert_int_equal(job->optimizer, MR_OPTIMIZER_ADAMW);
    assert_true(job->momentum == 0 && !job->nesterov);
    assert_true(job->lr == 1e-3);
    assert_true(job->beta1 == 0.9);
    assert_true(job->beta2 == 0.95);
    assert_true(job->eps == 1e-8);
    assert_true(job->weight_decay == 0.1);
    assert_true(job->grad_clip == 1.0);
    assert_int_equal(job->lr_kind, MR_LR_COSINE);
    assert_int_equal(job->warmup_steps, 20);
    assert_int_equal(job->total_steps, 300);
    assert_true(job->min_lr == 6e-4);
    assert_int_equal(job->precision, MR_DTYPE_F32);
    assert_int_equal(job->data_format, MR_DATA_BYTES);
    assert_string_equal(job->data_train, "corpus.txt");
    assert_true(job->data_shuffle);
    assert_string_equal(job->checkpoint_dir, "checkpoints");
    assert_int_equal(job->checkpoint_every_steps, 100);
    assert_int_equal(job->checkpoint_keep, 3);
    assert_false(job->checkpoint_initial);
}

static void test_example_gives_expected_job(void **state) {
    (void)state;
    mr_job *job = job_text_parse(job_text_good);
    check_layers(job);
    check_rest(job);
    mr_job_destroy(job);
}

static void test_precision_reaches_every_layer(void **state) {
    (void)state;
    char text[8192];
    const char *at = strstr(job_text_good, "precision: fp32");
    assert_non_null(at);
    (void)snprintf(text, sizeof(text), "%.*sprecision: bf16%s", (int)(at - job_text_good),
                   job_text_good, at + strlen("precision: fp32"));
    mr_job *wide = job_text_parse(job_text_good);
    mr_job *job = job_text_parse(text);
    assert_int_equal(job->precision, MR_DTYPE_BF16);
    for (size_t i = 0; i < job->layer_count; i++) {
        assert_int_equal(job->layers[i].precision, MR_DTYPE_BF16);
        assert_int_equal(wide->layers[i].precision, MR_DTYPE_F32);
    }
    assert_string_equal(job->model_hash, wide->model_hash); /* checkpoints do not know it */
    mr_job_destroy(job);
    mr_job_destroy(wide);
}

static void test_json_gives_the_same_job(void **state) {
    (void)state;
    static const char json[] =
        "{\n"
        "\t\"schema\": \"millrace.job/v1\", \"name\": \"tiny-gpt\", \"seed\": 1234,\n"
        "\t\"model\": {\"layers\": [\n"
        "\t\t{\"type\": \"embedding\", \"tie\": \"embed\", \"vocab\": 256, \"dim\": 64,\n"
        "\t\t \"positions\": 32},\n"
        "{\"type\":\"transformer_block\",\"repeat\":6,\"dim\":64,\"heads\":8},\n"
        "\t\t{\"type\": \"layernorm\", \"dim\": 64},\n"
        "\t\t{\"type\": \"lm_head\", \"tie\": \"embed\"}\n"
        "\t], \"loss\": \"cross_entropy\", \"seed_layers\": true},\n"
        "\t\"pipeline\": {\"stages\": 2, \"partition\": \"parameters\", \"schedule\": \"1f1b\"},\n"
        "\t\"batch\": {\"micro_batch_size\": 4, \"micro_batches\": 8, \"sequence_length\": 32},\n"
        "\t\"optimizer\": {\"type\": \"adamw\", \"lr\": 0.001, \"betas\": [0.9, 0.95],\n"
        "\t\t\"eps\": 1E-8, \"weight_decay\": 0.1, \"grad_clip\": 1},\n"
        "\t\"lr_schedule\": {\"type\": \"cosine\", \"warmup_steps\": 20, \"total_steps\": 300,\n"
        "\t\t\"min_lr\": 6e-4},\n"
        "\t\"precision\": \"fp32\",\n"
        "\t\"data\": {\"format\": \"bytes\", \"train\": \"corpus.txt\", \"shuffle\": true},\n"
        "\t\"checkpoint\": {\"dir\": \"checkpoints\", \"every_steps\": 100, \"keep\": 3,\n"
        "\t\t\"initial\": false}\n"
        "}\n";
    mr_job *job = job_text_parse(json);
    mr_job *yaml = job_text_parse(job_text_good);
    check_layers(job);
    check_rest(job);
    assert_string_equal(job->model_hash, yaml->model_hash);
    mr_job_destroy(job);
    mr_job_destroy(yaml);
}

static void test_least_training_job_gets_documented_defaults(void **state) {
    static const char text[] = "schema: millrace.job/v1\n"
                               "name: a\n"
                               "model:\n"
                               "  layers: [{type: embedding, vocab: 300, dim: 8},\n"
                               "           {type: lm_head, vocab: 300, dim: 8}]\n"
                               "batch: {micro_batch_size: 1, sequence_length: 2}\n"
                               "lr_schedule: {total_steps: 5}\n";
    (void)state;
    mr_job *job = job_text_parse(text);
    assert_int_equal(job->seed, 1234);
    assert_int_equal(job->loss, MR_LOSS_CROSS_ENTROPY);
    assert_true(job->seed_layers);
    assert_int_equal(job->pipe, 1);
    assert_int_equal(job->data, 1);
    assert_int_equal(job->model, 1);
    assert_int_equal(job->partition, MR_PARTITION_PARAMETERS);
    assert_int_equal(job->schedule, MR_SCHEDULE_1F1B);
    assert_int_equal(job->chunks, 1);
    assert_int_equal(job->micro_batches, 1);
    assert_true(job->lr == 1e-3);
    assert_true(job->beta1 == 0.9);
    assert_true(job->beta2 == 0.999);
    assert_true(job->eps == 1e-8);
    assert_true(job->weight_decay == 0.01);
    assert_true(job->grad_clip == 0);
    assert_int_equal(job->lr_kind, MR_LR_CONSTANT);
    assert_int_equal(job->warmup_steps, 0);
    assert_true(job->min_lr == 0);
    assert_int_equal(job->precision, MR_DTYPE_F32);
    assert_string_equal(job->data_train, "");
    assert_true(job->data_shuffle);
    assert_string_equal(job->checkpoint_dir, "");
    assert_int_equal(job->checkpoint_every_steps, 0);
    assert_int_equal(job->checkpoint_keep, 0);
    assert_int_equal(job->layers[0].positions, 0);
    mr_job_destroy(job);
}

/* Each type's defaults are the field's; what is given stays. */
static void test_optimizers_have_their_own_defaults(void **state) {
    static const struct {
        const char *text;
        mr_optimizer_kind kind;
        double lr, beta2, weight_decay, momentum;
        bool nesterov;
    } cases[] = {
        {"type: adamw", MR_OPTIMIZER_ADAMW, 1e-3, 0.999, 0.01, 0, false},
        {"type: adam", MR_OPTIMIZER_ADAM, 1e-3, 0.999, 0, 0, false},
        {"type: adam, weight_decay: 0.2", MR_OPTIMIZER_ADAM, 1e-3, 0.999, 0.2, 0, false},
        {"type: sgd", MR_OPTIMIZER_SGD, 1e-3, 0.999, 0, 0, false},
        {"type: sgd, lr: 0.1, momentum: 0.9, nesterov: true", MR_OPTIMIZER_SGD, 0.1, 0.999, 0, 0.9,
         true},
        {"type: lion", MR_OPTIMIZER_LION, 1e-4, 0.99, 0, 0, false},
        {"type: lion, lr: 1e-3, betas: [0.9, 0.98]", MR_OPTIMIZER_LION, 1e-3, 0.98, 0, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        (void)snprintf(text, sizeof(text),
                       "schema: millrace.job/v1\nname: a\nmodel:\n"
                       "  layers: [{type: linear, in: 1, out: 1}]\n  loss: mse\n"
                       "batch: {micro_batch_size: 1, sequence_length: 1}\n"
                       "lr_schedule: {total_steps: 5}\noptimizer: {%s}\n",
                       cases[i].text);
        mr_job *job = job_text_parse(text);
        assert_int_equal(job->optimizer, cases[i].kind);
        assert_true(job->lr == cases[i].lr);
        assert_true(job->beta1 == 0.9 && job->beta2 == cases[i].beta2);
        assert_true(job->weight_decay == cases[i].weight_decay);
        assert_true(job->momentum == cases[i].momentum);
        assert_true(job->nesterov == cases[i].nesterov);
        mr_job_destroy(job);
    }
}

static void test_inference_job_needs_no_steps(void **state) {
    static const char text[] = "schema: millrace.job/v1\n"
                               "name: a\n"
                               "model:\n"
                               "  layers: [{type: linear, in: 4, out: 3}, {type: relu},\n"
                               "           {type: dropout}, {type: dropout, p: 0.25},\n"
                               "           {type: linear, in: 3, out: 2, bias: false,\n"
                               "            parallel: row}]\n"
                               "  loss: none\n"
                               "batch: {micro_batch_size: 7, sequence_length: 1}\n";
    mr_shape shape;
    (void)state;
    mr_job *job = job_text_parse(text);
    assert_int_equal(job->total_steps, 0);
    assert_true(job->layers[0].bias);
    assert_true(job->layers[2].dropout == 0.5);
    assert_true(job->layers[3].dropout == 0.25);
    assert_false(job->layers[4].bias);
    assert_int_equal(job->layers[4].parallel, MR_PARALLEL_ROW);
    shape = mr_job_input_shape(job);
    assert_int_equal(shape.dtype, MR_DTYPE_F32);
    assert_int_equal(shape.dim_count, 2);
    assert_int_equal(shape.dims[0], 7);
    assert_int_equal(shape.dims[1], 4);
    assert_int_equal(mr_job_label_shape(job, &shape).code, MR_CODE_FAILED_PRECONDITION);
    mr_job_destroy(job);
}

static void test_bounds_and_weights_are_kept(void **state) {
    (void)state;
    mr_job *job = job_text_parse(job_text_edit("partition: parameters", "partition: [0, 4, 9]"));
    assert_int_equal(job->partition, MR_PARTITION_BOUNDS);
    assert_int_equal(job->bound_count, 3);
    assert_int_equal(job->bounds[1], 4);
    assert_int_equal(job->bounds[2], 9);
    mr_job_destroy(job);
    job = job_text_parse(job_text_edit(
        "partition: parameters",
        "partition: weights\n  layer_weights: [1, 3, 3, 3.5, 3, 3, 3e0, 0, 2]"));
    assert_int_equal(job->partition, MR_PARTITION_WEIGHTS);
    assert_int_equal(job->weight_count, 9);
    assert_true(job->weights[3] == 3.5);
    assert_true(job->weights[6] == 3);
    assert_true(job->weights[7] == 0);
    mr_job_destroy(job);
    job = job_text_parse(job_text_edit("partition: parameters", "partition: uniform"));
    assert_int_equal(job->partition, MR_PARTITION_UNIFORM);
    mr_job_destroy(job);
}

static void test_a_pattern_is_kept_to_its_last_byte(void **state) {
    static const struct {
        const char *text;
        const char *pattern;
    } cases[] = {
        {"partition: type:transformer", "transformer"},
        {"partition: 'type:'", ""},
        {"partition: 'type:Block|a:b: \\DNorm|'", "Block|a:b: \\DNorm|"},
        {"partition: \"type:caf\\u00e9|head\"", "caf\xc3\xa9|head"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_job *job = job_text_parse(job_text_edit("partition: parameters", cases[i].text));
        assert_int_equal(job->partition, MR_PARTITION_TYPE);
        assert_string_equal(job->partition_pattern, cases[i].pattern);
        mr_job_destroy(job);
    }
}

static void test_names_of_layers_are_kept(void **state) {
    (void)state;
    mr_job *job = job_text_parse(job_text_edit("heads: 8}", "heads: 8, name: decoder.Body}"));
    assert_string_equal(job->layers[0].name, "");
    assert_string_equal(job->layers[1].name, "decoder.Body");
    assert_string_equal(job->layers[6].name, "decoder.Body");
    assert_string_equal(job->layers[7].name, "");
    mr_job_destroy(job);
}

static void test_checkpointable_layers_are_types(void **state) {
    (void)state;
    mr_job *job = job_text_parse(job_text_edit(
        "activation_checkpoint_interval: 0",
        "activation_checkpoint_interval: 2\n  checkpointable_layers: [lm_head, embedding]"));
    assert_int_equal(job->checkpoint_interval, 2);
    for (size_t i = 0; i < job->layer_count; i++)
        assert_int_equal(mr_job_layer_is_checkpointable(job, i), i == 0 || i == 8);
    mr_job_destroy(job);
    job = job_text_parse(
        job_text_edit("activation_checkpoint_interval: 0", "activation_checkpoint_interval: 2"));
    for (size_t i = 0; i < job->layer_count; i++)
        assert_true(mr_job_layer_is_checkpointable(job, i));
    mr_job_destroy(job);
}

static void test_zero_stage_is_none_or_one(void **state) {
    (void)state;
    mr_job *job = job_text_parse(job_text_good);
    assert_int_equal(job->zero_stage, 0);
    mr_job_destroy(job);
    job = job_text_parse(job_text_edit("chunks: 1", "zero_stage: 1"));
    assert_int_equal(job->zero_stage, 1);
    mr_job_destroy(job);
}

static void test_short_and_quoted_forms_are_read(void **state) {
    (void)state;
    mr_job *job =
        job_text_parse(job_text_edit("topology: {pipe: 2, data: 1, model: 1}", "stages: 9"));
    assert_int_equal(job->pipe, 9);
    mr_job_destroy(job);
    job = job_text_parse(job_text_edit("topology: {pipe: 2, data: 1, model: 1}", ""));
    assert_int_equal(job->pipe, 1);
    mr_job_destroy(job);
    job = job_text_parse(job_text_edit("name: tiny-gpt", "\"name\": '123'"));
    assert_string_equal(job->name, "123");
    mr_job_destroy(job);
    job = job_text_parse(job_text_edit("seed: 1234", "seed: 18446744073709551615"));
    assert_true(job->seed == UINT64_MAX);
    mr_job_destroy(job);
}

static void test_shipped_example_is_good(void **state) {
    static char text[MR_JOB_FILE_BYTES_MAX];
    (void)state;
    FILE *file = fopen("deploy/examples/tiny-gpt.yaml", "r");
    assert_non_null(file);
    size_t bytes = fread(text, 1, sizeof(text) - 1, file);
    assert_int_equal(fclose(file), 0);
    text[bytes] = '\0';
    mr_job *job = job_text_parse(text);
    assert_int_equal(job->loss, MR_LOSS_CROSS_ENTROPY);
    mr_job_destroy(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example_gives_expected_job),
        cmocka_unit_test(test_precision_reaches_every_layer),
        cmocka_unit_test(test_json_gives_the_same_job),
        cmocka_unit_test(test_least_training_job_gets_documented_defaults),
        cmocka_unit_test(test_optimizers_have_their_own_defaults),
        cmocka_unit_test(test_inference_job_needs_no_steps),
        cmocka_unit_test(test_bounds_and_weights_are_kept),
        cmocka_unit_test(test_a_pattern_is_kept_to_its_last_byte),
        cmocka_unit_test(test_names_of_layers_are_kept),
        cmocka_unit_test(test_checkpointable_layers_are_types),
        cmocka_unit_test(test_zero_stage_is_none_or_one),
        cmocka_unit_test(test_short_and_quoted_forms_are_read),
        cmocka_unit_test(test_shipped_example_is_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
