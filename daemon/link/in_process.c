/* SPDX-License-Identifier: Apache-2.0 */
/* The transport is a memcpy from the sender's tensors into the receiver's slot, by whichever thread
 * makes it possible: the sender's when a slot is free, the receiver's when it frees one. One lock
 * serialises that, so messages stay in order. */
#include "daemon/link/in_process.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/link/inbox.h"
#include "daemon/link/outbox.h"

typedef struct link_pair link_pair;

/* One end as its user sees it. */
typedef struct pair_end {
    mr_link link; /* first: what users hold */
    link_pair *pair;
} pair_end;

struct link_pair {
    pair_end sender;
    pair_end receiver;
    mr_link_outbox outbox;
    mr_link_inbox inbox;
    pthread_mutex_t moving; /* order: moving, then a monitor */
    size_t open_ends;
};

static link_pair *pair_of(const mr_link *link) {
    return ((const pair_end *)link)->pair;
}

/* Copies a parcel's tensors into the slot. */
static void parcel_copy(const mr_link_parcel *parcel, const mr_link_inbox *inbox,
                        mr_link_slot *slot) {
    slot->message = parcel->message;
    mr_status status = mr_link_inbox_lay_out(inbox, slot);
    MR_ASSERT(mr_status_is_ok(status)); /* the outbox has the same limits */
    for (size_t i = 0; i < parcel->message.tensor_count; i++) {
        size_t bytes = 0;
        const mr_tensor *tensor = &parcel->message.tensors[i].tensor;
        MR_ASSERT(mr_shape_bytes(&tensor->shape, &bytes));
        if (bytes > 0)
            memcpy(slot->message.tensors[i].tensor.data, tensor->data, bytes);
    }
    slot->filled = slot->bytes;
}

static void pair_move(link_pair *pair) {
    (void)pthread_mutex_lock(&pair->moving);
    for (;;) {
        mr_monitor_lock(&pair->outbox.monitor);
        mr_link_parcel *parcel = mr_link_outbox_due(&pair->outbox);
        mr_monitor_unlock(&pair->outbox.monitor);
        if (parcel == NULL)
            break;
        mr_link_slot *slot = mr_link_inbox_take(&pair->inbox);
        MR_ASSERT(slot != NULL); /* or it would not be due */
        parcel_copy(parcel, &pair->inbox, slot);
        mr_link_inbox_put(&pair->inbox, slot);
        mr_monitor_lock(&pair->outbox.monitor);
        mr_link_outbox_handed(parcel);
        mr_monitor_unlock(&pair->outbox.monitor);
    }
    (void)pthread_mutex_unlock(&pair->moving);
}

/* ---- the sending end ---- */

static mr_status sender_send(mr_link *link, const mr_message *message) {
    link_pair *pair = pair_of(link);
    mr_monitor_lock(&pair->outbox.monitor);
    mr_status status = mr_link_outbox_send(&pair->outbox, message);
    mr_monitor_unlock(&pair->outbox.monitor);
    MR_TRY(status);
    pair_move(pair);
    return MR_OK;
}

static mr_status sender_wait_sent(mr_link *link, size_t outstanding_max, int64_t timeout_ms) {
    return mr_link_outbox_wait_sent(&pair_of(link)->outbox, outstanding_max, timeout_ms);
}

static void sender_interrupt(mr_link *link, const char *reason) {
    mr_link_outbox_interrupt(&pair_of(link)->outbox, reason);
}

static uint64_t sender_bytes(const mr_link *link) {
    return atomic_load(&pair_of(link)->outbox.bytes);
}

/* The second end to close frees both. */
static void pair_close_end(link_pair *pair) {
    (void)pthread_mutex_lock(&pair->moving);
    size_t left = --pair->open_ends;
    (void)pthread_mutex_unlock(&pair->moving);
    if (left > 0)
        return;
    mr_link_outbox_deinit(&pair->outbox);
    mr_link_inbox_deinit(&pair->inbox);
    (void)pthread_mutex_destroy(&pair->moving);
    mr_free(pair);
}

static void sender_close(mr_link *link) {
    link_pair *pair = pair_of(link);
    uint32_t rank = pair->inbox.peer_rank;
    (void)pthread_mutex_lock(&pair->moving);
    mr_monitor_lock(&pair->outbox.monitor);
    mr_link_outbox_lose(&pair->outbox, MR_ERROR(CANCELLED, "the link is closed"));
    mr_link_outbox_drop(&pair->outbox);
    mr_monitor_unlock(&pair->outbox.monitor);
    mr_link_inbox_lose(&pair->inbox,
                       MR_ERROR(UNAVAILABLE, "rank %u is lost: it has closed its end", rank));
    (void)pthread_mutex_unlock(&pair->moving);
    pair_close_end(pair);
}

static const mr_link_ops sender_ops = {
    .name = "in-process sender",
    .send = sender_send,
    .wait_sent = sender_wait_sent,
    .interrupt = sender_interrupt,
    .bytes = sender_bytes,
    .close = sender_close,
};

/* ---- the receiving end ---- */

static mr_status receiver_receive(mr_link *link, uint64_t step, uint32_t micro_batch,
                                  uint32_t chunk, int64_t timeout_ms, mr_message *out_message) {
    return mr_link_inbox_receive(&pair_of(link)->inbox, step, micro_batch, chunk, timeout_ms,
                                 out_message);
}

static void receiver_release(mr_link *link, mr_message *message) {
    link_pair *pair = pair_of(link);
    uint64_t released = mr_link_inbox_release(&pair->inbox, message);
    mr_monitor_lock(&pair->outbox.monitor);
    bool known = mr_link_outbox_taken(&pair->outbox, released);
    mr_monitor_unlock(&pair->outbox.monitor);
    MR_ASSERT(known);
    pair_move(pair);
}

static void receiver_interrupt(mr_link *link, const char *reason) {
    mr_link_inbox_interrupt(&pair_of(link)->inbox, reason);
}

static uint64_t receiver_bytes(const mr_link *link) {
    return atomic_load(&pair_of(link)->inbox.bytes);
}

static void receiver_close(mr_link *link) {
    link_pair *pair = pair_of(link);
    (void)pthread_mutex_lock(&pair->moving);
    mr_monitor_lock(&pair->outbox.monitor);
    mr_link_outbox_lose(&pair->outbox, MR_ERROR(UNAVAILABLE,
                                                "rank %u is lost: it has closed its end",
                                                pair->outbox.peer_rank));
    mr_link_outbox_drop(&pair->outbox);
    mr_monitor_unlock(&pair->outbox.monitor);
    (void)pthread_mutex_unlock(&pair->moving);
    pair_close_end(pair);
}

static const mr_link_ops receiver_ops = {
    .name = "in-process receiver",
    .receive = receiver_receive,
    .release = receiver_release,
    .interrupt = receiver_interrupt,
    .bytes = receiver_bytes,
    .close = receiver_close,
};

mr_status mr_link_in_process(const mr_link_options *options, mr_link **out_sender,
                             mr_link **out_receiver) {
    link_pair *made = mr_alloc(sizeof(*made));
    if (made == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    mr_status outbox = mr_link_outbox_init(&made->outbox, options);
    mr_status inbox = mr_link_inbox_init(&made->inbox, options);
    mr_status status = mr_status_is_ok(outbox) ? inbox : outbox;
    if (!mr_status_is_ok(status)) {
        mr_link_outbox_deinit(&made->outbox);
        mr_link_inbox_deinit(&made->inbox);
        mr_free(made);
        return status;
    }
    (void)pthread_mutex_init(&made->moving, NULL);
    made->open_ends = 2;
    made->sender = (pair_end){.link.ops = &sender_ops, .pair = made};
    made->receiver = (pair_end){.link.ops = &receiver_ops, .pair = made};
    *out_sender = &made->sender.link;
    *out_receiver = &made->receiver.link;
    return MR_OK;
}
