/* SPDX-License-Identifier: Apache-2.0 */
/* event.h: what streams tell a lasting command. gRPC's threads push events into one bounded queue;
 * main pops them one by one and decides (nothing reacts inside a callback). Each stream has at most
 * one message and one end in the queue, as it receives on demand, and each payload buffer at most
 * one return; so a queue of MR_EVENTS_MAX never overflows. Owner: client. Thread: main pops; RPC
 * threads push. Limits: MR_EVENTS_MAX. */
#ifndef MR_CLIENT_EVENT_H
#define MR_CLIENT_EVENT_H

#include "daemon/base/queue.h"
#include "daemon/base/status.h"
#include "daemon/rpc/channel.h"
#include "daemon/rpc/stream.h"

enum {
    MR_EVENT_LANES_MAX = 256, /* feed streams of one command: replicas */
    MR_EVENT_BUFFERS_MAX = 8, /* payload buffers that are on their way */
    MR_EVENTS_MAX = 2 * (MR_EVENT_LANES_MAX + 1) + MR_EVENT_BUFFERS_MAX,
};

typedef enum mr_event_kind {
    MR_EVENT_MESSAGE, /* message and tail */
    MR_EVENT_END,     /* status: how the stream ended; its last event */
    MR_EVENT_SENT,    /* the payload buffer number is free again */
    MR_EVENT_KIND_COUNT
} mr_event_kind;

typedef struct mr_event {
    mr_event_kind kind;
    uint32_t number;           /* of the stream (MR_EVENT_WATCH or a lane's), or of the buffer */
    ProtobufCMessage *message; /* owned by who popped it */
    mr_rpc_tail *tail;         /* owned by who popped it */
    mr_status status;
} mr_event;

enum { MR_EVENT_WATCH = MR_EVENT_LANES_MAX }; /* number of the Watch stream */

/* One open stream whose events go to a queue. Zeroed: closed. */
typedef struct mr_event_stream {
    mr_rpc_stream *stream; /* NULL: closed */
    mr_queue *events;
    uint32_t number;
} mr_event_stream;

/* Opens a stream and asks for its first message. The struct must stay where it is until the
 * stream's MR_EVENT_END was popped and mr_event_stream_close called. request: as
 * mr_rpc_channel_open. */
MR_MUST_CHECK mr_status mr_event_stream_open(mr_event_stream *stream, mr_queue *events,
                                             uint32_t number, mr_rpc_channel *channel,
                                             const ProtobufCServiceDescriptor *service,
                                             const char *method, const ProtobufCMessage *request);
/* After its MR_EVENT_END: frees the stream. */
void mr_event_stream_close(mr_event_stream *stream);
/* Frees what an event carries. */
void mr_event_deinit(mr_event *event);

#endif
