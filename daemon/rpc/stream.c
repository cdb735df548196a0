/* SPDX-License-Identifier: Apache-2.0 */
/* One state machine for both ends of a call. Four operations may be in core's hands, at most one of
 * each, all ending on one queue's thread:
 *   life     the call's end: RECV_STATUS on a client, RECV_CLOSE on a server; always in flight
 *   receive  one message, when asked for
 *   send     the oldest queued message, or the status or half-close behind the last one
 *   nudge    an empty batch that makes the queue's thread start the next send, so that the thread
 *            with the tensors (EXEC) never spends its time in sendmsg
 * The call is given back to core when all have returned after life; on_end runs then at the latest,
 * so after it nothing of the stream is in core. The shell lives while somebody holds a
 * reference. */
#include "daemon/rpc/call.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

typedef struct stream_operation {
    mr_rpc_tag tag; /* first: a tag is its operation */
    mr_rpc_stream *stream;
    bool busy;
} stream_operation;

struct mr_rpc_stream {
    atomic_size_t references;
    bool server;
    mr_rpc_queue *queue; /* only while call is set: the server's queue ends with it */
    mr_rpc_codec_form form;
    char *peer;
    mr_metrics *metrics;
    const char *method;
    int64_t start_ns;

    /* Written before the first operation or on the queue's thread, read there. */
    void (*on_message)(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                       mr_rpc_tail *owned_tail, void *context);
    void (*on_end)(mr_rpc_stream *stream, mr_status status, void *context);
    void (*on_request)(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context);
    void *context;

    pthread_mutex_t lock; /* of all below */
    grpc_call *call;      /* NULL when given back */
    stream_operation life;
    stream_operation receive;
    stream_operation send;
    stream_operation nudge;

    bool over;  /* life has returned */
    bool ended; /* on_end has run or is about to */
    mr_status failure; /* why this side broke the call off; OK: it did not */
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_status_code status_code;
    grpc_slice status_details;
    int cancelled; /* server: the client went away */

    grpc_byte_buffer *received;
    bool received_last; /* no message will follow */

    grpc_byte_buffer *queued[MR_RPC_SEND_QUEUE_MAX];
    size_t queued_first;
    size_t queued_count;
    grpc_byte_buffer *sending;
    bool metadata_sent;
    bool broken;      /* a send failed or the stream was cancelled: nothing more goes out */
    bool closing;     /* finish was called */
    bool closed;      /* and its operation started */
    mr_status final; /* server: what finish said */
};

/* ---- under the lock ---- */

static void operation_start(stream_operation *operation, const grpc_op *ops, size_t count) {
    mr_rpc_stream *stream = operation->stream;
    MR_ASSERT(!operation->busy);
    operation->busy = true;
    (void)mr_rpc_stream_ref(stream); /* dropped by its done */
    mr_rpc_queue_begin(stream->queue);
    /* A refused batch is our bug, and the call cannot be trusted after one (grpc-core.md item
     * 11). */
    MR_ASSERT(grpc_call_start_batch(stream->call, ops, count, &operation->tag, NULL) ==
              GRPC_CALL_OK);
}

static void stream_queue_drop(mr_rpc_stream *stream) {
    for (; stream->queued_count > 0; stream->queued_count--) {
        grpc_byte_buffer_destroy(stream->queued[stream->queued_first]);
        stream->queued_first = (stream->queued_first + 1) % MR_RPC_SEND_QUEUE_MAX;
    }
}

static void stream_receive_start(mr_rpc_stream *stream) {
    const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE,
                        .data.recv_message.recv_message = &stream->received};
    operation_start(&stream->receive, &op, 1);
}

/* Starts the next send, if one is due and none is under way. */
static void stream_pump(mr_rpc_stream *stream) {
    bool close = stream->closing && !stream->closed && stream->queued_count <= 1;
    if (stream->call == NULL || stream->over || stream->broken || stream->send.busy ||
        (stream->queued_count == 0 && !close))
        return;
    grpc_op ops[3];
    size_t count = 0;
    grpc_slice details = grpc_empty_slice();
    if (stream->server && !stream->metadata_sent)
        ops[count++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    stream->metadata_sent = true;
    if (stream->queued_count > 0) {
        stream->sending = stream->queued[stream->queued_first];
        stream->queued_first = (stream->queued_first + 1) % MR_RPC_SEND_QUEUE_MAX;
        stream->queued_count--;
        ops[count++] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE,
                                 .data.send_message.send_message = stream->sending};
    }
    if (close && stream->server) {
        details = grpc_slice_from_copied_string(stream->final.text);
        ops[count++] = (grpc_op){
            .op = GRPC_OP_SEND_STATUS_FROM_SERVER,
            .data.send_status_from_server = {.status = (grpc_status_code)stream->final.code,
                                             .status_details = &details}};
    } else if (close) {
        ops[count++] = (grpc_op){.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    }
    stream->closed = stream->closed || close;
    operation_start(&stream->send, ops, count);
    grpc_slice_unref(details);
}

/* The same, but on the queue's thread. */
static void stream_nudge(mr_rpc_stream *stream) {
    if (mr_rpc_queue_is_own_thread(stream->queue))
        stream_pump(stream);
    else if (!stream->nudge.busy && !stream->send.busy)
        operation_start(&stream->nudge, NULL, 0);
}

static void stream_break(mr_rpc_stream *stream, mr_status failure) {
    stream->broken = true;
    stream_queue_drop(stream);
    if (mr_status_is_ok(stream->failure))
        stream->failure = failure;
    if (stream->call != NULL && !stream->over)
        (void)grpc_call_cancel(stream->call, NULL); /* fails on nothing */
}

/* ---- how a call ended ---- */

static mr_status stream_result_client(const mr_rpc_stream *stream) {
    if (stream->status_code == GRPC_STATUS_OK && mr_status_is_ok(stream->failure))
        return MR_OK;
    if (!mr_status_is_ok(stream->failure))
        return stream->failure;
    mr_code code = (unsigned)stream->status_code < MR_CODE_COUNT ? (mr_code)stream->status_code
                                                                  : MR_CODE_UNKNOWN;
    char text[MR_STATUS_TEXT_BYTES];
    size_t length = GRPC_SLICE_LENGTH(stream->status_details);
    length = length < sizeof(text) ? length : sizeof(text) - 1;
    memcpy(text, GRPC_SLICE_START_PTR(stream->status_details), length);
    text[length] = '\0';
    if (code == MR_CODE_DEADLINE_EXCEEDED && strcmp(text, "Deadline Exceeded") == 0)
        return MR_ERROR(DEADLINE_EXCEEDED, "no answer from %s in time", stream->peer);
    if (code == MR_CODE_UNAVAILABLE && strstr(text, stream->peer) == NULL)
        return MR_ERROR(UNAVAILABLE, "%s: %s", stream->peer, text);
    return mr_status_make(code, __FILE__, __LINE__, "%s", text);
}

static mr_status stream_result_server(const mr_rpc_stream *stream) {
    if (!mr_status_is_ok(stream->failure))
        return stream->failure;
    if (stream->cancelled != 0)
        return MR_ERROR(CANCELLED, "the client %s is gone", stream->peer);
    return MR_OK;
}

/* Server. As the client sees it: what finish said, unless the call was broken off before. */
static void stream_count(const mr_rpc_stream *stream, mr_status result) {
    mr_code code = mr_status_is_ok(result) ? MR_CODE_CANCELLED : result.code;
    if (mr_status_is_ok(result) && stream->closing)
        code = stream->final.code;
    mr_series_add(mr_metrics_series(stream->metrics, MR_METRIC_RPC_SERVER_REQUESTS, stream->method,
                                    mr_code_name(code)),
                  1);
    mr_series_observe(
        mr_metrics_series(stream->metrics, MR_METRIC_RPC_SERVER_DURATION, stream->method),
        (double)(mr_clock_now_ns() - stream->start_ns) * 1e-9);
}

/* ---- on the queue's thread ---- */

static void stream_end(mr_rpc_stream *stream, mr_status status) {
    if (stream->on_end != NULL)
        stream->on_end(stream, status, stream->context);
}

/* The last step of every done: gives the call back and ends the stream when nothing is in flight,
 * then drops the operation's reference. */
static void stream_settle(mr_rpc_stream *stream) {
    (void)pthread_mutex_lock(&stream->lock);
    bool idle = stream->over && !stream->receive.busy && !stream->send.busy && !stream->nudge.busy;
    grpc_call *call = idle ? stream->call : NULL;
    bool end = idle && !stream->ended;
    mr_status status = MR_OK;
    if (call != NULL) {
        status = stream->server ? stream_result_server(stream) : stream_result_client(stream);
        stream->call = NULL;
        stream->ended = true;
        grpc_metadata_array_destroy(&stream->initial); /* their elements are the call's */
        grpc_metadata_array_destroy(&stream->trailing);
        grpc_slice_unref(stream->status_details);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    if (call != NULL && stream->metrics != NULL)
        stream_count(stream, status);
    if (call != NULL)
        grpc_call_unref(call);
    if (end)
        stream_end(stream, status);
    mr_rpc_stream_unref(stream);
}

static void life_done(mr_rpc_tag *tag, bool success) {
    mr_rpc_stream *stream = ((stream_operation *)tag)->stream;
    (void)success; /* always true: the result is in the outputs (grpc-core.md item 3) */
    (void)pthread_mutex_lock(&stream->lock);
    stream->life.busy = false;
    stream->over = true;
    stream_queue_drop(stream);
    (void)pthread_mutex_unlock(&stream->lock);
    stream_settle(stream);
}

static void send_done(mr_rpc_tag *tag, bool success) {
    mr_rpc_stream *stream = ((stream_operation *)tag)->stream;
    (void)pthread_mutex_lock(&stream->lock);
    stream->send.busy = false;
    if (stream->sending != NULL)
        grpc_byte_buffer_destroy(stream->sending); /* the content is consumed, the shell is ours */
    stream->sending = NULL;
    if (!success) {
        stream->broken = true; /* life will say why */
        stream_queue_drop(stream);
    }
    stream_pump(stream);
    (void)pthread_mutex_unlock(&stream->lock);
    stream_settle(stream);
}

static void nudge_done(mr_rpc_tag *tag, bool success) {
    mr_rpc_stream *stream = ((stream_operation *)tag)->stream;
    (void)success;
    (void)pthread_mutex_lock(&stream->lock);
    stream->nudge.busy = false;
    stream_pump(stream);
    (void)pthread_mutex_unlock(&stream->lock);
    stream_settle(stream);
}

/* The peer sent what is no message: a client breaks the call off, a server answers why. */
static void stream_refuse(mr_rpc_stream *stream, mr_status why) {
    (void)pthread_mutex_lock(&stream->lock);
    bool end = false;
    if (!stream->server) {
        stream_break(stream, why);
    } else if (!stream->closing) {
        end = !stream->ended;
        stream->ended = true;
        stream->received_last = true;
        stream->closing = true;
        stream->final = why;
        stream_queue_drop(stream);
        stream_pump(stream);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    if (end)
        stream_end(stream, why);
}

static void stream_deliver(mr_rpc_stream *stream, grpc_byte_buffer *owned_buffer) {
    ProtobufCMessage *message = NULL;
    mr_rpc_tail *tail = NULL;
    mr_status status = mr_rpc_codec_unpack(owned_buffer, &stream->form, &message, &tail);
    if (!mr_status_is_ok(status)) {
        stream_refuse(stream, status);
    } else if (stream->on_request != NULL) {
        void (*on_request)(mr_rpc_stream *, ProtobufCMessage *, void *) = stream->on_request;
        stream->on_request = NULL;
        on_request(stream, message, stream->context);
    } else {
        MR_ASSERT(stream->on_message != NULL);
        stream->on_message(stream, message, tail, stream->context);
    }
}

/* No message, but an end: of the peer's half, or of the whole call, which life will tell. */
static void stream_received_end(mr_rpc_stream *stream, bool graceful) {
    (void)pthread_mutex_lock(&stream->lock);
    stream->received_last = true;
    bool half_closed = stream->server && graceful && !stream->over && !stream->ended;
    if (half_closed && stream->on_request == NULL)
        stream->ended = true;
    (void)pthread_mutex_unlock(&stream->lock);
    if (half_closed && stream->on_request != NULL)
        stream_refuse(stream, MR_ERROR(INVALID_ARGUMENT, "the call ended without its %s",
                                       stream->form.type->name));
    else if (half_closed)
        stream_end(stream, MR_OK);
}

static void receive_done(mr_rpc_tag *tag, bool success) {
    mr_rpc_stream *stream = ((stream_operation *)tag)->stream;
    (void)pthread_mutex_lock(&stream->lock);
    stream->receive.busy = false;
    grpc_byte_buffer *buffer = stream->received;
    stream->received = NULL;
    bool graceful = success && grpc_call_failed_before_recv_message(stream->call) == 0;
    bool wanted = !stream->ended && !(stream->server && stream->closing);
    (void)pthread_mutex_unlock(&stream->lock);
    if (buffer == NULL)
        stream_received_end(stream, graceful);
    else if (wanted)
        stream_deliver(stream, buffer);
    else
        grpc_byte_buffer_destroy(buffer);
    stream_settle(stream);
}

/* ---- start and end of the shell ---- */

static mr_status stream_create(const mr_rpc_call *call, bool server, mr_rpc_stream **out_stream) {
    mr_rpc_stream *stream = mr_alloc(sizeof(*stream));
    char *peer = mr_strdup(call->peer);
    if (stream == NULL || peer == NULL) {
        mr_free(stream);
        mr_free(peer);
        grpc_call_unref(call->owned_call);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a stream");
    }
    atomic_init(&stream->references, 1);
    (void)pthread_mutex_init(&stream->lock, NULL);
    stream->server = server;
    stream->queue = call->queue;
    stream->form = call->form;
    stream->peer = peer;
    if (call->events != NULL) {
        stream->on_message = call->events->on_message;
        stream->on_end = call->events->on_end;
    }
    stream->metrics = call->metrics;
    stream->method = call->method;
    stream->start_ns = mr_clock_now_ns();
    stream->on_request = call->on_request;
    stream->context = call->context;
    stream->call = call->owned_call;
    stream->life = (stream_operation){.tag.done = life_done, .stream = stream};
    stream->receive = (stream_operation){.tag.done = receive_done, .stream = stream};
    stream->send = (stream_operation){.tag.done = send_done, .stream = stream};
    stream->nudge = (stream_operation){.tag.done = nudge_done, .stream = stream};
    grpc_metadata_array_init(&stream->initial);
    grpc_metadata_array_init(&stream->trailing);
    stream->status_details = grpc_empty_slice();
    *out_stream = stream;
    return MR_OK;
}

mr_status mr_rpc_stream_start_client(const mr_rpc_call *call, mr_rpc_stream **out_stream) {
    mr_rpc_stream *stream = NULL;
    MR_TRY(stream_create(call, false, &stream));
    const grpc_op ops[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
         .data.recv_initial_metadata.recv_initial_metadata = &stream->initial},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
         .data.recv_status_on_client = {.trailing_metadata = &stream->trailing,
                                        .status = &stream->status_code,
                                        .status_details = &stream->status_details}},
    };
    (void)pthread_mutex_lock(&stream->lock);
    operation_start(&stream->life, ops, sizeof(ops) / sizeof(ops[0]));
    (void)pthread_mutex_unlock(&stream->lock);
    *out_stream = stream;
    return MR_OK;
}

mr_status mr_rpc_stream_start_server(const mr_rpc_call *call, mr_rpc_stream **out_stream) {
    mr_rpc_stream *stream = NULL;
    MR_TRY(stream_create(call, true, &stream));
    const grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                        .data.recv_close_on_server.cancelled = &stream->cancelled};
    (void)pthread_mutex_lock(&stream->lock);
    operation_start(&stream->life, &op, 1);
    if (stream->on_request != NULL)
        stream_receive_start(stream);
    (void)pthread_mutex_unlock(&stream->lock);
    *out_stream = stream;
    return MR_OK;
}

void mr_rpc_stream_context_set(mr_rpc_stream *stream, void *context) {
    MR_ASSERT(mr_rpc_queue_is_own_thread(stream->queue));
    stream->context = context;
}

mr_rpc_stream *mr_rpc_stream_ref(mr_rpc_stream *stream) {
    atomic_fetch_add(&stream->references, 1);
    return stream;
}

void mr_rpc_stream_unref(mr_rpc_stream *stream) {
    if (stream == NULL || atomic_fetch_sub(&stream->references, 1) > 1)
        return;
    MR_ASSERT(stream->call == NULL); /* an operation in flight holds a reference */
    (void)pthread_mutex_destroy(&stream->lock);
    mr_free(stream->peer);
    mr_free(stream);
}

/* ---- what others call ---- */

void mr_rpc_stream_receive(mr_rpc_stream *stream) {
    (void)pthread_mutex_lock(&stream->lock);
    if (stream->call != NULL && !stream->over && !stream->ended && !stream->received_last)
        stream_receive_start(stream);
    (void)pthread_mutex_unlock(&stream->lock);
}

mr_status mr_rpc_stream_send(mr_rpc_stream *stream, const ProtobufCMessage *message,
                             const mr_rpc_raw *raw) {
    grpc_byte_buffer *buffer;
    MR_TRY(mr_rpc_codec_pack(message, raw, &buffer));
    mr_status status = MR_OK;
    (void)pthread_mutex_lock(&stream->lock);
    if (stream->over || stream->broken || stream->closing) {
        status = MR_ERROR(CANCELLED, "the stream with %s has ended", stream->peer);
    } else if (stream->queued_count == MR_RPC_SEND_QUEUE_MAX) {
        status = MR_ERROR(RESOURCE_EXHAUSTED, "%zu messages already wait to be sent to %s",
                          stream->queued_count, stream->peer);
    } else {
        size_t last = (stream->queued_first + stream->queued_count) % MR_RPC_SEND_QUEUE_MAX;
        stream->queued[last] = buffer;
        stream->queued_count++;
        if (raw != NULL && raw->bytes > 0)
            stream_nudge(stream);
        else
            stream_pump(stream);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    if (!mr_status_is_ok(status))
        grpc_byte_buffer_destroy(buffer);
    return status;
}

void mr_rpc_stream_finish(mr_rpc_stream *stream, mr_status status) {
    (void)pthread_mutex_lock(&stream->lock);
    if (!stream->closing) {
        stream->closing = true;
        stream->final = status;
        stream_pump(stream);
    }
    (void)pthread_mutex_unlock(&stream->lock);
}

void mr_rpc_stream_fail(mr_rpc_stream *stream, mr_status why) {
    (void)pthread_mutex_lock(&stream->lock);
    stream_break(stream, why);
    (void)pthread_mutex_unlock(&stream->lock);
}

void mr_rpc_stream_cancel(mr_rpc_stream *stream) {
    mr_rpc_stream_fail(stream, MR_ERROR(CANCELLED, "the stream with %s was cancelled here",
                                        stream->peer));
}

void mr_rpc_stream_end_watch(mr_rpc_stream *stream,
                             void (*on_end)(mr_rpc_stream *stream, mr_status status,
                                            void *context),
                             void *context) {
    MR_ASSERT(mr_rpc_queue_is_own_thread(stream->queue));
    MR_ASSERT(stream->on_end == NULL);
    stream->on_end = on_end;
    stream->context = context;
}

const char *mr_rpc_stream_peer(const mr_rpc_stream *stream) {
    return stream->peer;
}
