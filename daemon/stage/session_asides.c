/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/session_asides.h"

#include <stdio.h>
#include <string.h>

#define ASIDE_PREFIX "aside/"

static_assert(sizeof(ASIDE_PREFIX) - 1 + (size_t)MR_ASIDE_NAME_BYTES <= MR_TENSOR_NAME_BYTES,
              "a tensor's name holds the prefix and the aside's name");

/* Index of the aside that a tensor is; the plan's count where it is none. */
static size_t aside_index(const mr_plan *plan, const char *tensor) {
    const size_t prefix = sizeof(ASIDE_PREFIX) - 1;
    if (strncmp(tensor, ASIDE_PREFIX, prefix) != 0)
        return plan->aside_count;
    return mr_aside_find(plan->asides, plan->aside_count, tensor + prefix);
}

static void aside_append(const mr_plan *plan, size_t index, const mr_tensor *tensor,
                         mr_message *message) {
    MR_ASSERT(message->tensor_count < MR_MESSAGE_TENSORS_MAX);
    size_t at = message->tensor_count++;
    (void)snprintf(message->tensors[at].name, MR_TENSOR_NAME_BYTES, "%s%s", ASIDE_PREFIX,
                   plan->asides[index].name);
    message->tensors[at].tensor = *tensor;
}

void mr_session_asides_find(const mr_session *session, const mr_message *message,
                            mr_tensor out[MR_ASIDES_MAX]) {
    const mr_plan *plan = session->assignment->plan;
    for (size_t i = 0; i < plan->aside_count; i++)
        out[i] = (mr_tensor){0};
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t index = aside_index(plan, message->tensors[i].name);
        if (index < plan->aside_count)
            out[index] = message->tensors[i].tensor;
    }
}

void mr_session_asides_forward(const mr_session *session, uint32_t micro_batch,
                               mr_message *message) {
    const mr_plan *plan = session->assignment->plan;
    const mr_stage_plan *stage = mr_assignment_stage(session->assignment);
    size_t kept = 0;
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t index = aside_index(plan, message->tensors[i].name);
        if (index == plan->aside_count || mr_aside_crosses(&plan->asides[index], stage->layer_end))
            message->tensors[kept++] = message->tensors[i];
    }
    message->tensor_count = kept;
    for (size_t i = 0; i < plan->aside_count; i++) {
        const mr_aside *aside = &plan->asides[i];
        if (aside->put < stage->layer_first || !mr_aside_crosses(aside, stage->layer_end))
            continue;
        size_t slot = micro_batch % mr_activations_slots(session->activations);
        mr_tensor put =
            mr_activations_output(session->activations, slot, aside->put - stage->layer_first);
        aside_append(plan, i, &put, message);
    }
}

void mr_session_asides_backward(const mr_session *session, size_t turn, mr_message *message) {
    const mr_plan *plan = session->assignment->plan;
    const mr_stage_plan *stage = mr_assignment_stage(session->assignment);
    for (size_t i = 0; i < plan->aside_count; i++) {
        if (!mr_aside_crosses(&plan->asides[i], stage->layer_first) ||
            !mr_activation_has_aside(plan, stage, i))
            continue;
        mr_tensor gradient = mr_activations_aside(session->activations, turn, i);
        aside_append(plan, i, &gradient, message);
    }
}
