/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what follows from a job alone: the model hash (equal exactly where a checkpoint may be
 * loaded), ties, input and label shapes, paths.
 * Method: edits of a good job that must and must not change the hash; small jobs with known
 * ties. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/model/job_text.h"

/* SHA-256 of the canonical text of model_hash.h for the good job, computed by hashlib. */
static const char good_hash[] = "78a1160b384ced0b17bd872499b630622bbca9d287b6d3492a2a3a699afe3ae6";

static void check_hash(const char *text, bool equal) {
    mr_job *job = job_text_parse(text);
    if ((strcmp(job->model_hash, good_hash) == 0) != equal)
        fail_msg("hash %s of:\n%s", job->model_hash, text);
    mr_job_destroy(job);
}

static void test_hash_is_of_the_canonical_text(void **state) {
    (void)state;
    check_hash(job_text_good, true);
}

static void test_hash_ignores_what_a_checkpoint_does_not_hold(void **state) {
    (void)state;
    check_hash(job_text_edit("name: tiny-gpt", "name: other"), true);
    check_hash(job_text_edit("seed: 1234", "\n\nseed: 5"), true);
    check_hash(job_text_edit("pipe: 2", "pipe: 3"), true);
    check_hash(job_text_edit("loss: cross_entropy", "loss: none"), true);
    check_hash(job_text_edit("heads: 8}", "heads: 8, name: body}"), true);
    check_hash(job_text_edit("partition: parameters", "partition: type:block"), true);
    check_hash(job_text_edit("heads: 8}", "heads: 8, dropout: 0.1}"), true);
    check_hash(job_text_edit("repeat: 6, dim: 64, heads: 8}",
                             "repeat: 5, dim: 64, heads: 8}\n"
                             "    - {type: transformer_block, dim: 64, heads: 8, ffn: 256}"),
               true);
}

static void test_hash_sees_every_size(void **state) {
    (void)state;
    check_hash(job_text_edit("repeat: 6", "repeat: 5"), false);
    check_hash(job_text_edit("heads: 8", "heads: 4"), false);
    check_hash(job_text_edit("heads: 8", "heads: 8, ffn: 128"), false);
    check_hash(job_text_edit("heads: 8", "heads: 8, bias: false"), false);
    check_hash(job_text_edit("heads: 8", "heads: 8, causal: false"), false);
    check_hash(job_text_edit("heads: 8", "heads: 8, eps: 1e-6"), false);
    check_hash(job_text_edit("positions: 32", "positions: 33"), false);
    check_hash(job_text_edit("vocab: 256", "vocab: 257"), false);
    check_hash(job_text_edit("{type: layernorm, dim: 64}", "{type: gelu}"), false);
}

static const char tied_text[] = "schema: millrace.job/v1\n"
                                "name: a\n"
                                "model:\n"
                                "  loss: mse\n"
                                "  layers:\n"
                                "    - {type: lm_head, tie: z, dim: 4, vocab: 4}\n"
                                "    - {type: lm_head, tie: a}\n"
                                "    - {type: relu}\n"
                                "    - {type: lm_head, repeat: 2, tie: z}\n"
                                "    - {type: lm_head, tie: a, vocab: 4, dim: 4}\n"
                                "batch: {micro_batch_size: 3, sequence_length: 2}\n"
                                "lr_schedule: {total_steps: 5}\n";

static void test_ties_are_listed_by_key(void **state) {
    mr_tie *ties = NULL;
    size_t count = 0;
    (void)state;
    mr_job *job = job_text_parse(tied_text);
    assert_true(mr_status_is_ok(mr_job_ties(job, &ties, &count)));
    assert_int_equal(count, 2);
    assert_string_equal(ties[0].key, "a");
    assert_int_equal(ties[0].layer_count, 2);
    assert_int_equal(ties[0].layers[0], 1);
    assert_int_equal(ties[0].layers[1], 5);
    assert_string_equal(ties[1].key, "z");
    assert_int_equal(ties[1].layer_count, 3);
    assert_int_equal(ties[1].layers[0], 0);
    assert_int_equal(ties[1].layers[1], 3);
    assert_int_equal(ties[1].layers[2], 4);
    mr_job_ties_free(ties, count);
    mr_job_destroy(job);
}

static void test_shapes_of_input_and_labels(void **state) {
    mr_shape shape;
    (void)state;
    mr_job *job = job_text_parse(job_text_good);
    mr_shape tokens = {.dtype = MR_DTYPE_I32, .dim_count = 2, .dims = {4, 32}};
    shape = mr_job_input_shape(job);
    assert_true(mr_shape_equal(&shape, &tokens));
    assert_false(shape.needs_gradient);
    assert_true(mr_status_is_ok(mr_job_label_shape(job, &shape)));
    assert_true(mr_shape_equal(&shape, &tokens));
    mr_job_destroy(job);
    job = job_text_parse(tied_text);
    mr_shape rows = {.dtype = MR_DTYPE_F32, .dim_count = 2, .dims = {3, 4}};
    shape = mr_job_input_shape(job);
    assert_true(mr_shape_equal(&shape, &rows));
    assert_true(mr_status_is_ok(mr_job_label_shape(job, &shape)));
    assert_true(mr_shape_equal(&shape, &rows));
    for (size_t i = 0; i < job->layer_count; i++)
        job->layers[i].precision = MR_DTYPE_BF16; /* what the feed gives stays f32 */
    shape = mr_job_input_shape(job);
    assert_true(mr_shape_equal(&shape, &rows));
    assert_true(mr_status_is_ok(mr_job_label_shape(job, &shape)));
    assert_true(mr_shape_equal(&shape, &rows));
    mr_job_destroy(job);
}

static void test_descriptions_chain(void **state) {
    mr_layer_description layers[9];
    (void)state;
    mr_job *job = job_text_parse(job_text_good);
    assert_true(mr_status_is_ok(mr_job_describe(job, layers)));
    assert_int_equal(layers[0].parameter_elements, 256 * 64 + 32 * 64);
    assert_int_equal(layers[8].output.dims[2], 256);
    assert_true(layers[8].parameters[0].tied);
    assert_string_equal(layers[8].parameters[0].name, "wte.weight");
    mr_job_destroy(job);
}

static void test_paths_are_relative_to_the_base(void **state) {
    char path[MR_PATH_BYTES];
    char longest[MR_PATH_BYTES + 1];
    (void)state;
    assert_true(mr_status_is_ok(mr_job_resolve_path("/base", "a/b", path)));
    assert_string_equal(path, "/base/a/b");
    assert_true(mr_status_is_ok(mr_job_resolve_path("/base/", "a", path)));
    assert_string_equal(path, "/base/a");
    assert_true(mr_status_is_ok(mr_job_resolve_path("/base", "/a", path)));
    assert_string_equal(path, "/a");
    assert_true(mr_status_is_ok(mr_job_resolve_path("", "a", path)));
    assert_string_equal(path, "a");
    memset(longest, 'x', MR_PATH_BYTES);
    longest[MR_PATH_BYTES] = '\0';
    assert_int_equal(mr_job_resolve_path("", longest, path).code, MR_CODE_INVALID_ARGUMENT);
    longest[MR_PATH_BYTES - 1] = '\0';
    assert_true(mr_status_is_ok(mr_job_resolve_path("", longest, path)));
    assert_int_equal(mr_job_resolve_path("b", longest, path).code, MR_CODE_INVALID_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_is_of_the_canonical_text),
        cmocka_unit_test(test_hash_ignores_what_a_checkpoint_does_not_hold),
        cmocka_unit_test(test_hash_sees_every_size),
        cmocka_unit_test(test_ties_are_listed_by_key),
        cmocka_unit_test(test_shapes_of_input_and_labels),
        cmocka_unit_test(test_descriptions_chain),
        cmocka_unit_test(test_paths_are_relative_to_the_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
