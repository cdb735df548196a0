/* SPDX-License-Identifier: Apache-2.0 */
/* Messages come in the order of the ring, so a message's number is its slot, and the gRPC link has
 * the count of what may be under way. */
#include "daemon/link/cuda_ipc.h"

#include <stdatomic.h>

#include "daemon/base/alloc.h"
#include "daemon/link/header.h"
#include "daemon/link/ipc_ring.h"

/* What close gives the sender to let go of the ring; below the bound of an abort. */
enum { RECEIVER_CLOSE_MS = 2000 };

typedef struct ipc_slot {
    mr_message carrier; /* of the gRPC link, until it is released there */
    bool released;
} ipc_slot;

typedef struct ipc_receiver {
    mr_link link; /* first: what users hold */
    mr_link *inner;
    mr_link_options options; /* job_id: borrowed by nobody after making */
    mr_nccl_place place;
    mr_ipc_ring ring;
    void *offer;
    ipc_slot *slots;
    uint64_t received; /* message s is in slot s % slot_count */
    uint64_t released; /* of those, in order */
    mr_status broken;
    _Atomic uint64_t bytes;
} ipc_receiver;

/* The tensors in their slot, and the compute stream behind their copy. */
static mr_status receiver_fill(ipc_receiver *self, size_t index, mr_message *out_message) {
    const mr_nccl_calls *calls = self->place.calls;
    ipc_slot *slot = &self->slots[index];
    MR_TRY(mr_link_header_unpack(&self->options, &slot->carrier,
                                 self->ring.memory + index * self->ring.slot_bytes, out_message));
    out_message->slot = slot;
    cudaError_t error =
        calls->cudaStreamWaitEvent(self->place.compute_stream, self->ring.filled[index], 0);
    return error == cudaSuccess ? MR_OK : mr_ipc_failed(calls, "a received slot", error);
}

static size_t message_bytes(const mr_message *message) {
    size_t total = 0;
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&message->tensors[i].tensor.shape, &bytes)); /* was checked */
        total += bytes;
    }
    return total;
}

static mr_status receiver_receive(mr_link *link, uint64_t step, uint32_t micro_batch,
                                  uint32_t chunk, int64_t timeout_ms, mr_message *out_message) {
    ipc_receiver *self = (ipc_receiver *)link;
    mr_message carrier = {0};
    mr_message message = {0};
    MR_TRY(self->broken);
    MR_TRY(mr_link_receive(self->inner, step, micro_batch, chunk, timeout_ms, &carrier));
    MR_ASSERT(self->received - self->released < self->ring.slot_count); /* the credit's bound */
    size_t index = (size_t)(self->received++ % self->ring.slot_count);
    self->slots[index] = (ipc_slot){.carrier = carrier};
    self->broken = receiver_fill(self, index, &message);
    MR_TRY(self->broken);
    atomic_fetch_add(&self->bytes, message_bytes(&message));
    *out_message = message;
    return MR_OK;
}

static void receiver_release(mr_link *link, mr_message *message) {
    ipc_receiver *self = (ipc_receiver *)link;
    ipc_slot *slot = message->slot;
    const mr_nccl_calls *calls = self->place.calls;
    MR_ASSERT(slot >= self->slots && slot < self->slots + self->ring.slot_count);
    MR_ASSERT(!slot->released);
    message->slot = NULL;
    slot->released = true;
    cudaError_t error = calls->cudaEventRecord(self->ring.freed[slot - self->slots],
                                               self->place.compute_stream);
    if (error != cudaSuccess)
        self->broken = mr_ipc_failed(calls, "a released slot", error); /* told by receive */
    while (self->released < self->received && error == cudaSuccess) {
        ipc_slot *oldest = &self->slots[self->released % self->ring.slot_count];
        if (!oldest->released)
            break;
        self->released++;
        mr_link_release(self->inner, &oldest->carrier);
    }
}

static void receiver_interrupt(mr_link *link, const char *reason) {
    mr_link_interrupt(((ipc_receiver *)link)->inner, reason);
}

static uint64_t receiver_bytes(const mr_link *link) {
    return atomic_load(&((const ipc_receiver *)link)->bytes);
}

static void receiver_close(mr_link *link) {
    ipc_receiver *self = (ipc_receiver *)link;
    bool let_go =
        self->inner == NULL || mr_link_grpc_wait_peer_end(self->inner, RECEIVER_CLOSE_MS);
    mr_link_close(self->inner);
    mr_ipc_ring_end(&self->ring, !let_go);
    mr_free(self->offer);
    mr_free(self->slots);
    mr_free(self);
}

static const mr_link_ops receiver_ops = {
    .name = "cuda ipc receiver",
    .receive = receiver_receive,
    .release = receiver_release,
    .interrupt = receiver_interrupt,
    .bytes = receiver_bytes,
    .close = receiver_close,
};

static mr_status receiver_make(ipc_receiver *self, mr_link_hub *hub) {
    MR_TRY(mr_ipc_ring_make(&self->place, &self->options, &self->ring));
    mr_link_options inner = mr_ipc_header_options(&self->options);
    self->slots = mr_alloc_array(self->ring.slot_count, sizeof(*self->slots));
    if (self->slots == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu slots", self->ring.slot_count);
    MR_TRY(mr_ipc_ring_offer(&self->ring, &self->offer, &inner.offer_bytes));
    inner.offer = self->offer;
    return mr_link_grpc_receiver(hub, &inner, &self->inner);
}

mr_status mr_link_cuda_ipc_receiver(const mr_nccl_place *place, mr_link_hub *hub,
                                    const mr_link_options *options, mr_link **out_link) {
    ipc_receiver *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    self->link.ops = &receiver_ops;
    self->options = *options;
    self->place = *place;
    mr_status status = receiver_make(self, hub);
    if (!mr_status_is_ok(status)) {
        receiver_close(&self->link);
        return status;
    }
    *out_link = &self->link;
    return MR_OK;
}
