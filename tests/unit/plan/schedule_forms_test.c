/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what the field says of a schedule beside its lists holds for ours: buffers, the place of a
 * microbatch in time, its older form and its form without a pipeline.
 * Method: the vectors num_pipe_buffers, step_map, train_v0_5_7 and data_parallel of
 * tests/vectors/schedule.json, and the buffer counts of train and inference.
 *   Buffers: the field has at least two; ours are as many as are in flight, which the proof counts.
 *   The older form receives before it sends in a slot, and needs a buffer more for that
 *   (deepspeed.md 76: order and count changed together, one alone overwrites live inputs). Ours is
 *   the current form: with the two changed back within each slot the lists are equal, and what is
 *   in flight never exceeds either form's buffers.
 *   Without a pipeline ours has the tied reduction as well, as layers of one stage may be tied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "daemon/plan/verify.h"
#include "tests/unit/plan/vectors.h"

enum { STAGES_MAX = 64, TEXT_BYTES = 1 << 14, WORDS_MAX = 16, STEP_MAP_MICRO_BATCHES = 16 };

/* ---- buffers ---- */

/* How many microbatches each stage has in flight, by the proof. */
static void peaks_of(mr_schedule_kind kind, size_t stages, size_t micro_batches, size_t *peaks) {
    mr_schedule lists[STAGES_MAX];
    mr_verify_shape shape = {.stage_count = stages,
                             .micro_batches = micro_batches,
                             .chunks = 1,
                             .training = kind != MR_SCHEDULE_INFERENCE};
    assert_true(stages <= STAGES_MAX);
    for (size_t stage = 0; stage < stages; stage++)
        assert_true(mr_status_is_ok(
            mr_schedule_generate(kind, stage, stages, micro_batches, &lists[stage])));
    mr_status status = mr_verify(lists, &shape, peaks);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    for (size_t stage = 0; stage < stages; stage++)
        mr_schedule_deinit(&lists[stage]);
}

static size_t at_least_two(size_t count) {
    return count < 2 ? 2 : count;
}

static void test_as_many_are_in_flight_as_the_field_has_buffers(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("schedule.json", "num_pipe_buffers", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        size_t stages = vectors_size(vector, "stages");
        size_t peaks[STAGES_MAX];
        size_t current[STAGES_MAX];
        size_t older[STAGES_MAX];
        peaks_of(MR_SCHEDULE_1F1B, stages, vectors_size(vector, "micro_batches"), peaks);
        assert_int_equal(vectors_sizes(vectors_get(vector, "current"), current, STAGES_MAX),
                         stages);
        assert_int_equal(vectors_sizes(vectors_get(vector, "v0_5_7"), older, STAGES_MAX), stages);
        for (size_t stage = 0; stage < stages; stage++) {
            assert_int_equal(at_least_two(peaks[stage]), current[stage]);
            assert_in_range(peaks[stage], 1, older[stage]);
        }
    }
    json_decref(file);
}

/* exactly: the field has no more buffers than it needs, but for the two it has at least. */
static void check_buffers(const char *array, mr_schedule_kind kind, bool exactly) {
    json_t *file;
    json_t *vectors = vectors_open("schedule.json", array, &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        size_t stages = vectors_size(vector, "stages");
        json_t *per_stage = vectors_get(vector, "per_stage");
        size_t peaks[STAGES_MAX];
        peaks_of(kind, stages, vectors_size(vector, "micro_batches"), peaks);
        for (size_t stage = 0; stage < stages; stage++) {
            size_t buffers = vectors_size(json_array_get(per_stage, stage), "num_pipe_buffers");
            if (exactly)
                assert_int_equal(at_least_two(peaks[stage]), buffers);
            else
                assert_in_range(peaks[stage], 1, buffers);
        }
    }
    json_decref(file);
}

static void test_every_vectors_buffers_hold_what_is_in_flight(void **state) {
    (void)state;
    check_buffers("train", MR_SCHEDULE_1F1B, true);
    check_buffers("inference", MR_SCHEDULE_INFERENCE, false);
    check_buffers("train_v0_5_7", MR_SCHEDULE_1F1B, false);
}

/* ---- the time of a microbatch ---- */

static bool is_compute(const mr_instruction *instruction) {
    return instruction->opcode == MR_OPCODE_FORWARD || instruction->opcode == MR_OPCODE_BACKWARD;
}

static void check_step_map(json_t *vector) {
    mr_schedule list;
    json_t *map = vectors_get(vector, "map");
    size_t at = 0;
    assert_true(mr_status_is_ok(mr_schedule_generate(
        MR_SCHEDULE_1F1B, vectors_size(vector, "stage"), vectors_size(vector, "stages"),
        STEP_MAP_MICRO_BATCHES, &list)));
    assert_int_equal(json_array_size(map),
                     2 * (STEP_MAP_MICRO_BATCHES + vectors_size(vector, "stages") - 1));
    for (size_t step = 0; step < json_array_size(map); step++) {
        json_t *slot = json_array_get(map, step);
        json_int_t micro_batch = json_integer_value(json_array_get(slot, 0));
        bool forward = json_integer_value(json_array_get(slot, 1)) == 1;
        if (micro_batch < 0 || micro_batch >= STEP_MAP_MICRO_BATCHES)
            continue; /* an idle slot */
        while (at < list.count && !is_compute(&list.instructions[at]))
            at++;
        assert_true(at < list.count);
        assert_int_equal(list.instructions[at].micro_batch, micro_batch);
        assert_int_equal(list.instructions[at++].opcode,
                         forward ? MR_OPCODE_FORWARD : MR_OPCODE_BACKWARD);
    }
    for (; at < list.count; at++)
        assert_false(is_compute(&list.instructions[at]));
    mr_schedule_deinit(&list);
}

static void test_microbatches_are_computed_in_the_order_of_the_step_map(void **state) {
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("schedule.json", "step_map", &file);
    for (size_t i = 0; i < json_array_size(vectors); i++)
        check_step_map(json_array_get(vectors, i));
    json_decref(file);
}

/* ---- other forms ---- */

static void text_append(char *text, const char *word) {
    size_t used = strlen(text);
    assert_true(used + strlen(word) + 2 <= TEXT_BYTES);
    (void)snprintf(text + used, TEXT_BYTES - used, "%s%s", used == 0 ? "" : " ", word);
}

/* The words of one slot; returns how many. */
static size_t step_words(char *step, char *words[WORDS_MAX]) {
    size_t count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(step, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        assert_true(count < WORDS_MAX);
        words[count++] = word;
    }
    return count;
}

static bool begins(const char *word, const char *code) {
    return strncmp(word, code, strlen(code)) == 0;
}

/* A slot of the older form as the current one has it: sends and receives change places. */
static void step_modernise(char *words[WORDS_MAX], size_t count) {
    for (size_t i = 0; i + 1 < count; i++)
        if ((begins(words[i], "RA") && begins(words[i + 1], "SG")) ||
            (begins(words[i], "SA") && begins(words[i + 1], "RG"))) {
            char *first = words[i];
            words[i] = words[i + 1];
            words[++i] = first;
        }
}

/* All slots in one line, without loads after the first stage. */
static void steps_text(json_t *steps, size_t stage, bool older, char *out) {
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(steps); i++) {
        char step[256];
        char *words[WORDS_MAX];
        int wrote = snprintf(step, sizeof(step), "%s", json_string_value(json_array_get(steps, i)));
        assert_in_range(wrote, 0, sizeof(step) - 1);
        size_t count = step_words(step, words);
        if (older)
            step_modernise(words, count);
        for (size_t w = 0; w < count; w++)
            if (words[w][0] != 'L' || stage == 0)
                text_append(out, words[w]);
    }
}

static void list_text(const mr_schedule *list, size_t buffers, bool tied, char *out) {
    out[0] = '\0';
    for (size_t i = 0; i < list->count; i++) {
        mr_instruction instruction = list->instructions[i];
        char word[MR_INSTRUCTION_TEXT_BYTES];
        instruction.micro_batch %= (uint32_t)buffers;
        mr_instruction_text(&instruction, word);
        if (tied || instruction.opcode != MR_OPCODE_REDUCE_TIED)
            text_append(out, word);
    }
}

static void test_the_older_form_differs_by_send_and_receive_alone_deepspeed_76(void **state) {
    static char wanted[TEXT_BYTES];
    static char found[TEXT_BYTES];
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("schedule.json", "train_v0_5_7", &file);
    size_t index;
    size_t different = 0;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        size_t stages = vectors_size(vector, "stages");
        for (size_t stage = 0; stage < stages; stage++) {
            json_t *one = json_array_get(vectors_get(vector, "per_stage"), stage);
            mr_schedule list;
            assert_true(mr_status_is_ok(
                mr_schedule_generate(MR_SCHEDULE_1F1B, stage, stages,
                                     vectors_size(vector, "micro_batches"), &list)));
            list_text(&list, vectors_size(one, "num_pipe_buffers"), true, found);
            steps_text(vectors_get(one, "steps"), stage, true, wanted);
            assert_string_equal(found, wanted);
            steps_text(vectors_get(one, "steps"), stage, false, wanted);
            different += strcmp(found, wanted) != 0;
            mr_schedule_deinit(&list);
        }
    }
    assert_true(different > 0);
    json_decref(file);
}

static void test_one_stage_runs_the_data_parallel_schedule(void **state) {
    static char wanted[TEXT_BYTES];
    static char found[TEXT_BYTES];
    (void)state;
    json_t *file;
    json_t *vectors = vectors_open("schedule.json", "data_parallel", &file);
    size_t index;
    json_t *vector;
    json_array_foreach (vectors, index, vector) {
        size_t micro_batches = vectors_size(vector, "micro_batches");
        mr_schedule list;
        size_t peak = 0;
        assert_true(mr_status_is_ok(
            mr_schedule_generate(MR_SCHEDULE_1F1B, 0, 1, micro_batches, &list)));
        list_text(&list, vectors_size(vector, "num_pipe_buffers"), false, found);
        steps_text(vectors_get(vector, "steps"), 0, false, wanted);
        assert_string_equal(found, wanted);
        peaks_of(MR_SCHEDULE_1F1B, 1, micro_batches, &peak);
        assert_int_equal(peak, vectors_size(vector, "num_pipe_buffers"));
        mr_schedule_deinit(&list);
    }
    json_decref(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_many_are_in_flight_as_the_field_has_buffers),
        cmocka_unit_test(test_every_vectors_buffers_hold_what_is_in_flight),
        cmocka_unit_test(test_microbatches_are_computed_in_the_order_of_the_step_map),
        cmocka_unit_test(test_the_older_form_differs_by_send_and_receive_alone_deepspeed_76),
        cmocka_unit_test(test_one_stage_runs_the_data_parallel_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
