/* SPDX-License-Identifier: Apache-2.0 */
/* feed.h: microbatches from the client: service millrace.v1.Feed of a first stage, and the window
 * of steps that may be under way. A step starts only when all its microbatches are here, so that a
 * client that dies never leaves half a step behind; a client that comes back is told which step
 * comes next, and a microbatch that is already here is acknowledged and dropped.
 * Owner: stage. Thread: LOOP unless said; the window is filled on RPC threads and read on EXEC,
 * slot by slot, through one atomic each.
 * Limits: MR_FEED_WINDOW_STEPS steps of the job's micro_batches. One stream feeds at a time.
 * Not here: data files (client). */
#ifndef MR_STAGE_FEED_H
#define MR_STAGE_FEED_H

#include "daemon/base/loop.h"
#include "daemon/link/link.h"
#include "daemon/rpc/server.h"
#include "daemon/stage/assignment.h"

typedef struct mr_feed mr_feed;

/* What the feed tells its stage. */
typedef struct mr_feed_events {
    /* RPC thread: every microbatch of step is here. */
    void (*step_ready)(void *context, uint64_t step);
    /* LOOP: a client's stream was accepted (open) or has ended. An inference job ends with its
     * feed. */
    void (*state)(void *context, bool open);
    void *context;
} mr_feed_events;

/* No stream is accepted before mr_feed_start. RESOURCE_EXHAUSTED: no memory. Owner destroys it. */
MR_MUST_CHECK mr_status mr_feed_create(mr_loop *loop, const mr_feed_events *events,
                                       mr_feed **out_feed);
/* After the server has stopped. NULL is fine. */
void mr_feed_destroy(mr_feed *feed);
/* The service's table; the feed outlives the server. */
mr_rpc_service mr_feed_service(mr_feed *feed);

/* Accepts streams for this assignment from next_step on. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_feed_start(mr_feed *feed, const mr_assignment *assignment,
                                      uint64_t next_step);
/* Ends the client's stream with status and takes no more. EXEC must not read the window any
 * more. */
void mr_feed_stop(mr_feed *feed, mr_status status);

/* EXEC: the microbatch of a step that step_ready named. Its tensors stay until mr_feed_done. */
void mr_feed_take(mr_feed *feed, uint64_t step, uint32_t micro_batch, mr_message *out_message);
/* EXEC: is every microbatch of step here? */
bool mr_feed_ready(mr_feed *feed, uint64_t step);
/* EXEC: how many microbatches a step has that is here: the job's, or fewer. */
uint32_t mr_feed_micro_batches(mr_feed *feed, uint64_t step);
/* EXEC: evaluation: does a microbatch of step, which is here, ask for its logits? */
bool mr_feed_wants_logits(mr_feed *feed, uint64_t step);
/* EXEC: step is applied; its slots are free for step + MR_FEED_WINDOW_STEPS. */
void mr_feed_done(mr_feed *feed, uint64_t step);

/* Acknowledgements to the client, when there is one. */
void mr_feed_send_applied(mr_feed *feed, uint64_t step, double loss);
void mr_feed_send_committed(mr_feed *feed, uint64_t step, const char *tag);
/* What a step without training gave. owned_logits: f32 of that shape, freed with mr_free when sent;
 * NULL for none. */
void mr_feed_send_result(mr_feed *feed, uint64_t step, double loss, float *owned_logits,
                         const mr_shape *shape);

#endif
