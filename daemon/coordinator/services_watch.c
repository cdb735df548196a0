/* SPDX-License-Identifier: Apache-2.0 */
/* Watch, as the coordinator serves it: the job's present state, then its changes (watchers.h). */
#include "daemon/base/clock.h"
#include "daemon/coordinator/replies.h"
#include "daemon/coordinator/services.h"

/* An event about the job as it is now. */
static mr_status event_send(mr_coordinator *coordinator, const mr_job_record *job,
                            const mr_job_step *step, mr_outbox_item item) {
    mr_reply_job reply;
    MR_TRY(mr_reply_job_init(&reply, &coordinator->state, job, false));
    mr_reply_step_result result;
    Millrace__V1__JobEvent event = MILLRACE__V1__JOB_EVENT__INIT;
    event.job = &reply.message;
    if (step != NULL) {
        mr_reply_step(&result, step);
        event.step = &result.message;
    }
    item.context = coordinator;
    item.message = &event.base;
    item.number = job->facts.number;
    item.flag = step != NULL;
    mr_outbox_add(coordinator->outbox, &item);
    mr_reply_job_deinit(&reply);
    return MR_OK;
}

static bool event_is_final(const ProtobufCMessage *message) {
    const Millrace__V1__JobEvent *event = (const Millrace__V1__JobEvent *)message;
    return mr_job_state_is_final((mr_job_state)event->job->state);
}

static void notify_run(const mr_outbox_item *item) {
    mr_coordinator *coordinator = item->context;
    mr_watchers_send(coordinator->watchers, item->number, item->message, item->flag,
                     event_is_final(item->message), mr_clock_now_ms());
}

void mr_services_notify(mr_coordinator *coordinator, const mr_job_record *job,
                        const mr_job_step *step) {
    if (coordinator->watchers_pending == 0 &&
        !mr_watchers_any(coordinator->watchers, job->facts.number))
        return;
    mr_status status = event_send(coordinator, job, step, (mr_outbox_item){.run = notify_run});
    if (!mr_status_is_ok(status))
        MR_LOG(WARN, "watchers not told", MR_S("job", job->facts.id), MR_S("why", status.text));
}

/* A watcher begins in its turn, so that nothing older than its first event comes after it. */
static void watch_run(const mr_outbox_item *item) {
    mr_coordinator *coordinator = item->context;
    coordinator->watchers_pending--;
    bool final = event_is_final(item->message);
    mr_status status = mr_rpc_stream_send(item->stream, item->message, NULL);
    if (mr_status_is_ok(status) && !final)
        status =
            mr_watchers_add(coordinator->watchers, item->stream, item->number, mr_clock_now_ms());
    if (!mr_status_is_ok(status) || final)
        mr_rpc_stream_finish(item->stream, status);
}

void mr_service_watch(mr_request *request) {
    mr_coordinator *coordinator = request->coordinator;
    const Millrace__V1__JobRequest *message = (Millrace__V1__JobRequest *)request->message;
    const mr_job_record *job = mr_request_job(request, message->job);
    if (job == NULL)
        return;
    coordinator->watchers_pending++;
    mr_status status = event_send(coordinator, job, NULL,
                                  (mr_outbox_item){.run = watch_run, .stream = request->stream});
    if (!mr_status_is_ok(status)) {
        coordinator->watchers_pending--;
        mr_request_fail(request, status);
        return;
    }
    mr_request_forget(request); /* the stream is the watcher's now */
}
