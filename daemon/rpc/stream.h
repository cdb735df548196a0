/* SPDX-License-Identifier: Apache-2.0 */
/* stream.h: one RPC as either end sees it: messages in order both ways, then a status. A unary call
 * is a stream with one message each way.
 * Owner: rpc. Thread: any function may be called from any thread; handlers run on RPC threads,
 * never two at once for one stream, and must not block: they hand over (mr_loop_post,
 * mr_queue_push). Receiving is by demand: one on_message for each mr_rpc_stream_receive, so that a
 * slow reader slows the sender through HTTP/2 flow control instead of filling memory.
 * Limits: MR_RPC_SEND_QUEUE_MAX messages wait to be sent. */
#ifndef MR_RPC_STREAM_H
#define MR_RPC_STREAM_H

#include "daemon/base/status.h"
#include "daemon/rpc/message.h"

typedef struct mr_rpc_stream mr_rpc_stream;

/* on_message: one received message; the handler owns message (free it with
 * protobuf_c_message_free_unpacked(message, NULL)) and tail (may be NULL).
 * on_end: no further message will come. Client side: status is the RPC's result. Server side: OK
 * when the client has half-closed, CANCELLED when it is gone. Runs at most once for each side's
 * end; after it the stream accepts no receive. Both get the context given at start.
 * A server's on_end runs exactly once: at the half-close, else when the client is gone, else (OK)
 * when the status that finish gave is out. After an OK half-close a send tells that the client is
 * gone. Bytes that are no such message end the RPC with INVALID_ARGUMENT without the handler's
 * help: on_end gets that status on both sides.
 * A client's on_end with OK comes when the last message has been received: ask for it. */
typedef struct mr_rpc_stream_events {
    void (*on_message)(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                       mr_rpc_tail *owned_tail, void *context);
    void (*on_end)(mr_rpc_stream *stream, mr_status status, void *context);
} mr_rpc_stream_events;

/* Asks for the next message; one request may be outstanding (a second is asserted against). Ignored
 * after the end. */
void mr_rpc_stream_receive(mr_rpc_stream *stream);
/* Queues a message (packed before return) with an optional raw tail (NULL: none).
 * RESOURCE_EXHAUSTED: MR_RPC_SEND_QUEUE_MAX wait; CANCELLED: the stream has ended. */
MR_MUST_CHECK mr_status mr_rpc_stream_send(mr_rpc_stream *stream, const ProtobufCMessage *message,
                                           const mr_rpc_raw *raw);
/* Server side: sends what is queued, then status and its text; the last call on the stream.
 * Client side: half-closes after what is queued. */
void mr_rpc_stream_finish(mr_rpc_stream *stream, mr_status status);
/* Ends the RPC now, both ways; queued messages are dropped. on_end follows on the client side. */
void mr_rpc_stream_cancel(mr_rpc_stream *stream);
/* Server side, in on_request only: on_end(stream, status, context) will run once when the RPC is
 * over, so that a handler that keeps the stream learns that its client is gone (CANCELLED) or that
 * its own status is out (OK). */
void mr_rpc_stream_end_watch(mr_rpc_stream *stream,
                             void (*on_end)(mr_rpc_stream *stream, mr_status status,
                                            void *context),
                             void *context);
/* References: the creator (client) or on_open (server) holds one; on_end is the last event. */
mr_rpc_stream *mr_rpc_stream_ref(mr_rpc_stream *stream);
void mr_rpc_stream_unref(mr_rpc_stream *stream);
/* The other end's address as gRPC writes it; valid while the stream is referenced. */
const char *mr_rpc_stream_peer(const mr_rpc_stream *stream);

#endif
