/* SPDX-License-Identifier: Apache-2.0 */
/* inbox.h: what every receiving end of a link has: slots for messages, the queue of those that have
 * arrived, and the waits on it. A slot goes round: taken (free), laid out and filled by the
 * transport, put (arrived), received, released.
 * Owner: link. Thread: any; filling a slot belongs to the one that took it. Internal to this
 * folder. */
#ifndef MR_LINK_INBOX_H
#define MR_LINK_INBOX_H

#include <stdatomic.h>

#include "daemon/base/arena.h"
#include "daemon/base/monitor.h"
#include "daemon/link/link.h"

typedef struct mr_link_slot {
    mr_message message;
    unsigned char *memory;
    size_t bytes;  /* of the message's tensors, once laid out */
    size_t filled; /* of those, in message order */
    struct mr_link_slot *next;
} mr_link_slot;

typedef struct mr_link_inbox {
    mr_monitor monitor; /* of all below that changes */
    uint32_t peer_rank;
    size_t slot_count;
    size_t message_bytes_max;
    mr_arena arena;
    mr_link_slot *slots;
    mr_link_slot *free;
    mr_link_slot *arrived_first;
    mr_link_slot *arrived_last;
    uint64_t released; /* messages since the start */
    mr_status lost;        /* OK: the peer is there */
    mr_status interrupted; /* OK: not */
    _Atomic uint64_t bytes;
} mr_link_inbox;

/* Allocates all slots. INVALID_ARGUMENT: no slots, or no bytes; RESOURCE_EXHAUSTED: no memory.
 * After either, deinit is right. */
MR_MUST_CHECK mr_status mr_link_inbox_init(mr_link_inbox *inbox, const mr_link_options *options);
void mr_link_inbox_deinit(mr_link_inbox *inbox);

/* ---- the transport's side ---- */

/* A free slot; NULL: all are in use. */
mr_link_slot *mr_link_inbox_take(mr_link_inbox *inbox);
/* slot->message says which tensors there are; gives each its memory. INVALID_ARGUMENT: no tensor,
 * no bytes, or a shape that is none; RESOURCE_EXHAUSTED: over message_bytes_max. */
MR_MUST_CHECK mr_status mr_link_inbox_lay_out(const mr_link_inbox *inbox, mr_link_slot *slot);
/* Where byte slot->filled of the message belongs, and how many bytes follow it there without a gap.
 * Only while filled < bytes. */
unsigned char *mr_link_slot_place(const mr_link_slot *slot, size_t *out_bytes);
/* The slot's message is complete. */
void mr_link_inbox_put(mr_link_inbox *inbox, mr_link_slot *slot);
/* The slot's message will never be. */
void mr_link_inbox_drop(mr_link_inbox *inbox, mr_link_slot *slot);
/* No message will follow: those that have arrived can still be received. The first reason stays. */
void mr_link_inbox_lose(mr_link_inbox *inbox, mr_status why);

/* ---- what link.h promises ---- */

/* As mr_link_receive. */
MR_MUST_CHECK mr_status mr_link_inbox_receive(mr_link_inbox *inbox, uint64_t step,
                                              uint32_t micro_batch, uint32_t chunk,
                                              int64_t timeout_ms, mr_message *out_message);
/* Messages released since the start. */
uint64_t mr_link_inbox_release(mr_link_inbox *inbox, mr_message *message);
void mr_link_inbox_interrupt(mr_link_inbox *inbox, const char *reason);

#endif
