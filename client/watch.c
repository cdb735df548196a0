/* SPDX-License-Identifier: Apache-2.0 */
#include "client/watch.h"

#include <stdio.h>
#include <string.h>

#include "daemon/base/clock.h"

bool mr_watch_state_final(Millrace__V1__JobState state) {
    return state == MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED ||
           state == MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED ||
           state == MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED;
}

const char *mr_watch_state_name(Millrace__V1__JobState state) {
    static const char prefix[] = "JOB_STATE_";
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&millrace__v1__job_state__descriptor, (int)state);
    return value ? value->name + strlen(prefix) : "UNKNOWN";
}

static void watch_copy(char *out, size_t bytes, const char *text) {
    snprintf(out, bytes, "%s", text ? text : "");
}

static mr_status watch_connect(mr_watch *watch) {
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = watch->job_id;
    return mr_event_stream_open(&watch->stream, watch->events, MR_EVENT_WATCH, watch->channel,
                                &millrace__v1__jobs__descriptor, "Watch", &request.base);
}

mr_status mr_watch_open(mr_watch *watch, const mr_client *client, mr_queue *events,
                        const char *job) {
    *watch = (mr_watch){.client = client, .channel = client->channel, .events = events};
    if (strlen(job) >= sizeof(watch->job_id))
        return MR_ERROR(INVALID_ARGUMENT, "the job's name has %zu letters; at most %zu are allowed",
                        strlen(job), sizeof(watch->job_id) - 1);
    watch_copy(watch->job_id, sizeof(watch->job_id), job);
    watch_copy(watch->name, sizeof(watch->name), job);
    return watch_connect(watch);
}

/* One line for a new state, with the reason that the coordinator gives. */
static void watch_say_state(const mr_watch *watch, const Millrace__V1__Job *job) {
    const mr_client *client = watch->client;
    bool reason = job->reason[0] != '\0';
    switch (job->state) {
    case MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED:
        mr_client_say(client, "job %s queued, position %u%s%s", watch->job_id, job->queue_position,
                      reason ? ": " : "", job->reason);
        break;
    case MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING:
        mr_client_say(client, "job %s RUNNING on %zu %s from step %llu%s%s", watch->job_id,
                      job->n_stages, job->n_stages == 1 ? "stage" : "stages",
                      (unsigned long long)job->step, reason ? ": " : "", job->reason);
        if (job->load_note[0] != '\0' && job->step == job->start_step)
            mr_client_say(client, "job %s %s", watch->job_id, job->load_note);
        break;
    case MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED:
    case MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED:
        break; /* the verdict says it */
    default:
        mr_client_say(client, "job %s %s%s%s", watch->job_id, mr_watch_state_name(job->state),
                      reason ? ": " : "", job->reason);
        break;
    }
}

static void watch_note(mr_watch *watch, const Millrace__V1__Job *job) {
    bool changed = !watch->known || watch->state != job->state ||
                   (job->state == MILLRACE__V1__JOB_STATE__JOB_STATE_QUEUED &&
                    strcmp(watch->reason, job->reason) != 0);
    watch_copy(watch->job_id, sizeof(watch->job_id), job->id);
    watch_copy(watch->name, sizeof(watch->name), job->name);
    /* Between two steps a job only seems to stop for a save: not worth a line. */
    bool saving = job->state == MILLRACE__V1__JOB_STATE__JOB_STATE_CHECKPOINTING ||
                  (watch->known && job->state == MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING &&
                   watch->state == MILLRACE__V1__JOB_STATE__JOB_STATE_CHECKPOINTING);
    if (changed && !saving)
        watch_say_state(watch, job);
    if (job->checkpoint_tag[0] != '\0' && strcmp(watch->checkpoint_tag, job->checkpoint_tag) != 0)
        mr_client_say(watch->client, "checkpoint %s", job->checkpoint_tag);
    watch_copy(watch->reason, sizeof(watch->reason), job->reason);
    watch_copy(watch->checkpoint_tag, sizeof(watch->checkpoint_tag), job->checkpoint_tag);
    watch->state = job->state;
    watch->epoch = job->epoch;
    watch->step = job->step;
    watch->total_steps = job->total_steps;
    watch->loss = job->loss;
    watch->known = true;
}

/* The stream is over: rightly, or the coordinator went away. */
static mr_status watch_end(mr_watch *watch, mr_status status) {
    mr_event_stream_close(&watch->stream);
    if (watch->ended || (watch->known && mr_watch_state_final(watch->state))) {
        watch->ended = true;
        return MR_OK;
    }
    int64_t now_ms = mr_clock_now_ms();
    bool away = watch->known && (mr_status_is_ok(status) || status.code == MR_CODE_UNAVAILABLE);
    if (away && watch->lost_ms == 0) {
        mr_client_say(watch->client, "connection to the coordinator at %s is lost; trying again",
                      watch->client->server);
        watch->lost_ms = now_ms;
    }
    if (!away || now_ms - watch->lost_ms > MR_WATCH_RETRY_MS) {
        watch->ended = true;
        if (mr_status_is_ok(status))
            status = MR_ERROR(UNAVAILABLE, "it ended the stream before the job's end");
        return mr_client_explain(watch->client, status);
    }
    watch->retry_ms = now_ms + MR_WATCH_RETRY_PERIOD_MS;
    return MR_OK;
}

mr_status mr_watch_event(mr_watch *watch, const mr_event *event,
                         const Millrace__V1__StepResult **out_step) {
    MR_ASSERT(event->number == MR_EVENT_WATCH);
    *out_step = NULL;
    if (event->kind == MR_EVENT_END)
        return watch_end(watch, event->status);
    const Millrace__V1__JobEvent *update = (const Millrace__V1__JobEvent *)event->message;
    if (watch->lost_ms != 0)
        mr_client_say(watch->client, "connected to the coordinator again");
    watch->lost_ms = 0;
    if (update->job != NULL)
        watch_note(watch, update->job);
    *out_step = update->step;
    mr_rpc_stream_receive(watch->stream.stream);
    return MR_OK;
}

mr_status mr_watch_tick(mr_watch *watch) {
    if (watch->ended || mr_watch_is_open(watch) || mr_clock_now_ms() < watch->retry_ms)
        return MR_OK;
    return watch_connect(watch);
}

void mr_watch_cancel(mr_watch *watch) {
    watch->ended = true;
    if (watch->stream.stream != NULL)
        mr_rpc_stream_cancel(watch->stream.stream);
}

bool mr_watch_is_open(const mr_watch *watch) {
    return watch->stream.stream != NULL;
}

bool mr_watch_running(const mr_watch *watch) {
    return mr_watch_is_open(watch) && watch->known && watch->lost_ms == 0 &&
           (watch->state == MILLRACE__V1__JOB_STATE__JOB_STATE_RUNNING ||
            watch->state == MILLRACE__V1__JOB_STATE__JOB_STATE_CHECKPOINTING);
}

mr_exit_code mr_watch_verdict(const mr_watch *watch) {
    const char *why = watch->reason[0] ? watch->reason : "no reason given";
    switch (watch->state) {
    case MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED:
        return MR_EXIT_CODE_DONE;
    case MILLRACE__V1__JOB_STATE__JOB_STATE_FAILED:
        mr_client_warn("millrace: job %s FAILED at step %llu: %s%s%s", watch->job_id,
                       (unsigned long long)watch->step, why,
                       watch->checkpoint_tag[0] ? ". Newest checkpoint: " : "",
                       watch->checkpoint_tag);
        return MR_EXIT_CODE_JOB_FAILED;
    case MILLRACE__V1__JOB_STATE__JOB_STATE_CANCELLED:
        mr_client_warn("millrace: job %s CANCELLED at step %llu: %s", watch->job_id,
                       (unsigned long long)watch->step, why);
        return MR_EXIT_CODE_JOB_CANCELLED;
    default:
        return MR_EXIT_CODE_OTHER;
    }
}
