/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: layers' seeds are the field's, but for its defect (deepspeed.md 21): with activation
 * checkpointing it counts layers from each recomputed run's start, so that layers of equal offset
 * get equal seeds.
 * Method: every seeds case of tests/vectors/topology.json; where the interval is 0 all numbers must
 * agree, where it is not the build seeds must, and the forward seeds must be what they are without
 * checkpointing. Registered functions by name, with every mistake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/model/job.h"
#include "daemon/model/seed.h"
#include "tests/unit/plan/vectors.h"

static void check_calls(json_t *vector, uint64_t base, size_t first) {
    json_t *calls = vectors_get(vector, "forward_call_seeds");
    bool interval = vectors_size(vector, "interval") > 0;
    for (size_t call = 0; call < json_array_size(calls); call++) {
        json_t *layers = json_array_get(calls, call);
        for (size_t i = 0; i < json_array_size(layers); i++) {
            uint64_t ours = mr_seed_forward(base, call + 1, first + i);
            uint64_t theirs = (uint64_t)json_integer_value(json_array_get(layers, i));
            assert_true(ours == base * (call + 2) + first + i);
            if (!interval)
                assert_true(ours == theirs);
        }
    }
}

static void test_seeds_are_the_fields_and_do_not_depend_on_checkpointing(void **state) {
    (void)state;
    json_t *file = NULL;
    json_t *vectors = vectors_open("topology.json", "seeds", &file);
    assert_true(json_array_size(vectors) >= 5);
    for (size_t v = 0; v < json_array_size(vectors); v++) {
        json_t *vector = json_array_get(vectors, v);
        uint64_t base = vectors_size(vector, "base_seed");
        size_t bounds[2];
        assert_int_equal(vectors_sizes(vectors_get(vector, "layers"), bounds, 2), 2);
        json_t *build = vectors_get(vector, "build_seeds");
        assert_int_equal(json_array_size(build), bounds[1] - bounds[0]);
        for (size_t i = 0; i < json_array_size(build); i++)
            assert_true(mr_seed_build(base, bounds[0] + i) ==
                        (uint64_t)json_integer_value(json_array_get(build, i)));
        check_calls(vector, base, bounds[0]);
    }
    json_decref(file);
}

static void test_calls_count_through_steps_and_replicas_from_one(void **state) {
    (void)state;
    assert_true(mr_seed_call(0, 8, 0) == 1);
    assert_true(mr_seed_call(0, 8, 7) == 8);
    assert_true(mr_seed_call(3, 8, 2) == 27);
}

static uint64_t twice(uint64_t seed) {
    return 2 * seed;
}
MR_SEED_FUNCTION_REGISTER(twice, twice)

static const char *const text_format =
    "schema: millrace.job/v1\nname: seeds\nseed: 100\n"
    "model: {layers: [{type: linear, in: 4, out: 4, repeat: 3}], loss: mse%s}\n"
    "batch: {micro_batch_size: 1, sequence_length: 1}\n";

static mr_status parse(const char *more, mr_job **out_job) {
    char text[512];
    int wrote = snprintf(text, sizeof(text), text_format, more);
    assert_in_range(wrote, 1, sizeof(text) - 1);
    return mr_job_parse(text, (size_t)wrote, out_job, NULL);
}

static void test_a_jobs_seed_function_makes_the_layers_seeds(void **state) {
    (void)state;
    mr_job *job = NULL;
    assert_true(mr_status_is_ok(parse(", seed_fn: twice", &job)));
    assert_true(mr_job_build_seed(job, 2) == 2 * 102);
    assert_true(mr_job_forward_seed(job, 2, 5) == 2 * (100 * 6 + 2));
    mr_job_destroy(job);
    assert_true(mr_status_is_ok(parse("", &job)));
    assert_true(mr_job_build_seed(job, 2) == 100);
    assert_true(mr_job_forward_seed(job, 2, 5) == 100);
    mr_job_destroy(job);
}

static void refuse(const char *more, const char *wanted) {
    mr_job *job = NULL;
    mr_status status = parse(more, &job);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text, wanted);
}

static void test_a_seed_function_that_is_none_or_has_no_use_is_refused(void **state) {
    (void)state;
    refuse(", seed_fn: thrice",
           "line 4: model.seed_fn is thrice; it must be a seed function of this build: twice");
    refuse(", seed_fn: [twice]",
           "line 4: model.seed_fn is a list; it must be a seed function of this build: twice");
    refuse(", seed_fn: twice, seed_layers: false",
           "line 4: model.seed_fn is given but model.seed_layers is false; it is a function of a "
           "layer's seed");
}

/* Last: a wrong registration stays for the whole process. */
static void test_no_job_is_read_after_a_wrong_registration(void **state) {
    (void)state;
    mr_job *job = NULL;
    assert_null(mr_seed_function_find("thrice"));
    mr_seed_function_register("twice", twice);
    mr_seed_function_register("a-b", twice);
    assert_true(mr_seed_function_find("twice") == twice);
    mr_status status = parse("", &job);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_string_equal(status.text, "seed function twice is registered twice");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_are_the_fields_and_do_not_depend_on_checkpointing),
        cmocka_unit_test(test_calls_count_through_steps_and_replicas_from_one),
        cmocka_unit_test(test_a_jobs_seed_function_makes_the_layers_seeds),
        cmocka_unit_test(test_a_seed_function_that_is_none_or_has_no_use_is_refused),
        cmocka_unit_test(test_no_job_is_read_after_a_wrong_registration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
