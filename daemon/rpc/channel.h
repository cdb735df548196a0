/* SPDX-License-Identifier: Apache-2.0 */
/* channel.h: a connection to another daemon, with keepalive and a subchannel pool of its own, so
 * that bulk traffic never delays heartbeats.
 * Owner: rpc. Thread: any. */
#ifndef MR_RPC_CHANNEL_H
#define MR_RPC_CHANNEL_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/rpc/credentials.h"
#include "daemon/rpc/stream.h"

typedef struct mr_rpc_channel mr_rpc_channel;

/* Connects lazily; target is HOST:PORT or unix:PATH. INVALID_ARGUMENT: no such form. */
MR_MUST_CHECK mr_status mr_rpc_channel_create(const char *target,
                                              const mr_rpc_credentials *credentials,
                                              mr_rpc_channel **out_channel);
/* Its streams must have ended. NULL is fine. */
void mr_rpc_channel_destroy(mr_rpc_channel *channel);

/* Calls a unary method and waits for its answer, at most timeout_ms. The status is the RPC's, its
 * text prefixed by nothing; UNAVAILABLE's text names the target. Owner frees *out_response with
 * protobuf_c_message_free_unpacked. Not from an RPC thread. */
MR_MUST_CHECK mr_status mr_rpc_channel_call(mr_rpc_channel *channel,
                                            const ProtobufCServiceDescriptor *service,
                                            const char *method, const ProtobufCMessage *request,
                                            int64_t timeout_ms, ProtobufCMessage **out_response);
/* Opens a stream. request: the first message of a server stream, which is then half-closed (NULL
 * for bidi). timeout_ms bounds the whole RPC; 0: no deadline (a stream that lives as long as a job
 * and is watched by heartbeats). The caller owns one reference. */
MR_MUST_CHECK mr_status mr_rpc_channel_open(mr_rpc_channel *channel,
                                            const ProtobufCServiceDescriptor *service,
                                            const char *method, const ProtobufCMessage *request,
                                            const mr_rpc_stream_events *events, void *context,
                                            int64_t timeout_ms, mr_rpc_stream **out_stream);

#endif
