/* SPDX-License-Identifier: Apache-2.0 */
/* The generators. Each writes the list of one stage without looking at the others, yet all lists
 * together come from one total order of the step in which a message's send and receive stand at the
 * same instant; a set of lists with such an order never deadlocks, even when every send blocks
 * until it is received (schedules.md 3.3). The order is a clock of slots:
 *
 *   GPipe       forward of m on stage s in slot m + s; when all are done, backward likewise from
 *               the last stage on. A message goes between the slots of its producer and consumer.
 *   1F1B        forward of m on stage s in slot 2m + s, backward in slot 2m + 2P - 1 - s: forwards
 *               and backwards of a stage fall into slots of different parity. A message goes at the
 *               start of the slot after its producer's, on both sides (deepspeed.md 71 to 77), so
 *               a send may stand after a receive of the other direction.
 *   inference   forward of m on stage s in slot m + s. The sender of a message has its next forward
 *               in the slot in which the receiver has the message's. Even stages send first, odd
 *               stages receive first.
 *
 * Gradients are accumulated in ascending microbatch order in all of them (law 1). verify.c proves
 * each result again, knowing nothing of this file. */
#include "daemon/plan/schedule.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

/* A list under construction: room for the longest possible one, asked for once. */
typedef struct schedule_writer {
    size_t stage;
    size_t stage_count;
    size_t micro_batches;
    mr_schedule list;
    size_t capacity;
} schedule_writer;

static void schedule_put(schedule_writer *writer, mr_opcode opcode, size_t micro_batch) {
    MR_ASSERT(writer->list.count < writer->capacity);
    writer->list.instructions[writer->list.count++] =
        (mr_instruction){.opcode = opcode, .micro_batch = (uint32_t)micro_batch};
}

static bool schedule_is_first(const schedule_writer *writer) {
    return writer->stage == 0;
}

static bool schedule_is_last(const schedule_writer *writer) {
    return writer->stage + 1 == writer->stage_count;
}

static void schedule_put_step_end(schedule_writer *writer) {
    schedule_put(writer, MR_OPCODE_REDUCE_TIED, 0);
    schedule_put(writer, MR_OPCODE_REDUCE_DATA, 0);
    schedule_put(writer, MR_OPCODE_OPTIMIZER, 0);
}

static void schedule_gpipe(schedule_writer *writer) {
    for (size_t m = 0; m < writer->micro_batches; m++) {
        schedule_put(writer,
                     schedule_is_first(writer) ? MR_OPCODE_LOAD : MR_OPCODE_RECEIVE_ACTIVATION, m);
        schedule_put(writer, MR_OPCODE_FORWARD, m);
        if (!schedule_is_last(writer))
            schedule_put(writer, MR_OPCODE_SEND_ACTIVATION, m);
    }
    for (size_t m = 0; m < writer->micro_batches; m++) {
        if (!schedule_is_last(writer))
            schedule_put(writer, MR_OPCODE_RECEIVE_GRADIENT, m);
        schedule_put(writer, MR_OPCODE_BACKWARD, m);
        if (!schedule_is_first(writer))
            schedule_put(writer, MR_OPCODE_SEND_GRADIENT, m);
    }
    schedule_put_step_end(writer);
}

/* Microbatch of a slot that is offset slots after the first of its kind; micro_batches for none. */
static size_t slot_micro_batch(const schedule_writer *writer, size_t slot, size_t offset) {
    if (slot < offset || (slot - offset) / 2 >= writer->micro_batches)
        return writer->micro_batches;
    return (slot - offset) / 2;
}

static void schedule_1f1b_forward_slot(schedule_writer *writer, size_t forward, size_t previous) {
    if (!schedule_is_first(writer) && previous < writer->micro_batches)
        schedule_put(writer, MR_OPCODE_SEND_GRADIENT, previous);
    if (forward == writer->micro_batches)
        return;
    schedule_put(writer, schedule_is_first(writer) ? MR_OPCODE_LOAD : MR_OPCODE_RECEIVE_ACTIVATION,
                 forward);
    schedule_put(writer, MR_OPCODE_FORWARD, forward);
}

static void schedule_1f1b_backward_slot(schedule_writer *writer, size_t backward, size_t previous) {
    if (!schedule_is_last(writer) && backward < writer->micro_batches)
        schedule_put(writer, MR_OPCODE_RECEIVE_GRADIENT, backward);
    if (!schedule_is_last(writer) && previous < writer->micro_batches)
        schedule_put(writer, MR_OPCODE_SEND_ACTIVATION, previous);
    if (backward < writer->micro_batches)
        schedule_put(writer, MR_OPCODE_BACKWARD, backward);
}

static void schedule_1f1b(schedule_writer *writer) {
    size_t forward_offset = writer->stage;
    size_t backward_offset = 2 * writer->stage_count - 1 - writer->stage;
    size_t slots = 2 * (writer->micro_batches + writer->stage_count - 1);
    size_t previous = writer->micro_batches; /* what the slot before worked on */
    for (size_t slot = 0; slot < slots; slot++) {
        bool is_forward = slot % 2 == writer->stage % 2;
        size_t current =
            slot_micro_batch(writer, slot, is_forward ? forward_offset : backward_offset);
        if (is_forward)
            schedule_1f1b_forward_slot(writer, current, previous);
        else
            schedule_1f1b_backward_slot(writer, current, previous);
        previous = current;
    }
    schedule_put_step_end(writer);
}

static void schedule_inference_exchange(schedule_writer *writer, size_t m) {
    bool sends = !schedule_is_last(writer) && m > 0;
    bool receives = !schedule_is_first(writer) && m < writer->micro_batches;
    bool sends_first = writer->stage % 2 == 0;
    if (sends && sends_first)
        schedule_put(writer, MR_OPCODE_SEND_ACTIVATION, m - 1);
    if (receives)
        schedule_put(writer, MR_OPCODE_RECEIVE_ACTIVATION, m);
    if (sends && !sends_first)
        schedule_put(writer, MR_OPCODE_SEND_ACTIVATION, m - 1);
}

static void schedule_inference(schedule_writer *writer) {
    for (size_t m = 0; m < writer->micro_batches; m++) {
        if (schedule_is_first(writer))
            schedule_put(writer, MR_OPCODE_LOAD, m);
        schedule_inference_exchange(writer, m);
        schedule_put(writer, MR_OPCODE_FORWARD, m);
    }
    schedule_inference_exchange(writer, writer->micro_batches);
}

mr_status mr_schedule_generate(mr_schedule_kind kind, size_t stage, size_t stage_count,
                               size_t micro_batches, mr_schedule *out_schedule) {
    if (stage_count == 0 || stage_count > MR_STAGES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "pipeline.stages is %zu; it must be 1 to %d", stage_count,
                        MR_STAGES_MAX);
    if (stage >= stage_count)
        return MR_ERROR(INVALID_ARGUMENT, "stage %zu; it must be below %zu", stage, stage_count);
    if (micro_batches == 0 || micro_batches > MR_MICRO_BATCHES_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "batch.micro_batches is %zu; it must be 1 to %d",
                        micro_batches, MR_MICRO_BATCHES_MAX);
    /* The longest list: six for each microbatch of a stage between others, and the step's end. */
    schedule_writer writer = {.stage = stage,
                              .stage_count = stage_count,
                              .micro_batches = micro_batches,
                              .capacity = 6 * micro_batches + 3};
    writer.list.instructions = mr_alloc_array(writer.capacity, sizeof(mr_instruction));
    if (writer.list.instructions == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a schedule of %zu microbatches",
                        micro_batches);
    switch (kind) {
    case MR_SCHEDULE_GPIPE:
        schedule_gpipe(&writer);
        break;
    case MR_SCHEDULE_1F1B:
        schedule_1f1b(&writer);
        break;
    case MR_SCHEDULE_INFERENCE:
        schedule_inference(&writer);
        break;
    case MR_SCHEDULE_KIND_COUNT:
    default:
        mr_schedule_deinit(&writer.list);
        return MR_ERROR(INVALID_ARGUMENT, "there is no schedule of number %d", (int)kind);
    }
    *out_schedule = writer.list;
    return MR_OK;
}

void mr_schedule_deinit(mr_schedule *schedule) {
    mr_free(schedule->instructions);
    *schedule = (mr_schedule){0};
}

static const char *const opcode_texts[MR_OPCODE_COUNT] = {
#define MR_OPCODE_TEXT(name, text) [MR_OPCODE_##name] = (text),
    MR_OPCODES(MR_OPCODE_TEXT)
#undef MR_OPCODE_TEXT
};

bool mr_opcode_has_micro_batch(mr_opcode opcode) {
    return opcode != MR_OPCODE_REDUCE_TIED && opcode != MR_OPCODE_REDUCE_DATA &&
           opcode != MR_OPCODE_OPTIMIZER;
}

void mr_instruction_text(const mr_instruction *instruction,
                         char out_text[MR_INSTRUCTION_TEXT_BYTES]) {
    const char *text =
        (unsigned)instruction->opcode < MR_OPCODE_COUNT ? opcode_texts[instruction->opcode] : "?";
    if (!mr_opcode_has_micro_batch(instruction->opcode))
        (void)snprintf(out_text, MR_INSTRUCTION_TEXT_BYTES, "%s", text); /* fits */
    else if (instruction->chunk == 0)
        (void)snprintf(out_text, MR_INSTRUCTION_TEXT_BYTES, "%s%u", text, instruction->micro_batch);
    else
        (void)snprintf(out_text, MR_INSTRUCTION_TEXT_BYTES, "%s%u.%u", text,
                       instruction->micro_batch, instruction->chunk);
}

mr_status mr_schedule_text(const mr_schedule *schedule, char **out_text) {
    char text[MR_INSTRUCTION_TEXT_BYTES];
    size_t bytes = 1;
    for (size_t i = 0; i < schedule->count; i++) {
        mr_instruction_text(&schedule->instructions[i], text);
        bytes += strlen(text) + 1;
    }
    char *joined = mr_alloc(bytes);
    if (joined == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the text of %zu instructions",
                        schedule->count);
    size_t used = 0;
    for (size_t i = 0; i < schedule->count; i++) {
        mr_instruction_text(&schedule->instructions[i], text);
        size_t length = strlen(text);
        if (i > 0)
            joined[used++] = ' ';
        memcpy(joined + used, text, length);
        used += length;
    }
    *out_text = joined;
    return MR_OK;
}
