/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: every generated pipeline is proved, with the peaks that the theory gives; foreign lists
 * with chunks or split backward are proved as well; what is wrong is named. Method: all generators
 * for 1 to 16 stages and 1 to 64 microbatches; lists written by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/unit/plan/pipeline.h"

enum { MICRO_BATCHES_MAX = 64 };

static void check_peaks(mr_schedule_kind kind, size_t stages, size_t micro_batches) {
    pipeline line;
    size_t peaks[PIPELINE_STAGES_MAX];
    pipeline_init(&line, kind, stages, micro_batches);
    mr_status status = mr_verify(line.lists, &line.shape, peaks);
    if (!mr_status_is_ok(status))
        fail_msg("kind %d, %zu stages, %zu microbatches: %s", (int)kind, stages, micro_batches,
                 status.text);
    for (size_t stage = 0; stage < stages; stage++) {
        size_t ahead = stages - stage;
        /* Inference: the first stage and odd ones take an input before the last output is sent. */
        bool overlaps = ahead > 1 && (stage == 0 || stage % 2 == 1) && micro_batches > 1;
        size_t wanted = kind == MR_SCHEDULE_GPIPE  ? micro_batches
                        : kind == MR_SCHEDULE_1F1B ? (ahead < micro_batches ? ahead : micro_batches)
                        : overlaps                 ? 2
                                                   : 1;
        assert_int_equal(peaks[stage], wanted);
    }
    pipeline_deinit(&line);
}

static void test_all_generated_pipelines_are_proved(void **state) {
    (void)state;
    for (mr_schedule_kind kind = MR_SCHEDULE_GPIPE; kind <= MR_SCHEDULE_INFERENCE; kind++)
        for (size_t stages = 1; stages <= PIPELINE_STAGES_MAX; stages++)
            for (size_t m = 1; m <= MICRO_BATCHES_MAX; m++)
                check_peaks(kind, stages, m);
}

static const mr_verify_shape shape_split = {2, 2, 1, true};
static const mr_verify_shape shape_chunks = {2, 2, 2, true};

/* ZB-H1 for two stages: backward in halves, W later. */
static void test_a_split_backward_is_proved(void **state) {
    (void)state;
    pipeline line;
    size_t peaks[2];
    pipeline_init_texts(&line, shape_split,
                        (const char *const[]){
                            "L0 F0 SA0 L1 F1 RG0 SA1 I0 W0 RG1 I1 W1 RT RD OP",
                            "RA0 F0 I0 SG0 RA1 F1 W0 I1 SG1 W1 RT RD OP",
                        });
    mr_status status = mr_verify(line.lists, &line.shape, peaks);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    assert_int_equal(peaks[0], 2);
    assert_int_equal(peaks[1], 2); /* F0 is held until W0 */
    pipeline_deinit(&line);
}

/* Two stages, two parts each: part 2 is chunk 1 of stage 0, part 3 chunk 1 of stage 1. */
static const char *const chunk_lists[] = {
    "L0 F0 SA0 L1 F1 SA1 RA0.1 RA1.1 F0.1 SA0.1 F1.1 SA1.1 "
    "RG0.1 B0.1 RG1.1 B1.1 SG0.1 SG1.1 RG0 B0 RG1 B1 RT RD OP",
    "RA0 F0 RA1 F1 SA0 SA1 RA0.1 F0.1 RA1.1 F1.1 B0.1 SG0.1 B1.1 SG1.1 "
    "RG0.0 B0 RG1 B1 SG0 SG1 RT RD OP",
};

static void test_chunks_in_turns_are_proved_or_their_deadlock_named(void **state) {
    (void)state;
    pipeline line;
    pipeline_init_texts(&line, shape_chunks, chunk_lists);
    mr_status status = pipeline_verify(&line);
    if (!mr_status_is_ok(status))
        fail_msg("%s", status.text);
    pipeline_deinit(&line);
    /* The last stage sends its first chunk on only after asking for its second: a cycle. */
    pipeline_init_texts(&line, shape_chunks,
                        (const char *const[]){
                            chunk_lists[0],
                            "RA0 F0 RA1 F1 RA0.1 SA0 SA1 F0.1 RA1.1 F1.1 B0.1 SG0.1 B1.1 SG1.1 "
                            "RG0.0 B0 RG1 B1 SG0 SG1 RT RD OP",
                        });
    status = pipeline_verify(&line);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    assert_non_null(strstr(status.text, "deadlock of 2 stages"));
    assert_non_null(strstr(status.text, "instruction 4 (RA0.1) of stage 1"));
    assert_non_null(strstr(status.text, "instruction 6 (RA0.1) of stage 0"));
    pipeline_deinit(&line);
    /* One stage hands its chunks over without messages. */
    mr_verify_shape alone = {1, 1, 2, true};
    pipeline_init_texts(&line, alone, (const char *const[]){"L0 F0 F0.1 B0.1 B0 RT RD OP"});
    assert_true(mr_status_is_ok(pipeline_verify(&line)));
    pipeline_deinit(&line);
    pipeline_init_texts(&line, alone, (const char *const[]){"L0 F0 F0.1 B0 B0.1 RT RD OP"});
    assert_non_null(
        strstr(pipeline_verify(&line).text, "(B0) of stage 0 comes before its gradient"));
    pipeline_deinit(&line);
}

static void assert_refused(mr_verify_shape shape, const char *const *texts, const char *wanted) {
    pipeline line;
    pipeline_init_texts(&line, shape, texts);
    mr_status status = pipeline_verify(&line);
    pipeline_deinit(&line);
    assert_int_equal(status.code, MR_CODE_INVALID_ARGUMENT);
    if (strstr(status.text, wanted) == NULL)
        fail_msg("'%s' does not say '%s'", status.text, wanted);
}

static void test_what_is_wrong_is_named(void **state) {
    (void)state;
    static const mr_verify_shape one = {1, 2, 1, true};
    static const mr_verify_shape two = {2, 1, 1, true};
    static const mr_verify_shape forward = {1, 1, 1, false};
    static const struct {
        const mr_verify_shape *shape;
        const char *texts[2];
        const char *wanted;
    } wrong[] = {
        {&one, {"L0 F0 B0 L1 F1 RT RD OP"}, "the list of stage 0 lacks B1"},
        {&one, {"L0 F0 B0 F1 L1 B1 RT RD OP"}, "instruction 3 (F1) of stage 0 comes before its"},
        {&one, {"L0 F0 L1 F1 B1 B0 RT RD OP"}, "instruction 4 (B1) of stage 0 comes before the"},
        {&one, {"L0 F0 L0 F1 B1 B0 RT RD OP"}, "instruction 2 (L0) of stage 0 is there twice"},
        {&one, {"L0 F0 B0 L1 F1 B1 RD RT OP"}, "must end with RT RD OP"},
        {&one, {"L0 F0 B0 RT L1 F1 B1 RT RD OP"}, "instruction 3 (RT) of stage 0 belongs at the"},
        {&one, {"RT RD"}, "must end with RT RD OP"},
        {&one, {"L0 F0 B0 L1 F1 B1 F2 RT RD OP"}, "(F2) of stage 0 names a microbatch past"},
        {&one, {"L0 F0 B0 L1 F1 B1 F1.1 RT RD OP"}, "(F1.1) of stage 0 names a chunk past"},
        {&one, {"L0 F0 B0 SA0 L1 F1 B1 RT RD OP"}, "(SA0) of stage 0 sends to a stage that"},
        {&one, {"L0 F0 I0 B0 W0 L1 F1 B1 RT RD OP"}, "(B0) of stage 0 repeats a backward"},
        {&one, {"L0 F0 W0 I0 L1 F1 B1 RT RD OP"}, "(W0) of stage 0 comes before its I"},
        {&one, {"L0 F0 L1 F1 I0 I1 W1 W0 RT RD OP"}, "(W1) of stage 0 comes before the backward"},
        {&one, {"L0 F0 L1 F1 I0 I1 W0 RT RD OP"}, "the list of stage 0 lacks W1"},
        {&forward, {"L0 F0 B0"}, "(B0) of stage 0 is backward work in an inference step"},
        {&forward, {"L0 F0 RT"}, "(RT) of stage 0 belongs at the end of a training list only"},
        {&two,
         {"L0 F0 SA0 RG0 B0 RT RD OP", "L0 RA0 F0 B0 SG0 RT RD OP"},
         "instruction 0 (L0) of stage 1 loads although"},
        {&two,
         {"L0 F0 RG0 SA0 B0 RT RD OP", "RA0 F0 B0 SG0 RT RD OP"},
         "deadlock of 2 stages: instruction 2 (RG0) of stage 0 waits for instruction 0 (RA0)"},
        {&shape_split,
         {"L0 F0 L1 F1 SA1 SA0 RG0 B0 RG1 B1 RT RD OP", "RA0 F0 RA1 F1 B0 SG0 B1 SG1 RT RD OP"},
         "instruction 4 (SA1) of stage 0 would be received by instruction 0 (RA0) of stage 1"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_refused(*wrong[i].shape, wrong[i].texts, wrong[i].wanted);
}

static void test_impossible_shapes_and_memory_are_statuses(void **state) {
    (void)state;
    pipeline line;
    pipeline_init(&line, MR_SCHEDULE_1F1B, 2, 2);
    for (uint64_t n = 1; n <= 4; n++) {
        mr_alloc_fail_at(n);
        mr_status status = pipeline_verify(&line);
        mr_alloc_fail_at(0);
        assert_int_equal(status.code, MR_CODE_RESOURCE_EXHAUSTED);
    }
    mr_verify_shape none = {0, 1, 1, true};
    assert_int_equal(mr_verify(line.lists, &none, NULL).code, MR_CODE_INVALID_ARGUMENT);
    mr_verify_shape chunks = {2, 2, 1000, true};
    assert_int_equal(mr_verify(line.lists, &chunks, NULL).code, MR_CODE_INVALID_ARGUMENT);
    pipeline_deinit(&line);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_generated_pipelines_are_proved),
        cmocka_unit_test(test_a_split_backward_is_proved),
        cmocka_unit_test(test_chunks_in_turns_are_proved_or_their_deadlock_named),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_impossible_shapes_and_memory_are_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
