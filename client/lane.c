/* SPDX-License-Identifier: Apache-2.0 */
#include "client/lane.h"

mr_status mr_lane_open(mr_lane *lane, const mr_client *client, mr_queue *events, uint32_t number,
                       const char *address) {
    MR_ASSERT(lane->stream.stream == NULL);
    MR_ASSERT(number < MR_EVENT_LANES_MAX);
    lane->number = number;
    lane->closing = false;
    lane->cancelled = false;
    mr_status status = mr_rpc_channel_create(address, &client->credentials, &lane->channel);
    if (mr_status_is_ok(status))
        status = mr_event_stream_open(&lane->stream, events, number, lane->channel,
                                      &millrace__v1__feed__descriptor, "Feed", NULL);
    if (mr_status_is_ok(status))
        return MR_OK;
    mr_lane_close(lane);
    return mr_status_prefix(status, "feed of replica %u at %s", number, address);
}

mr_status mr_lane_send(mr_lane *lane, const mr_lane_message *message) {
    Millrace__V1__Tensor tensors[2] = {MILLRACE__V1__TENSOR__INIT, MILLRACE__V1__TENSOR__INIT};
    Millrace__V1__Tensor *list[2] = {&tensors[0], &tensors[1]};
    uint64_t dims[2][2];
    for (size_t i = 0; i < 2; i++) {
        dims[i][0] = message->tensors[i].dims[0];
        dims[i][1] = message->tensors[i].dims[1];
        tensors[i].name = (char *)(uintptr_t)message->tensors[i].name; /* only packed */
        tensors[i].data_type = MILLRACE__V1__DATA_TYPE__DATA_TYPE_I32;
        tensors[i].n_dims = dims[i][1] != 0 ? 2 : 1;
        tensors[i].dims = dims[i];
    }
    Millrace__V1__FeedRequest request = MILLRACE__V1__FEED_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)message->job_id; /* only packed */
    request.epoch = message->epoch;
    request.step = message->step;
    request.index = message->index;
    request.n_tensors = 2;
    request.tensors = list;
    request.want_logits = message->want_logits;
    return mr_rpc_stream_send(lane->stream.stream, &request.base, &message->raw);
}

void mr_lane_finish(mr_lane *lane) {
    if (lane->stream.stream != NULL && !lane->closing)
        mr_rpc_stream_finish(lane->stream.stream, MR_OK);
    lane->closing = true;
}

void mr_lane_cancel(mr_lane *lane) {
    if (lane->stream.stream != NULL && !lane->cancelled)
        mr_rpc_stream_cancel(lane->stream.stream);
    lane->closing = true;
    lane->cancelled = true;
}

void mr_lane_close(mr_lane *lane) {
    mr_event_stream_close(&lane->stream);
    mr_rpc_channel_destroy(lane->channel);
    lane->channel = NULL;
}

bool mr_lane_is_open(const mr_lane *lane) {
    return lane->stream.stream != NULL;
}
