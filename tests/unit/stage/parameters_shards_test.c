/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every rank of the model axis starts with its slices of the very weights that a stage
 * without the axis draws, in any cut into stages, and a device that computes whole layers only is
 * refused.
 * Method: a small GPT whole and on each of two and four model ranks; each element of each shard
 * against the element of the whole that shard.h says it is, bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/model/shard.h"
#include "tests/unit/stage/stage_model.h"

/* As stage_model_init_gpt, with four heads; then the rank's shard of it. */
static void model_init(stage_model *m, size_t rank, size_t width) {
    stage_model_init_gpt(m);
    m->job.model = width;
    m->layers[1].heads = m->layers[1].kv_heads = 4;
    m->layers[2].heads = m->layers[2].kv_heads = 4;
    if (width > 1)
        mr_job_become_shard(&m->job, rank);
    mr_status status = mr_job_describe(&m->job, m->descriptions);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

static void check_parameter(const stage_model *whole, const mr_stage_parameter *all,
                            const stage_model *part, const mr_stage_parameter *held, size_t rank,
                            size_t width) {
    mr_shard shard;
    size_t elements = stage_elements(&held->weight);
    float *expected = mr_alloc_array(elements, sizeof *expected);
    float *from = stage_read(whole, &all->weight);
    float *weights = stage_read(part, &held->weight);
    assert_non_null(expected);
    assert_true(mr_status_is_ok(mr_shard_make(all->description, rank, width, &shard)));
    for (size_t i = 0; i < shard.run_count; i++) {
        mr_shard_run run = mr_shard_run_at(&shard, i);
        memcpy(expected + run.shard_first, from + run.whole_first, run.count * sizeof *expected);
    }
    assert_memory_equal(weights, expected, elements * sizeof *expected);
    mr_free(weights);
    mr_free(from);
    mr_free(expected);
}

static void check_rank(size_t rank, size_t width) {
    static const size_t bounds[] = {0, 2, 5};
    stage_model whole;
    stage_model part;
    model_init(&whole, 0, 1);
    model_init(&part, rank, width);
    mr_parameters *all = stage_model_parameters(&whole, 0, 5, true);
    for (size_t s = 0; s < 2; s++) {
        mr_parameters *held = stage_model_parameters(&part, bounds[s], bounds[s + 1], true);
        for (size_t l = 0; l < mr_parameters_layer_count(held); l++)
            for (size_t i = 0; i < mr_parameters_layer(held, l)->description->parameter_count; i++)
                check_parameter(&whole, mr_parameters_of_layer(all, bounds[s] + l, i), &part,
                                mr_parameters_of_layer(held, l, i), rank, width);
        mr_parameters_destroy(held);
    }
    mr_parameters_destroy(all);
    stage_model_deinit(&part);
    stage_model_deinit(&whole);
}

static void test_every_rank_starts_with_its_slices_of_the_whole(void **state) {
    (void)state;
    for (size_t width = 1; width <= 4; width *= 2)
        for (size_t rank = 0; rank < width; rank++)
            check_rank(rank, width);
}

static void test_a_device_of_whole_layers_is_refused(void **state) {
    (void)state;
    stage_model m;
    model_init(&m, 0, 2);
    mr_device_ops ops = *m.device->ops;
    mr_device bare = {.ops = &ops};
    ops.embedding_forward_share = NULL;
    mr_parameters *parameters = NULL;
    mr_parameters_options options = {
        .device = &bare,
        .job = &m.job,
        .descriptions = m.descriptions,
        .layer_first = 0,
        .layer_end = 5,
        .training = true,
    };
    mr_status status = mr_parameters_create(&options, &parameters);
    assert_int_equal(status.code, MR_CODE_UNIMPLEMENTED);
    assert_string_equal(status.text, "pipeline.topology.model is 2; a cpu device computes whole "
                                     "layers only, so it must be 1");
    stage_model_deinit(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rank_starts_with_its_slices_of_the_whole),
        cmocka_unit_test(test_a_device_of_whole_layers_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
