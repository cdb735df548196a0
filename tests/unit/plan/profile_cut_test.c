/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: partition: profile finds the cut with the smallest predicted step time, within the memory
 * of each device and for devices of unequal speed; and its work is bounded.
 * Method: random profiles of small models are cut, and every possible cut is predicted one by one:
 * none may be faster. Where all cuts are too many to be tried the search walks: it must come within
 * a twentieth of the best, and never lose to uniform or parameters. Hand-made profiles say what a
 * slow device, a full one and a large vocabulary must lead to. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/random.h"
#include "daemon/plan/plan.h"

enum { TEXT_BYTES = 2048, STAGES_MAX = 8 };

static void good(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
}

/* A tied model of blocks linear layers between an embedding and its head. */
static mr_job *job_make(size_t stages, size_t layers, size_t micro_batches, const char *partition) {
    char text[TEXT_BYTES];
    int length = snprintf(
        text, sizeof(text),
        "schema: millrace.job/v1\n"
        "name: cut\n"
        "model:\n"
        "  layers:\n"
        "    - {type: embedding, tie: embed, vocab: 64, dim: 8, positions: 4}\n"
        "    - {type: linear, repeat: %zu, in: 8, out: 8}\n"
        "    - {type: lm_head, tie: embed}\n"
        "pipeline: {stages: %zu, partition: %s}\n"
        "batch: {micro_batch_size: 2, micro_batches: %zu, sequence_length: 4}\n"
        "lr_schedule: {total_steps: 3}\n",
        layers - 2, stages, partition, micro_batches);
    mr_job *job = NULL;
    good(mr_job_parse(text, (size_t)length, &job, NULL));
    return job;
}

/* Every layer a class of its own, so that each can cost what it likes. */
static mr_profile *profile_make(const mr_job *job) {
    mr_layer_description *layers = mr_alloc_array(job->layer_count, sizeof(*layers));
    mr_profile *profile = NULL;
    good(mr_job_describe(job, layers));
    good(mr_profile_create(job, layers, &profile));
    mr_free(layers);
    for (size_t i = 0; i < job->layer_count; i++)
        profile->layer_class[i] = (uint32_t)i;
    profile->class_count = job->layer_count;
    return profile;
}

static mr_profile_device *device_add(mr_profile *profile, double each) {
    mr_profile_device *device = NULL;
    good(mr_profile_device_create(profile->class_count, &device));
    for (size_t i = 0; i < device->class_count; i++)
        device->costs[i] = (mr_profile_cost){
            .forward = each, .backward_input = each, .backward_weight = each};
    good(mr_profile_add(profile, device));
    return device;
}

/* A number in [0, 1). */
static double draw(uint64_t seed, uint64_t *index) {
    mr_random_key key = mr_random_key_make(seed, MR_RANDOM_SAMPLE, 0, 0, 0);
    return mr_random_word(&key, (*index)++) * 0x1p-32;
}

static void device_draw(mr_profile_device *device, uint64_t seed, uint64_t *index) {
    double speed = 0.5 + draw(seed, index);
    for (size_t i = 0; i < device->class_count; i++) {
        double size = draw(seed, index) < 0.2 ? 5.0 : 1.0;
        device->costs[i] = (mr_profile_cost){
            .forward = speed * size * draw(seed, index),
            .backward_input = speed * size * draw(seed, index),
            .backward_weight = speed * size * draw(seed, index),
        };
    }
    device->loss = draw(seed, index);
    device->optimizer = draw(seed, index) * 1e-3;
    device->norm = draw(seed, index) * 1e-3;
    device->zero = draw(seed, index) * 1e-3;
    device->link = draw(seed, index) * 0.1;
    device->link_byte = draw(seed, index) * 1e-3;
}

static mr_plan *plan_of(const mr_job *job, const mr_profile *profile) {
    mr_plan *plan = NULL;
    good(mr_plan_make_profiled(job, false, profile, &plan));
    return plan;
}

static size_t stage_bytes(const mr_stage_plan *stage) {
    return stage->weights_bytes + stage->gradients_bytes + stage->optimizer_bytes +
           stage->activations_bytes;
}

/* The fastest of all cuts that fit, each planned as explicit bounds; INFINITY: none fits. */
static double best_of_all(mr_job *job, const mr_profile *profile) {
    size_t bounds[STAGES_MAX + 1] = {0};
    size_t stages = job->pipe;
    double best = INFINITY;
    for (size_t i = 0; i <= stages; i++)
        bounds[i] = i == stages ? job->layer_count : i;
    for (;;) {
        good(mr_job_set_bounds(job, bounds, stages + 1));
        mr_plan *plan = plan_of(job, profile);
        bool fits = true;
        for (size_t s = 0; s < stages; s++) {
            uint64_t memory = mr_profile_of_rank(profile, s)->memory_bytes;
            fits = fits && (memory == 0 || stage_bytes(&plan->stages[s]) <= memory);
        }
        if (fits)
            best = fmin(best, plan->step_seconds);
        mr_plan_destroy(plan);
        size_t i = stages - 1;
        while (i > 0 && bounds[i] == job->layer_count - stages + i)
            i--;
        if (i == 0)
            return best;
        bounds[i]++;
        for (size_t after = i + 1; after < stages; after++)
            bounds[after] = bounds[after - 1] + 1;
    }
}

static void test_small_models_get_the_best_of_all_cuts(void **state) {
    (void)state;
    size_t unfit = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        size_t stages = 1 + seed % 4;
        mr_job *job = job_make(stages, 5 + seed % 5, 1 + seed % 7, "profile");
        mr_profile *profile = profile_make(job);
        uint64_t index = 0;
        for (size_t i = 0; i < stages; i++) {
            mr_profile_device *device = device_add(profile, 1);
            device_draw(device, seed, &index);
            if (seed % 3 == 0) /* of some 25 KB that the whole model takes */
                device->memory_bytes = 4000 + (uint64_t)(draw(seed, &index) * 20000);
        }
        mr_plan *plan = NULL;
        mr_status status = mr_plan_make_profiled(job, false, profile, &plan);
        double found = mr_status_is_ok(status) ? plan->step_seconds : INFINITY;
        double best = best_of_all(job, profile);
        if (isinf(best)) {
            unfit++;
            assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
            assert_non_null(strstr(status.text, "no cut into"));
        } else if (found != best) {
            fail_msg("seed %d: %.17g found, %.17g is possible: %s", (int)seed, found, best,
                     status.text);
        }
        mr_plan_destroy(plan);
        mr_profile_destroy(profile);
        mr_job_destroy(job);
    }
    assert_in_range(unfit, 1, 12); /* both kinds were met */
}

static void test_a_walk_comes_near_the_best_of_all_cuts(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        mr_job *job = job_make(5, 14, 1024, "profile"); /* too much work to try all */
        mr_profile *profile = profile_make(job);
        uint64_t index = 0;
        for (size_t i = 0; i < 5; i++)
            device_draw(device_add(profile, 1), seed, &index);
        mr_plan *plan = plan_of(job, profile);
        double found = plan->step_seconds;
        mr_plan_destroy(plan);
        double best = best_of_all(job, profile);
        assert_true(found >= best);
        if (found > 1.05 * best)
            fail_msg("seed %d: %g found, %g is possible", (int)seed, found, best);
        mr_profile_destroy(profile);
        mr_job_destroy(job);
    }
}

/* 10,000 layers over 64 stages: bounded work, no worse than the others, near the bound that no cut
 * can beat: every microbatch passes the slowest stage, which has at least its share. */
static void test_ten_thousand_layers_are_cut_in_bounded_time(void **state) {
    (void)state;
    mr_job *job = job_make(64, 10000, 64, "profile");
    mr_profile *profile = profile_make(job);
    mr_profile_device *device = device_add(profile, 1e-3);
    uint64_t index = 0;
    double total = 0;
    for (size_t i = 0; i < device->class_count; i++) {
        mr_profile_cost *cost = &device->costs[i];
        cost->forward = 1e-3 * draw(7, &index);
        cost->backward_input = 1e-3 * draw(7, &index);
        cost->backward_weight = 1e-3 * draw(7, &index);
        total += cost->forward + cost->backward_input + cost->backward_weight;
    }
    int64_t start_ms = mr_clock_now_ms();
    mr_plan *plan = plan_of(job, profile);
    print_message("10000 layers, 64 stages: %d ms\n", (int)(mr_clock_now_ms() - start_ms));
    assert_true(mr_clock_now_ms() - start_ms < 60000);
    double found = plan->step_seconds;
    mr_plan_destroy(plan);
    double ideal = total / 64 * (64 + 63); /* equal stages: (m + p - 1) C */
    print_message("%.4f s; equal stages would take %.4f s\n", found, ideal);
    assert_true(found < 1.02 * ideal);
    for (int other = 0; other < 2; other++) {
        job->partition = other == 0 ? MR_PARTITION_UNIFORM : MR_PARTITION_PARAMETERS;
        plan = plan_of(job, profile);
        assert_true(found <= plan->step_seconds);
        mr_plan_destroy(plan);
    }
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

static void test_a_slow_device_gets_fewer_layers(void **state) {
    (void)state;
    mr_job *job = job_make(2, 12, 32, "profile");
    mr_profile *profile = profile_make(job);
    (void)device_add(profile, 1);
    (void)device_add(profile, 2); /* half as fast */
    mr_plan *plan = plan_of(job, profile);
    assert_int_equal(plan->bounds[1], 8);
    assert_false(plan->provisional);
    mr_plan_destroy(plan);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

static void test_a_costly_head_gets_a_stage_for_itself(void **state) {
    (void)state;
    mr_job *job = job_make(2, 8, 16, "profile");
    mr_profile *profile = profile_make(job);
    mr_profile_device *device = device_add(profile, 1);
    device->costs[7] = (mr_profile_cost){.forward = 4, .backward_input = 4, .backward_weight = 4};
    device->loss = 9;
    mr_plan *plan = plan_of(job, profile);
    assert_int_equal(plan->bounds[1], 7); /* 21 a microbatch on each side */
    assert_true(plan->stages[0].busy_seconds == 21.0 * 16);
    assert_true(plan->stages[1].busy_seconds == 21.0 * 16);
    assert_true(plan->step_seconds == 21.0 * 17);
    assert_true(fabs(plan->bubble_predicted - 1.0 / 17) < 1e-12);
    mr_plan_destroy(plan);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

static void test_without_a_profile_the_cut_is_provisional(void **state) {
    (void)state;
    mr_job *job = job_make(2, 8, 16, "profile");
    mr_plan *plan = plan_of(job, NULL);
    assert_true(plan->provisional);
    assert_true(plan->step_seconds == 0);
    mr_plan_destroy(plan);
    mr_job_destroy(job);
}

/* 1F1B of two stages: before + 2 (F + B) of one microbatch each, in turn, + after. */
static void test_optimizer_norm_and_ties_count_in_the_step(void **state) {
    (void)state;
    mr_job *job = job_make(1, 4, 3, "profile");
    mr_profile *profile = profile_make(job);
    mr_profile_device *device = device_add(profile, 1);
    const double elements = 64 * 8 + 4 * 8 + 2 * (8 * 8 + 8); /* the tied one once */
    device->optimizer = 0.5;
    device->norm = 0.25;
    device->zero = 2;
    mr_plan *plan = plan_of(job, profile);
    double wanted = 3 * 4 * 3.0 + 0.5 * elements + 0.25 * elements + 2 * (elements + 64 * 8) +
                    0.25 * 2 * 64 * 8; /* both accumulators of the tie, and their sum */
    assert_true(fabs(plan->step_seconds - wanted) < 1e-9 * wanted);
    mr_plan_destroy(plan);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

/* What is not trained is not updated, summed or zeroed. */
static void test_frozen_parameters_cost_nothing_around_the_list(void **state) {
    (void)state;
    mr_job *job = job_make(1, 4, 3, "profile");
    for (size_t i = 0; i < job->layer_count; i++)
        job->layers[i].frozen = true;
    mr_profile *profile = profile_make(job);
    mr_profile_device *device = device_add(profile, 1);
    device->optimizer = device->norm = device->zero = 1;
    mr_plan *plan = plan_of(job, profile);
    assert_true(fabs(plan->step_seconds - 3 * 4 * 3.0) < 1e-9);
    mr_plan_destroy(plan);
    mr_profile_destroy(profile);
    mr_job_destroy(job);
}

static void test_another_key_is_refused(void **state) {
    (void)state;
    mr_job *job = job_make(2, 8, 16, "profile");
    mr_job *other = job_make(2, 9, 16, "profile");
    mr_profile *profile = profile_make(job);
    mr_plan *plan = NULL;
    mr_status status = mr_plan_make_profiled(job, false, profile, &plan);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "no device"));
    (void)device_add(profile, 1);
    status = mr_plan_make_profiled(other, false, profile, &plan);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "the profile's model_hash is"));
    job->micro_batch_size = 3;
    status = mr_plan_make_profiled(job, false, profile, &plan);
    assert_int_equal(status.code, MR_CODE_FAILED_PRECONDITION);
    assert_non_null(strstr(status.text, "the profile's micro_batch_size is 2; the job's is 3"));
    mr_profile_destroy(profile);
    mr_job_destroy(other);
    mr_job_destroy(job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_models_get_the_best_of_all_cuts),
        cmocka_unit_test(test_a_walk_comes_near_the_best_of_all_cuts),
        cmocka_unit_test(test_ten_thousand_layers_are_cut_in_bounded_time),
        cmocka_unit_test(test_a_slow_device_gets_fewer_layers),
        cmocka_unit_test(test_a_costly_head_gets_a_stage_for_itself),
        cmocka_unit_test(test_without_a_profile_the_cut_is_provisional),
        cmocka_unit_test(test_optimizer_norm_and_ties_count_in_the_step),
        cmocka_unit_test(test_frozen_parameters_cost_nothing_around_the_list),
        cmocka_unit_test(test_another_key_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
