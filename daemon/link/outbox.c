/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/link/outbox.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"

mr_status mr_link_outbox_init(mr_link_outbox *outbox, const mr_link_options *options) {
    *outbox = (mr_link_outbox){
        .watch = options->watch,
        .peer_rank = options->to_rank,
        .slots = options->slots,
        .message_bytes_max = options->message_bytes_max,
    };
    mr_monitor_init(&outbox->monitor);
    if (options->slots == 0 || options->message_bytes_max == 0)
        return MR_ERROR(INVALID_ARGUMENT,
                        "a link has %zu slots of %zu bytes; it needs at least one of each",
                        options->slots, options->message_bytes_max);
    if (!mr_size_mul(options->slots, 2, &outbox->capacity) ||
        !mr_size_add(outbox->capacity, MR_LINK_WAITING_EXTRA, &outbox->capacity))
        return MR_ERROR(INVALID_ARGUMENT, "%zu slots are no possible number", options->slots);
    outbox->parcels = mr_alloc_array(outbox->capacity, sizeof(outbox->parcels[0]));
    if (outbox->parcels == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu messages", outbox->capacity);
    return MR_OK;
}

void mr_link_outbox_deinit(mr_link_outbox *outbox) {
    MR_ASSERT(outbox->borrowing == 0);
    MR_ASSERT(outbox->frames == 0);
    mr_free(outbox->parcels);
    mr_monitor_deinit(&outbox->monitor);
}

static mr_link_parcel *outbox_parcel(mr_link_outbox *outbox, uint64_t sequence) {
    MR_ASSERT(sequence > 0);
    return &outbox->parcels[(sequence - 1) % outbox->capacity];
}

static bool outbox_is_open(const mr_link_outbox *outbox) {
    return mr_status_is_ok(outbox->lost) && mr_status_is_ok(outbox->interrupted);
}

/* ---- the transport's side ---- */

mr_link_parcel *mr_link_outbox_due(mr_link_outbox *outbox) {
    if (!outbox_is_open(outbox) || outbox->handed == outbox->queued ||
        outbox->handed >= outbox->taken + outbox->slots)
        return NULL;
    return outbox_parcel(outbox, outbox->handed + 1);
}

static void parcel_settle(mr_link_parcel *parcel) {
    if (!parcel->handed || parcel->frames > 0)
        return;
    MR_ASSERT(parcel->outbox->borrowing > 0);
    parcel->outbox->borrowing--;
    if (parcel->outbox->watch != NULL)
        parcel->outbox->watch->sent(parcel->outbox->watch, mr_clock_now_ns() - parcel->queued_ns);
    mr_monitor_notify(&parcel->outbox->monitor);
}

void mr_link_outbox_handed(mr_link_parcel *parcel) {
    MR_ASSERT(!parcel->handed);
    MR_ASSERT(parcel->sequence == parcel->outbox->handed + 1);
    parcel->outbox->handed++;
    parcel->handed = true;
    parcel_settle(parcel);
}

void mr_link_outbox_frame_begin(mr_link_parcel *parcel) {
    parcel->frames++;
    parcel->outbox->frames++;
}

void mr_link_outbox_frame_end(mr_link_parcel *parcel) {
    MR_ASSERT(parcel->frames > 0);
    parcel->frames--;
    parcel->outbox->frames--;
    parcel_settle(parcel);
}

bool mr_link_outbox_taken(mr_link_outbox *outbox, uint64_t taken) {
    /* The receiver may release a message before the thread that handed it over has said so here. */
    if (taken < outbox->taken || taken > outbox->queued)
        return false;
    outbox->taken = taken;
    return true;
}

void mr_link_outbox_lose(mr_link_outbox *outbox, mr_status why) {
    if (mr_status_is_ok(outbox->lost))
        outbox->lost = why;
    mr_monitor_notify(&outbox->monitor);
}

void mr_link_outbox_drop(mr_link_outbox *outbox) {
    while (outbox->handed < outbox->queued)
        mr_link_outbox_handed(outbox_parcel(outbox, outbox->handed + 1));
}

/* ---- what link.h promises ---- */

static mr_status message_bytes(const mr_message *message, size_t bytes_max, size_t *out_bytes) {
    if (message->tensor_count == 0 || message->tensor_count > MR_MESSAGE_TENSORS_MAX)
        return MR_ERROR(INVALID_ARGUMENT, "a message has %zu tensors; 1 to %d are possible",
                        message->tensor_count, MR_MESSAGE_TENSORS_MAX);
    size_t bytes = 0;
    for (size_t i = 0; i < message->tensor_count; i++) {
        const mr_tensor *tensor = &message->tensors[i].tensor;
        const char *name = message->tensors[i].name;
        size_t tensor_bytes = 0;
        MR_ASSERT(memchr(name, 0, MR_TENSOR_NAME_BYTES) != NULL);
        if (tensor->shape.dim_count > MR_TENSOR_DIMS_MAX ||
            mr_dtype_bytes(tensor->shape.dtype) == 0 ||
            !mr_shape_bytes(&tensor->shape, &tensor_bytes))
            return MR_ERROR(INVALID_ARGUMENT, "tensor %s of a message has no possible shape", name);
        if (tensor_bytes > bytes_max - bytes)
            return MR_ERROR(RESOURCE_EXHAUSTED,
                            "tensor %s of %zu bytes makes a message larger than the link's %zu",
                            name, tensor_bytes, bytes_max);
        bytes += tensor_bytes;
    }
    if (bytes == 0)
        return MR_ERROR(INVALID_ARGUMENT, "a message has %zu tensors and not one byte",
                        message->tensor_count);
    *out_bytes = bytes;
    return MR_OK;
}

mr_status mr_link_outbox_send(mr_link_outbox *outbox, const mr_message *message) {
    size_t bytes = 0;
    MR_TRY(message_bytes(message, outbox->message_bytes_max, &bytes));
    MR_TRY(outbox->interrupted);
    MR_TRY(outbox->lost);
    mr_link_parcel *parcel = outbox_parcel(outbox, outbox->queued + 1);
    /* The transport may still hold a message that the receiver has long released. */
    bool held = parcel->sequence > 0 && (!parcel->handed || parcel->frames > 0);
    if (held || outbox->queued - outbox->taken >= outbox->capacity)
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "rank %u has released %" PRIu64 " of %" PRIu64
                        " messages; a link of %zu slots takes at most %zu more",
                        outbox->peer_rank, outbox->taken, outbox->queued, outbox->slots,
                        outbox->capacity);
    outbox->queued++;
    outbox->borrowing++;
    *parcel = (mr_link_parcel){
        .outbox = outbox, .message = *message, .sequence = outbox->queued, .bytes = bytes,
        .queued_ns = mr_clock_now_ns()};
    atomic_fetch_add(&outbox->bytes, bytes);
    return MR_OK;
}

/* The oldest message that still borrows. */
static const mr_link_parcel *outbox_oldest(mr_link_outbox *outbox) {
    uint64_t first = outbox->queued > outbox->capacity ? outbox->queued - outbox->capacity + 1 : 1;
    for (uint64_t s = first; s <= outbox->queued; s++) {
        const mr_link_parcel *parcel = outbox_parcel(outbox, s);
        if (!parcel->handed || parcel->frames > 0)
            return parcel;
    }
    mr_assert_failed("a message borrows its bytes", __FILE__, __LINE__);
}

static mr_status outbox_late(mr_link_outbox *outbox, int64_t timeout_ms) {
    const mr_message *oldest = &outbox_oldest(outbox)->message;
    return MR_ERROR(DEADLINE_EXCEEDED,
                    "%zu messages have not gone to rank %u within %" PRId64 " ms; the oldest is "
                    "step %" PRIu64 " microbatch %u chunk %u",
                    outbox->borrowing, outbox->peer_rank, timeout_ms, oldest->step,
                    oldest->micro_batch, oldest->chunk);
}

mr_status mr_link_outbox_wait_sent(mr_link_outbox *outbox, size_t outstanding_max,
                                   int64_t timeout_ms) {
    int64_t deadline = mr_monitor_deadline(timeout_ms);
    mr_status status = MR_OK;
    mr_monitor_lock(&outbox->monitor);
    for (bool in_time = true;; in_time = mr_monitor_wait(&outbox->monitor, deadline)) {
        status = mr_status_is_ok(outbox->interrupted) ? outbox->lost : outbox->interrupted;
        if (!mr_status_is_ok(status) || outbox->borrowing <= outstanding_max)
            break;
        if (!in_time) {
            status = outbox_late(outbox, timeout_ms);
            break;
        }
    }
    mr_monitor_unlock(&outbox->monitor);
    return status;
}

void mr_link_outbox_interrupt(mr_link_outbox *outbox, const char *reason) {
    mr_monitor_lock(&outbox->monitor);
    if (mr_status_is_ok(outbox->interrupted))
        outbox->interrupted = MR_ERROR(CANCELLED, "%s", reason);
    mr_monitor_notify(&outbox->monitor);
    mr_monitor_unlock(&outbox->monitor);
}
