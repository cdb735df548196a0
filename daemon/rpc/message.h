/* SPDX-License-Identifier: Apache-2.0 */
/* message.h: a protobuf-c message with its raw tail, as both ends of a stream see it.
 * A message type whose last field is "bytes payload = 15" may carry its payload as a tail: on the
 * wire it is an ordinary protobuf message, but the sender appends the caller's bytes to the packed
 * header as a second slice, and the receiver hands them out without unpacking them.
 * Owner: rpc. Thread: any, one at a time. */
#ifndef MR_RPC_MESSAGE_H
#define MR_RPC_MESSAGE_H

#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "daemon/base/status.h"

typedef struct mr_rpc_tail mr_rpc_tail; /* received raw bytes, still in gRPC's slices */

enum { MR_RPC_PAYLOAD_FIELD = 15 };

/* Bytes in the tail; 0 for NULL. */
size_t mr_rpc_tail_bytes(const mr_rpc_tail *tail);
/* Copies bytes [offset, offset + bytes) of the tail to destination: the one copy of a receive.
 * OUT_OF_RANGE: the tail is shorter. */
MR_MUST_CHECK mr_status mr_rpc_tail_copy(const mr_rpc_tail *tail, size_t offset, size_t bytes,
                                         void *destination);
/* Frees it. NULL is fine. */
void mr_rpc_tail_destroy(mr_rpc_tail *tail);

/* A raw tail to send: bytes stay the caller's until sent runs (on an RPC thread, exactly once, also
 * when the stream fails or the send is refused). bytes == 0: no tail, sent may be NULL. */
typedef struct mr_rpc_raw {
    const void *data;
    size_t bytes;
    void (*sent)(void *context);
    void *context;
} mr_rpc_raw;

#endif
