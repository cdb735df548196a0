/* SPDX-License-Identifier: Apache-2.0 */
/* feed_window.h: the microbatches of the steps that come next, in memory sized once. A slot belongs
 * to the RPC thread while empty and to EXEC once filled; its state is the hand-over.
 * Owner: stage/feed. Counted: the feed and each stream that fills it hold a reference. */
#ifndef MR_STAGE_FEED_WINDOW_H
#define MR_STAGE_FEED_WINDOW_H

#include "daemon/link/link.h"
#include "daemon/rpc/message.h"
#include "daemon/stage/assignment.h"
#include "millrace/v1/feed.pb-c.h"

typedef struct mr_feed_window mr_feed_window;

/* What was done with an offered microbatch. */
typedef enum mr_feed_offer {
    MR_FEED_OFFER_TAKEN,
    MR_FEED_OFFER_COMPLETED, /* taken, and it was its step's last */
    MR_FEED_OFFER_DUPLICATE, /* already here */
} mr_feed_offer;

/* An empty window that begins at next_step; the caller holds the one reference. RESOURCE_EXHAUSTED:
 * no memory. */
MR_MUST_CHECK mr_status mr_feed_window_create(const mr_assignment *assignment, uint64_t next_step,
                                              mr_feed_window **out_window);
/* One more reference, one fewer; the last one frees. Any thread; NULL is fine in unref. */
mr_feed_window *mr_feed_window_ref(mr_feed_window *window);
void mr_feed_window_unref(mr_feed_window *window);

/* RPC thread. Checks job, epoch, place, shapes and token ids, and copies the tensors in.
 * FAILED_PRECONDITION: another job or epoch; OUT_OF_RANGE: outside the window; INVALID_ARGUMENT: a
 * count of microbatches other than the rest of its step gave; a tensor that is missing, of another
 * shape, or holds a token >= vocab (position, id, vocab named), or logits wanted that do not fit
 * one answer. */
MR_MUST_CHECK mr_status mr_feed_window_offer(mr_feed_window *window,
                                             const Millrace__V1__FeedRequest *request,
                                             const mr_rpc_tail *tail, mr_feed_offer *out_offer);
/* The first step that is not applied. Any thread. */
uint64_t mr_feed_window_next(const mr_feed_window *window);
/* EXEC; see feed.h. */
void mr_feed_window_take(mr_feed_window *window, uint64_t step, uint32_t micro_batch,
                         mr_message *out_message);
uint32_t mr_feed_window_micro_batches(const mr_feed_window *window, uint64_t step);
bool mr_feed_window_ready(const mr_feed_window *window, uint64_t step);
bool mr_feed_window_wants_logits(const mr_feed_window *window, uint64_t step);
void mr_feed_window_done(mr_feed_window *window, uint64_t step);

#endif
