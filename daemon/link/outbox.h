/* SPDX-License-Identifier: Apache-2.0 */
/* outbox.h: what every sending end of a link has: the messages whose tensors' bytes are borrowed,
 * the receiver's credit, and the waits on both.
 * Messages count from 1. freed <= handed <= queued: handed ones are with the transport, and at most
 * slots of them may be beyond taken, what the receiver has released; the others wait here. A
 * message borrows its bytes until it is handed over and every frame of it is gone.
 * Owner: link. Thread: any; functions marked "inside" want the monitor. Internal to this folder. */
#ifndef MR_LINK_OUTBOX_H
#define MR_LINK_OUTBOX_H

#include <stdatomic.h>

#include "daemon/base/monitor.h"
#include "daemon/link/link.h"

/* How many more than slots messages may wait at the sender, beyond as many again: see send. */
enum { MR_LINK_WAITING_EXTRA = 2 };

typedef struct mr_link_outbox mr_link_outbox;

/* A message on its way. */
typedef struct mr_link_parcel {
    mr_link_outbox *outbox;
    mr_message message;
    uint64_t sequence;
    size_t bytes;
    size_t frames; /* with the transport, bytes still borrowed */
    bool handed;   /* no frame will follow */
    int64_t queued_ns;
} mr_link_parcel;

struct mr_link_outbox {
    mr_monitor monitor; /* of all below that changes */
    mr_link_watch *watch; /* NULL: nobody watches */
    uint32_t peer_rank;
    size_t slots;
    size_t message_bytes_max;
    mr_link_parcel *parcels; /* message s is parcels[(s - 1) % capacity] */
    size_t capacity;
    uint64_t queued;
    uint64_t handed;
    uint64_t taken;
    size_t borrowing; /* messages */
    size_t frames;    /* of all parcels */
    mr_status lost;
    mr_status interrupted;
    _Atomic uint64_t bytes;
};

/* INVALID_ARGUMENT: no slots, or no bytes; RESOURCE_EXHAUSTED: no memory. After either, deinit is
 * right. */
MR_MUST_CHECK mr_status mr_link_outbox_init(mr_link_outbox *outbox,
                                            const mr_link_options *options);
/* Nothing borrows any more. */
void mr_link_outbox_deinit(mr_link_outbox *outbox);

/* ---- the transport's side ---- */

/* Inside. The message to hand over next; NULL: none waits, the receiver has no slot for it, or the
 * link is at its end. */
mr_link_parcel *mr_link_outbox_due(mr_link_outbox *outbox);
/* Inside. The parcel that was due is with the transport as a whole. */
void mr_link_outbox_handed(mr_link_parcel *parcel);
/* Inside. A frame of the parcel goes to the transport; it is gone. */
void mr_link_outbox_frame_begin(mr_link_parcel *parcel);
void mr_link_outbox_frame_end(mr_link_parcel *parcel);
/* Inside. The receiver has released so many messages. False: more than were sent. */
bool mr_link_outbox_taken(mr_link_outbox *outbox, uint64_t taken);
/* Inside. Nothing more can be sent; the first reason stays. */
void mr_link_outbox_lose(mr_link_outbox *outbox, mr_status why);
/* Inside. The messages that were not handed over never will be, and give their bytes back. */
void mr_link_outbox_drop(mr_link_outbox *outbox);

/* ---- what link.h promises ---- */

/* Inside. INVALID_ARGUMENT and RESOURCE_EXHAUSTED as for the receiver's lay_out, too. */
MR_MUST_CHECK mr_status mr_link_outbox_send(mr_link_outbox *outbox, const mr_message *message);
MR_MUST_CHECK mr_status mr_link_outbox_wait_sent(mr_link_outbox *outbox, size_t outstanding_max,
                                                 int64_t timeout_ms);
void mr_link_outbox_interrupt(mr_link_outbox *outbox, const char *reason);

#endif
