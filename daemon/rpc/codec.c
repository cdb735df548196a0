/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/codec.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/rpc/release.h"
#include "daemon/rpc/tail.h"
#include "daemon/rpc/wire.h"

enum {
    CODEC_STACK_BYTES = 4096, /* a header up to this needs no heap to become contiguous */
    /* Unpacking may take this much memory. Bytes made to expand (millions of two-byte fields) take
     * seventy times their size; our messages, a few times theirs. */
    CODEC_BUDGET_BYTES = 1 << 20,
    CODEC_BUDGET_FACTOR = 8,
};

bool mr_rpc_codec_has_tail(const ProtobufCMessageDescriptor *type) {
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(type, MR_RPC_PAYLOAD_FIELD);
    return field != NULL && field->type == PROTOBUF_C_TYPE_BYTES &&
           field->label == PROTOBUF_C_LABEL_NONE && strcmp(field->name, "payload") == 0;
}

/* ---- packing ---- */

/* The caller's bytes, if any, as a slice that calls sent when core drops it. */
static mr_status codec_raw_slice(const mr_rpc_raw *raw, grpc_slice *out_slice) {
    *out_slice = grpc_empty_slice();
    if (raw == NULL || (raw->bytes == 0 && raw->sent == NULL))
        return MR_OK;
    MR_ASSERT(raw->sent != NULL);
    mr_rpc_release *release = mr_rpc_release_take(raw->sent, raw->context);
    if (release == NULL) {
        raw->sent(raw->context); /* no memory even for the node: the promise is kept here */
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to send %zu bytes", raw->bytes);
    }
    if (raw->bytes == 0) {
        mr_rpc_release_run(release);
        return MR_OK;
    }
    void *data = (void *)(uintptr_t)raw->data; /* core only reads it */
    *out_slice = grpc_slice_new_with_user_data(data, raw->bytes, mr_rpc_release_run, release);
    return MR_OK;
}

static mr_status codec_sizes_check(const ProtobufCMessage *message, size_t header, size_t raw) {
    const char *name = message->descriptor->name;
    if (raw > 0 && header > MR_RPC_HEADER_BYTES_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "%s has %zu bytes before its payload; the limit is %d", name, header,
                        MR_RPC_HEADER_BYTES_MAX);
    if (header > MR_RPC_MESSAGE_BYTES_MAX ||
        raw > MR_RPC_MESSAGE_BYTES_MAX - 2 * MR_RPC_WIRE_VARINT_BYTES - header)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%s of %zu bytes is over the limit of %d", name,
                        header + raw, MR_RPC_MESSAGE_BYTES_MAX);
    return MR_OK;
}

mr_status mr_rpc_codec_pack(const ProtobufCMessage *message, const mr_rpc_raw *raw,
                            grpc_byte_buffer **out_buffer) {
    grpc_slice slices[2];
    MR_TRY(codec_raw_slice(raw, &slices[1]));
    size_t raw_bytes = GRPC_SLICE_LENGTH(slices[1]);
    bool tail = raw_bytes > 0;
    MR_ASSERT(!tail || mr_rpc_codec_has_tail(message->descriptor));
    size_t header = protobuf_c_message_get_packed_size(message);
    mr_status status = codec_sizes_check(message, header, raw_bytes);
    if (!mr_status_is_ok(status)) {
        grpc_slice_unref(slices[1]);
        return status;
    }
    uint8_t prefix[2 * MR_RPC_WIRE_VARINT_BYTES];
    size_t prefix_bytes = 0;
    if (tail) {
        prefix_bytes = mr_rpc_wire_varint_put(
            MR_RPC_PAYLOAD_FIELD << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, prefix);
        prefix_bytes += mr_rpc_wire_varint_put(raw_bytes, prefix + prefix_bytes);
    }
    slices[0] = grpc_slice_malloc(header + prefix_bytes);
    uint8_t *start = GRPC_SLICE_START_PTR(slices[0]);
    MR_ASSERT(protobuf_c_message_pack(message, start) == header);
    memcpy(start + header, prefix, prefix_bytes);
    *out_buffer = grpc_raw_byte_buffer_create(slices, tail ? 2 : 1);
    grpc_slice_unref(slices[0]);
    grpc_slice_unref(slices[1]); /* the buffer holds its own references */
    return MR_OK;
}

/* ---- unpacking ---- */

/* A place in a list of slices. */
typedef struct codec_cursor {
    const grpc_slice_buffer *slices;
    size_t index;
    size_t offset; /* within slices[index] */
    size_t at;     /* within the whole */
} codec_cursor;

/* count: at most what is left. */
static void cursor_skip(codec_cursor *cursor, size_t count) {
    cursor->at += count;
    cursor->offset += count;
    while (cursor->index < cursor->slices->count) {
        size_t length = GRPC_SLICE_LENGTH(cursor->slices->slices[cursor->index]);
        if (cursor->offset < length)
            return;
        cursor->offset -= length;
        cursor->index++;
    }
}

static bool cursor_varint(codec_cursor *cursor, uint64_t *out_value) {
    uint64_t value = 0;
    for (unsigned i = 0; i < MR_RPC_WIRE_VARINT_BYTES; i++) {
        if (cursor->at == cursor->slices->length)
            return false;
        const grpc_slice *slice = &cursor->slices->slices[cursor->index];
        uint8_t byte = GRPC_SLICE_START_PTR(*slice)[cursor->offset];
        cursor_skip(cursor, 1);
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            *out_value = value;
            return true;
        }
    }
    return false;
}

/* Steps over one field. *out_payload: it is the payload, whose bytes begin at *out_data. */
static bool cursor_field(codec_cursor *cursor, bool *out_payload, size_t *out_data) {
    uint64_t tag;
    uint64_t length = 0;
    if (!cursor_varint(cursor, &tag))
        return false;
    switch (tag & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT: {
        uint64_t ignored;
        if (!cursor_varint(cursor, &ignored))
            return false;
        break;
    }
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        length = 8;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!cursor_varint(cursor, &length))
            return false;
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        length = 4;
        break;
    default:
        return false;
    }
    *out_payload = tag == (MR_RPC_PAYLOAD_FIELD << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
    *out_data = cursor->at;
    if (length > cursor->slices->length - cursor->at)
        return false;
    cursor_skip(cursor, (size_t)length);
    return true;
}

/* Where a message's header ends (*out_header) and where its tail begins (*out_tail; at the end
 * where there is none). */
static mr_status codec_split(const grpc_slice_buffer *slices,
                             const ProtobufCMessageDescriptor *type, size_t *out_header,
                             size_t *out_tail) {
    codec_cursor cursor = {.slices = slices};
    cursor_skip(&cursor, 0); /* past empty slices */
    *out_header = slices->length;
    *out_tail = slices->length;
    while (cursor.at < slices->length) {
        size_t field_at = cursor.at;
        bool payload;
        size_t data_at;
        if (!cursor_field(&cursor, &payload, &data_at))
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s of %zu bytes cannot be decoded: no protobuf field at offset %zu",
                            type->name, slices->length, field_at);
        if (payload && cursor.at < slices->length)
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s.payload ends at byte %zu of %zu; it must be the message's last "
                            "field",
                            type->name, cursor.at, slices->length);
        size_t header_end = payload ? field_at : cursor.at;
        if (header_end > MR_RPC_HEADER_BYTES_MAX)
            return MR_ERROR(RESOURCE_EXHAUSTED,
                            "%s has over %d bytes before its payload, which is the limit",
                            type->name, MR_RPC_HEADER_BYTES_MAX);
        if (payload) {
            *out_header = field_at;
            *out_tail = data_at;
        }
    }
    return MR_OK;
}

/* An allocator with a budget. What it gave is freed by protobuf-c's own (free). */
typedef struct codec_budget {
    ProtobufCAllocator allocator;
    size_t left;
    bool exceeded;
} codec_budget;

static void *budget_alloc(void *context, size_t bytes) {
    codec_budget *budget = context;
    if (bytes > budget->left) {
        budget->exceeded = true;
        return NULL;
    }
    budget->left -= bytes;
    return malloc(bytes);
}

static void budget_free(void *context, void *memory) {
    (void)context;
    free(memory);
}

static mr_status codec_unpack_bytes(const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                                    size_t length, ProtobufCMessage **out_message) {
    MR_TRY(mr_rpc_wire_check(type, bytes, length));
    size_t budget_bytes = CODEC_BUDGET_BYTES + CODEC_BUDGET_FACTOR * length;
    codec_budget budget = {.allocator = {budget_alloc, budget_free, NULL}, .left = budget_bytes};
    budget.allocator.allocator_data = &budget;
    ProtobufCMessage *message =
        protobuf_c_message_unpack(type, &budget.allocator, length, bytes);
    if (message != NULL) {
        *out_message = message;
        return MR_OK;
    }
    if (budget.exceeded)
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "%s of %zu bytes takes more than %zu bytes of memory to decode", type->name,
                        length, budget_bytes);
    return MR_ERROR(INVALID_ARGUMENT, "%s of %zu bytes cannot be decoded", type->name, length);
}

/* Unpacks the first length bytes of the slices, which are gathered first where they are
 * scattered. */
static mr_status codec_unpack_slices(const grpc_slice_buffer *slices,
                                     const ProtobufCMessageDescriptor *type, size_t length,
                                     ProtobufCMessage **out_message) {
    if (slices->count > 0 && GRPC_SLICE_LENGTH(slices->slices[0]) >= length)
        return codec_unpack_bytes(type, GRPC_SLICE_START_PTR(slices->slices[0]), length,
                                  out_message);
    uint8_t stack[CODEC_STACK_BYTES] = {0};
    uint8_t *gathered = length <= sizeof(stack) ? stack : mr_alloc(length);
    if (gathered == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to decode %s of %zu bytes", type->name,
                        length);
    size_t at = 0;
    for (size_t i = 0; at < length; i++) {
        size_t part = GRPC_SLICE_LENGTH(slices->slices[i]);
        part = part < length - at ? part : length - at;
        memcpy(gathered + at, GRPC_SLICE_START_PTR(slices->slices[i]), part);
        at += part;
    }
    mr_status status = codec_unpack_bytes(type, gathered, length, out_message);
    if (gathered != stack)
        mr_free(gathered);
    return status;
}

/* The checks and the message; the tail, if any, is at *out_tail_at. */
static mr_status codec_unpack_header(const grpc_byte_buffer *buffer, const mr_rpc_codec_form *form,
                                     ProtobufCMessage **out_message, size_t *out_tail_at) {
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    if (buffer->type != GRPC_BB_RAW || buffer->data.raw.compression != GRPC_COMPRESS_NONE)
        return MR_ERROR(UNIMPLEMENTED, "%s is compressed; this server takes plain messages only",
                        form->type->name);
    if (slices->length > form->bytes_max)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%s of %zu bytes is over the limit of %zu",
                        form->type->name, slices->length, form->bytes_max);
    size_t header = slices->length;
    *out_tail_at = slices->length;
    if (form->tail && mr_rpc_codec_has_tail(form->type))
        MR_TRY(codec_split(slices, form->type, &header, out_tail_at));
    return codec_unpack_slices(slices, form->type, header, out_message);
}

mr_status mr_rpc_codec_unpack(grpc_byte_buffer *owned_buffer, const mr_rpc_codec_form *form,
                              ProtobufCMessage **out_message, mr_rpc_tail **out_tail) {
    ProtobufCMessage *message = NULL;
    mr_rpc_tail *tail = NULL;
    size_t tail_at = 0;
    mr_status status = codec_unpack_header(owned_buffer, form, &message, &tail_at);
    bool has_tail = mr_status_is_ok(status) && tail_at < grpc_byte_buffer_length(owned_buffer);
    if (has_tail)
        status = mr_rpc_tail_create(owned_buffer, tail_at, &tail);
    else
        grpc_byte_buffer_destroy(owned_buffer);
    if (!mr_status_is_ok(status)) {
        if (message != NULL)
            protobuf_c_message_free_unpacked(message, NULL);
        return status;
    }
    *out_message = message;
    *out_tail = tail;
    return MR_OK;
}
