/* SPDX-License-Identifier: Apache-2.0 */
/* feeder.h: brings the microbatches of a job to the first stages of its replicas, each
 * lane in order and within the window that its stage grants: after OPEN(step, window) steps below
 * step + window may be sent, after APPLIED(s) or RESULT(s) those below s + 1 + window. Steps count
 * from 0 here.
 * A feed that breaks is opened again at the step the stages name, as long as the job runs.
 * Owner: client. Thread: main. Limits: MR_EVENT_LANES_MAX replicas, MR_EVENT_BUFFERS_MAX
 * microbatches on their way, MR_FEEDER_RETRIES attempts. Not here: reading files (data.h), one
 * stream (lane.h). */
#ifndef MR_CLIENT_FEEDER_H
#define MR_CLIENT_FEEDER_H

#include "client/client.h"
#include "client/data.h"
#include "client/event.h"
#include "client/watch.h"
#include "daemon/model/job.h"
#include "millrace/v1/feed.pb-c.h"

enum {
    MR_FEEDER_RETRIES = 20, /* openings in a row after which nothing was applied */
    MR_FEEDER_RETRY_PERIOD_MS = 500,
};

typedef struct mr_feeder mr_feeder;

/* Sizes the buffers; opens nothing. client, job, data and events are borrowed for its life.
 * INVALID_ARGUMENT: a microbatch too large for one message, too many replicas. */
MR_MUST_CHECK mr_status mr_feeder_create(mr_client *client, const mr_job *job, mr_data *data,
                                         mr_queue *events, mr_feeder **out_feeder);
/* After mr_feeder_idle. NULL is fine. */
void mr_feeder_destroy(mr_feeder *feeder);

/* What is done with the results of steps that do not train. Main thread. */
typedef struct mr_feeder_results {
    bool wants_logits;
    /* The RESULT of a step of the data; an error is final. */
    mr_status (*take)(void *context, uint64_t step, const Millrace__V1__FeedResponse *response,
                      const mr_rpc_tail *tail);
    void *context;
} mr_feeder_results;
/* Before the first tick, for a job that is evaluated: its steps end with a RESULT. On the wire they
 * count on from the checkpoint's step; the data begins with the first of them. */
void mr_feeder_take_results(mr_feeder *feeder, const mr_feeder_results *results);

/* Opens the feed when the job runs and it is time, and sends what the windows allow. An error is
 * final: bad data, or a feed that cannot be opened. */
MR_MUST_CHECK mr_status mr_feeder_tick(mr_feeder *feeder, const mr_watch *watch);
/* Takes an event of one of its lanes or buffers. */
MR_MUST_CHECK mr_status mr_feeder_event(mr_feeder *feeder, const mr_event *event);
/* Ends all lanes, in order (all is done) or now. */
void mr_feeder_stop(mr_feeder *feeder, bool now);
/* No lane is open and every buffer is back. */
bool mr_feeder_idle(const mr_feeder *feeder);

#endif
