/* SPDX-License-Identifier: Apache-2.0 */
/* lane.h: one Feed stream to the first stage of one replica. Its events go to the command's queue
 * with the lane's number. Owner: client. Thread: main. Not here: what is sent and when (feeder.h,
 * generate.c). */
#ifndef MR_CLIENT_LANE_H
#define MR_CLIENT_LANE_H

#include "client/client.h"
#include "client/event.h"
#include "millrace/v1/feed.pb-c.h"

typedef struct mr_lane {
    mr_rpc_channel *channel;
    mr_event_stream stream;
    uint32_t number;
    bool closing;   /* half-closed or cancelled by us */
    bool cancelled; /* by us */
} mr_lane;

/* One i32 tensor of a microbatch, at most two-dimensional: dims[1] is 0 for one dimension. */
typedef struct mr_lane_tensor {
    const char *name;
    uint64_t dims[2];
} mr_lane_tensor;

/* A microbatch: where it belongs and its tensors' bytes, one after the other. */
typedef struct mr_lane_message {
    const char *job_id;
    uint64_t epoch;
    uint64_t step;
    uint32_t index;
    mr_lane_tensor tensors[2];
    bool want_logits;
    mr_rpc_raw raw;
} mr_lane_message;

/* Opens the stream; *lane is zeroed or closed, and stays where it is until mr_lane_close. */
MR_MUST_CHECK mr_status mr_lane_open(mr_lane *lane, const mr_client *client, mr_queue *events,
                                     uint32_t number, const char *address);
/* Sends one microbatch; raw.sent runs in every outcome. */
MR_MUST_CHECK mr_status mr_lane_send(mr_lane *lane, const mr_lane_message *message);
/* Says that nothing more will be sent. */
void mr_lane_finish(mr_lane *lane);
/* Ends the stream now. */
void mr_lane_cancel(mr_lane *lane);
/* After the lane's MR_EVENT_END. A closed lane is fine. */
void mr_lane_close(mr_lane *lane);
bool mr_lane_is_open(const mr_lane *lane);

#endif
