/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving end over gRPC, and the hub where it waits for its peer's stream. The stream's RPC
 * thread copies each payload from gRPC's memory into the slot: the one copy of a receive. EXEC
 * takes whole messages only.
 *
 * The sender keeps to the credit it has, so the next frame always has a slot and is always asked
 * for; that also tells of the peer's end at once. A sender beyond its credit is cut off.
 *
 * Lifetime: the user holds one reference to a receiver and its stream another, so that a frame
 * being copied when EXEC closes the link has where to go. */
#include "daemon/link/grpc.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/link/frame.h"
#include "daemon/link/inbox.h"

typedef struct link_receiver link_receiver;

struct mr_link_hub {
    mr_monitor monitor;
    link_receiver *first; /* registered, not closed */
};

struct link_receiver {
    mr_link link; /* first: what users hold */
    atomic_size_t references;
    mr_link_options options; /* job_id: own copy */
    char *job_id;
    mr_link_hub *hub;    /* while registered */
    link_receiver *next; /* of hub.monitor */
    mr_link_inbox inbox;
    mr_rpc_stream *stream; /* NULL: the peer has not come; of inbox.monitor, then constant */
    /* The stream's RPC thread's. */
    mr_link_slot *filling;
    uint64_t sequence; /* of the last message begun */
};

/* A stream's context: one peer that calls. */
typedef struct link_caller {
    mr_link_hub *hub;
    link_receiver *receiver; /* NULL: has not greeted yet */
} link_caller;

static const char *kind_name(int kind) {
    if (kind == MR_LINK_ACTIVATION)
        return "activations";
    return kind == MR_LINK_GRADIENT ? "gradients" : "?";
}

static void receiver_unref(link_receiver *receiver) {
    if (atomic_fetch_sub(&receiver->references, 1) > 1)
        return;
    mr_rpc_stream_unref(receiver->stream);
    mr_link_inbox_deinit(&receiver->inbox);
    mr_free(receiver->job_id);
    mr_free(receiver);
}

/* ---- the hub ---- */

mr_status mr_link_hub_create(mr_link_hub **out_hub) {
    mr_link_hub *hub = mr_alloc(sizeof(*hub));
    if (hub == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the links' hub");
    mr_monitor_init(&hub->monitor);
    *out_hub = hub;
    return MR_OK;
}

void mr_link_hub_destroy(mr_link_hub *hub) {
    if (hub == NULL)
        return;
    MR_ASSERT(hub->first == NULL); /* every link is closed before */
    mr_monitor_deinit(&hub->monitor);
    mr_free(hub);
}

/* Inside the hub's monitor. Every field but the epoch, which the caller compares. */
static link_receiver *hub_find(const mr_link_hub *hub, const mr_link_options *options) {
    for (link_receiver *receiver = hub->first; receiver != NULL; receiver = receiver->next)
        if (receiver->options.from_rank == options->from_rank &&
            receiver->options.to_rank == options->to_rank &&
            receiver->options.kind == options->kind &&
            strcmp(receiver->options.job_id, options->job_id) == 0)
            return receiver;
    return NULL;
}

static mr_status hub_add(mr_link_hub *hub, link_receiver *receiver) {
    const mr_link_options *options = &receiver->options;
    mr_monitor_lock(&hub->monitor);
    const link_receiver *other = hub_find(hub, options);
    if (other == NULL) {
        receiver->hub = hub;
        receiver->next = hub->first;
        hub->first = receiver;
    }
    mr_monitor_unlock(&hub->monitor);
    if (other == NULL)
        return MR_OK;
    return MR_ERROR(ALREADY_EXISTS, "job %.64s already has a link for %s from rank %u to %u",
                    options->job_id, kind_name((int)options->kind), options->from_rank,
                    options->to_rank);
}

static void hub_remove(link_receiver *receiver) {
    mr_link_hub *hub = receiver->hub;
    if (hub == NULL)
        return;
    mr_monitor_lock(&hub->monitor);
    link_receiver **place = &hub->first;
    while (*place != receiver)
        place = &(*place)->next;
    *place = receiver->next;
    mr_monitor_unlock(&hub->monitor);
    receiver->hub = NULL;
}

/* ---- a peer's stream, on its RPC thread ---- */

static mr_status receiver_credit(link_receiver *receiver, uint64_t taken) {
    Millrace__V1__LinkCredit credit = MILLRACE__V1__LINK_CREDIT__INIT;
    credit.taken = taken;
    if (taken == 0) {
        credit.offer.data = (uint8_t *)(uintptr_t)receiver->options.offer; /* only read */
        credit.offer.len = receiver->options.offer_bytes;
    }
    return mr_rpc_stream_send(receiver->stream, &credit.base, NULL);
}

/* Finds the end that the greeting asks for and gives it the stream. */
static mr_status caller_bind(link_caller *caller, mr_rpc_stream *stream,
                             const Millrace__V1__LinkFrame *greeting) {
    const mr_link_options wanted = {
        .job_id = greeting->job_id,
        .from_rank = greeting->from_rank,
        .to_rank = greeting->to_rank,
        .kind = (mr_link_kind)greeting->kind,
    };
    mr_status status = MR_OK;
    mr_monitor_lock(&caller->hub->monitor);
    link_receiver *receiver = hub_find(caller->hub, &wanted);
    if (receiver == NULL) {
        status = MR_ERROR(FAILED_PRECONDITION,
                          "no link is open for %s from rank %u to %u of job %.64s in epoch "
                          "%" PRIu64,
                          kind_name((int)wanted.kind), wanted.from_rank, wanted.to_rank,
                          wanted.job_id, greeting->epoch);
    } else if (receiver->options.epoch != greeting->epoch) {
        status = MR_ERROR(FAILED_PRECONDITION,
                          "the link for %s from rank %u to %u of job %.64s is of epoch %" PRIu64
                          ", not %" PRIu64,
                          kind_name((int)wanted.kind), wanted.from_rank, wanted.to_rank,
                          wanted.job_id, receiver->options.epoch, greeting->epoch);
    } else {
        mr_monitor_lock(&receiver->inbox.monitor);
        bool bound = receiver->stream != NULL;
        if (!bound) {
            receiver->stream = mr_rpc_stream_ref(stream);
            atomic_fetch_add(&receiver->references, 1);
            caller->receiver = receiver;
        }
        mr_monitor_unlock(&receiver->inbox.monitor);
        if (bound)
            status = MR_ERROR(FAILED_PRECONDITION,
                              "the link for %s from rank %u to %u of job %.64s already has its "
                              "peer",
                              kind_name((int)wanted.kind), wanted.from_rank, wanted.to_rank,
                              wanted.job_id);
    }
    mr_monitor_unlock(&caller->hub->monitor);
    return status;
}

static mr_status caller_greet(link_caller *caller, mr_rpc_stream *stream,
                              const Millrace__V1__LinkFrame *frame) {
    if (frame->sequence != 0 || frame->n_tensors > 0)
        return MR_ERROR(FAILED_PRECONDITION,
                        "a link begins with message %" PRIu64 " instead of a greeting",
                        frame->sequence);
    MR_TRY(caller_bind(caller, stream, frame));
    return receiver_credit(caller->receiver, 0);
}

/* The first frame of the next message finds itself a slot. */
static mr_status receiver_begin(link_receiver *receiver, const Millrace__V1__LinkFrame *frame) {
    if (frame->sequence != receiver->sequence + 1)
        return MR_ERROR(ABORTED, "message %" PRIu64 " came; %" PRIu64 " is next", frame->sequence,
                        receiver->sequence + 1);
    receiver->filling = mr_link_inbox_take(&receiver->inbox);
    if (receiver->filling == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "message %" PRIu64 " came while all %zu slots of the link are in use",
                        frame->sequence, receiver->options.slots);
    receiver->sequence++;
    return mr_link_frame_open(frame, &receiver->inbox, receiver->filling);
}

/* A later one must belong to the message that is being filled. */
static mr_status receiver_continue(const link_receiver *receiver,
                                   const Millrace__V1__LinkFrame *frame) {
    const mr_message *message = &receiver->filling->message;
    if (frame->sequence != receiver->sequence || frame->step != message->step ||
        frame->micro_batch != message->micro_batch || frame->chunk != message->chunk)
        return MR_ERROR(ABORTED,
                        "a frame of message %" PRIu64 " (step %" PRIu64
                        " microbatch %u) came before the end of message %" PRIu64
                        " (step %" PRIu64 " microbatch %u)",
                        frame->sequence, frame->step, frame->micro_batch, receiver->sequence,
                        message->step, message->micro_batch);
    if (frame->n_tensors > 0)
        return MR_ERROR(INVALID_ARGUMENT, "message %" PRIu64 " lists its tensors twice",
                        frame->sequence);
    return MR_OK;
}

static mr_status receiver_frame(link_receiver *receiver, const Millrace__V1__LinkFrame *frame,
                                const mr_rpc_tail *tail) {
    MR_TRY(mr_link_frame_check(&receiver->options, frame));
    if (receiver->filling == NULL)
        MR_TRY(receiver_begin(receiver, frame));
    else
        MR_TRY(receiver_continue(receiver, frame));
    mr_link_slot *slot = receiver->filling;
    MR_TRY(mr_link_frame_copy(frame, tail, slot));
    if (slot->filled < slot->bytes)
        return MR_OK;
    receiver->filling = NULL;
    mr_link_inbox_put(&receiver->inbox, slot);
    return MR_OK;
}

/* The peer is lost to EXEC; a message half here is given up. */
static void receiver_lose(link_receiver *receiver, const char *why) {
    if (receiver->filling != NULL)
        mr_link_inbox_drop(&receiver->inbox, receiver->filling);
    receiver->filling = NULL;
    mr_link_inbox_lose(&receiver->inbox, MR_ERROR(UNAVAILABLE, "rank %u is lost: %.180s",
                                                  receiver->options.from_rank, why));
}

static void *link_opened(mr_rpc_stream *stream, void *service_context) {
    link_caller *caller = mr_alloc(sizeof(*caller));
    if (caller != NULL) {
        caller->hub = service_context;
        mr_rpc_stream_receive(stream);
    } else {
        mr_rpc_stream_finish(stream, MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link"));
    }
    return caller;
}

static void link_received(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                          mr_rpc_tail *owned_tail, void *context) {
    link_caller *caller = context;
    const Millrace__V1__LinkFrame *frame = (const Millrace__V1__LinkFrame *)owned_message;
    mr_status status = caller->receiver == NULL
                           ? caller_greet(caller, stream, frame)
                           : receiver_frame(caller->receiver, frame, owned_tail);
    mr_rpc_tail_destroy(owned_tail);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    if (mr_status_is_ok(status)) {
        mr_rpc_stream_receive(stream);
        return;
    }
    if (caller->receiver != NULL)
        receiver_lose(caller->receiver, status.text);
    mr_rpc_stream_finish(stream, status);
}

static void link_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    link_caller *caller = context;
    mr_rpc_stream_finish(stream, MR_OK); /* a half-close is answered; else nothing */
    if (caller != NULL && caller->receiver != NULL) {
        receiver_lose(caller->receiver,
                      mr_status_is_ok(status) ? "it has closed its end" : status.text);
        receiver_unref(caller->receiver);
    }
    mr_free(caller);
    mr_rpc_stream_unref(stream);
}

mr_rpc_service mr_link_hub_service(mr_link_hub *hub) {
    static const mr_rpc_stream_events events = {.on_message = link_received,
                                                .on_end = link_ended};
    static const mr_rpc_method methods[] = {
        {.name = "Link", .on_open = link_opened, .events = &events},
    };
    return (mr_rpc_service){
        .descriptor = &millrace__v1__link__descriptor,
        .methods = methods,
        .method_count = sizeof(methods) / sizeof(methods[0]),
        .context = hub,
        .receive_bytes_max = MR_RPC_MESSAGE_BYTES_MAX,
    };
}

/* ---- what link.h promises ---- */

static mr_status receiver_receive(mr_link *link, uint64_t step, uint32_t micro_batch,
                                  uint32_t chunk, int64_t timeout_ms, mr_message *out_message) {
    return mr_link_inbox_receive(&((link_receiver *)link)->inbox, step, micro_batch, chunk,
                                 timeout_ms, out_message);
}

static void receiver_release(mr_link *link, mr_message *message) {
    link_receiver *receiver = (link_receiver *)link;
    uint64_t released = mr_link_inbox_release(&receiver->inbox, message);
    mr_status status = receiver_credit(receiver, released);
    /* CANCELLED: the peer has gone, and receive will say so when the queue is empty. */
    if (!mr_status_is_ok(status) && status.code != MR_CODE_CANCELLED) {
        mr_link_inbox_lose(&receiver->inbox, MR_ERROR(UNAVAILABLE, "rank %u is lost: %.180s",
                                                      receiver->options.from_rank, status.text));
        mr_rpc_stream_finish(receiver->stream, status);
    }
}

static void receiver_interrupt(mr_link *link, const char *reason) {
    mr_link_inbox_interrupt(&((link_receiver *)link)->inbox, reason);
}

static uint64_t receiver_bytes(const mr_link *link) {
    return atomic_load(&((const link_receiver *)link)->inbox.bytes);
}

static void receiver_close(mr_link *link) {
    link_receiver *receiver = (link_receiver *)link;
    hub_remove(receiver); /* no stream finds it from here on */
    mr_monitor_lock(&receiver->inbox.monitor);
    mr_rpc_stream *stream = receiver->stream;
    mr_monitor_unlock(&receiver->inbox.monitor);
    if (stream != NULL)
        mr_rpc_stream_finish(stream, MR_ERROR(UNAVAILABLE, "it has closed its end"));
    receiver_unref(receiver);
}

static const mr_link_ops receiver_ops = {
    .name = "grpc receiver",
    .receive = receiver_receive,
    .release = receiver_release,
    .interrupt = receiver_interrupt,
    .bytes = receiver_bytes,
    .close = receiver_close,
};

bool mr_link_grpc_wait_peer_end(mr_link *link, int64_t timeout_ms) {
    link_receiver *receiver = (link_receiver *)link;
    int64_t deadline = mr_monitor_deadline(timeout_ms);
    mr_monitor_lock(&receiver->inbox.monitor);
    bool in_time = true;
    while (receiver->stream != NULL && mr_status_is_ok(receiver->inbox.lost) && in_time)
        in_time = mr_monitor_wait(&receiver->inbox.monitor, deadline);
    mr_monitor_unlock(&receiver->inbox.monitor);
    return in_time;
}

mr_status mr_link_grpc_receiver(mr_link_hub *hub, const mr_link_options *options,
                                mr_link **out_link) {
    link_receiver *receiver = mr_alloc(sizeof(*receiver));
    if (receiver == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    receiver->link.ops = &receiver_ops;
    atomic_init(&receiver->references, 1);
    receiver->options = *options;
    receiver->job_id = mr_strdup(options->job_id);
    receiver->options.job_id = receiver->job_id;
    mr_status status = mr_link_inbox_init(&receiver->inbox, options);
    if (mr_status_is_ok(status) && receiver->job_id == NULL)
        status = MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    if (mr_status_is_ok(status))
        status = hub_add(hub, receiver);
    if (!mr_status_is_ok(status)) {
        receiver_unref(receiver);
        return status;
    }
    *out_link = &receiver->link;
    return MR_OK;
}
