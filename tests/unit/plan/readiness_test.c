/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the last instruction that adds to gradients is found in every list: none after it does.
 * Method: generated lists of every kind, and one by hand with split backwards and chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/plan/readiness.h"

static void test_generated_lists_end_with_the_last_microbatch_s_backward(void **state) {
    (void)state;
    for (size_t stages = 1; stages <= 5; stages++)
        for (size_t stage = 0; stage < stages; stage++)
            for (uint32_t count = 1; count <= 9; count++)
                for (int gpipe = 0; gpipe < 2; gpipe++) {
                    mr_schedule schedule = {0};
                    assert_true(mr_status_is_ok(mr_schedule_generate(
                        gpipe ? MR_SCHEDULE_GPIPE : MR_SCHEDULE_1F1B, stage, stages, count,
                        &schedule)));
                    size_t at = mr_schedule_last_backward(&schedule, 0);
                    assert_in_range(at, 0, schedule.count - 1);
                    assert_int_equal(schedule.instructions[at].opcode, MR_OPCODE_BACKWARD);
                    assert_int_equal(schedule.instructions[at].micro_batch, count - 1);
                    for (size_t i = at + 1; i < schedule.count; i++)
                        assert_int_not_equal(schedule.instructions[i].opcode, MR_OPCODE_BACKWARD);
                    assert_int_equal(mr_schedule_last_backward(&schedule, 1), schedule.count);
                    mr_schedule_deinit(&schedule);
                }
}

static void test_a_forward_only_list_has_none(void **state) {
    (void)state;
    mr_schedule schedule = {0};
    assert_true(
        mr_status_is_ok(mr_schedule_generate(MR_SCHEDULE_INFERENCE, 0, 2, 3, &schedule)));
    assert_int_equal(mr_schedule_last_backward(&schedule, 0), schedule.count);
    mr_schedule_deinit(&schedule);
}

static void test_the_weight_part_and_the_chunk_count(void **state) {
    (void)state;
    mr_instruction list[] = {
        {.opcode = MR_OPCODE_BACKWARD, .micro_batch = 0, .chunk = 1},
        {.opcode = MR_OPCODE_BACKWARD_WEIGHT, .micro_batch = 1, .chunk = 1},
        {.opcode = MR_OPCODE_BACKWARD_INPUT, .micro_batch = 1, .chunk = 0},
        {.opcode = MR_OPCODE_BACKWARD_WEIGHT, .micro_batch = 1, .chunk = 0},
        {.opcode = MR_OPCODE_BACKWARD_INPUT, .micro_batch = 2, .chunk = 1},
        {.opcode = MR_OPCODE_REDUCE_DATA},
    };
    mr_schedule schedule = {.count = sizeof(list) / sizeof(list[0]), .instructions = list};
    assert_int_equal(mr_schedule_last_backward(&schedule, 0), 3);
    assert_int_equal(mr_schedule_last_backward(&schedule, 1), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generated_lists_end_with_the_last_microbatch_s_backward),
        cmocka_unit_test(test_a_forward_only_list_has_none),
        cmocka_unit_test(test_the_weight_part_and_the_chunk_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
