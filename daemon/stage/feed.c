/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/feed.h"

#include <stdatomic.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/stage/feed_window.h"
#include "millrace/v1/feed.pb-c.h"

/* One client's stream. The stream's events hold one reference until on_end, the feed holds one
 * while it is the feeding session. window: set on LOOP before the first receive, read on RPC
 * threads. */
typedef struct feed_session {
    atomic_uint references;
    mr_feed *feed;
    mr_rpc_stream *stream;
    mr_feed_window *window;
    atomic_bool refused; /* ended by us for bad input: makes way for the next stream at once */
    mr_status end;       /* how the stream ended; written before the post to LOOP */
} feed_session;

/* All LOOP's, except window's inside. */
struct mr_feed {
    mr_loop *loop;
    mr_feed_events events;
    mr_feed_window *window; /* of the present assignment; NULL: no streams are accepted */
    feed_session *session;
};

static void session_unref(feed_session *session) {
    if (atomic_fetch_sub(&session->references, 1) != 1)
        return;
    mr_feed_window_unref(session->window);
    mr_rpc_stream_unref(session->stream);
    mr_free(session);
}

/* LOOP: gives up the session, if it is the feeding one. */
static void feed_unbind(mr_feed *feed, feed_session *session) {
    if (feed->session != session)
        return;
    feed->session = NULL;
    feed->events.state(feed->events.context, false);
    session_unref(session);
}

static mr_status feed_send(mr_feed *feed, const Millrace__V1__FeedResponse *response,
                           const mr_rpc_raw *raw) {
    return mr_rpc_stream_send(feed->session->stream, &response->base, raw);
}

/* A client that does not read its acknowledgements is cut off before it fills memory. */
static void feed_send_or_drop(mr_feed *feed, const Millrace__V1__FeedResponse *response) {
    if (feed->session == NULL)
        return;
    mr_status status = feed_send(feed, response, NULL);
    if (!mr_status_is_ok(status)) {
        mr_rpc_stream_finish(feed->session->stream, status);
        feed_unbind(feed, feed->session);
    }
}

/* LOOP: a new stream asks to feed. */
static void session_bind(void *context) {
    feed_session *session = context;
    mr_feed *feed = session->feed;
    if (feed->session != NULL && atomic_load(&feed->session->refused))
        feed_unbind(feed, feed->session);
    if (feed->window == NULL) {
        mr_rpc_stream_finish(session->stream,
                             MR_ERROR(FAILED_PRECONDITION, "no job is fed through this stage"));
    } else if (feed->session != NULL) {
        mr_rpc_stream_finish(session->stream,
                             MR_ERROR(ALREADY_EXISTS, "another client feeds this job: %s",
                                      mr_rpc_stream_peer(feed->session->stream)));
    } else {
        session->window = mr_feed_window_ref(feed->window);
        feed->session = session;
        atomic_fetch_add(&session->references, 1);
        feed->events.state(feed->events.context, true);
        Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
        response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_OPEN;
        response.step = mr_feed_window_next(feed->window);
        response.window = MR_FEED_WINDOW_STEPS;
        feed_send_or_drop(feed, &response);
        mr_rpc_stream_receive(session->stream);
    }
    session_unref(session); /* the post's */
}

/* LOOP: the stream has ended on the client's side. A half-close of a training client only says that
 * all is sent; its acknowledgements still flow. */
static void session_ended(void *context) {
    feed_session *session = context;
    mr_feed *feed = session->feed;
    if (feed->session == session) {
        if (mr_status_is_ok(session->end))
            feed->events.state(feed->events.context, false);
        else
            feed_unbind(feed, session);
    }
    session_unref(session);
}

static void *feed_opened(mr_rpc_stream *stream, void *service_context) {
    mr_feed *feed = service_context;
    feed_session *session = mr_alloc(sizeof(*session));
    if (session == NULL) {
        mr_rpc_stream_finish(stream, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a feed"));
        mr_rpc_stream_unref(stream);
        return NULL;
    }
    session->feed = feed;
    session->stream = stream; /* the reference that on_open holds */
    session->references = 2; /* the stream's events, and the post */
    mr_status status = mr_loop_post(feed->loop, session_bind, session);
    if (!mr_status_is_ok(status)) {
        mr_rpc_stream_finish(stream, status);
        session_unref(session);
    }
    return session;
}

static void feed_acknowledge(feed_session *session, const Millrace__V1__FeedRequest *request) {
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_RECEIVED;
    response.step = request->step;
    response.index = request->index;
    mr_status status = mr_rpc_stream_send(session->stream, &response.base, NULL);
    if (!mr_status_is_ok(status))
        mr_rpc_stream_finish(session->stream, status);
}

/* RPC thread. A message without tensors is a greeting and needs no answer. */
static void feed_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                          mr_rpc_tail *owned_tail, void *context) {
    feed_session *session = context;
    const Millrace__V1__FeedRequest *request = (const Millrace__V1__FeedRequest *)owned_message;
    mr_feed_offer offer = MR_FEED_OFFER_DUPLICATE;
    mr_status status = MR_OK;
    if (request->n_tensors > 0) {
        status = mr_feed_window_offer(session->window, request, owned_tail, &offer);
        if (mr_status_is_ok(status))
            feed_acknowledge(session, request);
    }
    if (offer == MR_FEED_OFFER_COMPLETED)
        session->feed->events.step_ready(session->feed->events.context, request->step);
    if (mr_status_is_ok(status)) {
        mr_rpc_stream_receive(stream);
    } else {
        atomic_store(&session->refused, true); /* before the client can know and come back */
        mr_rpc_stream_finish(stream, status);
    }
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
}

static void feed_stream_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    (void)stream;
    feed_session *session = context;
    if (session == NULL)
        return;
    session->end = status;
    if (!mr_status_is_ok(mr_loop_post(session->feed->loop, session_ended, session)))
        session_unref(session); /* the loop is full: the idle timeout finds out */
}

static const mr_rpc_stream_events feed_stream_events = {
    .on_message = feed_received,
    .on_end = feed_stream_ended,
};
static const mr_rpc_method feed_methods[] = {
    {.name = "Feed", .on_open = feed_opened, .events = &feed_stream_events},
};

mr_status mr_feed_create(mr_loop *loop, const mr_feed_events *events, mr_feed **out_feed) {
    mr_feed *feed = mr_alloc(sizeof(*feed));
    if (feed == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a feed");
    feed->loop = loop;
    feed->events = *events;
    *out_feed = feed;
    return MR_OK;
}

void mr_feed_destroy(mr_feed *feed) {
    if (feed == NULL)
        return;
    MR_ASSERT(feed->session == NULL);
    mr_feed_window_unref(feed->window);
    mr_free(feed);
}

mr_rpc_service mr_feed_service(mr_feed *feed) {
    return (mr_rpc_service){
        .descriptor = &millrace__v1__feed__descriptor,
        .methods = feed_methods,
        .method_count = sizeof(feed_methods) / sizeof(feed_methods[0]),
        .context = feed,
        .receive_bytes_max = MR_RPC_MESSAGE_BYTES_MAX,
    };
}

mr_status mr_feed_start(mr_feed *feed, const mr_assignment *assignment, uint64_t next_step) {
    MR_ASSERT(feed->window == NULL);
    return mr_feed_window_create(assignment, next_step, &feed->window);
}

void mr_feed_stop(mr_feed *feed, mr_status status) {
    if (feed->session != NULL) {
        if (mr_status_is_ok(status)) {
            Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
            response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_END;
            response.step = mr_feed_window_next(feed->window);
            feed_send_or_drop(feed, &response);
        }
        if (feed->session != NULL) {
            mr_rpc_stream_finish(feed->session->stream, status);
            feed_unbind(feed, feed->session);
        }
    }
    mr_feed_window_unref(feed->window);
    feed->window = NULL;
}

void mr_feed_take(mr_feed *feed, uint64_t step, uint32_t micro_batch, mr_message *out_message) {
    mr_feed_window_take(feed->window, step, micro_batch, out_message);
}

bool mr_feed_ready(mr_feed *feed, uint64_t step) {
    return mr_feed_window_ready(feed->window, step);
}

uint32_t mr_feed_micro_batches(mr_feed *feed, uint64_t step) {
    return mr_feed_window_micro_batches(feed->window, step);
}

bool mr_feed_wants_logits(mr_feed *feed, uint64_t step) {
    return mr_feed_window_wants_logits(feed->window, step);
}

void mr_feed_done(mr_feed *feed, uint64_t step) {
    mr_feed_window_done(feed->window, step);
}

void mr_feed_send_applied(mr_feed *feed, uint64_t step, double loss) {
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_APPLIED;
    response.step = step;
    response.loss = loss;
    feed_send_or_drop(feed, &response);
}

void mr_feed_send_committed(mr_feed *feed, uint64_t step, const char *tag) {
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_COMMITTED;
    response.step = step;
    response.checkpoint_tag = (char *)(uintptr_t)tag; /* packed before the call returns */
    feed_send_or_drop(feed, &response);
}

static void feed_result_sent(void *context) {
    mr_free(context);
}

void mr_feed_send_result(mr_feed *feed, uint64_t step, double loss, float *owned_logits,
                         const mr_shape *shape) {
    if (feed->session == NULL) {
        mr_free(owned_logits);
        return;
    }
    uint64_t dims[MR_TENSOR_DIMS_MAX];
    size_t bytes = 0;
    Millrace__V1__Tensor tensor = MILLRACE__V1__TENSOR__INIT;
    Millrace__V1__Tensor *tensors[1] = {&tensor};
    Millrace__V1__FeedResponse response = MILLRACE__V1__FEED_RESPONSE__INIT;
    char name[] = "logits";
    for (size_t i = 0; i < shape->dim_count; i++)
        dims[i] = shape->dims[i];
    tensor.name = name;
    tensor.data_type = MILLRACE__V1__DATA_TYPE__DATA_TYPE_F32;
    tensor.n_dims = shape->dim_count;
    tensor.dims = dims;
    response.event = MILLRACE__V1__FEED_EVENT__FEED_EVENT_RESULT;
    response.step = step;
    response.loss = loss;
    response.n_tensors = owned_logits != NULL ? 1 : 0;
    response.tensors = tensors;
    MR_ASSERT(mr_shape_bytes(shape, &bytes)); /* they lie in memory */
    mr_rpc_raw raw = {
        .data = owned_logits,
        .bytes = bytes,
        .sent = feed_result_sent,
        .context = owned_logits,
    };
    /* sent runs in every outcome */
    mr_status status = feed_send(feed, &response, owned_logits != NULL ? &raw : NULL);
    if (!mr_status_is_ok(status)) {
        mr_rpc_stream_finish(feed->session->stream, status);
        feed_unbind(feed, feed->session);
    }
}
