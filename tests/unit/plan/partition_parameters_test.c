/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: partition: parameters weighs a layer by what it trains: frozen parameters are nothing, a
 * layer without any is nothing, a tied layer counts at every appearance; and the cut carries no
 * more than the field's.
 * Method: the param_count vectors of tests/vectors/partition.json, each weight as a layer that
 * trains so many: 100 as a square linear, tied, without bias; 10 as one whose bias alone is
 * trained; 0 as a relu. Counting builds nothing (deepspeed.md 12): descriptions alone say it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/plan/plan.h"
#include "tests/unit/plan/vectors.h"

enum { LAYERS_MAX = 32, TEXT_BYTES = 4096 };

static const char *layer_of(size_t weight) {
    switch (weight) {
    case 100:
        return "{type: linear, in: 10, out: 10, bias: false, tie: e}";
    case 10:
        return "{type: linear, in: 10, out: 10, frozen: [weight]}";
    case 0:
        return "{type: relu}";
    default:
        fail_msg("no layer trains %zu elements", weight);
        return "";
    }
}

static mr_job *job_from(const size_t *weights, size_t count, size_t parts) {
    char text[TEXT_BYTES] = "schema: millrace.job/v1\nname: case\nmodel:\n  layers:\n";
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, TEXT_BYTES - used, "    - %s\n", layer_of(weights[i]));
    }
    size_t used = strlen(text);
    (void)snprintf(text + used, TEXT_BYTES - used,
                   "  loss: mse\npipeline: {stages: %zu, partition: parameters}\n"
                   "batch: {micro_batch_size: 1, sequence_length: 1}\n",
                   parts);
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, strlen(text), &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    return job;
}

static size_t largest_load(const size_t *weights, const size_t *bounds, size_t parts) {
    size_t largest = 0;
    for (size_t part = 0; part < parts; part++) {
        size_t load = 0;
        for (size_t i = bounds[part]; i < bounds[part + 1]; i++)
            load += weights[i];
        largest = load > largest ? load : largest;
    }
    return largest;
}

static void check_vector(json_t *vector) {
    size_t weights[LAYERS_MAX];
    size_t theirs[LAYERS_MAX];
    size_t parts = vectors_size(vector, "num_parts");
    size_t count = vectors_sizes(vectors_get(vector, "weights"), weights, LAYERS_MAX);
    assert_int_equal(vectors_sizes(vectors_get(vector, "parts"), theirs, LAYERS_MAX), parts + 1);
    mr_job *job = job_from(weights, count, parts);
    mr_plan *plan = NULL;
    mr_status status = mr_plan_make(job, false, &plan);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(plan->layers[i].trainable_elements, weights[i]);
    for (size_t part = 0; part < parts; part++)
        assert_true(plan->bounds[part] < plan->bounds[part + 1]);
    assert_int_equal(plan->bounds[parts], count);
    assert_in_range(largest_load(weights, plan->bounds, parts), 1,
                    largest_load(weights, theirs, parts));
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_only_what_is_trained_weighs(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("partition.json", "param_count", &file);
    for (size_t i = 0; i < json_array_size(vectors); i++)
        check_vector(json_array_get(vectors, i));
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_only_what_is_trained_weighs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
