/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends wrap the end of a gRPC link. A sender keeps for each message that may be under way a
 * header, whose bytes the gRPC link borrows, and a mark behind its transfer. A receiver keeps for
 * each of the gRPC link's slots a piece of the device's memory; a slot is free again when its
 * message is released, and the next transfer into it is queued behind the compute stream's work. */
#include "daemon/link/nccl.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/link/header.h"

enum { NCCL_WAITING_EXTRA = 3, NCCL_CTAS_MAX = 4, NCCL_WARM_BYTES = 1, NCCL_CLOSE_MS = 1000 };

/* A message under way from a sender, or held by a receiver. */
typedef struct nccl_slot {
    mr_link_header header; /* sender */
    void *mark;            /* sender: behind the transfer */
    uint64_t step;
    uint32_t micro_batch;
    uint32_t chunk;
    unsigned char *memory; /* receiver */
    mr_message carrier;    /* receiver: the header's message, until released */
    bool taken;            /* receiver */
} nccl_slot;

typedef struct nccl_link {
    mr_link link; /* first: what users hold */
    mr_link *inner;
    mr_link_options options; /* job_id: own copy */
    char *job_id;
    mr_nccl_place place;
    mr_device *device; /* receiver */
    mr_device_memory memory;
    mr_communicator *_Atomic communicator; /* NULL: has not joined */
    nccl_slot *slots;
    size_t slot_count;
    uint64_t sent;   /* messages */
    uint64_t passed; /* of those, whose transfers are over: in order, for the stream is */
    _Atomic uint64_t bytes;
} nccl_link;

static mr_communicator *communicator_of(nccl_link *self) {
    return atomic_load(&self->communicator);
}

static mr_status link_joined(nccl_link *self) {
    if (communicator_of(self) == NULL)
        return MR_ERROR(FAILED_PRECONDITION, "the link from rank %u to %u has not joined",
                        self->options.from_rank, self->options.to_rank);
    return MR_OK;
}

/* Is this the sending end? */
static bool link_sends(const nccl_link *self) {
    return self->link.ops->send != NULL;
}

/* ---- the sending end ---- */

static size_t tensor_bytes(const mr_message *message, size_t index) {
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&message->tensors[index].tensor.shape, &bytes)); /* was checked */
    return bytes;
}

/* All tensors of a message as one operation of NCCL; empty ones are nothing. */
static mr_status link_transfer(nccl_link *self, const mr_message *message) {
    mr_communicator *communicator = communicator_of(self);
    mr_status status = MR_OK;
    size_t total = 0;
    MR_TRY(mr_communicator_group_begin(communicator));
    for (size_t i = 0; i < message->tensor_count && mr_status_is_ok(status); i++) {
        size_t bytes = tensor_bytes(message, i);
        void *data = message->tensors[i].tensor.data;
        total += bytes;
        if (bytes > 0)
            status = link_sends(self) ? mr_communicator_send(communicator, data, bytes, 1)
                                      : mr_communicator_receive(communicator, data, bytes, 0);
    }
    mr_status ended = mr_communicator_group_end(communicator);
    atomic_fetch_add(&self->bytes, total);
    return mr_status_is_ok(status) ? ended : status;
}

static mr_status sender_send(mr_link *link, const mr_message *message) {
    nccl_link *self = (nccl_link *)link;
    nccl_slot *slot = &self->slots[self->sent % self->slot_count];
    mr_message carrier;
    MR_TRY(link_joined(self));
    /* The gRPC link takes one message fewer than there are slots, so this one's is not borrowed. */
    MR_TRY(mr_link_header_pack(&self->options, message, &slot->header, &carrier));
    MR_TRY(mr_link_send(self->inner, &carrier));
    self->sent++;
    slot->step = message->step;
    slot->micro_batch = message->micro_batch;
    slot->chunk = message->chunk;
    MR_TRY(mr_communicator_enter(communicator_of(self)));
    MR_TRY(link_transfer(self, message));
    return mr_communicator_mark_set(communicator_of(self), slot->mark);
}

/* Moves passed on, over the transfers that are done. */
static mr_status sender_look(nccl_link *self) {
    for (bool passed = true; self->passed < self->sent; self->passed++) {
        const nccl_slot *slot = &self->slots[self->passed % self->slot_count];
        MR_TRY(mr_communicator_mark_passed(communicator_of(self), slot->mark, &passed));
        if (!passed)
            break;
    }
    return MR_OK;
}

static mr_status sender_wait_sent(mr_link *link, size_t outstanding_max, int64_t timeout_ms) {
    nccl_link *self = (nccl_link *)link;
    int64_t start_ms = mr_clock_now_ms();
    MR_TRY(link_joined(self));
    for (;;) {
        mr_status peer = mr_link_wait_sent(self->inner, SIZE_MAX, 0); /* only: is it there? */
        if (peer.code == MR_CODE_CANCELLED)
            return peer;
        mr_status looked = sender_look(self);
        if (mr_status_is_ok(looked) && self->sent - self->passed <= outstanding_max)
            return MR_OK; /* also where the peer has taken all and gone */
        MR_TRY(peer);
        MR_TRY(looked);
        const nccl_slot *oldest = &self->slots[self->passed % self->slot_count];
        if (timeout_ms >= 0 && mr_clock_now_ms() - start_ms >= timeout_ms)
            return MR_ERROR(DEADLINE_EXCEEDED,
                            "%" PRIu64 " messages have not gone to rank %u within %" PRId64
                            " ms; the oldest is step %" PRIu64 " microbatch %u chunk %u",
                            self->sent - self->passed, self->options.to_rank, timeout_ms,
                            oldest->step, oldest->micro_batch, oldest->chunk);
        mr_communicator_nap(communicator_of(self));
    }
}

/* ---- the receiving end ---- */

static nccl_slot *receiver_free_slot(nccl_link *self) {
    for (size_t i = 0; i < self->slot_count; i++)
        if (!self->slots[i].taken)
            return &self->slots[i];
    return NULL;
}

static mr_status receiver_fill(nccl_link *self, nccl_slot *slot, mr_message *out_message) {
    mr_communicator *communicator = communicator_of(self);
    MR_TRY(mr_link_header_unpack(&self->options, &slot->carrier, slot->memory, out_message));
    out_message->slot = slot;
    MR_TRY(mr_communicator_enter(communicator));
    MR_TRY(link_transfer(self, out_message));
    return mr_communicator_leave(communicator);
}

static mr_status receiver_receive(mr_link *link, uint64_t step, uint32_t micro_batch,
                                  uint32_t chunk, int64_t timeout_ms, mr_message *out_message) {
    nccl_link *self = (nccl_link *)link;
    mr_message carrier = {0};
    mr_message message = {0};
    MR_TRY(link_joined(self));
    MR_TRY(mr_link_receive(self->inner, step, micro_batch, chunk, timeout_ms, &carrier));
    nccl_slot *slot = receiver_free_slot(self);
    MR_ASSERT(slot != NULL); /* the gRPC link has as many, and gave one */
    slot->carrier = carrier;
    slot->taken = true;
    mr_status status = receiver_fill(self, slot, &message);
    if (!mr_status_is_ok(status)) {
        slot->taken = false;
        mr_link_release(self->inner, &slot->carrier);
        return status;
    }
    *out_message = message;
    return MR_OK;
}

static void receiver_release(mr_link *link, mr_message *message) {
    nccl_link *self = (nccl_link *)link;
    nccl_slot *slot = message->slot;
    MR_ASSERT(slot >= self->slots && slot < self->slots + self->slot_count);
    MR_ASSERT(slot->taken);
    message->slot = NULL;
    slot->taken = false;
    mr_link_release(self->inner, &slot->carrier);
}

/* ---- both ends ---- */

static void link_interrupt(mr_link *link, const char *reason) {
    nccl_link *self = (nccl_link *)link;
    mr_link_interrupt(self->inner, reason);
    if (communicator_of(self) != NULL)
        mr_communicator_interrupt(communicator_of(self), reason);
}

static uint64_t link_bytes(const mr_link *link) {
    return atomic_load(&((const nccl_link *)link)->bytes);
}

/* What is under way gets a moment; a peer that is lost will not take it, and is known at once. */
static void link_end_transfers(nccl_link *self) {
    mr_communicator *communicator = communicator_of(self);
    mr_status status = MR_OK;
    if (communicator != NULL && link_sends(self))
        status = sender_wait_sent(&self->link, 0, NCCL_CLOSE_MS);
    if (!mr_status_is_ok(status))
        mr_communicator_abort(communicator, status);
    for (size_t i = 0; i < self->slot_count && communicator != NULL; i++)
        mr_communicator_mark_destroy(communicator, self->slots[i].mark);
    mr_communicator_close(communicator);
}

static void link_close(mr_link *link) {
    nccl_link *self = (nccl_link *)link;
    link_end_transfers(self);
    mr_link_close(self->inner);
    if (self->memory.base != NULL)
        self->device->ops->memory_destroy(self->device, &self->memory);
    mr_free(self->slots);
    mr_free(self->job_id);
    mr_free(self);
}

static const mr_link_ops sender_ops = {
    .name = "nccl sender",
    .send = sender_send,
    .wait_sent = sender_wait_sent,
    .interrupt = link_interrupt,
    .bytes = link_bytes,
    .close = link_close,
};

static const mr_link_ops receiver_ops = {
    .name = "nccl receiver",
    .receive = receiver_receive,
    .release = receiver_release,
    .interrupt = link_interrupt,
    .bytes = link_bytes,
    .close = link_close,
};

/* ---- making ---- */

static mr_status link_create(const mr_nccl_place *place, const mr_link_options *options,
                             const mr_link_ops *ops, size_t slot_count, nccl_link **out_link) {
    nccl_link *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    self->link.ops = ops;
    self->place = *place;
    self->options = *options;
    self->job_id = mr_strdup(options->job_id);
    self->options.job_id = self->job_id;
    self->slot_count = slot_count;
    self->slots = mr_alloc_array(slot_count, sizeof(*self->slots));
    if (self->job_id == NULL || self->slots == NULL) {
        self->slot_count = 0;
        link_close(&self->link);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu messages of a link", slot_count);
    }
    *out_link = self;
    return MR_OK;
}

static mr_status receiver_fill_slots(nccl_link *self) {
    size_t each = 0;
    size_t all = 0;
    if (!mr_link_header_slot_bytes(&self->options, &each) ||
        !mr_size_mul(each, self->slot_count, &all))
        return MR_ERROR(INVALID_ARGUMENT, "%zu slots of %zu bytes are no possible size",
                        self->options.slots, self->options.message_bytes_max);
    MR_TRY(self->device->ops->memory_create(self->device, all, &self->memory));
    for (size_t i = 0; i < self->slot_count; i++)
        self->slots[i].memory = (unsigned char *)self->memory.base + i * each;
    return MR_OK;
}

mr_status mr_link_nccl_receiver(const mr_nccl_place *place, mr_device *device, mr_link_hub *hub,
                                const mr_link_options *options, mr_link **out_link) {
    nccl_link *self = NULL;
    mr_link_options inner = mr_link_header_options(options);
    MR_TRY(link_create(place, options, &receiver_ops, options->slots, &self));
    self->device = device;
    mr_status status = receiver_fill_slots(self);
    if (mr_status_is_ok(status))
        status = mr_link_grpc_receiver(hub, &inner, &self->inner);
    if (!mr_status_is_ok(status)) {
        link_close(&self->link);
        return status;
    }
    *out_link = &self->link;
    return MR_OK;
}

mr_status mr_link_nccl_sender(const mr_nccl_place *place, const char *address,
                              const mr_rpc_credentials *credentials,
                              const mr_link_options *options, int64_t timeout_ms,
                              mr_link **out_link) {
    nccl_link *self = NULL;
    mr_link_options inner = mr_link_header_options(options);
    MR_TRY(link_create(place, options, &sender_ops, 2 * options->slots + NCCL_WAITING_EXTRA,
                       &self));
    mr_status status =
        mr_link_grpc_sender(address, credentials, &inner, timeout_ms, &self->inner);
    if (!mr_status_is_ok(status)) {
        link_close(&self->link);
        return status;
    }
    *out_link = &self->link;
    return MR_OK;
}

/* ---- joining ---- */

/* One byte through the new communicator: what it makes at its first use is made now. Whatever lies
 * at the place is sent, and the receiver's slots are empty yet. */
static mr_status join_warm(nccl_link *self, mr_communicator *communicator, void *byte,
                           int64_t timeout_ms) {
    MR_TRY(mr_communicator_enter(communicator));
    MR_TRY(link_sends(self) ? mr_communicator_send(communicator, byte, NCCL_WARM_BYTES, 1)
                            : mr_communicator_receive(communicator, byte, NCCL_WARM_BYTES, 0));
    MR_TRY(mr_communicator_leave(communicator));
    return mr_communicator_wait(communicator, timeout_ms);
}

static mr_status join_marks(nccl_link *self, mr_communicator *communicator) {
    for (size_t i = 0; i < self->slot_count && link_sends(self); i++)
        MR_TRY(mr_communicator_mark_create(communicator, &self->slots[i].mark));
    return MR_OK;
}

mr_status mr_link_nccl_join(mr_link *link, const unsigned char id[MR_NCCL_ID_BYTES],
                            int64_t timeout_ms) {
    nccl_link *self = (nccl_link *)link;
    char name[64];
    const uint32_t ranks[2] = {self->options.from_rank, self->options.to_rank};
    (void)snprintf(name, sizeof(name), "link/%u-%u/%s", ranks[0], ranks[1],
                   self->options.kind == MR_LINK_ACTIVATION ? "activation" : "gradient");
    const mr_communicator_options options = {
        .place = self->place,
        .id = id,
        .job_id = self->job_id,
        .epoch = self->options.epoch,
        .name = name,
        .ranks = ranks,
        .rank_count = 2,
        .rank_index = link_sends(self) ? 0 : 1,
        .ctas_max = NCCL_CTAS_MAX,
    };
    mr_communicator *communicator = NULL;
    MR_ASSERT(communicator_of(self) == NULL);
    MR_TRY(mr_communicator_open(&options, timeout_ms, &communicator));
    atomic_store(&self->communicator, communicator);
    MR_TRY(join_marks(self, communicator));
    void *byte = NULL;
    MR_TRY(mr_communicator_byte(communicator, &byte));
    return join_warm(self, communicator, byte, timeout_ms);
}
