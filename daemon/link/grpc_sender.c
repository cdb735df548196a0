/* SPDX-License-Identifier: Apache-2.0 */
/* The sending end over gRPC. Frames are cut and queued on the stream by whichever thread makes it
 * possible: EXEC in send, an RPC thread when credit comes or when bytes have gone. One of them at a
 * time does it (pumping), without the monitor, so nobody waits for a checksum or a packed header.
 *
 * What bounds memory: the receiver has a slot for every message handed over (credit), and at most
 * SENDER_FRAMES_MAX frames are in gRPC's hands. */
#include "daemon/link/grpc.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/link/frame.h"
#include "daemon/link/outbox.h"

enum {
    SENDER_FRAMES_MAX = MR_RPC_SEND_QUEUE_MAX / 2,
    /* What close gives the last messages to go; a caller for whom they matter has waited before. */
    SENDER_CLOSE_GRACE_MS = 1000,
    /* A broken-off stream ends at once; longer is our bug. */
    SENDER_CANCEL_MS = 20000,
};

typedef struct link_sender {
    mr_link link; /* first: what users hold */
    mr_link_options options; /* job_id: own copy */
    char *job_id;
    mr_rpc_channel *channel;
    mr_rpc_stream *stream; /* NULL: not opened */
    mr_link_outbox outbox;
    /* Below: of outbox.monitor. */
    bool greeted;
    bool ended;   /* no event of the stream will follow */
    bool pumping; /* a thread cuts and queues frames */
    mr_link_cut cut; /* of the parcel that is due; the pumping thread's */
    unsigned char *offer; /* of the receiver; NULL: none */
    size_t offer_bytes;
    void (*taken)(void *context, uint64_t count); /* NULL: nobody asks */
    void *taken_context;
} link_sender;

/* ---- pumping ---- */

static void sender_pump(link_sender *sender);

/* RPC thread: the bytes of one frame are the caller's again. */
static void sender_frame_sent(void *context) {
    mr_link_parcel *parcel = context;
    link_sender *sender =
        (link_sender *)(void *)((char *)parcel->outbox - offsetof(link_sender, outbox));
    mr_monitor_lock(&sender->outbox.monitor);
    mr_link_outbox_frame_end(parcel);
    sender_pump(sender);
    mr_monitor_notify(&sender->outbox.monitor); /* close waits for the last one */
    mr_monitor_unlock(&sender->outbox.monitor);
}

/* Queues the next frame of the parcel; *out_last: it has no more. */
static mr_status sender_frame(link_sender *sender, mr_link_parcel *parcel, bool *out_last) {
    mr_link_frame frame;
    *out_last = mr_link_frame_cut(&sender->options, parcel, &sender->cut, &frame);
    const mr_rpc_raw raw = {
        .data = frame.data,
        .bytes = frame.bytes,
        .sent = sender_frame_sent,
        .context = parcel,
    };
    return mr_rpc_stream_send(sender->stream, &frame.proto.base, &raw);
}

static mr_link_parcel *sender_due(link_sender *sender) {
    return sender->outbox.frames < SENDER_FRAMES_MAX ? mr_link_outbox_due(&sender->outbox) : NULL;
}

/* Inside the monitor, which is left while a frame is made. */
static void sender_pump(link_sender *sender) {
    mr_link_outbox *outbox = &sender->outbox;
    if (sender->pumping)
        return; /* that thread looks again after each frame */
    sender->pumping = true;
    for (mr_link_parcel *parcel; (parcel = sender_due(sender)) != NULL;) {
        bool last = false;
        mr_link_outbox_frame_begin(parcel);
        mr_monitor_unlock(&outbox->monitor);
        mr_status status = sender_frame(sender, parcel, &last);
        mr_monitor_lock(&outbox->monitor);
        if (!mr_status_is_ok(status))
            mr_link_outbox_lose(outbox, MR_ERROR(UNAVAILABLE, "rank %u is lost: %.160s",
                                                 outbox->peer_rank, status.text));
        if (!last)
            continue;
        sender->cut = (mr_link_cut){0};
        mr_link_outbox_handed(parcel);
    }
    sender->pumping = false;
    if (!mr_status_is_ok(outbox->lost))
        mr_link_outbox_drop(outbox);
    mr_monitor_notify(&outbox->monitor);
}

/* Inside the monitor. */
static void sender_lose(link_sender *sender, mr_status why) {
    mr_link_outbox_lose(&sender->outbox, why);
    if (!sender->pumping) /* or the pumping thread does it */
        mr_link_outbox_drop(&sender->outbox);
}

/* ---- events, on RPC threads ---- */

/* The first credit's; without memory for it there is none, and who needs it says so. */
static void sender_keep_offer(link_sender *sender, const Millrace__V1__LinkCredit *credit) {
    if (sender->greeted || credit->offer.len == 0)
        return;
    sender->offer = mr_alloc(credit->offer.len);
    if (sender->offer == NULL)
        return;
    memcpy(sender->offer, credit->offer.data, credit->offer.len);
    sender->offer_bytes = credit->offer.len;
}

static void sender_credited(mr_rpc_stream *stream, ProtobufCMessage *owned_message,
                            mr_rpc_tail *owned_tail, void *context) {
    link_sender *sender = context;
    const Millrace__V1__LinkCredit *credit = (const Millrace__V1__LinkCredit *)owned_message;
    uint64_t taken = credit->taken;
    mr_monitor_lock(&sender->outbox.monitor);
    sender_keep_offer(sender, credit);
    protobuf_c_message_free_unpacked(owned_message, NULL);
    mr_rpc_tail_destroy(owned_tail);
    bool known = mr_link_outbox_taken(&sender->outbox, taken);
    sender->greeted = true;
    if (known)
        sender_pump(sender);
    else
        sender_lose(sender,
                    MR_ERROR(UNAVAILABLE,
                             "rank %u is lost: it says it took %" PRIu64 " messages of %" PRIu64,
                             sender->outbox.peer_rank, taken, sender->outbox.queued));
    void (*tell)(void *context, uint64_t count) = known ? sender->taken : NULL;
    mr_monitor_notify(&sender->outbox.monitor);
    mr_monitor_unlock(&sender->outbox.monitor);
    if (tell != NULL)
        tell(sender->taken_context, taken);
    if (known)
        mr_rpc_stream_receive(stream);
    else
        mr_rpc_stream_cancel(stream);
}

static void sender_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    link_sender *sender = context;
    (void)stream;
    mr_monitor_lock(&sender->outbox.monitor);
    /* Before the greeting the caller of open gets the RPC's own status; later, who is lost. */
    if (!sender->greeted && !mr_status_is_ok(status))
        sender_lose(sender, status);
    else
        sender_lose(sender,
                    MR_ERROR(UNAVAILABLE, "rank %u is lost: %.180s", sender->outbox.peer_rank,
                             mr_status_is_ok(status) ? "it has closed its end" : status.text));
    sender->ended = true;
    mr_monitor_notify(&sender->outbox.monitor);
    mr_monitor_unlock(&sender->outbox.monitor);
}

static const mr_rpc_stream_events sender_events = {
    .on_message = sender_credited,
    .on_end = sender_ended,
};

/* ---- what link.h promises ---- */

static mr_status sender_send(mr_link *link, const mr_message *message) {
    link_sender *sender = (link_sender *)link;
    mr_monitor_lock(&sender->outbox.monitor);
    mr_status status = mr_link_outbox_send(&sender->outbox, message);
    if (mr_status_is_ok(status))
        sender_pump(sender);
    mr_monitor_unlock(&sender->outbox.monitor);
    return status;
}

static mr_status sender_wait_sent(mr_link *link, size_t outstanding_max, int64_t timeout_ms) {
    return mr_link_outbox_wait_sent(&((link_sender *)link)->outbox, outstanding_max, timeout_ms);
}

static void sender_interrupt(mr_link *link, const char *reason) {
    mr_link_outbox_interrupt(&((link_sender *)link)->outbox, reason);
}

static uint64_t sender_bytes(const mr_link *link) {
    return atomic_load(&((const link_sender *)link)->outbox.bytes);
}

/* ---- open and close ---- */

/* Inside the monitor: is everything with the receiver, or never will be? */
static bool sender_flushed(const link_sender *sender) {
    const mr_link_outbox *outbox = &sender->outbox;
    return !mr_status_is_ok(outbox->lost) || !mr_status_is_ok(outbox->interrupted) ||
           outbox->borrowing == 0;
}

/* Inside the monitor: does nothing happen any more? */
static bool sender_idle(const link_sender *sender) {
    return sender->ended && !sender->pumping && sender->outbox.frames == 0 &&
           sender->outbox.borrowing == 0;
}

/* Half-closes when the last message has gone and waits for the receiver's word, or breaks off. */
static void sender_stop(link_sender *sender) {
    mr_monitor *monitor = &sender->outbox.monitor;
    mr_monitor_lock(monitor);
    int64_t deadline = mr_monitor_deadline(SENDER_CLOSE_GRACE_MS);
    while (!sender_flushed(sender) && mr_monitor_wait(monitor, deadline))
        continue;
    bool graceful = sender->greeted && sender->outbox.borrowing == 0 &&
                    mr_status_is_ok(sender->outbox.interrupted) &&
                    mr_status_is_ok(sender->outbox.lost);
    if (graceful) {
        mr_monitor_unlock(monitor);
        mr_rpc_stream_finish(sender->stream, MR_OK);
        mr_monitor_lock(monitor);
        while (!sender->ended && mr_monitor_wait(monitor, deadline))
            continue;
    }
    sender_lose(sender, MR_ERROR(CANCELLED, "the link is closed"));
    mr_monitor_unlock(monitor);
    mr_rpc_stream_cancel(sender->stream); /* nothing, where it has ended */
    mr_monitor_lock(monitor);
    deadline = mr_monitor_deadline(SENDER_CANCEL_MS);
    while (!sender_idle(sender))
        MR_ASSERT(mr_monitor_wait(monitor, deadline));
    mr_monitor_unlock(monitor);
}

static void sender_close(mr_link *link) {
    link_sender *sender = (link_sender *)link;
    if (sender->stream != NULL) {
        sender_stop(sender);
        mr_rpc_stream_unref(sender->stream);
    }
    mr_rpc_channel_destroy(sender->channel);
    mr_link_outbox_deinit(&sender->outbox);
    mr_free(sender->offer);
    mr_free(sender->job_id);
    mr_free(sender);
}

static const mr_link_ops sender_ops = {
    .name = "grpc sender",
    .send = sender_send,
    .wait_sent = sender_wait_sent,
    .interrupt = sender_interrupt,
    .bytes = sender_bytes,
    .close = sender_close,
};

const void *mr_link_grpc_offer(const mr_link *link, size_t *out_bytes) {
    const link_sender *sender = (const link_sender *)link; /* constant since the greeting */
    *out_bytes = sender->offer_bytes;
    return sender->offer;
}

void mr_link_grpc_on_taken(mr_link *link, void (*taken)(void *context, uint64_t count),
                           void *context) {
    link_sender *sender = (link_sender *)link;
    mr_monitor_lock(&sender->outbox.monitor);
    sender->taken_context = context;
    sender->taken = taken;
    mr_monitor_unlock(&sender->outbox.monitor);
}

/* Opens the stream and waits for the receiver's first credit. */
static mr_status sender_greet(link_sender *sender, const char *address, int64_t timeout_ms) {
    MR_TRY(mr_rpc_channel_open(sender->channel, &millrace__v1__link__descriptor, "Link", NULL,
                               &sender_events, sender, 0, &sender->stream));
    mr_link_frame greeting;
    mr_link_frame_greet(&sender->options, &greeting);
    mr_status status = mr_rpc_stream_send(sender->stream, &greeting.proto.base, NULL);
    if (!mr_status_is_ok(status) && status.code != MR_CODE_CANCELLED)
        return status; /* CANCELLED: the stream has ended already, and the end says why */
    mr_rpc_stream_receive(sender->stream);
    status = MR_OK;
    int64_t deadline = mr_monitor_deadline(timeout_ms);
    mr_monitor_lock(&sender->outbox.monitor);
    bool in_time = true;
    while (!sender->greeted && !sender->ended && in_time)
        in_time = mr_monitor_wait(&sender->outbox.monitor, deadline);
    if (!sender->greeted)
        status = sender->ended
                     ? sender->outbox.lost
                     : MR_ERROR(DEADLINE_EXCEEDED,
                                "rank %u at %.100s has not answered the link from rank %u within "
                                "%" PRId64 " ms",
                                sender->options.to_rank, address, sender->options.from_rank,
                                timeout_ms);
    mr_monitor_unlock(&sender->outbox.monitor);
    return status;
}

static mr_status sender_open(link_sender *sender, const char *address,
                             const mr_rpc_credentials *credentials, int64_t timeout_ms) {
    if (sender->job_id == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    MR_TRY(mr_rpc_channel_create(address, credentials, &sender->channel));
    return sender_greet(sender, address, timeout_ms);
}

mr_status mr_link_grpc_sender(const char *address, const mr_rpc_credentials *credentials,
                              const mr_link_options *options, int64_t timeout_ms,
                              mr_link **out_link) {
    MR_ASSERT(timeout_ms >= 0);
    link_sender *sender = mr_alloc(sizeof(*sender));
    if (sender == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    sender->link.ops = &sender_ops;
    sender->options = *options;
    sender->job_id = mr_strdup(options->job_id);
    sender->options.job_id = sender->job_id;
    mr_status status = mr_link_outbox_init(&sender->outbox, options);
    if (mr_status_is_ok(status))
        status = sender_open(sender, address, credentials, timeout_ms);
    if (!mr_status_is_ok(status)) {
        sender_close(&sender->link);
        return status;
    }
    *out_link = &sender->link;
    return MR_OK;
}
