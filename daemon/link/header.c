/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/link/header.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"

enum { HEADER_MAGIC = 0x6d6c6831 };

mr_link_options mr_link_header_options(const mr_link_options *options) {
    mr_link_options inner = *options;
    inner.message_bytes_max = sizeof(mr_link_header);
    return inner;
}

/* Bytes of all tensors; checks each as link.h says. */
static mr_status header_check(const mr_link_header *header, size_t bytes_max) {
    size_t total = 0;
    if (header->tensor_count == 0 || header->tensor_count > MR_MESSAGE_TENSORS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a message has %u tensors; 1 to %d are possible",
                        header->tensor_count, MR_MESSAGE_TENSORS_MAX);
    for (size_t i = 0; i < header->tensor_count; i++) {
        const mr_shape *shape = &header->tensors[i].shape;
        size_t bytes = 0;
        if (memchr(header->tensors[i].name, 0, MR_TENSOR_NAME_BYTES) == NULL ||
            shape->dim_count > MR_TENSOR_DIMS_MAX || (int)shape->dtype <= MR_DTYPE_NONE ||
            (int)shape->dtype >= MR_DTYPE_COUNT || !mr_shape_bytes(shape, &bytes))
            return MR_ERROR(INVALID_ARGUMENT, "tensor %.31s of a message has no possible shape",
                            header->tensors[i].name);
        if (bytes > bytes_max - total)
            return MR_ERROR(RESOURCE_EXHAUSTED,
                            "tensor %.31s of %zu bytes makes a message larger than the link's %zu",
                            header->tensors[i].name, bytes, bytes_max);
        total += bytes;
    }
    if (total == 0)
        return MR_ERROR(INVALID_ARGUMENT, "a message has %u tensors and not one byte",
                        header->tensor_count);
    return MR_OK;
}

mr_status mr_link_header_pack(const mr_link_options *options, const mr_message *message,
                              mr_link_header *header, mr_message *out_carrier) {
    memset(header, 0, sizeof(*header)); /* padding, too: it travels */
    header->magic = HEADER_MAGIC;
    header->tensor_count = (uint32_t)message->tensor_count;
    for (size_t i = 0; i < message->tensor_count && i < MR_MESSAGE_TENSORS_MAX; i++) {
        memcpy(header->tensors[i].name, message->tensors[i].name, MR_TENSOR_NAME_BYTES);
        header->tensors[i].shape = message->tensors[i].tensor.shape;
    }
    MR_TRY(header_check(header, options->message_bytes_max));
    *out_carrier = (mr_message){
        .step = message->step,
        .micro_batch = message->micro_batch,
        .chunk = message->chunk,
        .tensor_count = 1,
    };
    (void)snprintf(out_carrier->tensors[0].name, MR_TENSOR_NAME_BYTES, "header");
    out_carrier->tensors[0].tensor = (mr_tensor){
        .data = header,
        .shape = {.dtype = MR_DTYPE_U8, .dim_count = 1, .dims = {sizeof(*header)}},
    };
    return MR_OK;
}

static size_t aligned(size_t bytes) {
    return (bytes + MR_LINK_HEADER_ALIGN - 1) / MR_LINK_HEADER_ALIGN * MR_LINK_HEADER_ALIGN;
}

mr_status mr_link_header_unpack(const mr_link_options *options, const mr_message *carrier,
                                unsigned char *memory, mr_message *out_message) {
    mr_link_header header;
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&carrier->tensors[0].tensor.shape, &bytes)); /* the link laid it out */
    if (carrier->tensor_count != 1 || bytes != sizeof(header))
        return MR_ERROR(INVALID_ARGUMENT, "a header has %zu bytes; it must have %zu", bytes,
                        sizeof(header));
    memcpy(&header, carrier->tensors[0].tensor.data, sizeof(header));
    if (header.magic != HEADER_MAGIC)
        return MR_ERROR(INVALID_ARGUMENT, "a header begins with %08x, not %08x", header.magic,
                        HEADER_MAGIC);
    MR_TRY(header_check(&header, options->message_bytes_max));
    *out_message = *carrier;
    out_message->tensor_count = header.tensor_count;
    size_t at = 0;
    for (size_t i = 0; i < header.tensor_count; i++) {
        memcpy(out_message->tensors[i].name, header.tensors[i].name, MR_TENSOR_NAME_BYTES);
        out_message->tensors[i].tensor =
            (mr_tensor){.data = memory + at, .shape = header.tensors[i].shape};
        MR_ASSERT(mr_shape_bytes(&header.tensors[i].shape, &bytes)); /* checked */
        at += aligned(bytes);
    }
    return MR_OK;
}

bool mr_link_header_slot_bytes(const mr_link_options *options, size_t *out_bytes) {
    size_t bytes = 0;
    if (!mr_size_add(options->message_bytes_max,
                     (MR_MESSAGE_TENSORS_MAX + 1) * (size_t)MR_LINK_HEADER_ALIGN, &bytes))
        return false;
    *out_bytes = aligned(bytes);
    return true;
}
