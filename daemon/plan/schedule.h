/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.h: what one rank does in a step: an ordered list of instructions. Data, never control
 * flow spread over code. Generated, verified, hashed and printed here; run by stage/executor.
 * Owner: plan. Pure, any thread. */
#ifndef MR_PLAN_SCHEDULE_H
#define MR_PLAN_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

/* X(NAME, "text") with the texts of DESIGN section 5. */
#define MR_OPCODES(X)                                                                              \
    X(LOAD, "L")                                                                                   \
    X(RECEIVE_ACTIVATION, "RA")                                                                    \
    X(FORWARD, "F")                                                                                \
    X(SEND_ACTIVATION, "SA")                                                                       \
    X(RECEIVE_GRADIENT, "RG")                                                                      \
    X(BACKWARD, "B")                                                                               \
    X(BACKWARD_INPUT, "I")                                                                         \
    X(BACKWARD_WEIGHT, "W")                                                                        \
    X(SEND_GRADIENT, "SG")                                                                         \
    X(REDUCE_TIED, "RT")                                                                           \
    X(REDUCE_DATA, "RD")                                                                           \
    X(OPTIMIZER, "OP")

typedef enum mr_opcode {
#define MR_OPCODE_ENUM(name, text) MR_OPCODE_##name,
    MR_OPCODES(MR_OPCODE_ENUM)
#undef MR_OPCODE_ENUM
        MR_OPCODE_COUNT
} mr_opcode;

typedef struct mr_instruction {
    mr_opcode opcode;
    uint32_t micro_batch; /* 0 where the opcode has none */
    uint32_t chunk;
} mr_instruction;

typedef struct mr_schedule {
    size_t count;
    mr_instruction *instructions;
} mr_schedule;

enum { MR_INSTRUCTION_TEXT_BYTES = 24 };

/* The schedule of one stage of stage_count, for micro_batches. Owner frees with mr_schedule_deinit.
 * INVALID_ARGUMENT: stage_count or micro_batches outside 1 to MR_STAGES_MAX, MR_MICRO_BATCHES_MAX,
 * or no such stage; RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_schedule_generate(mr_schedule_kind kind, size_t stage,
                                             size_t stage_count, size_t micro_batches,
                                             mr_schedule *out_schedule);
/* Frees the list; a zeroed schedule is fine. */
void mr_schedule_deinit(mr_schedule *schedule);
/* Does the opcode carry a microbatch number? (All but RT, RD and OP.) */
bool mr_opcode_has_micro_batch(mr_opcode opcode);
/* "RA3", "F3.1", "RT": the text of one instruction. */
void mr_instruction_text(const mr_instruction *instruction,
                         char out_text[MR_INSTRUCTION_TEXT_BYTES]);
/* All instructions joined by spaces; owner frees with mr_free. */
MR_MUST_CHECK mr_status mr_schedule_text(const mr_schedule *schedule, char **out_text);

#endif
