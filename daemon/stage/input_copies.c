/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/input_copies.h"

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"

struct mr_input_copies {
    mr_device *device;
    mr_device_memory memory;
    size_t slots;
    size_t slot_bytes;
};

mr_status mr_input_copies_create(mr_device *device, size_t slots, size_t bytes,
                                 mr_input_copies **out_copies) {
    const size_t gaps = (size_t)(MR_MESSAGE_TENSORS_MAX + 1) * MR_ARENA_ALIGN;
    size_t each = 0;
    size_t all = 0;
    if (!mr_size_add(bytes, gaps, &each) || !mr_size_mul(mr_arena_rounded(each), slots, &all))
        return MR_ERROR(RESOURCE_EXHAUSTED, "%zu microbatches of %zu bytes are no possible size",
                        slots, bytes);
    mr_input_copies *copies = mr_alloc(sizeof(*copies));
    if (copies == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu microbatches", slots);
    *copies = (mr_input_copies){
        .device = device, .slots = slots, .slot_bytes = mr_arena_rounded(each)};
    mr_status status = device->ops->memory_create(device, all, &copies->memory);
    if (!mr_status_is_ok(status)) {
        mr_free(copies);
        return mr_status_prefix(status, "%zu microbatches", slots);
    }
    *out_copies = copies;
    return MR_OK;
}

void mr_input_copies_destroy(mr_input_copies *copies) {
    if (copies == NULL)
        return;
    copies->device->ops->memory_destroy(copies->device, &copies->memory);
    mr_free(copies);
}

mr_status mr_input_copies_place(mr_input_copies *copies, size_t slot, mr_message *message) {
    MR_ASSERT(slot < copies->slots);
    MR_ASSERT(message->tensor_count <= MR_MESSAGE_TENSORS_MAX);
    unsigned char *memory = (unsigned char *)copies->memory.base + slot * copies->slot_bytes;
    size_t at = 0;
    for (size_t i = 0; i < message->tensor_count; i++) {
        mr_tensor *tensor = &message->tensors[i].tensor;
        size_t bytes = 0;
        if (!mr_shape_bytes(&tensor->shape, &bytes) || at > copies->slot_bytes ||
            bytes > copies->slot_bytes - at)
            return MR_ERROR(RESOURCE_EXHAUSTED,
                            "tensor %s makes a microbatch larger than %zu bytes",
                            message->tensors[i].name, copies->slot_bytes);
        copies->device->ops->copy_in(copies->device, memory + at, tensor->data, bytes);
        tensor->data = memory + at;
        at += mr_arena_rounded(bytes);
    }
    return MR_OK;
}
