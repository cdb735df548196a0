/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan/readiness.h"

size_t mr_schedule_last_backward(const mr_schedule *schedule, uint32_t chunk) {
    for (size_t i = schedule->count; i-- > 0;) {
        const mr_instruction *instruction = &schedule->instructions[i];
        bool adds = instruction->opcode == MR_OPCODE_BACKWARD ||
                    instruction->opcode == MR_OPCODE_BACKWARD_WEIGHT;
        if (adds && instruction->chunk == chunk)
            return i;
    }
    return schedule->count;
}
