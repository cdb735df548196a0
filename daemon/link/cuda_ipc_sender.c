/* SPDX-License-Identifier: Apache-2.0 */
/* A message waits here until the receiver's credit says that its slot is free; then its copy is
 * queued, by EXEC in send or by the RPC thread that brings the credit. Nobody waits for EXEC's next
 * call: the receiver may need the message before EXEC has another one to make. */
#include "daemon/link/cuda_ipc.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/monitor.h"
#include "daemon/link/header.h"
#include "daemon/link/ipc_ring.h"
#include "daemon/link/outbox.h"

enum { SENDER_NAP_MS = 1, SENDER_CLOSE_MS = 1000, SENDER_PRIORITY = -5 };

typedef struct ipc_parcel {
    mr_message message;
    cudaEvent_t ready;     /* what the compute stream had before send */
    cudaEvent_t done;      /* behind the copy */
} ipc_parcel;

typedef struct ipc_sender {
    mr_link link; /* first: what users hold */
    mr_link *inner;
    mr_link_options options;
    mr_nccl_place place;
    mr_ipc_ring ring;
    cudaStream_t stream;
    ipc_parcel *parcels; /* message s is parcels[s % capacity] */
    size_t capacity;
    mr_link_header *headers; /* message s borrows headers[s % header_count] to the gRPC link */
    size_t header_count;     /* one more than that link takes */
    uint64_t passed; /* EXEC's: messages whose copies are done */
    _Atomic uint64_t bytes;
    mr_monitor monitor; /* of what follows */
    uint64_t queued;
    uint64_t copied;
    uint64_t taken;
    bool closing;
    mr_status broken;
} ipc_sender;

#define SENDER_TRY(self, call)                                                                     \
    do {                                                                                           \
        cudaError_t sender_error_ = (self)->place.calls->call;                                     \
        if (sender_error_ != cudaSuccess)                                                          \
            return mr_ipc_failed((self)->place.calls, #call, sender_error_);                       \
    } while (0)

static size_t aligned(size_t bytes) {
    return (bytes + MR_LINK_HEADER_ALIGN - 1) / MR_LINK_HEADER_ALIGN * MR_LINK_HEADER_ALIGN;
}

/* Inside the monitor: the copy of the next message, and its header. */
static mr_status sender_copy(ipc_sender *self) {
    ipc_parcel *parcel = &self->parcels[self->copied % self->capacity];
    size_t index = (size_t)(self->copied % self->ring.slot_count);
    unsigned char *to = self->ring.memory + index * self->ring.slot_bytes;
    mr_message carrier;
    SENDER_TRY(self, cudaSetDevice(self->place.ordinal)); /* this may be an RPC thread */
    SENDER_TRY(self, cudaStreamWaitEvent(self->stream, parcel->ready, 0));
    SENDER_TRY(self, cudaStreamWaitEvent(self->stream, self->ring.freed[index], 0));
    for (size_t i = 0; i < parcel->message.tensor_count; i++) {
        const mr_tensor *tensor = &parcel->message.tensors[i].tensor;
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&tensor->shape, &bytes)); /* was checked */
        if (bytes > 0)
            SENDER_TRY(self, cudaMemcpyAsync(to, tensor->data, bytes, cudaMemcpyDeviceToDevice,
                                             self->stream));
        to += aligned(bytes);
    }
    SENDER_TRY(self, cudaEventRecord(self->ring.filled[index], self->stream));
    SENDER_TRY(self, cudaEventRecord(parcel->done, self->stream));
    mr_link_header *header = &self->headers[self->copied++ % self->header_count];
    MR_TRY(mr_link_header_pack(&self->options, &parcel->message, header, &carrier));
    return mr_link_send(self->inner, &carrier);
}

/* Inside the monitor. */
static void sender_pump(ipc_sender *self) {
    while (!self->closing && mr_status_is_ok(self->broken) && self->copied < self->queued &&
           self->copied < self->taken + self->ring.slot_count)
        self->broken = sender_copy(self);
    mr_monitor_notify(&self->monitor);
}

/* RPC thread: the receiver has released so many messages. */
static void sender_taken(void *context, uint64_t taken) {
    ipc_sender *self = context;
    mr_monitor_lock(&self->monitor);
    self->taken = taken > self->taken ? taken : self->taken;
    sender_pump(self);
    mr_monitor_unlock(&self->monitor);
}

/* ---- what link.h promises ---- */

/* Moves passed on, over the copies that are done. */
static mr_status sender_advance(ipc_sender *self, uint64_t copied) {
    for (; self->passed < copied; self->passed++) {
        cudaError_t state = self->place.calls->cudaEventQuery(
            self->parcels[self->passed % self->capacity].done);
        if (state == cudaErrorNotReady)
            break;
        if (state != cudaSuccess)
            return mr_ipc_failed(self->place.calls, "a copy", state);
    }
    return MR_OK;
}

static mr_status sender_look(ipc_sender *self) {
    mr_monitor_lock(&self->monitor);
    uint64_t copied = self->copied;
    mr_status broken = self->broken;
    mr_monitor_unlock(&self->monitor);
    MR_TRY(broken);
    return sender_advance(self, copied);
}

/* Inside the monitor. */
static mr_status sender_queue(ipc_sender *self, const mr_message *message) {
    if (self->queued - self->taken >= self->capacity - 1 ||
        self->queued - self->passed >= self->capacity)
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "rank %u has released %" PRIu64 " of %" PRIu64
                        " messages; a link of %zu slots takes at most %zu more",
                        self->options.to_rank, self->taken, self->queued, self->options.slots,
                        self->capacity - 1);
    ipc_parcel *parcel = &self->parcels[self->queued % self->capacity];
    SENDER_TRY(self, cudaEventRecord(parcel->ready, self->place.compute_stream));
    parcel->message = *message;
    self->queued++;
    sender_pump(self);
    return self->broken;
}

static mr_status sender_send(mr_link *link, const mr_message *message) {
    ipc_sender *self = (ipc_sender *)link;
    mr_link_header header;
    mr_message carrier;
    if (self->ring.memory == NULL)
        return MR_ERROR(FAILED_PRECONDITION, "the link from rank %u to %u has not joined",
                        self->options.from_rank, self->options.to_rank);
    MR_TRY(mr_link_header_pack(&self->options, message, &header, &carrier)); /* can it be sent? */
    MR_TRY(mr_link_wait_sent(self->inner, SIZE_MAX, 0)); /* only: is the peer there? */
    MR_TRY(sender_look(self));
    size_t total = 0;
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&message->tensors[i].tensor.shape, &bytes)); /* pack saw to it */
        total += bytes;
    }
    mr_monitor_lock(&self->monitor);
    mr_status status = sender_queue(self, message);
    mr_monitor_unlock(&self->monitor);
    if (mr_status_is_ok(status))
        atomic_fetch_add(&self->bytes, total);
    return status;
}

static void sender_nap(ipc_sender *self) {
    mr_monitor_lock(&self->monitor);
    (void)mr_monitor_wait(&self->monitor, mr_monitor_deadline(SENDER_NAP_MS));
    mr_monitor_unlock(&self->monitor);
}

static mr_status sender_wait_sent(mr_link *link, size_t outstanding_max, int64_t timeout_ms) {
    ipc_sender *self = (ipc_sender *)link;
    int64_t start_ms = mr_clock_now_ms();
    for (;;) {
        mr_status peer = mr_link_wait_sent(self->inner, SIZE_MAX, 0); /* only: is it there? */
        if (peer.code == MR_CODE_CANCELLED)
            return peer;
        mr_status looked = sender_look(self);
        if (mr_status_is_ok(looked) && self->queued - self->passed <= outstanding_max)
            return MR_OK; /* also where the peer has taken all and gone */
        MR_TRY(peer);
        MR_TRY(looked);
        const mr_message *oldest = &self->parcels[self->passed % self->capacity].message;
        if (timeout_ms >= 0 && mr_clock_now_ms() - start_ms >= timeout_ms)
            return MR_ERROR(DEADLINE_EXCEEDED,
                            "%" PRIu64 " messages have not gone to rank %u within %" PRId64
                            " ms; the oldest is step %" PRIu64 " microbatch %u chunk %u",
                            self->queued - self->passed, self->options.to_rank, timeout_ms,
                            oldest->step, oldest->micro_batch, oldest->chunk);
        sender_nap(self);
    }
}

static void sender_interrupt(mr_link *link, const char *reason) {
    mr_link_interrupt(((ipc_sender *)link)->inner, reason);
}

static uint64_t sender_bytes(const mr_link *link) {
    return atomic_load(&((const ipc_sender *)link)->bytes);
}

/* Copies that are queued are waited for, also of a link that is broken: their bytes are borrowed,
 * and they write where the receiver will free. */
static void sender_drain(ipc_sender *self) {
    int64_t end_ms = mr_clock_now_ms() + SENDER_CLOSE_MS;
    while (mr_status_is_ok(sender_advance(self, self->copied)) && self->passed < self->copied &&
           mr_clock_now_ms() < end_ms)
        sender_nap(self);
}

static void sender_close(mr_link *link) {
    ipc_sender *self = (ipc_sender *)link;
    const mr_nccl_calls *calls = self->place.calls;
    if (self->inner != NULL && self->ring.memory != NULL)
        (void)sender_wait_sent(link, 0, SENDER_CLOSE_MS); /* in good order, all have gone */
    mr_monitor_lock(&self->monitor);
    self->closing = true;
    mr_monitor_unlock(&self->monitor);
    sender_drain(self);
    mr_ipc_ring_end(&self->ring, false); /* before the receiver hears of the end and frees it */
    mr_link_close(self->inner);          /* no credit comes after this */
    for (size_t i = 0; i < self->capacity && self->parcels != NULL; i++) {
        if (self->parcels[i].ready != NULL)
            (void)calls->cudaEventDestroy(self->parcels[i].ready); /* the card's errors are known */
        if (self->parcels[i].done != NULL)
            (void)calls->cudaEventDestroy(self->parcels[i].done);
    }
    if (self->stream != NULL)
        (void)calls->cudaStreamDestroy(self->stream);
    mr_monitor_deinit(&self->monitor);
    mr_free(self->parcels);
    mr_free(self->headers);
    mr_free(self);
}

static const mr_link_ops sender_ops = {
    .name = "cuda ipc sender",
    .send = sender_send,
    .wait_sent = sender_wait_sent,
    .interrupt = sender_interrupt,
    .bytes = sender_bytes,
    .close = sender_close,
};

/* ---- making ---- */

static mr_status sender_make(ipc_sender *self, const char *address,
                             const mr_rpc_credentials *credentials, int64_t timeout_ms) {
    if (self->options.slots == 0 || self->options.slots > MR_LINK_IPC_SLOTS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a CUDA IPC link has %zu slots; 1 to %d are possible",
                        self->options.slots, MR_LINK_IPC_SLOTS_MAX);
    const mr_link_options inner = mr_ipc_header_options(&self->options);
    self->header_count = 2 * inner.slots + MR_LINK_WAITING_EXTRA + 1;
    self->headers = mr_alloc_array(self->header_count, sizeof(*self->headers));
    self->capacity = 2 * self->options.slots + MR_LINK_WAITING_EXTRA + 1;
    self->parcels = mr_alloc_array(self->capacity, sizeof(*self->parcels));
    if (self->parcels == NULL || self->headers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu messages", self->capacity);
    SENDER_TRY(self, cudaSetDevice(self->place.ordinal));
    SENDER_TRY(self, cudaStreamCreateWithPriority(&self->stream, cudaStreamNonBlocking,
                                                  SENDER_PRIORITY));
    for (size_t i = 0; i < self->capacity; i++) {
        ipc_parcel *parcel = &self->parcels[i];
        SENDER_TRY(self, cudaEventCreateWithFlags(&parcel->ready, cudaEventDisableTiming));
        SENDER_TRY(self, cudaEventCreateWithFlags(&parcel->done, cudaEventDisableTiming));
    }
    return mr_link_grpc_sender(address, credentials, &inner, timeout_ms, &self->inner);
}

mr_status mr_link_cuda_ipc_sender(const mr_nccl_place *place, const char *address,
                                  const mr_rpc_credentials *credentials,
                                  const mr_link_options *options, int64_t timeout_ms,
                                  mr_link **out_link) {
    ipc_sender *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    self->link.ops = &sender_ops;
    self->options = *options;
    self->place = *place;
    mr_monitor_init(&self->monitor);
    mr_status status = sender_make(self, address, credentials, timeout_ms);
    if (!mr_status_is_ok(status)) {
        sender_close(&self->link);
        return status;
    }
    *out_link = &self->link;
    return MR_OK;
}

mr_status mr_link_cuda_ipc_join(mr_link *link) {
    if (link->ops != &sender_ops)
        return MR_OK;
    ipc_sender *self = (ipc_sender *)link;
    size_t bytes = 0;
    const void *offer = mr_link_grpc_offer(self->inner, &bytes);
    MR_TRY(mr_ipc_ring_open(&self->place, &self->options, offer, bytes, &self->ring));
    mr_link_grpc_on_taken(self->inner, sender_taken, self);
    return MR_OK;
}
