/* SPDX-License-Identifier: Apache-2.0 */
/* See pipeline.h. Texts are read by trying the opcodes' own texts, longest first. */
#include "tests/unit/plan/pipeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"

void pipeline_init(pipeline *line, mr_schedule_kind kind, size_t stages, size_t micro_batches) {
    assert_true(stages <= PIPELINE_STAGES_MAX);
    *line = (pipeline){.shape = {.stage_count = stages,
                                 .micro_batches = micro_batches,
                                 .chunks = 1,
                                 .training = kind != MR_SCHEDULE_INFERENCE}};
    for (size_t stage = 0; stage < stages; stage++)
        assert_true(mr_status_is_ok(
            mr_schedule_generate(kind, stage, stages, micro_batches, &line->lists[stage])));
}

static mr_instruction instruction_read(const char *word) {
    static const char *const texts[MR_OPCODE_COUNT] = {
#define OPCODE_TEXT(name, text) [MR_OPCODE_##name] = (text),
        MR_OPCODES(OPCODE_TEXT)
#undef OPCODE_TEXT
    };
    size_t letters = strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    for (mr_opcode opcode = MR_OPCODE_LOAD; opcode <= MR_OPCODE_OPTIMIZER; opcode++) {
        if (strlen(texts[opcode]) != letters || strncmp(texts[opcode], word, letters) != 0)
            continue;
        char *end = NULL;
        mr_instruction read = {.opcode = opcode};
        read.micro_batch = (uint32_t)strtoul(word + letters, &end, 10);
        if (*end == '.')
            read.chunk = (uint32_t)strtoul(end + 1, NULL, 10);
        return read;
    }
    fail_msg("no instruction reads '%s'", word);
    return (mr_instruction){0};
}

void pipeline_init_texts(pipeline *line, mr_verify_shape shape, const char *const *texts) {
    *line = (pipeline){.shape = shape};
    for (size_t stage = 0; stage < shape.stage_count; stage++) {
        char *text = mr_strdup(texts[stage]);
        mr_schedule *list = &line->lists[stage];
        list->instructions = mr_alloc_array(strlen(text) + 1, sizeof(mr_instruction));
        char *rest = NULL;
        for (char *word = strtok_r(text, " ", &rest); word != NULL;
             word = strtok_r(NULL, " ", &rest))
            list->instructions[list->count++] = instruction_read(word);
        mr_free(text);
    }
}

void pipeline_deinit(pipeline *line) {
    for (size_t stage = 0; stage < line->shape.stage_count; stage++)
        mr_schedule_deinit(&line->lists[stage]);
}

mr_status pipeline_verify(const pipeline *line) {
    return mr_verify(line->lists, &line->shape, NULL);
}
