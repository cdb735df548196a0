/* SPDX-License-Identifier: Apache-2.0 */
#include "client/feeder.h"

#include <string.h>

#include "client/lane.h"
#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

/* One replica: its stream and what comes next on it. */
typedef struct feeder_lane {
    mr_lane lane;
    bool accepted;     /* OPEN has come */
    uint64_t step;     /* of the next microbatch */
    size_t index;      /* of the next microbatch */
    uint64_t step_end; /* steps below it may be sent */
    uint64_t window;
} feeder_lane;

/* One microbatch on its way. The RPC thread that returns it needs to know queue and number. */
typedef struct feeder_buffer {
    mr_queue *events;
    uint32_t number;
    bool busy;
    int32_t *tokens; /* inputs [B, T], then labels [B, T] */
} feeder_buffer;

struct mr_feeder {
    mr_client *client;
    const mr_job *job;
    mr_data *data;
    mr_queue *events;
    size_t tokens; /* B x T */
    size_t lane_count;
    feeder_lane *lanes;
    feeder_buffer buffers[MR_EVENT_BUFFERS_MAX];
    char job_id[MR_NAME_BYTES];
    uint64_t epoch;
    bool stopped; /* nothing is opened or sent any more */
    int64_t retry_ms;
    unsigned retries;
    mr_status last_error; /* why the feed broke */
    mr_feeder_results results;
    bool based;    /* base is known */
    uint64_t base; /* the wire's number of the data's step 0: not 0 in evaluation */
};

mr_status mr_feeder_create(mr_client *client, const mr_job *job, mr_data *data, mr_queue *events,
                           mr_feeder **out_feeder) {
    size_t tokens = mr_data_micro_batch_tokens(data);
    size_t bytes_max = MR_RPC_MESSAGE_BYTES_MAX - MR_RPC_HEADER_BYTES_MAX;
    if (tokens > bytes_max / (2 * sizeof(int32_t)))
        return MR_ERROR(INVALID_ARGUMENT,
                        "batch.micro_batch_size x batch.sequence_length is %zu "
                        "tokens; one message takes at most %zu",
                        tokens, bytes_max / (2 * sizeof(int32_t)));
    if (job->data > MR_EVENT_LANES_MAX)
        return MR_ERROR(INVALID_ARGUMENT,
                        "pipeline.topology.data is %zu; one client feeds at most "
                        "%d replicas",
                        job->data, (int)MR_EVENT_LANES_MAX);
    mr_feeder *feeder = mr_alloc(sizeof(*feeder));
    if (feeder == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to feed the job");
    *feeder = (mr_feeder){
        .client = client,
        .job = job,
        .data = data,
        .events = events,
        .tokens = tokens,
        .lane_count = job->data,
        .lanes = mr_alloc_array(job->data, sizeof(*feeder->lanes)),
    };
    bool complete = feeder->lanes != NULL;
    for (uint32_t i = 0; i < MR_EVENT_BUFFERS_MAX; i++) {
        feeder->buffers[i] = (feeder_buffer){.events = events, .number = i};
        feeder->buffers[i].tokens = mr_alloc_array(2 * tokens, sizeof(int32_t));
        complete = complete && feeder->buffers[i].tokens != NULL;
    }
    if (!complete) {
        mr_feeder_destroy(feeder);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %d microbatches of %zu tokens",
                        (int)MR_EVENT_BUFFERS_MAX, tokens);
    }
    *out_feeder = feeder;
    return MR_OK;
}

void mr_feeder_destroy(mr_feeder *feeder) {
    if (feeder == NULL)
        return;
    for (size_t i = 0; i < MR_EVENT_BUFFERS_MAX; i++) {
        MR_ASSERT(!feeder->buffers[i].busy);
        mr_free(feeder->buffers[i].tokens);
    }
    mr_free(feeder->lanes);
    mr_free(feeder);
}

void mr_feeder_take_results(mr_feeder *feeder, const mr_feeder_results *results) {
    feeder->results = *results;
}

bool mr_feeder_idle(const mr_feeder *feeder) {
    for (size_t i = 0; i < feeder->lane_count; i++) {
        if (mr_lane_is_open(&feeder->lanes[i].lane))
            return false;
    }
    for (size_t i = 0; i < MR_EVENT_BUFFERS_MAX; i++) {
        if (feeder->buffers[i].busy)
            return false;
    }
    return true;
}

static void feeder_end_lanes(mr_feeder *feeder, bool now) {
    for (size_t i = 0; i < feeder->lane_count; i++) {
        if (now)
            mr_lane_cancel(&feeder->lanes[i].lane);
        else
            mr_lane_finish(&feeder->lanes[i].lane);
    }
}

void mr_feeder_stop(mr_feeder *feeder, bool now) {
    feeder->stopped = true;
    feeder_end_lanes(feeder, now);
}

/* RPC thread: the buffer's bytes are sent, or never will be. */
static void feeder_buffer_sent(void *context) {
    const feeder_buffer *buffer = context;
    mr_event event = {.kind = MR_EVENT_SENT, .number = buffer->number};
    mr_status status = mr_queue_push(buffer->events, &event);
    MR_ASSERT(mr_status_is_ok(status)); /* event.h: the queue has room */
}

static feeder_buffer *feeder_buffer_free(mr_feeder *feeder) {
    for (size_t i = 0; i < MR_EVENT_BUFFERS_MAX; i++) {
        if (!feeder->buffers[i].busy)
            return &feeder->buffers[i];
    }
    return NULL;
}

/* Sends the lane's next microbatch from a free buffer and moves on. */
static mr_status feeder_send_next(mr_feeder *feeder, feeder_lane *lane, feeder_buffer *buffer) {
    MR_TRY(mr_data_read(feeder->data, lane->step - feeder->base, lane->lane.number, lane->index,
                        buffer->tokens, buffer->tokens + feeder->tokens));
    uint64_t B = feeder->job->micro_batch_size;
    uint64_t T = feeder->job->sequence_length;
    mr_lane_message message = {
        .job_id = feeder->job_id,
        .epoch = feeder->epoch,
        .step = lane->step,
        .index = (uint32_t)lane->index,
        .tensors = {{"inputs", {B, T}}, {"labels", {B, T}}},
        .want_logits = feeder->results.wants_logits,
        .raw =
            {
                .data = buffer->tokens,
                .bytes = 2 * feeder->tokens * sizeof(int32_t),
                .sent = feeder_buffer_sent,
                .context = buffer,
            },
    };
    buffer->busy = true;
    mr_status status = mr_lane_send(&lane->lane, &message);
    if (!mr_status_is_ok(status)) {
        /* The stream is ending; its END says why and leads to a new one. */
        mr_lane_cancel(&lane->lane);
        return MR_OK;
    }
    lane->index++;
    if (lane->index == feeder->job->micro_batches) {
        lane->index = 0;
        lane->step++;
    }
    return MR_OK;
}

/* Sends while a lane has window and there is a free buffer; lanes take turns, so that none starves
 * another. */
static mr_status feeder_send_all(mr_feeder *feeder) {
    bool progress = true;
    while (progress) {
        progress = false;
        for (size_t i = 0; i < feeder->lane_count; i++) {
            feeder_lane *lane = &feeder->lanes[i];
            bool ready = mr_lane_is_open(&lane->lane) && !lane->lane.closing && lane->accepted &&
                         lane->step < lane->step_end;
            feeder_buffer *buffer = ready ? feeder_buffer_free(feeder) : NULL;
            if (buffer == NULL)
                continue;
            MR_TRY(feeder_send_next(feeder, lane, buffer));
            progress = true;
        }
    }
    return MR_OK;
}

static mr_status feeder_open_lanes(mr_feeder *feeder,
                                   const Millrace__V1__OpenFeedResponse *response) {
    if (response->n_addresses != feeder->lane_count)
        return MR_ERROR(INTERNAL,
                        "the coordinator names %zu first stages; the job has %zu replicas",
                        response->n_addresses, feeder->lane_count);
    if (strlen(response->job_id) >= sizeof(feeder->job_id))
        return MR_ERROR(INTERNAL, "the coordinator's job id has %zu letters; at most %zu fit",
                        strlen(response->job_id), sizeof(feeder->job_id) - 1);
    memcpy(feeder->job_id, response->job_id, strlen(response->job_id) + 1);
    feeder->epoch = response->epoch;
    for (size_t i = 0; i < feeder->lane_count; i++) {
        feeder_lane *lane = &feeder->lanes[i];
        *lane = (feeder_lane){0};
        mr_status status = mr_lane_open(&lane->lane, feeder->client, feeder->events, (uint32_t)i,
                                        response->addresses[i]);
        if (!mr_status_is_ok(status)) {
            feeder_end_lanes(feeder, true);
            return status;
        }
    }
    return MR_OK;
}

/* Asks where to feed and opens the lanes. An error that may pass is noted and tried again. */
static mr_status feeder_open(mr_feeder *feeder, const mr_watch *watch) {
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = (char *)(uintptr_t)watch->job_id; /* only packed */
    feeder->retry_ms = mr_clock_now_ms() + MR_FEEDER_RETRY_PERIOD_MS;
    mr_status status = mr_client_call(feeder->client, "OpenFeed", &request.base, &response);
    if (mr_status_is_ok(status)) {
        status = feeder_open_lanes(feeder, (Millrace__V1__OpenFeedResponse *)response);
        protobuf_c_message_free_unpacked(response, NULL);
    }
    if (mr_status_is_ok(status))
        return MR_OK;
    if (status.code != MR_CODE_FAILED_PRECONDITION && !mr_code_retry(status.code))
        return status;
    feeder->last_error = status;
    return MR_OK;
}

mr_status mr_feeder_tick(mr_feeder *feeder, const mr_watch *watch) {
    if (feeder->stopped)
        return MR_OK;
    if (mr_watch_running(watch) && mr_feeder_idle(feeder) &&
        mr_clock_now_ms() >= feeder->retry_ms) {
        if (feeder->retries == MR_FEEDER_RETRIES)
            return mr_status_prefix(feeder->last_error, "the feed could not be opened");
        feeder->retries++;
        MR_TRY(feeder_open(feeder, watch));
    }
    return feeder_send_all(feeder);
}

static void feeder_message(mr_feeder *feeder, feeder_lane *lane,
                           const Millrace__V1__FeedResponse *response) {
    switch (response->event) {
    case MILLRACE__V1__FEED_EVENT__FEED_EVENT_OPEN:
        if (feeder->results.take != NULL && !feeder->based)
            feeder->base = response->step;
        feeder->based = true;
        lane->accepted = true;
        lane->step = response->step;
        lane->index = 0;
        lane->window = response->window > 0 ? response->window : 1;
        lane->step_end = response->step + lane->window;
        break;
    case MILLRACE__V1__FEED_EVENT__FEED_EVENT_APPLIED:
    case MILLRACE__V1__FEED_EVENT__FEED_EVENT_RESULT:
        feeder->retries = 0;
        if (response->step + 1 + lane->window > lane->step_end)
            lane->step_end = response->step + 1 + lane->window;
        break;
    case MILLRACE__V1__FEED_EVENT__FEED_EVENT_END:
        feeder->stopped = true;
        mr_lane_finish(&lane->lane);
        break;
    default: /* RECEIVED, COMMITTED: the job's events tell more */
        break;
    }
    uint64_t end = feeder->base + feeder->job->total_steps;
    lane->step_end = lane->step_end < end ? lane->step_end : end;
}

mr_status mr_feeder_event(mr_feeder *feeder, const mr_event *event) {
    if (event->kind == MR_EVENT_SENT) {
        MR_ASSERT(event->number < MR_EVENT_BUFFERS_MAX);
        feeder->buffers[event->number].busy = false;
        return MR_OK;
    }
    MR_ASSERT(event->number < feeder->lane_count);
    feeder_lane *lane = &feeder->lanes[event->number];
    if (event->kind == MR_EVENT_MESSAGE) {
        const Millrace__V1__FeedResponse *response = (Millrace__V1__FeedResponse *)event->message;
        if (response->event == MILLRACE__V1__FEED_EVENT__FEED_EVENT_RESULT &&
            feeder->results.take != NULL)
            MR_TRY(feeder->results.take(feeder->results.context,
                                        response->step - feeder->base, response, event->tail));
        feeder_message(feeder, lane, response);
        mr_rpc_stream_receive(lane->lane.stream.stream);
        return MR_OK;
    }
    if (!lane->lane.closing)
        feeder->last_error = event->status;
    mr_lane_close(&lane->lane);
    feeder->retry_ms = mr_clock_now_ms() + MR_FEEDER_RETRY_PERIOD_MS;
    /* A replica alone cannot go on: all begin again together. */
    if (!feeder->stopped)
        feeder_end_lanes(feeder, true);
    if (event->status.code == MR_CODE_INVALID_ARGUMENT)
        return mr_status_prefix(event->status, "the first stage refused the data");
    return MR_OK;
}
