/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: 1F1B and inference are, instruction for instruction, what the field runs. Method: every
 * train and inference vector of tests/vectors/schedule.json. The vectors name buffers where our
 * lists name microbatches, and load on the first and the last stage where our labels travel with
 * the activations; so loads of later stages are left out and a microbatch is mapped to its buffer,
 * the microbatch modulo the number of buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/schedule.h"
#include "tests/unit/plan/vectors.h"

enum { TEXT_BYTES = 1 << 14 };

static void text_append(char *text, const char *word) {
    size_t used = strlen(text);
    size_t needed = strlen(word) + 2;
    assert_true(used + needed <= TEXT_BYTES);
    (void)snprintf(text + used, TEXT_BYTES - used, "%s%s", used == 0 ? "" : " ", word);
}

/* The steps of one stage in one line, without the loads of a stage after the first. */
static void vector_text(json_t *steps, size_t stage, char *out) {
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(steps); i++) {
        char step[256];
        const char *text = json_string_value(json_array_get(steps, i));
        assert_true(strlen(text) < sizeof(step));
        memcpy(step, text, strlen(text) + 1);
        char *rest = NULL;
        for (char *word = strtok_r(step, " ", &rest); word != NULL;
             word = strtok_r(NULL, " ", &rest))
            if (word[0] != 'L' || stage == 0)
                text_append(out, word);
    }
}

static void schedule_text(const mr_schedule *schedule, size_t buffers, char *out) {
    out[0] = '\0';
    for (size_t i = 0; i < schedule->count; i++) {
        mr_instruction instruction = schedule->instructions[i];
        instruction.micro_batch %= (uint32_t)buffers;
        char word[MR_INSTRUCTION_TEXT_BYTES];
        mr_instruction_text(&instruction, word);
        text_append(out, word);
    }
}

static void check_all(const char *array, mr_schedule_kind kind) {
    static char wanted[TEXT_BYTES];
    static char found[TEXT_BYTES];
    json_t *file;
    json_t *vectors = vectors_open("schedule.json", array, &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        size_t stages = vectors_size(vector, "stages");
        size_t micro_batches = vectors_size(vector, "micro_batches");
        json_t *per_stage = vectors_get(vector, "per_stage");
        assert_int_equal(json_array_size(per_stage), stages);
        for (size_t stage = 0; stage < stages; stage++) {
            json_t *one = json_array_get(per_stage, stage);
            mr_schedule schedule;
            assert_true(mr_status_is_ok(
                mr_schedule_generate(kind, stage, stages, micro_batches, &schedule)));
            vector_text(vectors_get(one, "steps"), stage, wanted);
            schedule_text(&schedule, vectors_size(one, "num_pipe_buffers"), found);
            assert_string_equal(found, wanted);
            mr_schedule_deinit(&schedule);
        }
    }
    json_decref(file);
}

static void test_train_vectors_are_1f1b(void **state) {
    (void)state;
    check_all("train", MR_SCHEDULE_1F1B);
}

static void test_inference_vectors_are_equal(void **state) {
    (void)state;
    check_all("inference", MR_SCHEDULE_INFERENCE);
}

static void assert_schedule(mr_schedule_kind kind, size_t stage, size_t stages, size_t m,
                            const char *wanted) {
    mr_schedule schedule;
    char *text = NULL;
    assert_true(mr_status_is_ok(mr_schedule_generate(kind, stage, stages, m, &schedule)));
    assert_true(mr_status_is_ok(mr_schedule_text(&schedule, &text)));
    assert_string_equal(text, wanted);
    mr_free(text);
    mr_schedule_deinit(&schedule);
}

static void test_lists_read_as_the_design_says(void **state) {
    (void)state;
    assert_schedule(MR_SCHEDULE_GPIPE, 0, 2, 2, "L0 F0 SA0 L1 F1 SA1 RG0 B0 RG1 B1 RT RD OP");
    assert_schedule(MR_SCHEDULE_GPIPE, 1, 2, 2, "RA0 F0 RA1 F1 B0 SG0 B1 SG1 RT RD OP");
    assert_schedule(MR_SCHEDULE_GPIPE, 0, 1, 2, "L0 F0 L1 F1 B0 B1 RT RD OP");
    assert_schedule(MR_SCHEDULE_1F1B, 0, 2, 3,
                    "L0 F0 SA0 L1 F1 RG0 SA1 B0 L2 F2 RG1 SA2 B1 RG2 B2 RT RD OP");
    assert_schedule(MR_SCHEDULE_1F1B, 1, 2, 3,
                    "RA0 F0 B0 SG0 RA1 F1 B1 SG1 RA2 F2 B2 SG2 RT RD OP");
    assert_schedule(MR_SCHEDULE_INFERENCE, 0, 2, 2, "L0 F0 L1 SA0 F1 SA1");
    assert_schedule(MR_SCHEDULE_INFERENCE, 1, 2, 2, "RA0 F0 RA1 F1");
}

static void test_a_chunk_is_written_after_a_point(void **state) {
    (void)state;
    char text[MR_INSTRUCTION_TEXT_BYTES];
    mr_instruction_text(&(mr_instruction){MR_OPCODE_FORWARD, 3, 1}, text);
    assert_string_equal(text, "F3.1");
    mr_instruction_text(&(mr_instruction){MR_OPCODE_BACKWARD_INPUT, 3, 0}, text);
    assert_string_equal(text, "I3");
    mr_instruction_text(&(mr_instruction){MR_OPCODE_RECEIVE_ACTIVATION, UINT32_MAX, UINT32_MAX},
                        text);
    assert_string_equal(text, "RA4294967295.4294967295");
    mr_instruction_text(&(mr_instruction){MR_OPCODE_OPTIMIZER, 0, 0}, text);
    assert_string_equal(text, "OP");
}

static void test_impossible_sizes_are_refused(void **state) {
    (void)state;
    mr_schedule schedule;
    assert_int_equal(mr_schedule_generate(MR_SCHEDULE_1F1B, 2, 2, 1, &schedule).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_schedule_generate(MR_SCHEDULE_1F1B, 0, 0, 1, &schedule).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_schedule_generate(MR_SCHEDULE_1F1B, 0, 1, 0, &schedule).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_schedule_generate(MR_SCHEDULE_1F1B, 0, 1, 4097, &schedule).code,
                     MR_CODE_INVALID_ARGUMENT);
    assert_int_equal(mr_schedule_generate(MR_SCHEDULE_KIND_COUNT, 0, 1, 1, &schedule).code,
                     MR_CODE_INVALID_ARGUMENT);
    mr_alloc_fail_at(1);
    mr_status status = mr_schedule_generate(MR_SCHEDULE_1F1B, 0, 1, 1, &schedule);
    mr_alloc_fail_at(0);
    assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_train_vectors_are_1f1b),
        cmocka_unit_test(test_inference_vectors_are_equal),
        cmocka_unit_test(test_lists_read_as_the_design_says),
        cmocka_unit_test(test_a_chunk_is_written_after_a_point),
        cmocka_unit_test(test_impossible_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
