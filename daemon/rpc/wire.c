/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/wire.h"

enum { WIRE_FIELD_ID_MAX = (1 << 29) - 1, WIRE_NOT_UTF8 = -1 };

static bool wire_varint(mr_rpc_wire *wire, uint64_t *out_value) {
    uint64_t value = 0;
    for (unsigned i = 0; i < MR_RPC_WIRE_VARINT_BYTES && wire->at < wire->end; i++) {
        uint8_t byte = wire->bytes[wire->at++];
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0) {
            *out_value = value;
            return true;
        }
    }
    return false;
}

/* Steps over a field's value of known length. */
static bool wire_value(mr_rpc_wire *wire, uint64_t length, mr_rpc_wire_field *field) {
    if (length > wire->end - wire->at)
        return false;
    field->data = wire->bytes + wire->at;
    field->length = (size_t)length;
    wire->at += (size_t)length;
    return true;
}

static bool wire_field(mr_rpc_wire *wire, mr_rpc_wire_field *out_field) {
    uint64_t tag;
    uint64_t length;
    if (!wire_varint(wire, &tag) || tag >> 3 == 0 || tag >> 3 > WIRE_FIELD_ID_MAX)
        return false;
    mr_rpc_wire_field field = {.id = (uint32_t)(tag >> 3), .type = (ProtobufCWireType)(tag & 7)};
    bool whole = false;
    switch (field.type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        whole = wire_varint(wire, &field.number);
        break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        whole = wire_value(wire, 8, &field);
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        whole = wire_varint(wire, &length) && wire_value(wire, length, &field);
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        whole = wire_value(wire, 4, &field);
        break;
    default:
        break; /* groups: no proto3 message has them */
    }
    if (whole)
        *out_field = field;
    return whole;
}

bool mr_rpc_wire_next(mr_rpc_wire *wire, mr_rpc_wire_field *out_field) {
    if (wire->at == wire->end)
        return false;
    size_t start = wire->at;
    if (wire_field(wire, out_field))
        return true;
    wire->at = start;
    return false;
}

size_t mr_rpc_wire_varint_put(uint64_t value, uint8_t *out) {
    size_t n = 0;
    while (value > 0x7f) {
        out[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    out[n++] = (uint8_t)value;
    return n;
}

/* Length of the UTF-8 sequence at text (Unicode 15, table 3-7), or WIRE_NOT_UTF8. */
static int wire_utf8_sequence(const uint8_t *text, size_t length) {
    uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    int sequence = first >= 0xc2 && first <= 0xdf   ? 2
                   : first >= 0xe0 && first <= 0xef ? 3
                   : first >= 0xf0 && first <= 0xf4 ? 4
                                                    : WIRE_NOT_UTF8;
    if (sequence == WIRE_NOT_UTF8 || (size_t)sequence > length)
        return WIRE_NOT_UTF8;
    /* The second byte's range keeps out overlong forms, surrogates and numbers past 10FFFF. */
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high)
        return WIRE_NOT_UTF8;
    for (int i = 2; i < sequence; i++)
        if ((text[i] & 0xc0) != 0x80)
            return WIRE_NOT_UTF8;
    return sequence;
}

static mr_status wire_check_string(const ProtobufCMessageDescriptor *type,
                                   const ProtobufCFieldDescriptor *field,
                                   const mr_rpc_wire_field *value) {
    for (size_t at = 0; at < value->length;) {
        if (value->data[at] == 0)
            return MR_ERROR(INVALID_ARGUMENT, "%s.%s has a NUL byte at offset %zu of %zu",
                            type->name, field->name, at, value->length);
        int sequence = wire_utf8_sequence(value->data + at, value->length - at);
        if (sequence == WIRE_NOT_UTF8)
            return MR_ERROR(INVALID_ARGUMENT, "%s.%s is not UTF-8 at offset %zu of %zu",
                            type->name, field->name, at, value->length);
        at += (size_t)sequence;
    }
    return MR_OK;
}

static ProtobufCWireType wire_type_of(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* A repeated number may also come packed: length-prefixed, whatever its declaration says. */
static bool wire_type_fits(const ProtobufCFieldDescriptor *field, ProtobufCWireType got) {
    ProtobufCWireType wanted = wire_type_of(field->type);
    return got == wanted || (field->label == PROTOBUF_C_LABEL_REPEATED &&
                             got == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
}

static mr_status wire_check_message(const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                                    size_t length, unsigned depth) {
    if (depth == MR_RPC_WIRE_DEPTH_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "%s is nested deeper than %d messages", type->name,
                        MR_RPC_WIRE_DEPTH_MAX);
    mr_rpc_wire wire = {.bytes = bytes, .end = length};
    mr_rpc_wire_field value;
    while (mr_rpc_wire_next(&wire, &value)) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(type, value.id);
        if (field == NULL)
            continue; /* of a newer peer */
        if (!wire_type_fits(field, value.type))
            return MR_ERROR(INVALID_ARGUMENT,
                            "%s of %zu bytes cannot be decoded: field %s has wire type %d",
                            type->name, length, field->name, (int)value.type);
        if (field->type == PROTOBUF_C_TYPE_STRING)
            MR_TRY(wire_check_string(type, field, &value));
        else if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            MR_TRY(wire_check_message(field->descriptor, value.data, value.length, depth + 1));
    }
    if (wire.at < wire.end)
        return MR_ERROR(INVALID_ARGUMENT,
                        "%s of %zu bytes cannot be decoded: no protobuf field at offset %zu",
                        type->name, length, wire.at);
    return MR_OK;
}

mr_status mr_rpc_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                            size_t length) {
    return wire_check_message(type, bytes, length, 0);
}
