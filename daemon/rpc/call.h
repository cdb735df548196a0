/* SPDX-License-Identifier: Apache-2.0 */
/* call.h: how server.c and channel.c make the mr_rpc_stream that stream.h shows to the rest of the
 * tree.
 * Owner: rpc. Thread: any. Internal to this folder. */
#ifndef MR_RPC_CALL_H
#define MR_RPC_CALL_H

#include <grpc/grpc.h>

#include "daemon/observe/metrics.h"
#include "daemon/rpc/codec.h"
#include "daemon/rpc/completion.h"
#include "daemon/rpc/stream.h"

typedef struct mr_rpc_call {
    mr_rpc_queue *queue;
    grpc_call *owned_call;
    const char *peer; /* copied */
    mr_rpc_codec_form form;
    mr_metrics *metrics; /* where the call's end is counted; NULL: nowhere */
    const char *method;  /* by this name; outlives the call */
    const mr_rpc_stream_events *events; /* NULL: none */
    void *context;
    /* Server, for a method that takes one request: called with it. NULL otherwise. */
    void (*on_request)(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context);
} mr_rpc_call;

/* A client's stream, started. The caller owns one reference. The call is unref'd also on failure.
 * RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_rpc_stream_start_client(const mr_rpc_call *call,
                                                   mr_rpc_stream **out_stream);
/* A server's stream for a call that has arrived; with on_request set, the request is asked for.
 * On the call's queue thread. The caller owns one reference. */
MR_MUST_CHECK mr_status mr_rpc_stream_start_server(const mr_rpc_call *call,
                                                   mr_rpc_stream **out_stream);
/* Breaks a client's stream off; on_end gets why. */
void mr_rpc_stream_fail(mr_rpc_stream *stream, mr_status why);
/* on_open has returned the context that events get. On the call's queue thread. */
void mr_rpc_stream_context_set(mr_rpc_stream *stream, void *context);

#endif
