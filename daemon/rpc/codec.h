/* SPDX-License-Identifier: Apache-2.0 */
/* codec.h: messages to and from gRPC's byte buffers, with the raw tail of message.h.
 * On the wire a tail is the message's last field, "bytes payload = 15": slice one is what
 * protobuf-c packs, the field's tag and its length; slice two is the caller's own memory.
 * Owner: rpc. Thread: any. Internal to this folder.
 * Limits: MR_RPC_MESSAGE_BYTES_MAX, MR_RPC_HEADER_BYTES_MAX. */
#ifndef MR_RPC_CODEC_H
#define MR_RPC_CODEC_H

#include <grpc/byte_buffer.h>

#include "daemon/rpc/message.h"

/* Has this type a tail, that is, a last field "bytes payload = 15"? */
bool mr_rpc_codec_has_tail(const ProtobufCMessageDescriptor *type);
/* Packs message and appends raw (NULL: none); the buffer is the caller's to destroy. raw->sent runs
 * once in every outcome. RESOURCE_EXHAUSTED: over a limit, or no memory. */
MR_MUST_CHECK mr_status mr_rpc_codec_pack(const ProtobufCMessage *message, const mr_rpc_raw *raw,
                                          grpc_byte_buffer **out_buffer);
/* What a message that arrives is to be. */
typedef struct mr_rpc_codec_form {
    const ProtobufCMessageDescriptor *type;
    size_t bytes_max;
    bool tail; /* split the payload off where the type has one; false: unpack it with the rest */
} mr_rpc_codec_form;

/* Unpacks a received buffer, which is consumed in every outcome. *out_tail is NULL where there is
 * none. INVALID_ARGUMENT: not such a message, or a payload that is not its last field;
 * RESOURCE_EXHAUSTED: over a limit. */
MR_MUST_CHECK mr_status mr_rpc_codec_unpack(grpc_byte_buffer *owned_buffer,
                                            const mr_rpc_codec_form *form,
                                            ProtobufCMessage **out_message,
                                            mr_rpc_tail **out_tail);

#endif
