/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a job with partition: type:REGEX is cut as well as the field cuts it, or better, and no
 * stage is empty.
 * Method: every method vector of tests/vectors/partition.json that names types, as a job whose
 * layers carry the vector's names, through the job file and the plan; loads are counted with the
 * vector's own matches. One vector differs on purpose: the field drops what follows a second colon
 * (deepspeed.md 13); here the whole text is the pattern, so it finds nothing. An unnamed
 * callable of the field has a type here, which only the empty pattern finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/job.h"
#include "daemon/plan/plan.h"
#include "tests/unit/plan/vectors.h"

enum { LAYERS_MAX = 32, TEXT_BYTES = 4096 };

/* The one type whose name is part of a vector's name stands for it, as the rest have no width; in
 * "silu" no pattern of the vectors is found. */
static void append_layer(char text[TEXT_BYTES], const char *name) {
    size_t used = strlen(text);
    if (name[0] == '<')
        (void)snprintf(text + used, TEXT_BYTES - used, "    - {type: silu}\n");
    else if (strcmp(name, "LayerNorm") == 0)
        (void)snprintf(text + used, TEXT_BYTES - used,
                       "    - {type: layernorm, dim: 4, name: %s}\n", name);
    else
        (void)snprintf(text + used, TEXT_BYTES - used, "    - {type: silu, name: %s}\n", name);
}

static mr_status job_from(json_t *vector, mr_job **out_job) {
    char text[TEXT_BYTES] = "schema: millrace.job/v1\nname: case\nmodel:\n  layers:\n";
    json_t *names = vectors_get(vector, "layer_names");
    for (size_t i = 0; i < json_array_size(names); i++)
        append_layer(text, json_string_value(json_array_get(names, i)));
    size_t used = strlen(text);
    int wrote = snprintf(text + used, TEXT_BYTES - used,
                         "  loss: mse\n"
                         "pipeline: {stages: %zu, partition: '%s'}\n"
                         "batch: {micro_batch_size: 1, sequence_length: 4}\n",
                         vectors_size(vector, "num_stages"),
                         json_string_value(vectors_get(vector, "method")));
    assert_in_range(wrote, 1, (int)(TEXT_BYTES - used) - 1);
    return mr_job_parse(text, strlen(text), out_job, NULL);
}

static double largest_load(const double *weights, const size_t *bounds, size_t parts) {
    double largest = 0;
    for (size_t part = 0; part < parts; part++) {
        double load = 0;
        for (size_t i = bounds[part]; i < bounds[part + 1]; i++)
            load += weights[i];
        largest = load > largest ? load : largest;
    }
    return largest;
}

/* The job's matches are the vector's, but for layers without a name. */
static void check_matches(json_t *vector, const mr_job *job, const double *theirs) {
    double ours[LAYERS_MAX];
    mr_status status =
        mr_layer_pattern_weigh(job->partition_pattern, job->layers, job->layer_count, ours);
    assert_true(mr_status_is_ok(status));
    for (size_t i = 0; i < job->layer_count; i++)
        if (job->layers[i].name[0] != '\0' && ours[i] != theirs[i])
            fail_msg("%s: layer %zu", json_string_value(vectors_get(vector, "method")), i);
        else if (job->layers[i].name[0] == '\0')
            assert_true((ours[i] != 0) == (job->partition_pattern[0] == '\0'));
}

static void check_cut(json_t *vector, const mr_job *job) {
    size_t theirs[LAYERS_MAX];
    double weights[LAYERS_MAX] = {0};
    mr_plan *plan = NULL;
    json_t *matched = vectors_get(vector, "matched_layers");
    size_t stages = vectors_size(vector, "num_stages");
    assert_int_equal(vectors_sizes(vectors_get(vector, "parts"), theirs, LAYERS_MAX), stages + 1);
    for (size_t i = 0; i < json_array_size(matched); i++)
        weights[json_integer_value(json_array_get(matched, i))] = 1;
    check_matches(vector, job, weights);
    mr_status status = mr_plan_make(job, false, &plan);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    assert_int_equal(plan->bounds[0], 0);
    assert_int_equal(plan->bounds[stages], job->layer_count);
    for (size_t i = 0; i < stages; i++)
        assert_true(plan->bounds[i] < plan->bounds[i + 1]);
    assert_true(largest_load(weights, plan->bounds, stages) <=
                largest_load(weights, theirs, stages));
    mr_plan_destroy(plan);
}

static void test_type_vectors_are_cut_no_worse_than_the_field_cuts_them(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("partition.json", "method", &file);
    size_t index;
    size_t cut = 0;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        mr_job *job = NULL;
        const char *method = json_string_value(vectors_get(vector, "method"));
        if (strncmp(method, "type:", 5) != 0)
            continue;
        mr_status status = job_from(vector, &job);
        if (strchr(method + 5, ':') != NULL) {
            assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
            assert_non_null(strstr(status.text, "pattern transformer:ignored is in no layer's"));
            continue;
        }
        if (!mr_status_is_ok(status))
            fail_msg("%s: %s", method, status.text);
        check_cut(vector, job);
        mr_job_destroy(job);
        cut++;
    }
    assert_int_equal(cut, 6);
    json_decref(file);
}

/* The field knows the word profile but not how to cut by it; here it is cut once it is measured. */
static void test_what_the_field_only_promised_is_cut(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("partition.json", "method", &file);
    size_t index;
    size_t refused = 0;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        mr_job *job = NULL;
        if (json_object_get(vector, "error_type") == NULL)
            continue;
        assert_string_equal(json_string_value(vectors_get(vector, "method")), "profile");
        mr_status status = job_from(vector, &job);
        if (!mr_status_is_ok(status))
            fail_msg("%s", status.text);
        mr_plan *plan = NULL;
        assert_true(mr_status_is_ok(mr_plan_make(job, false, &plan)));
        assert_true(plan->provisional);
        mr_plan_destroy(plan);
        mr_job_destroy(job);
        refused++;
    }
    assert_int_equal(refused, 1);
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_type_vectors_are_cut_no_worse_than_the_field_cuts_them),
        cmocka_unit_test(test_what_the_field_only_promised_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
