/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: times follow the theory. Method: with F = I = W and free transfers 1F1B and GPipe have the
 * bubble (p - 1) / (m + p - 1); costly transfers, uneven stages and split backward are compared
 * with times worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/simulate.h"
#include "tests/unit/plan/pipeline.h"

static void assert_near(double found, double wanted) {
    if (fabs(found - wanted) > 1e-12 * fmax(1.0, fabs(wanted)))
        fail_msg("%.17g instead of %.17g", found, wanted);
}

static mr_simulation simulate(const pipeline *line, const mr_stage_cost *costs) {
    mr_simulation simulation;
    assert_true(mr_status_is_ok(mr_simulate(line->lists, &line->shape, costs, &simulation)));
    return simulation;
}

static void test_equal_costs_give_the_known_bubble(void **state) {
    (void)state;
    mr_stage_cost costs[PIPELINE_STAGES_MAX];
    for (size_t i = 0; i < PIPELINE_STAGES_MAX; i++)
        costs[i] = (mr_stage_cost){.forward = 1, .backward_input = 1, .backward_weight = 1};
    for (mr_schedule_kind kind = MR_SCHEDULE_GPIPE; kind <= MR_SCHEDULE_INFERENCE; kind++)
        for (size_t p = 1; p <= PIPELINE_STAGES_MAX; p++)
            for (size_t m = 1; m <= 33; m += 4) {
                pipeline line;
                pipeline_init(&line, kind, p, m);
                mr_simulation found = simulate(&line, costs);
                double share = kind == MR_SCHEDULE_INFERENCE ? 1.0 : 3.0;
                assert_near(found.makespan, share * (double)(m + p - 1));
                assert_near(found.work, share * (double)m);
                assert_near(found.bubble, (double)(p - 1) / (double)(m + p - 1));
                pipeline_deinit(&line);
            }
}

static void test_transfers_are_waited_for(void **state) {
    (void)state;
    pipeline line;
    pipeline_init(&line, MR_SCHEDULE_1F1B, 2, 1);
    const mr_stage_cost costs[] = {{1, 2, 3, 10, 99}, {4, 5, 6, 99, 20}};
    /* F 1, transfer 10, F 4, B 11, transfer 20, B 5. */
    assert_near(simulate(&line, costs).makespan, 51.0);
    pipeline_deinit(&line);
    /* Two messages of one edge follow each other: the second starts when the first has arrived. */
    pipeline_init(&line, MR_SCHEDULE_GPIPE, 2, 2);
    const mr_stage_cost slow[] = {{1, 0, 0, 10, 0}, {1, 0, 0, 0, 0}};
    assert_near(simulate(&line, slow).makespan, 22.0);
    pipeline_deinit(&line);
}

static void test_the_slowest_stage_sets_the_pace(void **state) {
    (void)state;
    pipeline line;
    pipeline_init(&line, MR_SCHEDULE_INFERENCE, 2, 10);
    const mr_stage_cost costs[] = {{.forward = 1}, {.forward = 3}};
    mr_simulation found = simulate(&line, costs);
    assert_near(found.makespan, 31.0);
    assert_near(found.work, 20.0);
    assert_near(found.bubble, 11.0 / 31.0);
    pipeline_deinit(&line);
}

static void test_a_split_backward_fills_the_bubble(void **state) {
    (void)state;
    pipeline line;
    mr_verify_shape shape = {2, 2, 1, true};
    pipeline_init_texts(&line, shape,
                        (const char *const[]){
                            "L0 F0 SA0 L1 F1 RG0 SA1 I0 W0 RG1 I1 W1 RT RD OP",
                            "RA0 F0 I0 SG0 RA1 F1 I1 SG1 W0 W1 RT RD OP",
                        });
    const mr_stage_cost costs[] = {{1, 1, 1, 0, 0}, {1, 1, 1, 0, 0}};
    assert_near(simulate(&line, costs).makespan, 7.0);
    pipeline_deinit(&line);
}

static void test_a_step_of_no_cost_has_no_bubble(void **state) {
    (void)state;
    pipeline line;
    pipeline_init(&line, MR_SCHEDULE_1F1B, 2, 2);
    const mr_stage_cost costs[2] = {{0}};
    assert_near(simulate(&line, costs).bubble, 0.0);
    mr_simulation simulation;
    for (uint64_t n = 1; n <= 6; n++) {
        mr_alloc_fail_at(n);
        mr_status status = mr_simulate(line.lists, &line.shape, costs, &simulation);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    }
    pipeline_deinit(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_costs_give_the_known_bubble),
        cmocka_unit_test(test_transfers_are_waited_for),
        cmocka_unit_test(test_the_slowest_stage_sets_the_pace),
        cmocka_unit_test(test_a_split_backward_fills_the_bubble),
        cmocka_unit_test(test_a_step_of_no_cost_has_no_bubble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
