/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a plan counts for each rank of a model axis what that rank holds: the shards of weights,
 * gradients and state, and activations that are smaller where attention and the MLP are cut; the
 * parameters and operations of a stage stay those of all its ranks.
 * Method: one job at widths 1, 2 and 4, its bytes against sums over the descriptions of the largest
 * shard; the activations of a rank against the whole's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/plan/plan.h"

enum { LAYERS = 5, V = 21 };

static mr_job *job_make(size_t model) {
    char text[1024];
    int wrote = snprintf(text, sizeof(text),
                         "schema: millrace.job/v1\n"
                         "name: shards\n"
                         "model:\n"
                         "  layers:\n"
                         "    - {type: embedding, vocab: %d, dim: 16, positions: 8}\n"
                         "    - {type: transformer_block, repeat: 2, dim: 16, heads: 4}\n"
                         "    - {type: layernorm, dim: 16}\n"
                         "    - {type: lm_head, vocab: %d, dim: 16}\n"
                         "pipeline: {topology: {pipe: 1, data: 1, model: %zu}}\n"
                         "batch: {micro_batch_size: 2, micro_batches: 3, sequence_length: 8}\n"
                         "lr_schedule: {total_steps: 3}\n",
                         V, V, model);
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, (size_t)wrote, &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return job;
}

static void check_width(size_t model, const mr_stage_plan *whole) {
    mr_job *job = job_make(model);
    mr_plan *plan = NULL;
    mr_layer_description shards[LAYERS];
    size_t elements = 0;
    assert_true(mr_status_is_ok(mr_plan_make(job, false, &plan)));
    assert_true(mr_status_is_ok(mr_job_describe_shards(job, 0, shards)));
    for (size_t i = 0; i < LAYERS; i++)
        elements += shards[i].parameter_elements;
    const mr_stage_plan *stage = &plan->stages[0];
    assert_int_equal(stage->parameters, whole->parameters);
    assert_true(stage->flops == whole->flops);
    assert_int_equal(stage->weights_bytes, 4 * elements);
    assert_int_equal(stage->gradients_bytes, 4 * elements);
    assert_int_equal(stage->optimizer_bytes, 8 * elements);
    assert_true(stage->weights_bytes < whole->weights_bytes);
    assert_true(stage->activations_bytes < whole->activations_bytes);
    for (size_t rank = 1; rank < model; rank++) {
        assert_true(mr_status_is_ok(mr_job_describe_shards(job, rank, shards)));
        size_t others = 0;
        for (size_t i = 0; i < LAYERS; i++)
            others += shards[i].parameter_elements;
        assert_true(others <= elements);
    }
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_a_rank_s_memory_is_that_of_its_shards(void **state) {
    (void)state;
    mr_job *job = job_make(1);
    mr_plan *plan = NULL;
    assert_true(mr_status_is_ok(mr_plan_make(job, false, &plan)));
    assert_ptr_equal(plan->shards, plan->layers);
    check_width(2, &plan->stages[0]);
    check_width(4, &plan->stages[0]);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_rank_s_memory_is_that_of_its_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
