/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/group/wire.h"

#include <stdatomic.h>
#include <stdio.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

enum { WIRE_REASON_BYTES = 160 };

/* All below the counter is under the monitor. */
struct mr_group_wire {
    atomic_uint references;
    uint32_t peer_rank;
    mr_monitor monitor;
    bool claimed; /* by one stream, for good */
    mr_rpc_stream *stream;
    ProtobufCMessage *arrived; /* waiting to be taken */
    mr_rpc_tail *arrived_tail;
    ProtobufCMessage *taken; /* EXEC's, until the next take */
    mr_rpc_tail *taken_tail;
    size_t borrowed; /* sends whose bytes are not back */
    bool lost;
    bool interrupted;
    bool closed;
    char reason[WIRE_REASON_BYTES]; /* of loss, then of interrupt */
};

mr_status mr_group_wire_create(uint32_t peer_rank, mr_group_wire **out_wire) {
    mr_group_wire *wire = mr_alloc(sizeof(*wire));
    if (wire == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the wire to rank %u", peer_rank);
    wire->references = 1;
    wire->peer_rank = peer_rank;
    mr_monitor_init(&wire->monitor);
    *out_wire = wire;
    return MR_OK;
}

mr_group_wire *mr_group_wire_ref(mr_group_wire *wire) {
    atomic_fetch_add(&wire->references, 1);
    return wire;
}

static void frame_free(ProtobufCMessage *frame, mr_rpc_tail *tail) {
    if (frame != NULL)
        protobuf_c_message_free_unpacked(frame, NULL);
    mr_rpc_tail_destroy(tail);
}

void mr_group_wire_unref(mr_group_wire *wire) {
    if (wire == NULL || atomic_fetch_sub(&wire->references, 1) != 1)
        return;
    frame_free(wire->arrived, wire->arrived_tail);
    frame_free(wire->taken, wire->taken_tail);
    if (wire->stream != NULL)
        mr_rpc_stream_unref(wire->stream);
    mr_monitor_deinit(&wire->monitor);
    mr_free(wire);
}

uint32_t mr_group_wire_peer(const mr_group_wire *wire) {
    return wire->peer_rank;
}

mr_status mr_group_wire_claim(mr_group_wire *wire) {
    mr_status status = MR_OK;
    mr_monitor_lock(&wire->monitor);
    if (wire->closed)
        status = MR_ERROR(CANCELLED, "this rank has left the group");
    else if (wire->claimed)
        status = MR_ERROR(ALREADY_EXISTS, "rank %u has joined already", wire->peer_rank);
    else
        wire->claimed = true;
    mr_monitor_unlock(&wire->monitor);
    return status;
}

mr_status mr_group_wire_bind(mr_group_wire *wire, mr_rpc_stream *stream) {
    mr_status status = MR_OK;
    mr_monitor_lock(&wire->monitor);
    MR_ASSERT(wire->claimed);
    MR_ASSERT(wire->stream == NULL);
    if (wire->closed) {
        status = MR_ERROR(CANCELLED, "this rank has left the group");
    } else {
        wire->stream = mr_rpc_stream_ref(stream);
        mr_monitor_notify(&wire->monitor);
    }
    mr_monitor_unlock(&wire->monitor);
    return status;
}

void mr_group_wire_arrived(mr_group_wire *wire, ProtobufCMessage *owned_frame,
                           mr_rpc_tail *owned_tail) {
    mr_monitor_lock(&wire->monitor);
    MR_ASSERT(wire->arrived == NULL); /* one was asked for */
    wire->arrived = owned_frame;
    wire->arrived_tail = owned_tail;
    mr_monitor_notify(&wire->monitor);
    mr_monitor_unlock(&wire->monitor);
}

void mr_group_wire_lose(mr_group_wire *wire, mr_status why) {
    mr_monitor_lock(&wire->monitor);
    if (!wire->lost && !wire->interrupted)
        (void)snprintf(wire->reason, sizeof(wire->reason), "%s", why.text);
    wire->lost = true;
    mr_monitor_notify(&wire->monitor);
    mr_monitor_unlock(&wire->monitor);
}

void mr_group_wire_interrupt(mr_group_wire *wire, const char *reason) {
    mr_monitor_lock(&wire->monitor);
    if (!wire->interrupted)
        (void)snprintf(wire->reason, sizeof(wire->reason), "%s", reason);
    wire->interrupted = true;
    mr_monitor_notify(&wire->monitor);
    mr_monitor_unlock(&wire->monitor);
}

/* Under the monitor: what ends a wait besides its success. frames_left: something can still be
 * taken. */
static mr_status wire_check(const mr_group_wire *wire, bool expired, bool frames_left) {
    if (wire->interrupted)
        return MR_ERROR(CANCELLED, "interrupted: %s", wire->reason);
    if (wire->lost && !frames_left)
        return MR_ERROR(UNAVAILABLE, "rank %u is lost: %s", wire->peer_rank, wire->reason);
    if (expired)
        return MR_ERROR(DEADLINE_EXCEEDED, "rank %u did not answer in time", wire->peer_rank);
    return MR_OK;
}

mr_status mr_group_wire_wait_bound(mr_group_wire *wire, int64_t deadline) {
    mr_status status = MR_OK;
    bool in_time = true;
    mr_monitor_lock(&wire->monitor);
    while (mr_status_is_ok(status = wire_check(wire, !in_time, false)) && wire->stream == NULL)
        in_time = mr_monitor_wait(&wire->monitor, deadline);
    mr_monitor_unlock(&wire->monitor);
    return status;
}

static void wire_sent(void *context) {
    mr_group_wire *wire = context;
    mr_monitor_lock(&wire->monitor);
    wire->borrowed--;
    mr_monitor_notify(&wire->monitor);
    mr_monitor_unlock(&wire->monitor);
    mr_group_wire_unref(wire);
}

/* Leaves room in the stream's queue for others' frames: waits while many are under way. */
static mr_status wire_begin_send(mr_group_wire *wire, int64_t deadline) {
    mr_status status = MR_OK;
    bool in_time = true;
    mr_monitor_lock(&wire->monitor);
    while (mr_status_is_ok(status = wire_check(wire, !in_time, false)) &&
           (wire->stream == NULL || wire->borrowed >= MR_RPC_SEND_QUEUE_MAX / 2))
        in_time = mr_monitor_wait(&wire->monitor, deadline);
    if (mr_status_is_ok(status))
        wire->borrowed++;
    mr_monitor_unlock(&wire->monitor);
    return status;
}

mr_status mr_group_wire_send(mr_group_wire *wire, const Millrace__V1__GroupFrame *frame,
                             const void *data, size_t bytes, int64_t deadline) {
    MR_TRY(wire_begin_send(wire, deadline));
    mr_rpc_raw raw = {
        .data = data,
        .bytes = bytes,
        .sent = wire_sent,
        .context = mr_group_wire_ref(wire),
    };
    if (bytes > 0) /* sent runs in every outcome */
        return mr_rpc_stream_send(wire->stream, &frame->base, &raw);
    mr_status status = mr_rpc_stream_send(wire->stream, &frame->base, NULL);
    wire_sent(wire);
    return status;
}

mr_status mr_group_wire_flush(mr_group_wire *wire, int64_t deadline) {
    mr_status status = MR_OK;
    bool in_time = true;
    mr_monitor_lock(&wire->monitor);
    while (wire->borrowed > 0 && mr_status_is_ok(status)) {
        status = wire_check(wire, !in_time, false);
        if (mr_status_is_ok(status))
            in_time = mr_monitor_wait(&wire->monitor, deadline);
    }
    if (!mr_status_is_ok(status) && wire->stream != NULL)
        mr_rpc_stream_cancel(wire->stream); /* the transport now gives everything back */
    int64_t last = mr_monitor_deadline(MR_ABORT_TIMEOUT_MS);
    while (wire->borrowed > 0 && mr_monitor_wait(&wire->monitor, last))
        ;
    MR_ASSERT(wire->borrowed == 0); /* a cancelled stream that keeps its bytes is a bug of rpc/ */
    mr_monitor_unlock(&wire->monitor);
    return status;
}

mr_status mr_group_wire_take(mr_group_wire *wire, int64_t deadline,
                             const Millrace__V1__GroupFrame **out_frame,
                             const mr_rpc_tail **out_tail) {
    mr_status status = MR_OK;
    bool in_time = true;
    mr_monitor_lock(&wire->monitor);
    while (mr_status_is_ok(status = wire_check(wire, !in_time, wire->arrived != NULL)) &&
           wire->arrived == NULL)
        in_time = mr_monitor_wait(&wire->monitor, deadline);
    if (mr_status_is_ok(status)) {
        frame_free(wire->taken, wire->taken_tail);
        wire->taken = wire->arrived;
        wire->taken_tail = wire->arrived_tail;
        wire->arrived = NULL;
        wire->arrived_tail = NULL;
    }
    mr_monitor_unlock(&wire->monitor);
    if (!mr_status_is_ok(status))
        return status;
    mr_rpc_stream_receive(wire->stream); /* the next one may come while this is worked on */
    *out_frame = (const Millrace__V1__GroupFrame *)wire->taken;
    *out_tail = wire->taken_tail;
    return MR_OK;
}

void mr_group_wire_close(mr_group_wire *wire) {
    mr_monitor_lock(&wire->monitor);
    wire->closed = true;
    mr_rpc_stream *stream = wire->stream;
    mr_monitor_unlock(&wire->monitor);
    if (stream != NULL)
        mr_rpc_stream_cancel(stream);
    mr_status status = mr_group_wire_flush(wire, mr_monitor_deadline(0));
    (void)status; /* closing: nobody waits for these bytes */
    mr_group_wire_unref(wire);
}
