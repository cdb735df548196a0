/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/control.h"

#include <stdatomic.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum { CONTROL_BACKOFF_FIRST_MS = 100, CONTROL_BACKOFF_LAST_MS = 5000 };

/* One attempt's stream. The stream's events hold a reference until on_end; the control one while it
 * is the present stream. control is read on LOOP only and NULL once the control has let go. */
typedef struct control_stream {
    atomic_uint references;
    mr_loop *loop;
    mr_control *control;
    mr_rpc_stream *rpc;
    mr_status end; /* written before the post that reads it */
} control_stream;

/* An order on its way to LOOP. */
typedef struct control_order {
    control_stream *stream;
    ProtobufCMessage *message;
} control_order;

struct mr_control {
    mr_control_options options;
    mr_rpc_channel *channel;
    control_stream *stream;
    mr_loop_timer *timer;
    uint64_t backoff_ms;
    bool attached;
};

static void stream_unref(control_stream *stream) {
    if (atomic_fetch_sub(&stream->references, 1) != 1)
        return;
    mr_rpc_stream_unref(stream->rpc);
    mr_free(stream);
}

/* LOOP. Lets go of the present stream; its later events find no control. */
static void control_release_stream(mr_control *control) {
    control_stream *stream = control->stream;
    control->stream = NULL;
    control->attached = false;
    if (stream == NULL)
        return;
    stream->control = NULL;
    mr_rpc_stream_cancel(stream->rpc);
    stream_unref(stream);
}

static void control_lost(mr_control *control, mr_status why) {
    control_release_stream(control);
    uint64_t doubled = control->backoff_ms * 2;
    control->backoff_ms = doubled < CONTROL_BACKOFF_LAST_MS ? doubled : CONTROL_BACKOFF_LAST_MS;
    control->options.events.detached(control->options.events.context, why);
}

/* LOOP. */
static void control_order_arrived(void *context) {
    control_order *arrived = context;
    control_stream *stream = arrived->stream;
    mr_control *control = stream->control;
    if (control != NULL) {
        const Millrace__V1__StageOrder *order = (const Millrace__V1__StageOrder *)arrived->message;
        if (order->order_case == MILLRACE__V1__STAGE_ORDER__ORDER_REGISTERED) {
            control->attached = true;
            control->backoff_ms = CONTROL_BACKOFF_FIRST_MS;
        }
        mr_rpc_stream_receive(stream->rpc);
        control->options.events.order(control->options.events.context, order);
    }
    protobuf_c_message_free_unpacked(arrived->message, NULL);
    mr_free(arrived);
    stream_unref(stream);
}

/* LOOP. */
static void control_stream_ended(void *context) {
    control_stream *stream = context;
    if (stream->control != NULL)
        control_lost(stream->control, stream->end);
    stream_unref(stream);
}

/* RPC thread. An order that finds no memory ends the stream: the coordinator then knows. */
static void control_on_message(mr_rpc_stream *rpc, ProtobufCMessage *owned_message,
                               mr_rpc_tail *owned_tail, void *context) {
    control_stream *stream = context;
    control_order *arrived = mr_alloc(sizeof(*arrived));
    mr_rpc_tail_destroy(owned_tail);
    if (arrived != NULL) {
        arrived->stream = stream;
        arrived->message = owned_message;
        atomic_fetch_add(&stream->references, 1);
        if (mr_status_is_ok(mr_loop_post(stream->loop, control_order_arrived, arrived)))
            return;
        stream_unref(stream);
        mr_free(arrived);
    }
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_stream_cancel(rpc);
}

/* RPC thread. */
static void control_on_end(mr_rpc_stream *rpc, mr_status status, void *context) {
    (void)rpc;
    control_stream *stream = context;
    stream->end = mr_status_is_ok(status)
                      ? MR_ERROR(UNAVAILABLE, "the coordinator ended the stream")
                      : status;
    if (!mr_status_is_ok(mr_loop_post(stream->loop, control_stream_ended, stream)))
        stream_unref(stream);
}

static const mr_rpc_stream_events control_stream_events = {
    .on_message = control_on_message,
    .on_end = control_on_end,
};

static mr_status control_open(mr_control *control) {
    control_stream *stream = mr_alloc(sizeof(*stream));
    if (stream == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the control stream");
    stream->loop = control->options.loop;
    stream->references = 2; /* the stream's events, and the control */
    mr_status status =
        mr_rpc_channel_open(control->channel, &millrace__v1__control__descriptor, "Attach", NULL,
                            &control_stream_events, stream, 0, &stream->rpc);
    if (!mr_status_is_ok(status)) {
        mr_free(stream);
        return status;
    }
    stream->control = control;
    control->stream = stream;
    Millrace__V1__StageReport report = MILLRACE__V1__STAGE_REPORT__INIT;
    report.report_case = MILLRACE__V1__STAGE_REPORT__REPORT_REGISTER;
    report.register_ = (Millrace__V1__Register *)(uintptr_t)control->options.identity;
    mr_rpc_stream_receive(stream->rpc);
    return mr_rpc_stream_send(stream->rpc, &report.base, NULL);
}

static void control_try(void *context) {
    mr_control *control = context;
    mr_loop_timer_stop(control->timer);
    control->timer = NULL;
    mr_status status = control_open(control);
    if (!mr_status_is_ok(status))
        control_lost(control, status);
}

mr_status mr_control_create(const mr_control_options *options, mr_control **out_control) {
    mr_control *control = mr_alloc(sizeof(*control));
    if (control == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the control stream");
    control->options = *options;
    control->backoff_ms = CONTROL_BACKOFF_FIRST_MS / 2; /* the first attempt comes at once */
    mr_status status =
        mr_rpc_channel_create(options->coordinator, options->credentials, &control->channel);
    if (!mr_status_is_ok(status)) {
        mr_free(control);
        return status;
    }
    *out_control = control;
    return MR_OK;
}

void mr_control_attach(mr_control *control) {
    MR_ASSERT(control->stream == NULL);
    MR_ASSERT(control->timer == NULL);
    bool first = control->backoff_ms < CONTROL_BACKOFF_FIRST_MS;
    mr_status status = mr_loop_timer_start(control->options.loop, first ? 0 : control->backoff_ms,
                                           0, control_try, control, &control->timer);
    MR_ASSERT(mr_status_is_ok(status)); /* a stage that cannot set a timer can do nothing at all */
}

void mr_control_send(mr_control *control, const Millrace__V1__StageReport *report) {
    if (control->stream == NULL)
        return;
    mr_status status = mr_rpc_stream_send(control->stream->rpc, &report->base, NULL);
    if (!mr_status_is_ok(status) && status.code != MR_CODE_CANCELLED)
        mr_rpc_stream_cancel(control->stream->rpc); /* its end comes as an event */
}

bool mr_control_attached(const mr_control *control) {
    return control->attached;
}

void mr_control_destroy(mr_control *control) {
    if (control == NULL)
        return;
    mr_loop_timer_stop(control->timer);
    control_release_stream(control);
    mr_rpc_channel_destroy(control->channel);
    mr_free(control);
}
