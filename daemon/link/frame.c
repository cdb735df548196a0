/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/link/frame.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/crc32c.h"

static_assert((int)MR_LINK_ACTIVATION == MILLRACE__V1__LINK_KIND__LINK_KIND_ACTIVATION,
              "a kind has its number on the wire");
static_assert((int)MR_LINK_GRADIENT == MILLRACE__V1__LINK_KIND__LINK_KIND_GRADIENT,
              "a kind has its number on the wire");

/* A payload is copied and summed in blocks that stay in the nearer caches between the two. */
enum { FRAME_BLOCK_BYTES = 128 << 10 };

/* ---- sending ---- */

void mr_link_frame_greet(const mr_link_options *options, mr_link_frame *out_frame) {
    Millrace__V1__LinkFrame *proto = &out_frame->proto;
    millrace__v1__link_frame__init(proto);
    proto->job_id = (char *)(uintptr_t)options->job_id; /* only read */
    proto->epoch = options->epoch;
    proto->from_rank = options->from_rank;
    proto->to_rank = options->to_rank;
    proto->kind = (Millrace__V1__LinkKind)options->kind;
    out_frame->data = NULL;
    out_frame->bytes = 0;
}

static void frame_list_tensors(mr_link_frame *frame, const mr_message *message) {
    for (size_t i = 0; i < message->tensor_count; i++) {
        const mr_shape *shape = &message->tensors[i].tensor.shape;
        Millrace__V1__Tensor *tensor = &frame->tensors[i];
        millrace__v1__tensor__init(tensor);
        tensor->name = (char *)(uintptr_t)message->tensors[i].name; /* only read */
        tensor->data_type = (Millrace__V1__DataType)shape->dtype;
        tensor->n_dims = shape->dim_count;
        tensor->dims = frame->dims[i];
        for (size_t d = 0; d < shape->dim_count; d++)
            frame->dims[i][d] = shape->dims[d];
        tensor->needs_gradient = shape->needs_gradient;
        frame->tensor_list[i] = tensor;
    }
    frame->proto.n_tensors = message->tensor_count;
    frame->proto.tensors = frame->tensor_list;
}

/* Bytes of the tensor that the cut stands in, after stepping over those that have none left. 0: the
 * message is at its end. */
static size_t cut_tensor_bytes(const mr_message *message, mr_link_cut *cut) {
    for (; cut->tensor < message->tensor_count; cut->tensor++, cut->tensor_offset = 0) {
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&message->tensors[cut->tensor].tensor.shape, &bytes));
        if (cut->tensor_offset < bytes)
            return bytes;
    }
    return 0;
}

bool mr_link_frame_cut(const mr_link_options *options, const mr_link_parcel *parcel,
                       mr_link_cut *cut, mr_link_frame *out_frame) {
    const mr_message *message = &parcel->message;
    size_t tensor_bytes = cut_tensor_bytes(message, cut);
    MR_ASSERT(tensor_bytes > 0);
    mr_link_frame_greet(options, out_frame);
    Millrace__V1__LinkFrame *proto = &out_frame->proto;
    proto->job_id = (char *)(uintptr_t)""; /* the greeting has said it for the stream */
    proto->step = message->step;
    proto->micro_batch = message->micro_batch;
    proto->chunk = message->chunk;
    proto->sequence = parcel->sequence;
    proto->offset = cut->message_offset;
    if (cut->message_offset == 0)
        frame_list_tensors(out_frame, message);
    size_t bytes = tensor_bytes - cut->tensor_offset;
    if (bytes > MR_LINK_CHUNK_BYTES_MAX)
        bytes = MR_LINK_CHUNK_BYTES_MAX;
    out_frame->data =
        (const unsigned char *)message->tensors[cut->tensor].tensor.data + cut->tensor_offset;
    out_frame->bytes = bytes;
    proto->crc = mr_crc32c(0, out_frame->data, bytes);
    cut->tensor_offset += bytes;
    cut->message_offset += bytes;
    return cut->message_offset == parcel->bytes;
}

/* ---- receiving ---- */

mr_status mr_link_frame_check(const mr_link_options *options,
                              const Millrace__V1__LinkFrame *frame) {
    if (frame->epoch != options->epoch)
        return MR_ERROR(FAILED_PRECONDITION,
                        "a frame of epoch %" PRIu64 " came on a link of epoch %" PRIu64,
                        frame->epoch, options->epoch);
    if (frame->from_rank != options->from_rank || frame->to_rank != options->to_rank ||
        (int)frame->kind != (int)options->kind)
        return MR_ERROR(FAILED_PRECONDITION,
                        "a frame from rank %u to %u of kind %d came on the link from rank %u to %u "
                        "of kind %d",
                        frame->from_rank, frame->to_rank, (int)frame->kind, options->from_rank,
                        options->to_rank, (int)options->kind);
    return MR_OK;
}

static mr_status frame_tensor_read(const Millrace__V1__Tensor *tensor, size_t index,
                                   mr_message *message) {
    if (strlen(tensor->name) >= MR_TENSOR_NAME_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "tensors[%zu].name has %zu bytes; the limit is %d", index,
                        strlen(tensor->name), MR_TENSOR_NAME_BYTES - 1);
    if (tensor->n_dims > MR_TENSOR_DIMS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "tensors[%zu].dims has %zu entries; the limit is %d",
                        index, tensor->n_dims, MR_TENSOR_DIMS_MAX);
    int type = (int)tensor->data_type;
    if (type <= MR_DTYPE_NONE || type >= MR_DTYPE_COUNT)
        return MR_ERROR(INVALID_ARGUMENT, "tensors[%zu].data_type is %d; 1 to %d are known", index,
                        type, MR_DTYPE_COUNT - 1);
    mr_shape *shape = &message->tensors[index].tensor.shape;
    *shape = (mr_shape){
        .dtype = (mr_dtype)type,
        .dim_count = tensor->n_dims,
        .needs_gradient = tensor->needs_gradient != 0,
    };
    for (size_t d = 0; d < tensor->n_dims; d++)
        shape->dims[d] = (size_t)tensor->dims[d];
    memcpy(message->tensors[index].name, tensor->name, strlen(tensor->name) + 1);
    return MR_OK;
}

mr_status mr_link_frame_open(const Millrace__V1__LinkFrame *frame, const mr_link_inbox *inbox,
                             mr_link_slot *slot) {
    if (frame->n_tensors == 0 || frame->n_tensors > MR_MESSAGE_TENSORS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a message lists %zu tensors; 1 to %d are possible",
                        frame->n_tensors, MR_MESSAGE_TENSORS_MAX);
    slot->message = (mr_message){
        .step = frame->step,
        .micro_batch = frame->micro_batch,
        .chunk = frame->chunk,
        .tensor_count = frame->n_tensors,
    };
    for (size_t i = 0; i < frame->n_tensors; i++)
        MR_TRY(frame_tensor_read(frame->tensors[i], i, &slot->message));
    return mr_link_inbox_lay_out(inbox, slot);
}

mr_status mr_link_frame_copy(const Millrace__V1__LinkFrame *frame, const mr_rpc_tail *tail,
                             mr_link_slot *slot) {
    size_t bytes = mr_rpc_tail_bytes(tail);
    if (frame->offset != slot->filled)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a frame begins at byte %" PRIu64 " of its message; byte %zu is next",
                        frame->offset, slot->filled);
    if (bytes == 0 || bytes > slot->bytes - slot->filled)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a frame has %zu bytes at offset %zu of a message of %zu bytes", bytes,
                        slot->filled, slot->bytes);
    uint32_t crc = 0;
    for (size_t done = 0; done < bytes;) {
        size_t part = 0;
        unsigned char *place = mr_link_slot_place(slot, &part);
        part = part < bytes - done ? part : bytes - done;
        part = part < FRAME_BLOCK_BYTES ? part : FRAME_BLOCK_BYTES;
        MR_TRY(mr_rpc_tail_copy(tail, done, part, place));
        crc = mr_crc32c(crc, place, part);
        slot->filled += part;
        done += part;
    }
    if (crc != frame->crc)
        return MR_ERROR(DATA_LOSS,
                        "bytes %" PRIu64 " to %zu of step %" PRIu64
                        " microbatch %u are damaged: crc %08x, sent %08x",
                        frame->offset, slot->filled, frame->step, frame->micro_batch, crc,
                        frame->crc);
    return MR_OK;
}
