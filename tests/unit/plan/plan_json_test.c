/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the plan of a job file is the contract of DESIGN section 5, with numbers that a reader can
 * work out from the page. Method: a small GPT at several topologies; its JSON is read back; what
 * cannot be planned is named. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/plan.h"
#include "tests/unit/plan/vectors.h"

enum { V = 10, C = 8, T = 4, B = 2, F = 4 * C, M = 8 };

/* Elements by the table of DESIGN section 4. */
enum {
    EMBEDDING = V * C + T * C,
    NORM = 2 * C,
    BLOCK = NORM + 3 * C * C + 3 * C + C * C + C + NORM + F * C + F + C * F + C,
    HEAD = V * C,
};

static const char *const job_form =
    "schema: millrace.job/v1\n"
    "name: plan-test\n"
    "model:\n"
    "  layers:\n"
    "    - {type: embedding, tie: embed, vocab: 10, dim: 8, positions: 4}\n"
    "    - {type: transformer_block, repeat: 2, dim: 8, heads: 2}\n"
    "    - {type: layernorm, dim: 8}\n"
    "    - {type: identity}\n"
    "    - {type: lm_head, tie: embed}\n"
    "  loss: cross_entropy\n"
    "pipeline:\n"
    "  topology: {pipe: %d, data: 1, model: 1}\n"
    "  partition: %s\n"
    "  schedule: %s\n"
    "batch: {micro_batch_size: 2, micro_batches: 8, sequence_length: 4}\n"
    "optimizer: {type: adamw, lr: 1e-3}\n"
    "lr_schedule: {type: constant, total_steps: 3}\n"
    "data: {format: llmc, train: corpus.bin}\n";

/* data is set here, as a plan knows the axis whether or not a job file may ask for it. */
static mr_job *job_make(int pipe, size_t data, const char *partition, const char *schedule) {
    char text[2048];
    int length = snprintf(text, sizeof(text), job_form, pipe, partition, schedule);
    mr_job *job = NULL;
    mr_status status = mr_job_parse(text, (size_t)length, &job, NULL);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    job->data = data;
    return job;
}

static json_t *json_of(const mr_job *job, mr_plan **out_plan) {
    char *text = NULL;
    mr_status status = mr_plan_make(job, false, out_plan);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    assert_true(mr_status_is_ok(mr_plan_json(*out_plan, &text)));
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    mr_free(text);
    return json;
}

static void assert_json(json_t *found, const char *wanted) {
    char *text = json_dumps(found, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_string_equal(text, wanted);
    free(text);
}

static void test_the_json_has_the_page_s_keys_in_its_order(void **state) {
    (void)state;
    mr_job *job = job_make(2, 2, "[0, 2, 6]", "1f1b");
    mr_plan *plan = NULL;
    json_t *json = json_of(job, &plan);
    static const char *const keys[] = {"schema", "world_size",     "axes",         "dims",
                                       "bounds", "stages",         "ranks",        "groups",
                                       "bubble", "peak_in_flight", "schedule_hash"};
    size_t index = 0;
    const char *key;
    json_t *value;
    json_object_foreach (json, key, value)
        assert_string_equal(key, keys[index++]);
    assert_int_equal(index, sizeof(keys) / sizeof(keys[0]));
    assert_json(vectors_get(json, "schema"), "\"millrace.plan/v1\"");
    assert_json(vectors_get(json, "world_size"), "4");
    assert_json(vectors_get(json, "axes"), "[\"pipe\",\"data\",\"model\"]");
    assert_json(vectors_get(json, "dims"), "[2,2,1]");
    assert_json(vectors_get(json, "bounds"), "[0,2,6]");
    assert_json(vectors_get(json, "peak_in_flight"), "[2,1]");
    assert_json(vectors_get(json, "groups"),
                "[{\"kind\":\"tied\",\"key\":\"embed\",\"ranks\":[0,2]},"
                "{\"kind\":\"tied\",\"key\":\"embed\",\"ranks\":[1,3]},"
                "{\"kind\":\"data\",\"ranks\":[0,1]},{\"kind\":\"data\",\"ranks\":[2,3]},"
                "{\"kind\":\"pipe\",\"ranks\":[0,2]},{\"kind\":\"pipe\",\"ranks\":[1,3]}]");
    json_decref(json);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_each_rank_has_its_place_files_and_list(void **state) {
    (void)state;
    mr_job *job = job_make(2, 2, "[0, 2, 6]", "gpipe");
    mr_plan *plan = NULL;
    json_t *json = json_of(job, &plan);
    json_t *ranks = vectors_get(json, "ranks");
    assert_int_equal(json_array_size(ranks), 4);
    for (size_t rank = 0; rank < 4; rank++) {
        json_t *one = json_array_get(ranks, rank);
        assert_int_equal(vectors_size(one, "rank"), rank);
        assert_int_equal(vectors_size(one, "pipe"), rank / 2);
        assert_int_equal(vectors_size(one, "data"), rank % 2);
        assert_int_equal(vectors_size(one, "model"), 0);
        assert_json(vectors_get(one, "layers"), rank < 2 ? "[0,2]" : "[2,6]");
        json_t *list = vectors_get(one, "schedule");
        assert_json(json_array_get(list, 0), rank < 2 ? "\"L0\"" : "\"RA0\"");
        assert_json(json_array_get(list, json_array_size(list) - 1), "\"OP\"");
    }
    /* Layer 4 has no parameters; the replicas of a stage share its layers out. */
    assert_json(vectors_get(json_array_get(ranks, 0), "layer_files"),
                "[\"layer_00-model_states.safetensors\"]");
    assert_json(vectors_get(json_array_get(ranks, 1), "layer_files"),
                "[\"layer_01-model_states.safetensors\"]");
    assert_json(vectors_get(json_array_get(ranks, 2), "layer_files"),
                "[\"layer_02-model_states.safetensors\",\"layer_03-model_states.safetensors\"]");
    assert_json(vectors_get(json_array_get(ranks, 3), "layer_files"),
                "[\"layer_05-model_states.safetensors\"]");
    json_decref(json);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_parameters_and_their_memory_are_counted(void **state) {
    (void)state;
    mr_job *job = job_make(2, 1, "[0, 2, 6]", "1f1b");
    mr_plan *plan = NULL;
    json_t *json = json_of(job, &plan);
    static const size_t elements[] = {EMBEDDING + BLOCK, BLOCK + NORM + HEAD};
    for (size_t stage = 0; stage < 2; stage++) {
        json_t *one = json_array_get(vectors_get(json, "stages"), stage);
        json_t *memory = vectors_get(one, "memory_bytes");
        assert_int_equal(vectors_size(one, "stage"), stage);
        assert_int_equal(vectors_size(one, "params"), elements[stage]);
        assert_int_equal(vectors_size(memory, "weights"), 4 * elements[stage]);
        assert_int_equal(vectors_size(memory, "gradients"), 4 * elements[stage]);
        assert_int_equal(vectors_size(memory, "optimizer"), 8 * elements[stage]);
        /* At least what each microbatch in flight keeps of the layers' inputs. */
        assert_true(vectors_size(memory, "activations") > (2 - stage) * 2 * B * T * C * 4);
        assert_true(json_is_integer(vectors_get(one, "flops")));
        /* Forward of a matrix product costs 2 operations per weight and token, backward twice. */
        assert_true(json_integer_value(vectors_get(one, "flops")) > 6LL * M * B * T * (12 * C * C));
    }
    json_decref(json);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_bf16_adds_copies_of_matrices_and_halves_activations(void **state) {
    (void)state;
    /* Elements of vectors: the norms, the biases of a block. */
    enum { BLOCK_VECTORS = 2 * NORM + 3 * C + C + F + C };
    static const size_t elements[] = {EMBEDDING + BLOCK, BLOCK + NORM + HEAD};
    static const size_t matrices[] = {EMBEDDING + BLOCK - BLOCK_VECTORS,
                                      BLOCK - BLOCK_VECTORS + HEAD};
    mr_job *wide_job = job_make(2, 1, "[0, 2, 6]", "1f1b");
    mr_job *job = job_make(2, 1, "[0, 2, 6]", "1f1b\nprecision: bf16");
    mr_plan *wide_plan = NULL;
    mr_plan *plan = NULL;
    json_decref(json_of(wide_job, &wide_plan));
    json_decref(json_of(job, &plan));
    for (size_t stage = 0; stage < 2; stage++) {
        const mr_stage_plan *one = &plan->stages[stage];
        assert_int_equal(one->weights_bytes, 4 * elements[stage] + 2 * matrices[stage]);
        assert_int_equal(one->gradients_bytes, 4 * elements[stage]);
        assert_int_equal(one->optimizer_bytes, 8 * elements[stage]);
        assert_true(one->activations_bytes < wide_plan->stages[stage].activations_bytes * 3 / 4);
    }
    assert_string_equal(job->model_hash, wide_job->model_hash); /* a checkpoint fits both */
    mr_plan_destroy(plan);
    mr_plan_destroy(wide_plan);
    mr_job_destroy(job);
    mr_job_destroy(wide_job);
}

static void test_a_tied_parameter_is_held_once_but_summed_per_use(void **state) {
    (void)state;
    mr_job *job = job_make(1, 1, "uniform", "1f1b");
    mr_plan *plan = NULL;
    json_t *json = json_of(job, &plan);
    size_t held = EMBEDDING + 2 * BLOCK + NORM;
    assert_int_equal(plan->stages[0].parameters, held);
    assert_int_equal(plan->stages[0].weights_bytes, 4 * held);
    assert_int_equal(plan->stages[0].optimizer_bytes, 8 * held);
    assert_int_equal(plan->stages[0].gradients_bytes, 4 * (held + HEAD));
    assert_json(vectors_get(json, "groups"), "[{\"kind\":\"tied\",\"key\":\"embed\",\"ranks\":[0]},"
                                             "{\"kind\":\"pipe\",\"ranks\":[0]}]");
    json_decref(json);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void test_optimizer_state_is_counted_by_its_kind(void **state) {
    static const struct {
        mr_optimizer_kind kind;
        double momentum;
        size_t bytes; /* for each element */
    } cases[] = {
        {MR_OPTIMIZER_ADAMW, 0, 8}, {MR_OPTIMIZER_ADAM, 0, 8},  {MR_OPTIMIZER_SGD, 0, 0},
        {MR_OPTIMIZER_SGD, 0.9, 4}, {MR_OPTIMIZER_LION, 0, 4},
    };
    (void)state;
    mr_job *job = job_make(1, 1, "uniform", "1f1b");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mr_plan *plan = NULL;
        job->optimizer = cases[i].kind;
        job->momentum = cases[i].momentum;
        assert_true(mr_status_is_ok(mr_plan_make(job, false, &plan)));
        assert_int_equal(plan->stages[0].optimizer_bytes,
                         cases[i].bytes * plan->stages[0].parameters);
        mr_plan_destroy(plan);
    }
    mr_job_destroy(job);
}

/* Slices of 64 bytes: a parameter of n elements takes 4 n bytes rounded up, of each state. */
static void test_split_state_is_counted_by_its_shares(void **state) {
    (void)state;
    for (size_t data = 1; data <= 5; data++) {
        mr_job *job = job_make(2, data, "[0, 2, 6]", "1f1b");
        mr_plan *whole = NULL;
        mr_plan *split = NULL;
        assert_true(mr_status_is_ok(mr_plan_make(job, false, &whole)));
        job->zero_stage = 1;
        json_t *json = json_of(job, &split);
        for (size_t stage = 0; stage < 2; stage++) {
            const mr_stage_plan *one = &split->stages[stage];
            json_t *shown = json_array_get(vectors_get(json, "stages"), stage);
            size_t all = 0;
            for (size_t replica = 0; replica < data; replica++) {
                size_t share = mr_plan_optimizer_bytes(split, stage, replica);
                json_t *rank = json_array_get(vectors_get(json, "ranks"), stage * data + replica);
                assert_int_equal(vectors_size(rank, "optimizer_bytes"), share);
                assert_in_range(share, one->optimizer_bytes - (data > 1 ? 128 : 0),
                                one->optimizer_bytes);
                all += share;
            }
            assert_int_equal(whole->stages[stage].zero_saved_bytes, 0);
            assert_int_equal(one->optimizer_bytes + one->zero_saved_bytes,
                             whole->stages[stage].optimizer_bytes);
            assert_int_equal(vectors_size(shown, "zero_saved_bytes"), one->zero_saved_bytes);
            assert_true(data == 1 ? all == whole->stages[stage].optimizer_bytes
                                  : all == 2 * one->state_bytes);
            assert_true((one->zero_saved_bytes > 0) == (data > 1));
        }
        json_decref(json);
        mr_plan_destroy(split);
        mr_plan_destroy(whole);
        mr_job_destroy(job);
    }
}

static void test_bubbles_follow_schedule_and_costs(void **state) {
    (void)state;
    for (int pipe = 1; pipe <= 3; pipe++) {
        mr_job *job = job_make(pipe, 1, "parameters", "1f1b");
        mr_plan *plan = NULL;
        json_t *json = json_of(job, &plan);
        json_t *bubble = vectors_get(json, "bubble");
        double ideal = (double)(pipe - 1) / (double)(M + pipe - 1);
        assert_true(fabs(json_real_value(vectors_get(bubble, "ideal")) - ideal) < 1e-12);
        double predicted = json_real_value(vectors_get(bubble, "predicted"));
        assert_true(predicted >= ideal - 1e-12 && predicted < 1.0);
        json_decref(json);
        mr_plan_destroy(plan);
        mr_job_destroy(job);
    }
}

static void test_gpipe_keeps_all_microbatches(void **state) {
    (void)state;
    mr_job *one_job = job_make(2, 1, "uniform", "1f1b");
    mr_job *all_job = job_make(2, 1, "uniform", "gpipe");
    mr_plan *one = NULL;
    mr_plan *all = NULL;
    assert_true(mr_status_is_ok(mr_plan_make(one_job, false, &one)));
    assert_true(mr_status_is_ok(mr_plan_make(all_job, false, &all)));
    assert_int_equal(all->stages[1].peak_in_flight, M);
    /* Activations are linear in what is in flight. */
    size_t kept = (all->stages[0].activations_bytes - one->stages[0].activations_bytes) / (M - 2);
    size_t last = (all->stages[1].activations_bytes - one->stages[1].activations_bytes) / (M - 1);
    assert_true(kept > 0);
    assert_true(last > B * T * V * 4); /* the loss keeps the logits */
    assert_string_not_equal(one->schedule_hash, all->schedule_hash);
    assert_int_equal(strlen(one->schedule_hash), 64);
    mr_plan_destroy(one);
    mr_plan_destroy(all);
    mr_job_destroy(one_job);
    mr_job_destroy(all_job);
}

static void test_activation_checkpoints_keep_less(void **state) {
    (void)state;
    mr_job *job = job_make(1, 1, "uniform", "gpipe");
    mr_plan *plan = NULL;
    size_t bytes[3];
    for (size_t interval = 0; interval < 3; interval++) {
        job->checkpoint_interval = interval;
        assert_true(mr_status_is_ok(mr_plan_make(job, false, &plan)));
        bytes[interval] = plan->stages[0].activations_bytes;
        mr_plan_destroy(plan);
    }
    assert_true(bytes[1] < bytes[0]);
    assert_true(bytes[2] < bytes[0]);
    mr_job_destroy(job);
}

static void test_inference_has_no_gradients(void **state) {
    (void)state;
    mr_job *job = job_make(2, 1, "uniform", "1f1b");
    mr_plan *plan = NULL;
    assert_true(mr_status_is_ok(mr_plan_make(job, true, &plan)));
    assert_true(plan->inference);
    assert_int_equal(plan->stages[0].gradients_bytes, 0);
    assert_int_equal(plan->stages[1].optimizer_bytes, 0);
    assert_int_equal(plan->stages[0].peak_in_flight, 2);
    assert_int_equal(plan->stages[1].peak_in_flight, 1);
    for (size_t i = 0; i < plan->schedules[0].count; i++)
        assert_true(plan->schedules[0].instructions[i].opcode <= MR_OPCODE_SEND_ACTIVATION);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

static void assert_refused(mr_job *job, const char *text) {
    mr_plan *plan = NULL;
    mr_status status = mr_plan_make(job, false, &plan);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_string_equal(status.text, text);
    assert_null(plan);
}

/* The job reader refuses most of these by line; the plan does not rely on it. */
static void test_what_cannot_be_planned_is_named(void **state) {
    (void)state;
    mr_job *job = job_make(2, 1, "[0, 2, 6]", "1f1b");
    job->pipe = 9;
    assert_refused(job, "pipeline.stages is 9 but the model has 6 layers");
    job->pipe = 3;
    assert_refused(job, "pipeline.partition has 3 bounds; 3 stages need 4");
    job->pipe = 2;
    job->bounds[1] = 6;
    assert_refused(job, "pipeline.partition[2] is 6; it must be above pipeline.partition[1], which "
                        "is 6, so that no stage is empty");
    job->chunks = 2;
    assert_refused(job, "pipeline.chunks is 2; the schedules 1f1b and gpipe run 1");
    job->chunks = 1;
    job->data = 5000;
    assert_refused(job, "pipeline.topology: topology axis 'data' of size 5000 makes more than 4096 "
                        "ranks");
    mr_job_destroy(job);
}

static void test_a_failing_allocation_is_a_status(void **state) {
    (void)state;
    mr_job *job = job_make(2, 2, "parameters", "1f1b");
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        mr_plan *plan = NULL;
        char *text = NULL;
        mr_alloc_fail_at(n);
        mr_status status = mr_plan_make(job, false, &plan);
        if (mr_status_is_ok(status))
            status = mr_plan_json(plan, &text);
        mr_alloc_fail_at(0);
        failed = !mr_status_is_ok(status);
        if (failed)
            assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
        mr_free(text);
        mr_plan_destroy(plan);
    }
    mr_job_destroy(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_json_has_the_page_s_keys_in_its_order),
        cmocka_unit_test(test_each_rank_has_its_place_files_and_list),
        cmocka_unit_test(test_parameters_and_their_memory_are_counted),
        cmocka_unit_test(test_bf16_adds_copies_of_matrices_and_halves_activations),
        cmocka_unit_test(test_a_tied_parameter_is_held_once_but_summed_per_use),
        cmocka_unit_test(test_optimizer_state_is_counted_by_its_kind),
        cmocka_unit_test(test_split_state_is_counted_by_its_shares),
        cmocka_unit_test(test_bubbles_follow_schedule_and_costs),
        cmocka_unit_test(test_gpipe_keeps_all_microbatches),
        cmocka_unit_test(test_activation_checkpoints_keep_less),
        cmocka_unit_test(test_inference_has_no_gradients),
        cmocka_unit_test(test_what_cannot_be_planned_is_named),
        cmocka_unit_test(test_a_failing_allocation_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
