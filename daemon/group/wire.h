/* SPDX-License-Identifier: Apache-2.0 */
/* wire.h: how one end of a group reaches another: a pipe for each pair of first member and other
 * member. Frames go out with borrowed payload and come in one at a time, on demand. The operations
 * (star.h) are written on it.
 * Owner: group. Thread: as group.h says; interrupt and lose: any. Internal to this folder. */
#ifndef MR_GROUP_WIRE_H
#define MR_GROUP_WIRE_H

#include <stdint.h>

#include "daemon/base/monitor.h"
#include "daemon/base/status.h"
#include "daemon/rpc/message.h"
#include "daemon/rpc/stream.h"
#include "millrace/v1/group.pb-c.h"

/* One pair's pipe, as one end sees it. Counted: the group and the stream's events hold
 * references. */
typedef struct mr_group_wire mr_group_wire;

/* peer_rank: who is at the other end. */
MR_MUST_CHECK mr_status mr_group_wire_create(uint32_t peer_rank, mr_group_wire **out_wire);
mr_group_wire *mr_group_wire_ref(mr_group_wire *wire);
void mr_group_wire_unref(mr_group_wire *wire);
uint32_t mr_group_wire_peer(const mr_group_wire *wire);

/* Reserves the wire for one stream, which bind then brings. ALREADY_EXISTS: another one has it;
 * CANCELLED: closed. Any thread. */
MR_MUST_CHECK mr_status mr_group_wire_claim(mr_group_wire *wire);
/* The stream that carries it from now on (referenced). CANCELLED: closed. Any thread. */
MR_MUST_CHECK mr_status mr_group_wire_bind(mr_group_wire *wire, mr_rpc_stream *stream);
/* A frame has arrived (RPC thread; owns both). */
void mr_group_wire_arrived(mr_group_wire *wire, ProtobufCMessage *owned_frame,
                           mr_rpc_tail *owned_tail);
/* The other end is gone; what has arrived can still be taken. Any thread. */
void mr_group_wire_lose(mr_group_wire *wire, mr_status why);
/* Every present and later wait returns CANCELLED. Any thread. */
void mr_group_wire_interrupt(mr_group_wire *wire, const char *reason);

/* Waits until a stream is bound. */
MR_MUST_CHECK mr_status mr_group_wire_wait_bound(mr_group_wire *wire, int64_t deadline);
/* Sends one frame; bytes at data are borrowed until flush returns. */
MR_MUST_CHECK mr_status mr_group_wire_send(mr_group_wire *wire,
                                           const Millrace__V1__GroupFrame *frame, const void *data,
                                           size_t bytes, int64_t deadline);
/* Waits until nothing is borrowed any more. When the wait ends otherwise (deadline, loss,
 * interrupt) the stream is cancelled first, so that on return nothing is borrowed in every
 * outcome. */
MR_MUST_CHECK mr_status mr_group_wire_flush(mr_group_wire *wire, int64_t deadline);
/* Waits for the next frame. DEADLINE_EXCEEDED and UNAVAILABLE name the peer's rank. The frame is
 * the wire's until the next take. */
MR_MUST_CHECK mr_status mr_group_wire_take(mr_group_wire *wire, int64_t deadline,
                                           const Millrace__V1__GroupFrame **out_frame,
                                           const mr_rpc_tail **out_tail);
/* Ends the stream and forgets it. */
void mr_group_wire_close(mr_group_wire *wire);

#endif
