/* SPDX-License-Identifier: Apache-2.0 */
#include "client/event.h"

/* The queue has room by its size; a push that fails would be our bug. */
static void event_push(mr_queue *events, const mr_event *event) {
    mr_status status = mr_queue_push(events, event);
    MR_ASSERT(mr_status_is_ok(status));
}

static void event_on_message(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                             mr_rpc_tail *owned_tail, void *context) {
    const mr_event_stream *own = context;
    (void)stream;
    mr_event event = {
        .kind = MR_EVENT_MESSAGE,
        .number = own->number,
        .message = owned_message,
        .tail = owned_tail,
    };
    event_push(own->events, &event);
}

static void event_on_end(mr_rpc_stream *stream, mr_status status, void *context) {
    const mr_event_stream *own = context;
    (void)stream;
    mr_event event = {.kind = MR_EVENT_END, .number = own->number, .status = status};
    event_push(own->events, &event);
}

static const mr_rpc_stream_events event_handlers = {
    .on_message = event_on_message,
    .on_end = event_on_end,
};

mr_status mr_event_stream_open(mr_event_stream *stream, mr_queue *events, uint32_t number,
                               mr_rpc_channel *channel, const ProtobufCServiceDescriptor *service,
                               const char *method, const ProtobufCMessage *request) {
    MR_ASSERT(stream->stream == NULL);
    stream->events = events;
    stream->number = number;
    MR_TRY(mr_rpc_channel_open(channel, service, method, request, &event_handlers, stream, 0,
                               &stream->stream));
    mr_rpc_stream_receive(stream->stream);
    return MR_OK;
}

void mr_event_stream_close(mr_event_stream *stream) {
    if (stream->stream == NULL)
        return;
    mr_rpc_stream_unref(stream->stream);
    stream->stream = NULL;
}

void mr_event_deinit(mr_event *event) {
    if (event->message != NULL)
        protobuf_c_message_free_unpacked(event->message, NULL);
    mr_rpc_tail_destroy(event->tail);
    event->message = NULL;
    event->tail = NULL;
}
