/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a job file whose layers pipeline.topology.model cannot cut is refused with line, field,
 * value and what would be right; the shards of one that it can cut are described with their own
 * sizes and add up to the layers.
 * Method: small job files with one wish each; for good ones every parameter of every model rank's
 * description against the slices of shard.h, and the bytes that a shard keeps against the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/job.h"
#include "daemon/model/shard.h"

enum { LAYERS_MAX = 8, FIRST_LAYER_LINE = 5 };

static const char *text_make(size_t model, const char *layers, const char *loss) {
    static char text[2048];
    int wrote = snprintf(text, sizeof(text),
                         "schema: millrace.job/v1\n"
                         "name: cut\n"
                         "model:\n"
                         "  layers:\n"
                         "%s"
                         "  loss: %s\n"
                         "pipeline: {topology: {pipe: 1, data: 1, model: %zu}}\n"
                         "batch: {micro_batch_size: 2, sequence_length: 4}\n"
                         "lr_schedule: {total_steps: 3}\n",
                         layers, loss, model);
    assert_in_range(wrote, 0, sizeof(text) - 1);
    return text;
}

static mr_job *job_make(size_t model, const char *layers, const char *loss) {
    const char *text = text_make(model, layers, loss);
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, strlen(text), &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return job;
}

static const char gpt[] =
    "    - {type: embedding, tie: embed, vocab: 11, dim: 12, positions: 4}\n"
    "    - {type: transformer_block, dim: 12, heads: 4, ffn: 20, dropout: 0.1}\n"
    "    - {type: layernorm, dim: 12}\n"
    "    - {type: lm_head, tie: embed}\n";
static const char numbers[] =
    "    - {type: linear, in: 6, out: 8, parallel: column}\n"
    "    - {type: gelu}\n"
    "    - {type: linear, in: 8, out: 4, parallel: row}\n";

static void test_layers_that_cannot_be_cut_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t model;
        const char *layers;
        const char *loss;
        size_t line;
        const char *error;
    } cases[] = {
        {3, gpt, "cross_entropy", FIRST_LAYER_LINE + 1,
         "layer 1 (transformer_block): heads is 4; pipeline.topology.model, 3, must divide it"},
        {2, "    - {type: transformer_block, dim: 12, heads: 4, ffn: 21}\n", "mse",
         FIRST_LAYER_LINE,
         "layer 0 (transformer_block): ffn is 21; pipeline.topology.model, 2, must divide it"},
        {4, "    - {type: embedding, vocab: 3, dim: 4}\n", "mse", FIRST_LAYER_LINE,
         "layer 0 (embedding): wte.weight has 3 blocks of 1 rows; each of the 4 model ranks needs "
         "one"},
        {2, "    - {type: linear, in: 6, out: 7, parallel: column}\n", "cross_entropy",
         FIRST_LAYER_LINE,
         "layer 0 (linear): out is 7; pipeline.topology.model, 2, must divide it"},
        {2, "    - {type: linear, in: 7, out: 6, parallel: row}\n", "mse", FIRST_LAYER_LINE,
         "layer 0 (linear): in is 7; pipeline.topology.model, 2, must divide it"},
        {2, "    - {type: linear, in: 6, out: 4, parallel: row}\n", "mse", FIRST_LAYER_LINE,
         "layer 0 (linear): parallel is row, which needs an input cut over "
         "pipeline.topology.model, 2, as"},
        {2, "    - {type: linear, in: 6, out: 4, parallel: column}\n", "mse", FIRST_LAYER_LINE,
         "model.loss is mse but the model axis of 2 cuts what the last layer gives;"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = text_make(cases[i].model, cases[i].layers, cases[i].loss);
        char wanted[MR_STATUS_TEXT_BYTES];
        mr_job *job = NULL;
        mr_job_errors errors;
        mr_status status = mr_job_parse(text, strlen(text), &job, &errors);
        assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
        assert_int_equal(errors.items[0].line, cases[i].line);
        (void)snprintf(wanted, sizeof(wanted), "line %zu: %s", cases[i].line, cases[i].error);
        if (strncmp(status.text, wanted, strlen(wanted)) != 0)
            fail_msg("case %zu: %s", i, status.text);
    }
}

static void test_the_same_layers_are_good_on_one_rank(void **state) {
    (void)state;
    mr_job_destroy(job_make(1, "    - {type: linear, in: 7, out: 6, parallel: row}\n", "mse"));
    mr_job_destroy(job_make(1, "    - {type: linear, in: 6, out: 7, parallel: column}\n", "mse"));
}

/* Every parameter of every rank has its slice's shape, and cut ones add up. */
static void check_shards(const mr_job *job) {
    mr_layer_description whole[LAYERS_MAX];
    mr_layer_description shards[LAYERS_MAX];
    assert_true(job->layer_count <= LAYERS_MAX);
    assert_true(mr_status_is_ok(mr_job_describe(job, whole)));
    size_t held[LAYERS_MAX] = {0};
    for (size_t rank = 0; rank < job->model; rank++) {
        assert_true(mr_status_is_ok(mr_job_describe_shards(job, rank, shards)));
        for (size_t l = 0; l < job->layer_count; l++) {
            assert_int_equal(shards[l].parameter_count, whole[l].parameter_count);
            for (size_t i = 0; i < whole[l].parameter_count; i++) {
                mr_shard shard;
                size_t elements = 0;
                const mr_parameter *parameter = &shards[l].parameters[i];
                assert_true(mr_status_is_ok(
                    mr_shard_make(&whole[l].parameters[i], rank, job->model, &shard)));
                assert_true(mr_shape_equal(&parameter->shape, &shard.shape));
                assert_true(mr_shape_equal(&parameter->whole, &whole[l].parameters[i].shape));
                assert_true(mr_shape_elements(&shard.shape, &elements));
                held[l] += parameter->cut == MR_MODEL_CUT_NONE && rank > 0 ? 0 : elements;
            }
        }
    }
    for (size_t l = 0; l < job->layer_count; l++)
        assert_int_equal(held[l], whole[l].parameter_elements);
}

static void test_shards_add_up_to_the_layers(void **state) {
    (void)state;
    for (size_t width = 2; width <= 4; width *= 2) {
        mr_job *jobs[] = {job_make(width, gpt, "cross_entropy"), job_make(width, numbers, "mse")};
        for (size_t i = 0; i < 2; i++) {
            check_shards(jobs[i]);
            mr_job_destroy(jobs[i]);
        }
    }
}

static void test_a_shard_keeps_its_share_and_gives_what_the_next_layer_needs(void **state) {
    (void)state;
    mr_layer_description whole[LAYERS_MAX];
    mr_layer_description shards[LAYERS_MAX];
    mr_job *job = job_make(2, gpt, "cross_entropy");
    assert_true(mr_status_is_ok(mr_job_describe(job, whole)));
    assert_true(mr_status_is_ok(mr_job_describe_shards(job, 1, shards)));
    assert_true(mr_shape_equal(&shards[1].output, &whole[1].output));
    assert_int_equal(shards[1].output.cut_from, 0);
    assert_true(shards[1].saved_bytes < whole[1].saved_bytes);
    assert_true(shards[1].flops_forward < whole[1].flops_forward);
    assert_int_equal(shards[3].output.dims[2], 5); /* 11 tokens: 6 and 5 */
    assert_int_equal(shards[3].output.cut_from, 11);
    mr_job_become_shard(job, 1);
    assert_true(mr_status_is_ok(mr_job_describe(job, whole)));
    assert_memory_equal(&whole[3].output, &shards[3].output, sizeof(mr_shape));
    mr_job_destroy(job);
}

static void test_a_layer_that_needs_a_cut_input_whole_gathers_it(void **state) {
    (void)state;
    mr_layer_description shards[LAYERS_MAX];
    mr_job *job = job_make(2,
                           "    - {type: linear, in: 6, out: 8, parallel: column}\n"
                           "    - {type: layernorm, dim: 8}\n"
                           "    - {type: linear, in: 8, out: 4}\n",
                           "mse");
    assert_true(mr_status_is_ok(mr_job_describe_shards(job, 0, shards)));
    assert_true(shards[1].gathers_input);
    assert_int_equal(shards[1].output.dims[1], 8);
    assert_int_equal(shards[1].output.cut_from, 0);
    assert_false(shards[2].gathers_input);
    mr_job_destroy(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers_that_cannot_be_cut_are_refused),
        cmocka_unit_test(test_the_same_layers_are_good_on_one_rank),
        cmocka_unit_test(test_shards_add_up_to_the_layers),
        cmocka_unit_test(test_a_shard_keeps_its_share_and_gives_what_the_next_layer_needs),
        cmocka_unit_test(test_a_layer_that_needs_a_cut_input_whole_gathers_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
