/* SPDX-License-Identifier: Apache-2.0 */
/* server.h: a gRPC server that dispatches by protobuf-c's service descriptors: adding a method is
 * adding a handler to its service's table.
 * grpc.health.v1.Health and server reflection (v1 and v1alpha) are served by every server.
 * Owner: rpc. Thread: LOOP or main; handlers on RPC threads. */
#ifndef MR_RPC_SERVER_H
#define MR_RPC_SERVER_H

#include <stdint.h>

#include "daemon/base/status.h"
#include "daemon/observe/metrics.h"
#include "daemon/rpc/credentials.h"
#include "daemon/rpc/stream.h"

typedef struct mr_rpc_server mr_rpc_server;

/* One method's handler.
 * unary (events NULL): on_request gets the request and answers by mr_rpc_stream_send and
 * mr_rpc_stream_finish, at once or later from any thread (ref the stream to keep it). Also right
 * for server streams: send any number of messages before finish.
 * bidi (events set): on_open runs first and returns the stream's context; the handler then calls
 * mr_rpc_stream_receive for each message it wants. */
typedef struct mr_rpc_method {
    const char *name; /* as in the .proto file */
    void (*on_request)(mr_rpc_stream *stream, ProtobufCMessage *owned_request,
                       void *service_context);
    void *(*on_open)(mr_rpc_stream *stream, void *service_context);
    const mr_rpc_stream_events *events;
} mr_rpc_method;

typedef struct mr_rpc_service {
    const ProtobufCServiceDescriptor *descriptor;
    const mr_rpc_method *methods; /* a method without a row is answered UNIMPLEMENTED */
    size_t method_count;
    void *context;
    size_t receive_bytes_max; /* 0: MR_RPC_CONTROL_BYTES_MAX */
} mr_rpc_service;

typedef struct mr_rpc_server_options {
    const char *listen; /* HOST:PORT (port 0: any free one) or unix:PATH */
    mr_rpc_credentials credentials;
    const mr_rpc_service *services; /* copied; descriptors and method tables stay the caller's */
    size_t service_count;
    mr_metrics *metrics; /* counts calls, and tells when the certificate ends; NULL: none */
} mr_rpc_server_options;

/* Binds and starts. UNAVAILABLE: the port is in use (the text names it); INVALID_ARGUMENT: an
 * address that is none, or not loopback without TLS and without credentials.insecure. */
MR_MUST_CHECK mr_status mr_rpc_server_start(const mr_rpc_server_options *options,
                                            mr_rpc_server **out_server);
/* The address in use, with the real port. */
const char *mr_rpc_server_address(const mr_rpc_server *server);
/* Health of a service name ("" is the whole server; also readiness). Any thread. */
void mr_rpc_server_health_set(mr_rpc_server *server, const char *service, bool serving);
/* Refuses new calls, lets running ones finish for grace_ms, cancels the rest, joins the threads and
 * frees. NULL is fine. Not from an RPC thread. */
void mr_rpc_server_stop(mr_rpc_server *server, int64_t grace_ms);

#endif
