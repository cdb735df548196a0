/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: gradients of replicas are summed in rank order to the bits of one loop, layer by layer as
 * they are handed over and ties at the end; sums begin before finish; a replica that does not come
 * ends in an error that names the parameter, and a reducer in the middle of a sum can be destroyed.
 * Method: a thread for each of three replicas, an in-process group between them; values of many
 * magnitudes, so that another order of additions gives other bits. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/group/in_process.h"
#include "daemon/stage/gradient_reducer.h"
#include "tests/unit/stage/stage_model.h"

enum { REPLICAS = 3, LAYERS = 5, STEPS = 4, GROUP_BYTES = 1 << 16 };

static void ok(mr_status status) {
    if (!mr_status_is_ok(status))
        fail_msg("%s: %s", mr_code_name(status.code), status.text);
}

/* Element e of held parameter k on a replica in a step. */
static float value(size_t replica, uint64_t step, size_t k, size_t e) {
    uint64_t mix = (replica * 7919 + step * 15485863 + k * 104729 + e + 1) * 0x9E3779B97F4A7C15u;
    mix ^= mix >> 29;
    mix *= 0xBF58476D1CE4E5B9u;
    float mantissa = (float)(int32_t)(mix >> 32) * 0x1p-31f;
    int scale = (int)(mix & 31) - 16;
    return scale < 0 ? mantissa / (float)(1u << -scale) : mantissa * (float)(1u << scale);
}

typedef struct replica {
    size_t index;
    mr_group *group;
    stage_model model;
    mr_parameters *parameters;
    mr_trace *trace;
    mr_trace_track *track;
    mr_gradient_reducer *reducer;
    mr_reduction_time time;
    mr_status status;
    size_t wrong; /* elements with other bits than the loop's */
} replica;

/* Gradients of one layer only, as backward makes them; ties with the layer that holds them. */
static void fill_layer(const replica *self, uint64_t step, size_t layer) {
    for (size_t k = 0; k < mr_parameters_count(self->parameters); k++) {
        const mr_stage_parameter *held = mr_parameters_at(self->parameters, k);
        float *gradient = held->gradient.data;
        for (size_t e = 0; held->layer == layer && e < stage_elements(&held->gradient); e++)
            gradient[e] = value(self->index, step, k, e);
    }
}

static size_t count_wrong(const replica *self, uint64_t step) {
    size_t wrong = 0;
    for (size_t k = 0; k < mr_parameters_count(self->parameters); k++) {
        const mr_stage_parameter *held = mr_parameters_at(self->parameters, k);
        const float *gradient = held->gradient.data;
        for (size_t e = 0; e < stage_elements(&held->gradient); e++) {
            float sum = value(0, step, k, e);
            for (size_t r = 1; r < REPLICAS; r++)
                sum += value(r, step, k, e);
            wrong += memcmp(&sum, &gradient[e], sizeof sum) != 0;
        }
    }
    return wrong;
}

static void *replica_run(void *context) {
    replica *self = context;
    for (uint64_t step = 0; step < STEPS && mr_status_is_ok(self->status); step++) {
        for (size_t layer = LAYERS; layer-- > 0;) {
            fill_layer(self, step, layer);
            mr_gradient_reducer_ready(self->reducer, step, layer);
        }
        self->status = mr_gradient_reducer_finish(self->reducer, step, &self->time);
        self->wrong += count_wrong(self, step);
    }
    return NULL;
}

static void replicas_open(replica *all, mr_group **groups) {
    for (size_t i = 0; i < REPLICAS; i++) {
        all[i] = (replica){.index = i, .group = groups[i], .status = MR_OK};
        stage_model_init_gpt(&all[i].model);
        all[i].parameters = stage_model_parameters(&all[i].model, 0, LAYERS, true);
        ok(mr_trace_create("replica", &all[i].trace));
        ok(mr_trace_track_add(all[i].trace, "reduce", 256, &all[i].track));
        ok(mr_gradient_reducer_create(all[i].parameters, all[i].track, &all[i].reducer));
        ok(mr_gradient_reducer_start(all[i].reducer, groups[i]));
    }
}

static void replicas_close(replica *all) {
    for (size_t i = 0; i < REPLICAS; i++)
        mr_gradient_reducer_destroy(all[i].reducer);
    for (size_t i = 0; i < REPLICAS; i++) {
        mr_group_close(all[i].group);
        mr_trace_destroy(all[i].trace);
        mr_parameters_destroy(all[i].parameters);
        stage_model_deinit(&all[i].model);
    }
}

static void groups_make(mr_group **groups) {
    static const uint32_t ranks[REPLICAS] = {0, 1, 2};
    mr_group_options options = {.group_id = "gradients//0",
                                .ranks = ranks,
                                .rank_count = REPLICAS,
                                .bytes_max = GROUP_BYTES,
                                .parts_max = 1};
    ok(mr_group_in_process(&options, groups));
}

static void run(replica *all) {
    pthread_t threads[REPLICAS];
    for (size_t i = 0; i < REPLICAS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, replica_run, &all[i]), 0);
    for (size_t i = 0; i < REPLICAS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Layers from the last to the first, then the ties: the names of one step's spans. */
static void expect_spans(const replica *self) {
    static const char *const names[] = {"layer 4", "layer 3", "layer 2",
                                        "layer 1", "layer 0", "ties"};
    mr_trace_span spans[STEPS * 6 + 1];
    size_t count = mr_trace_read(self->track, spans, STEPS * 6 + 1);
    assert_int_equal(count, STEPS * 6);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(spans[i].name, names[i % 6]);
        assert_int_equal(spans[i].step, i / 6);
    }
}

static void test_sums_have_the_bits_of_one_loop_in_rank_order(void **state) {
    (void)state;
    mr_group *groups[REPLICAS];
    replica all[REPLICAS];
    groups_make(groups);
    replicas_open(all, groups);
    run(all);
    for (size_t i = 0; i < REPLICAS; i++) {
        ok(all[i].status);
        assert_int_equal(all[i].wrong, 0);
        assert_true(all[i].time.sum_ns > 0);
        assert_true(all[i].time.exposed_ns >= 0);
        expect_spans(&all[i]);
    }
    replicas_close(all);
}

static void test_a_group_of_exec_alone_gives_the_same_bits(void **state) {
    (void)state;
    mr_group *groups[REPLICAS];
    mr_group_ops bound;
    replica all[REPLICAS];
    groups_make(groups);
    bound = *groups[0]->ops;
    bound.any_thread = false;
    for (size_t i = 0; i < REPLICAS; i++)
        groups[i]->ops = &bound;
    replicas_open(all, groups);
    run(all);
    for (size_t i = 0; i < REPLICAS; i++) {
        ok(all[i].status);
        assert_int_equal(all[i].wrong, 0);
        assert_true(all[i].time.exposed_ns >= all[i].time.sum_ns);
        expect_spans(&all[i]);
    }
    replicas_close(all);
}

static const mr_group_ops *real_ops;
static sem_t summed;

static mr_status counted_sum(mr_group *group, const float *const *parts, size_t part_count,
                             float *out, size_t n, int64_t timeout_ms) {
    mr_status status = real_ops->sum(group, parts, part_count, out, n, timeout_ms);
    (void)sem_post(&summed);
    return status;
}

/* Every sum of an untied parameter comes to its end with no finish in sight. */
static void test_layers_are_summed_before_finish(void **state) {
    (void)state;
    mr_group *groups[REPLICAS];
    replica all[REPLICAS];
    groups_make(groups);
    real_ops = groups[0]->ops;
    mr_group_ops counted = *real_ops;
    counted.sum = counted_sum;
    groups[0]->ops = &counted;
    assert_int_equal(sem_init(&summed, 0, 0), 0);
    replicas_open(all, groups);
    for (size_t i = 0; i < REPLICAS; i++)
        for (size_t layer = LAYERS; layer-- > 0;) {
            fill_layer(&all[i], 0, layer);
            mr_gradient_reducer_ready(all[i].reducer, 0, layer);
        }
    struct timespec end;
    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 30;
    for (size_t i = 0; i < LAYERS - 1; i++) /* the last has nothing but the tie */
        assert_int_equal(sem_timedwait(&summed, &end), 0);
    replicas_close(all);
    (void)sem_destroy(&summed);
}

static void test_a_lost_replica_is_named_with_the_parameter(void **state) {
    (void)state;
    mr_group *groups[REPLICAS];
    replica all[REPLICAS];
    groups_make(groups);
    replicas_open(all, groups);
    mr_gradient_reducer_ready(all[0].reducer, 0, 4);
    mr_gradient_reducer_ready(all[0].reducer, 0, 3);
    mr_group_interrupt(groups[1], "rank 1 is lost");
    mr_status status = mr_gradient_reducer_finish(all[0].reducer, 0, &all[0].time);
    assert_int_equal(status.code, MR_CODE_CANCELLED);
    assert_non_null(strstr(status.text, "gradients of layer 3, weight to bias"));
    assert_non_null(strstr(status.text, "rank 1 is lost"));
    replicas_close(all);
}

static void test_a_sum_under_way_does_not_hold_up_the_end(void **state) {
    (void)state;
    mr_group *groups[REPLICAS];
    replica all[REPLICAS];
    groups_make(groups);
    replicas_open(all, groups);
    for (size_t layer = LAYERS; layer-- > 0;)
        mr_gradient_reducer_ready(all[2].reducer, 0, layer);
    replicas_close(all); /* a wait for the others would last a minute */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_have_the_bits_of_one_loop_in_rank_order),
        cmocka_unit_test(test_a_group_of_exec_alone_gives_the_same_bits),
        cmocka_unit_test(test_layers_are_summed_before_finish),
        cmocka_unit_test(test_a_lost_replica_is_named_with_the_parameter),
        cmocka_unit_test(test_a_sum_under_way_does_not_hold_up_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
