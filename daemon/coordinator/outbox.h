/* SPDX-License-Identifier: Apache-2.0 */
/* outbox.h: what goes out of the coordinator, in order, and never before the state it belongs to is
 * on the disk: a barrier stands in the line until its decision is stored, and everything behind it
 * waits. A disk that does not answer in MR_OUTBOX_WAIT_MS holds nobody up any longer, nor does a
 * full line: an ABORT that comes too late would cost more than a fact that is written too late.
 * Owner: coordinator. Thread: LOOP. Limits: MR_OUTBOX_ITEMS_MAX. */
#ifndef MR_COORDINATOR_OUTBOX_H
#define MR_COORDINATOR_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/rpc/stream.h"

enum { MR_OUTBOX_WAIT_MS = 2000 };

/* One thing to do: run(item) when its turn comes. stream and message may be NULL; they are borrowed
 * when it is added (a waiting item keeps a reference and a copy) and when it runs. */
typedef struct mr_outbox_item {
    void (*run)(const struct mr_outbox_item *item);
    void *context; /* the run's own; it lives longer than the outbox, or the run frees it */
    mr_rpc_stream *stream;
    ProtobufCMessage *message;
    uint64_t number;
    bool flag;
    mr_status status;
} mr_outbox_item;

typedef struct mr_outbox mr_outbox;

/* Empty, without barriers. RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_outbox_create(mr_outbox **out_outbox);
/* What waits is run. NULL is fine. */
void mr_outbox_destroy(mr_outbox *outbox);
/* Runs it now where nothing stands before it, else later. An item that finds no memory to wait runs
 * now: too early is better than never. */
void mr_outbox_add(mr_outbox *outbox, const mr_outbox_item *item);
/* Puts a barrier at the line's end; it falls with mr_outbox_release of its ticket. */
uint64_t mr_outbox_barrier(mr_outbox *outbox, int64_t now_ms);
/* Fells the barrier of this ticket and all before it. */
void mr_outbox_release(mr_outbox *outbox, uint64_t ticket);
/* Fells every barrier: all that waits runs. */
void mr_outbox_flush(mr_outbox *outbox);
/* Fells barriers that are too old; true where one was. */
bool mr_outbox_tick(mr_outbox *outbox, int64_t now_ms);

#endif
