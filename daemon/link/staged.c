/* SPDX-License-Identifier: Apache-2.0 */
/* A sender's buffers are used in turn. Messages leave in the order of sends, so with at most
 * buffers - 1 of them on their way the oldest buffer is free. */
#include "daemon/link/staged.h"

#include <inttypes.h>

#include "daemon/base/alloc.h"
#include "daemon/base/arena.h"
#include "daemon/base/limits.h"

/* Of tensors that are laid out one after the other, each aligned. */
static bool staged_bytes(size_t message_bytes, size_t *out_bytes) {
    const size_t gaps = (size_t)(MR_MESSAGE_TENSORS_MAX + 1) * MR_ARENA_ALIGN;
    size_t padded = 0;
    if (!mr_size_add(message_bytes, gaps, &padded))
        return false;
    *out_bytes = mr_arena_rounded(padded);
    return true;
}

static mr_status staged_size(const mr_link_options *options, size_t count, size_t *out_each,
                             size_t *out_all) {
    if (count == 0 || !staged_bytes(options->message_bytes_max, out_each) ||
        !mr_size_mul(*out_each, count, out_all))
        return MR_ERROR(INVALID_ARGUMENT, "%zu messages of %zu bytes are no possible size", count,
                        options->message_bytes_max);
    return MR_OK;
}

/* The place after a tensor at *at; RESOURCE_EXHAUSTED: it ends behind the buffer. */
static mr_status staged_place(const mr_message *message, size_t index, size_t buffer_bytes,
                              size_t *at, size_t *out_bytes) {
    if (!mr_shape_bytes(&message->tensors[index].tensor.shape, out_bytes) || *at > buffer_bytes ||
        *out_bytes > buffer_bytes - *at)
        return MR_ERROR(RESOURCE_EXHAUSTED, "tensor %s makes a message larger than the link's %zu",
                        message->tensors[index].name, buffer_bytes);
    *at += mr_arena_rounded(*out_bytes);
    return MR_OK;
}

/* ---- sender ---- */

typedef struct staged_sender {
    mr_link link; /* first: what users hold */
    mr_link *inner;
    mr_device *device;
    mr_arena arena;
    size_t buffer_bytes;
    size_t buffers;
    uint64_t sent;
} staged_sender;

static mr_status sender_send(mr_link *link, const mr_message *message) {
    staged_sender *sender = (staged_sender *)link;
    mr_message copy = *message;
    size_t at = 0;
    MR_TRY(mr_link_wait_sent(sender->inner, sender->buffers - 1, MR_STEP_WAIT_TIMEOUT_MS));
    unsigned char *buffer =
        sender->arena.base + sender->sent % sender->buffers * sender->buffer_bytes;
    MR_ASSERT(message->tensor_count <= MR_MESSAGE_TENSORS_MAX);
    for (size_t i = 0; i < message->tensor_count; i++) {
        size_t bytes = 0;
        unsigned char *place = buffer + at;
        MR_TRY(staged_place(message, i, sender->buffer_bytes, &at, &bytes));
        sender->device->ops->copy_out(sender->device, place, message->tensors[i].tensor.data,
                                      bytes);
        copy.tensors[i].tensor.data = place;
    }
    MR_TRY(mr_link_send(sender->inner, &copy));
    sender->sent++;
    return MR_OK;
}

static mr_status sender_wait_sent(mr_link *link, size_t outstanding_max, int64_t timeout_ms) {
    return mr_link_wait_sent(((staged_sender *)link)->inner, outstanding_max, timeout_ms);
}

static void sender_interrupt(mr_link *link, const char *reason) {
    mr_link_interrupt(((staged_sender *)link)->inner, reason);
}

static uint64_t sender_bytes(const mr_link *link) {
    return mr_link_bytes(((const staged_sender *)link)->inner);
}

static void sender_close(mr_link *link) {
    staged_sender *sender = (staged_sender *)link;
    mr_link_close(sender->inner); /* it borrows the buffers */
    mr_arena_deinit(&sender->arena);
    mr_free(sender);
}

static const mr_link_ops sender_ops = {
    .name = "staged sender",
    .send = sender_send,
    .wait_sent = sender_wait_sent,
    .interrupt = sender_interrupt,
    .bytes = sender_bytes,
    .close = sender_close,
};

mr_status mr_link_staged_sender(mr_device *device, const mr_link_options *options, size_t buffers,
                                mr_link *owned_inner, mr_link **out_link) {
    size_t all = 0;
    staged_sender *sender = mr_alloc(sizeof(*sender));
    if (sender == NULL) {
        mr_link_close(owned_inner);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    }
    *sender = (staged_sender){
        .link.ops = &sender_ops, .inner = owned_inner, .device = device, .buffers = buffers};
    mr_status status = staged_size(options, buffers, &sender->buffer_bytes, &all);
    if (mr_status_is_ok(status))
        status = mr_arena_init(&sender->arena, all);
    if (!mr_status_is_ok(status)) {
        sender_close(&sender->link);
        return status;
    }
    *out_link = &sender->link;
    return MR_OK;
}

/* ---- receiver ---- */

typedef struct staged_slot {
    unsigned char *memory; /* of the device */
    struct staged_slot *next;
} staged_slot;

typedef struct staged_receiver {
    mr_link link; /* first: what users hold */
    mr_link *inner;
    mr_device *device;
    mr_device_memory memory;
    size_t slot_bytes;
    staged_slot *slots;
    staged_slot *free;
} staged_receiver;

static mr_status receiver_copy(const staged_receiver *receiver, mr_message *message) {
    size_t at = 0;
    unsigned char *memory = receiver->free->memory;
    for (size_t i = 0; i < message->tensor_count; i++) {
        mr_tensor *tensor = &message->tensors[i].tensor;
        size_t bytes = 0;
        unsigned char *place = memory + at;
        MR_TRY(staged_place(message, i, receiver->slot_bytes, &at, &bytes));
        receiver->device->ops->copy_in(receiver->device, place, tensor->data, bytes);
        tensor->data = place;
    }
    return MR_OK;
}

static mr_status receiver_receive(mr_link *link, uint64_t step, uint32_t micro_batch,
                                  uint32_t chunk, int64_t timeout_ms, mr_message *out_message) {
    staged_receiver *receiver = (staged_receiver *)link;
    mr_message host = {0};
    MR_TRY(mr_link_receive(receiver->inner, step, micro_batch, chunk, timeout_ms, &host));
    mr_message message = host;
    mr_status status =
        receiver->free != NULL
            ? receiver_copy(receiver, &message)
            : MR_ERROR(RESOURCE_EXHAUSTED, "step %" PRIu64 " microbatch %u came while all slots "
                                           "of the link are in use",
                       step, micro_batch);
    mr_link_release(receiver->inner, &host);
    MR_TRY(status);
    message.slot = receiver->free;
    receiver->free = receiver->free->next;
    *out_message = message;
    return MR_OK;
}

static void receiver_release(mr_link *link, mr_message *message) {
    staged_receiver *receiver = (staged_receiver *)link;
    staged_slot *slot = message->slot;
    MR_ASSERT(slot != NULL);
    message->slot = NULL;
    slot->next = receiver->free;
    receiver->free = slot;
}

static void receiver_interrupt(mr_link *link, const char *reason) {
    mr_link_interrupt(((staged_receiver *)link)->inner, reason);
}

static uint64_t receiver_bytes(const mr_link *link) {
    return mr_link_bytes(((const staged_receiver *)link)->inner);
}

static void receiver_close(mr_link *link) {
    staged_receiver *receiver = (staged_receiver *)link;
    mr_link_close(receiver->inner);
    if (receiver->memory.base != NULL)
        receiver->device->ops->memory_destroy(receiver->device, &receiver->memory);
    mr_free(receiver->slots);
    mr_free(receiver);
}

static const mr_link_ops receiver_ops = {
    .name = "staged receiver",
    .receive = receiver_receive,
    .release = receiver_release,
    .interrupt = receiver_interrupt,
    .bytes = receiver_bytes,
    .close = receiver_close,
};

static mr_status receiver_fill(staged_receiver *receiver, const mr_link_options *options) {
    size_t all = 0;
    MR_TRY(staged_size(options, options->slots, &receiver->slot_bytes, &all));
    MR_TRY(receiver->device->ops->memory_create(receiver->device, all, &receiver->memory));
    receiver->slots = mr_alloc_array(options->slots, sizeof(receiver->slots[0]));
    if (receiver->slots == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu slots", options->slots);
    for (size_t i = options->slots; i-- > 0;) {
        staged_slot *slot = &receiver->slots[i];
        slot->memory = (unsigned char *)receiver->memory.base + i * receiver->slot_bytes;
        slot->next = receiver->free;
        receiver->free = slot;
    }
    return MR_OK;
}

mr_status mr_link_staged_receiver(mr_device *device, const mr_link_options *options,
                                  mr_link *owned_inner, mr_link **out_link) {
    staged_receiver *receiver = mr_alloc(sizeof(*receiver));
    if (receiver == NULL) {
        mr_link_close(owned_inner);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a link");
    }
    *receiver =
        (staged_receiver){.link.ops = &receiver_ops, .inner = owned_inner, .device = device};
    mr_status status = receiver_fill(receiver, options);
    if (!mr_status_is_ok(status)) {
        receiver_close(&receiver->link);
        return status;
    }
    *out_link = &receiver->link;
    return MR_OK;
}
