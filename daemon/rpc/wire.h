/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h: protobuf's wire format, read field by field. Used to check a message before protobuf-c
 * unpacks it: protobuf-c names no reason for a refusal, cuts strings at an embedded NUL and takes
 * any bytes for UTF-8.
 * Format: protobuf.dev/programming-guides/encoding.
 * Owner: rpc. Thread: any. Internal to this folder. */
#ifndef MR_RPC_WIRE_H
#define MR_RPC_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "daemon/base/status.h"

enum {
    MR_RPC_WIRE_DEPTH_MAX = 16,  /* nesting of messages; ours have at most 4 */
    MR_RPC_WIRE_VARINT_BYTES = 10,
};

/* The bytes [at, end) of a message, from its first. */
typedef struct mr_rpc_wire {
    const uint8_t *bytes;
    size_t at;
    size_t end;
} mr_rpc_wire;

/* One field. data and length: of a length-prefixed field; number: of a varint. */
typedef struct mr_rpc_wire_field {
    uint32_t id;
    ProtobufCWireType type;
    const uint8_t *data;
    size_t length;
    uint64_t number;
} mr_rpc_wire_field;

/* Reads the next field and steps over it. false: at the end, or the bytes are no field; then
 * wire->at < wire->end tells the second. */
bool mr_rpc_wire_next(mr_rpc_wire *wire, mr_rpc_wire_field *out_field);
/* Writes a varint (at most MR_RPC_WIRE_VARINT_BYTES) and returns its length. */
size_t mr_rpc_wire_varint_put(uint64_t value, uint8_t *out);
/* Are the bytes well-formed as type says, and every string UTF-8 without NUL? INVALID_ARGUMENT
 * names the message type, its length, and the field or the offset. */
MR_MUST_CHECK mr_status mr_rpc_wire_check(const ProtobufCMessageDescriptor *type,
                                          const uint8_t *bytes, size_t length);

#endif
