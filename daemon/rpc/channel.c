/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/channel.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/rpc/arguments.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/core.h"
#include "daemon/rpc/security.h"

enum { CHANNEL_PATH_BYTES = 160 };

struct mr_rpc_channel {
    grpc_channel *core;
    mr_rpc_address address;
};

mr_status mr_rpc_channel_create(const char *target, const mr_rpc_credentials *credentials,
                                mr_rpc_channel **out_channel) {
    mr_rpc_address address;
    MR_TRY(mr_rpc_address_parse(target, &address));
    if (address.kind != MR_RPC_ADDRESS_UNIX && address.port == 0)
        return MR_ERROR(INVALID_ARGUMENT, "port 0 of %.100s cannot be connected to", target);
    grpc_channel_credentials *core_credentials;
    MR_TRY(mr_rpc_security_channel(credentials, &address, &core_credentials));
    mr_status status = MR_OK;
    mr_rpc_channel *channel = mr_alloc(sizeof(*channel));
    if (channel == NULL) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a channel to %.100s", target);
    } else {
        mr_rpc_arguments arguments;
        mr_rpc_arguments_channel(&arguments);
        sigset_t previous;
        mr_rpc_signals_block(&previous);
        channel->core = grpc_channel_create(address.core, core_credentials, &arguments.args);
        mr_rpc_signals_restore(&previous);
        channel->address = address;
        *out_channel = channel;
    }
    grpc_channel_credentials_release(core_credentials);
    return status;
}

void mr_rpc_channel_destroy(mr_rpc_channel *channel) {
    if (channel == NULL)
        return;
    grpc_channel_destroy(channel->core);
    mr_free(channel);
}

static mr_status channel_start(mr_rpc_channel *channel, const ProtobufCServiceDescriptor *service,
                               const char *method, bool tail, const mr_rpc_stream_events *events,
                               void *context, int64_t timeout_ms, mr_rpc_stream **out_stream) {
    const ProtobufCMethodDescriptor *descriptor =
        protobuf_c_service_descriptor_get_method_by_name(service, method);
    MR_ASSERT(descriptor != NULL);
    MR_ASSERT(timeout_ms >= 0);
    char path[CHANNEL_PATH_BYTES];
    int length = snprintf(path, sizeof(path), "/%s/%s", service->name, method);
    MR_ASSERT(length > 0 && length < CHANNEL_PATH_BYTES);
    grpc_slice path_slice = grpc_slice_from_copied_string(path);
    mr_rpc_queue *queue = mr_rpc_core_queue();
    mr_rpc_call call = {
        .queue = queue,
        .owned_call = grpc_channel_create_call(channel->core, NULL, GRPC_PROPAGATE_DEFAULTS,
                                               mr_rpc_queue_core(queue), path_slice, NULL,
                                               mr_rpc_core_deadline(timeout_ms), NULL),
        .peer = channel->address.text,
        .form = {.type = descriptor->output, .bytes_max = MR_RPC_MESSAGE_BYTES_MAX, .tail = tail},
        .events = events,
        .context = context,
    };
    grpc_slice_unref(path_slice);
    return mr_rpc_stream_start_client(&call, out_stream);
}

mr_status mr_rpc_channel_open(mr_rpc_channel *channel, const ProtobufCServiceDescriptor *service,
                              const char *method, const ProtobufCMessage *request,
                              const mr_rpc_stream_events *events, void *context,
                              int64_t timeout_ms, mr_rpc_stream **out_stream) {
    mr_rpc_stream *stream = NULL;
    MR_TRY(channel_start(channel, service, method, true, events, context, timeout_ms, &stream));
    if (request != NULL) {
        mr_status status = mr_rpc_stream_send(stream, request, NULL);
        if (mr_status_is_ok(status))
            mr_rpc_stream_finish(stream, MR_OK);
        else
            mr_rpc_stream_fail(stream, status); /* on_end tells it, as every end of a stream */
    }
    *out_stream = stream;
    return MR_OK;
}

/* ---- unary calls ---- */

typedef struct unary_call {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    ProtobufCMessage *response;
    mr_status status;
    bool ended;
} unary_call;

static void unary_answered(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                           mr_rpc_tail *owned_tail, void *context) {
    unary_call *call = context;
    (void)stream;
    MR_ASSERT(owned_tail == NULL); /* not asked for */
    (void)pthread_mutex_lock(&call->lock);
    call->response = owned_message;
    (void)pthread_mutex_unlock(&call->lock);
}

static void unary_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    unary_call *call = context;
    (void)stream;
    (void)pthread_mutex_lock(&call->lock);
    call->status = status;
    call->ended = true;
    (void)pthread_cond_signal(&call->changed);
    (void)pthread_mutex_unlock(&call->lock);
}

static const mr_rpc_stream_events unary_events = {
    .on_message = unary_answered,
    .on_end = unary_ended,
};

mr_status mr_rpc_channel_call(mr_rpc_channel *channel, const ProtobufCServiceDescriptor *service,
                              const char *method, const ProtobufCMessage *request,
                              int64_t timeout_ms, ProtobufCMessage **out_response) {
    MR_ASSERT(timeout_ms > 0); /* the deadline is what bounds the wait below */
    MR_ASSERT(!mr_rpc_queue_is_own_thread(mr_rpc_core_queue()));
    unary_call call = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    mr_rpc_stream *stream = NULL;
    MR_TRY(channel_start(channel, service, method, false, &unary_events, &call, timeout_ms,
                         &stream));
    mr_status sent = mr_rpc_stream_send(stream, request, NULL);
    if (mr_status_is_ok(sent)) {
        mr_rpc_stream_finish(stream, MR_OK);
        mr_rpc_stream_receive(stream);
    } else {
        mr_rpc_stream_fail(stream, sent);
    }
    (void)pthread_mutex_lock(&call.lock);
    while (!call.ended)
        (void)pthread_cond_wait(&call.changed, &call.lock);
    (void)pthread_mutex_unlock(&call.lock);
    mr_rpc_stream_unref(stream);
    if (mr_status_is_ok(call.status) && call.response == NULL)
        call.status = MR_ERROR(INTERNAL, "%s answered %s with success but no message",
                               channel->address.text, method);
    if (mr_status_is_ok(call.status)) {
        *out_response = call.response;
        return MR_OK;
    }
    if (call.response != NULL)
        protobuf_c_message_free_unpacked(call.response, NULL);
    return call.status;
}
