/* SPDX-License-Identifier: Apache-2.0 */
/* A slot's memory is the message's bytes with each tensor moved up to MR_ARENA_ALIGN, so that
 * kernels may read it in place; on the wire the tensors follow each other without gaps. */
#include "daemon/link/inbox.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"

/* Bytes of a slot's memory: each tensor may need up to one more unit of alignment. */
static bool slot_memory_bytes(size_t message_bytes, size_t *out_bytes) {
    size_t padded;
    if (!mr_size_add(message_bytes, (MR_MESSAGE_TENSORS_MAX + 1) * (size_t)MR_ARENA_ALIGN,
                     &padded))
        return false;
    *out_bytes = mr_arena_rounded(padded);
    return true;
}

mr_status mr_link_inbox_init(mr_link_inbox *inbox, const mr_link_options *options) {
    *inbox = (mr_link_inbox){
        .peer_rank = options->from_rank,
        .slot_count = options->slots,
        .message_bytes_max = options->message_bytes_max,
    };
    mr_monitor_init(&inbox->monitor);
    if (options->slots == 0 || options->message_bytes_max == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a link has %zu slots of %zu bytes; it needs at least one of each",
                        options->slots, options->message_bytes_max);
    size_t each = 0;
    size_t all = 0;
    if (!slot_memory_bytes(options->message_bytes_max, &each) ||
        !mr_size_mul(each, options->slots, &all))
        return MR_ERROR(INVALID_ARGUMENT, "%zu slots of %zu bytes are no possible size",
                        options->slots, options->message_bytes_max);
    MR_TRY(mr_arena_init(&inbox->arena, all));
    inbox->slots = mr_alloc_array(options->slots, sizeof(inbox->slots[0]));
    if (inbox->slots == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu slots", options->slots);
    for (size_t i = options->slots; i-- > 0;) {
        mr_link_slot *slot = &inbox->slots[i];
        slot->memory = inbox->arena.base + i * each;
        slot->next = inbox->free;
        inbox->free = slot;
    }
    return MR_OK;
}

void mr_link_inbox_deinit(mr_link_inbox *inbox) {
    mr_free(inbox->slots);
    mr_arena_deinit(&inbox->arena);
    mr_monitor_deinit(&inbox->monitor);
}

/* ---- the transport's side ---- */

mr_link_slot *mr_link_inbox_take(mr_link_inbox *inbox) {
    mr_monitor_lock(&inbox->monitor);
    mr_link_slot *slot = inbox->free;
    if (slot != NULL)
        inbox->free = slot->next;
    mr_monitor_unlock(&inbox->monitor);
    if (slot != NULL) {
        slot->bytes = 0;
        slot->filled = 0;
    }
    return slot;
}

mr_status mr_link_inbox_lay_out(const mr_link_inbox *inbox, mr_link_slot *slot) {
    mr_message *message = &slot->message;
    if (message->tensor_count == 0 || message->tensor_count > MR_MESSAGE_TENSORS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a message has %zu tensors; 1 to %d are possible",
                        message->tensor_count, MR_MESSAGE_TENSORS_MAX);
    size_t bytes = 0;
    size_t place = 0;
    for (size_t i = 0; i < message->tensor_count; i++) {
        mr_tensor *tensor = &message->tensors[i].tensor;
        size_t tensor_bytes = 0;
        if (tensor->shape.dim_count > MR_TENSOR_DIMS_MAX ||
            mr_dtype_bytes(tensor->shape.dtype) == 0 ||
            !mr_shape_bytes(&tensor->shape, &tensor_bytes))
            return MR_ERROR(INVALID_ARGUMENT, "tensor %s of a message has no possible shape",
                            message->tensors[i].name);
        if (tensor_bytes > inbox->message_bytes_max - bytes)
            return MR_ERROR(RESOURCE_EXHAUSTED,
                            "tensor %s of %zu bytes makes a message larger than the link's %zu",
                            message->tensors[i].name, tensor_bytes, inbox->message_bytes_max);
        tensor->data = slot->memory + place;
        bytes += tensor_bytes;
        place += mr_arena_rounded(tensor_bytes);
    }
    if (bytes == 0)
        return MR_ERROR(INVALID_ARGUMENT, "a message has %zu tensors and not one byte",
                        message->tensor_count);
    slot->bytes = bytes;
    slot->filled = 0;
    message->slot = slot;
    return MR_OK;
}

unsigned char *mr_link_slot_place(const mr_link_slot *slot, size_t *out_bytes) {
    size_t at = slot->filled;
    MR_ASSERT(at < slot->bytes);
    for (size_t i = 0; i < slot->message.tensor_count; i++) {
        const mr_tensor *tensor = &slot->message.tensors[i].tensor;
        size_t bytes = 0;
        MR_ASSERT(mr_shape_bytes(&tensor->shape, &bytes)); /* lay_out has seen to it */
        if (at < bytes) {
            *out_bytes = bytes - at;
            return (unsigned char *)tensor->data + at;
        }
        at -= bytes;
    }
    mr_assert_failed("the tensors of a message are its bytes", __FILE__, __LINE__);
}

void mr_link_inbox_put(mr_link_inbox *inbox, mr_link_slot *slot) {
    MR_ASSERT(slot->bytes > 0);
    slot->next = NULL;
    atomic_fetch_add(&inbox->bytes, slot->bytes);
    mr_monitor_lock(&inbox->monitor);
    if (inbox->arrived_last != NULL)
        inbox->arrived_last->next = slot;
    else
        inbox->arrived_first = slot;
    inbox->arrived_last = slot;
    mr_monitor_notify(&inbox->monitor);
    mr_monitor_unlock(&inbox->monitor);
}

void mr_link_inbox_drop(mr_link_inbox *inbox, mr_link_slot *slot) {
    mr_monitor_lock(&inbox->monitor);
    slot->next = inbox->free;
    inbox->free = slot;
    mr_monitor_unlock(&inbox->monitor);
}

void mr_link_inbox_lose(mr_link_inbox *inbox, mr_status why) {
    mr_monitor_lock(&inbox->monitor);
    if (mr_status_is_ok(inbox->lost))
        inbox->lost = why;
    mr_monitor_notify(&inbox->monitor);
    mr_monitor_unlock(&inbox->monitor);
}

/* ---- what link.h promises ---- */

/* Inside the monitor. NULL: nothing has arrived, and *out_status says what ended the wait. */
static mr_link_slot *inbox_wait(mr_link_inbox *inbox, int64_t deadline, mr_status *out_status) {
    *out_status = MR_OK;
    for (bool in_time = true;; in_time = mr_monitor_wait(&inbox->monitor, deadline)) {
        if (!mr_status_is_ok(inbox->interrupted)) {
            *out_status = inbox->interrupted;
            return NULL;
        }
        if (inbox->arrived_first != NULL)
            return inbox->arrived_first;
        if (!mr_status_is_ok(inbox->lost)) {
            *out_status = inbox->lost;
            return NULL;
        }
        if (!in_time) {
            *out_status = MR_ERROR(DEADLINE_EXCEEDED, "nothing");
            return NULL;
        }
    }
}

mr_status mr_link_inbox_receive(mr_link_inbox *inbox, uint64_t step, uint32_t micro_batch,
                                uint32_t chunk, int64_t timeout_ms, mr_message *out_message) {
    int64_t deadline = mr_monitor_deadline(timeout_ms);
    mr_status status;
    mr_monitor_lock(&inbox->monitor);
    mr_link_slot *slot = inbox_wait(inbox, deadline, &status);
    bool wanted = slot != NULL && slot->message.step == step &&
                  slot->message.micro_batch == micro_batch && slot->message.chunk == chunk;
    if (wanted) {
        inbox->arrived_first = slot->next;
        if (inbox->arrived_first == NULL)
            inbox->arrived_last = NULL;
    }
    mr_monitor_unlock(&inbox->monitor);
    if (wanted) {
        *out_message = slot->message;
        return MR_OK;
    }
    if (slot != NULL)
        return MR_ERROR(ABORTED,
                        "step %" PRIu64 " microbatch %u chunk %u is due from rank %u, but step "
                        "%" PRIu64 " microbatch %u chunk %u came",
                        step, micro_batch, chunk, inbox->peer_rank, slot->message.step,
                        slot->message.micro_batch, slot->message.chunk);
    if (status.code == MR_CODE_DEADLINE_EXCEEDED)
        return MR_ERROR(DEADLINE_EXCEEDED,
                        "step %" PRIu64 " microbatch %u chunk %u has not come from rank %u within "
                        "%" PRId64 " ms",
                        step, micro_batch, chunk, inbox->peer_rank, timeout_ms);
    return status;
}

uint64_t mr_link_inbox_release(mr_link_inbox *inbox, mr_message *message) {
    mr_link_slot *slot = message->slot;
    MR_ASSERT(slot != NULL);
    MR_ASSERT(slot >= inbox->slots && slot < inbox->slots + inbox->slot_count);
    message->slot = NULL;
    mr_monitor_lock(&inbox->monitor);
    slot->next = inbox->free;
    inbox->free = slot;
    uint64_t released = ++inbox->released;
    mr_monitor_unlock(&inbox->monitor);
    return released;
}

void mr_link_inbox_interrupt(mr_link_inbox *inbox, const char *reason) {
    mr_monitor_lock(&inbox->monitor);
    if (mr_status_is_ok(inbox->interrupted))
        inbox->interrupted = MR_ERROR(CANCELLED, "%s", reason);
    mr_monitor_notify(&inbox->monitor);
    mr_monitor_unlock(&inbox->monitor);
}
