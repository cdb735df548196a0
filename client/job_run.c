/* SPDX-License-Identifier: Apache-2.0 */
#include "client/job_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "client/interrupt.h"
#include "client/terminal.h"
#include "daemon/base/clock.h"
#include "daemon/base/limits.h"

enum { JOB_RUN_ID_BYTES = 33 };

/* A name for this request, so that a repeated one starts no second job. */
static mr_status job_request_id(char out[JOB_RUN_ID_BYTES]) {
    uint64_t words[2];
    if (getrandom(words, sizeof(words), 0) != (ssize_t)sizeof(words))
        return MR_ERROR(INTERNAL, "the system gives no random numbers");
    snprintf(out, JOB_RUN_ID_BYTES, "%016" PRIx64 "%016" PRIx64, words[0], words[1]);
    return MR_OK;
}

mr_status mr_job_submit(mr_client *client, const mr_job_run_submit *submit,
                        Millrace__V1__Job **out_job) {
    char request_id[JOB_RUN_ID_BYTES];
    MR_TRY(job_request_id(request_id));
    Millrace__V1__SubmitRequest request = MILLRACE__V1__SUBMIT_REQUEST__INIT;
    request.job_file = submit->file->text;
    request.base_directory = submit->file->base_directory;
    request.mode = (Millrace__V1__JobMode)submit->mode;
    if (submit->profile != NULL)
        request.profile = (char *)(uintptr_t)submit->profile; /* only packed */
    request.request_id = request_id;
    if (submit->resume != NULL && submit->resume[0] != '\0')
        request.resume_tag = (char *)(uintptr_t)submit->resume; /* only packed */
    request.resume_newest = submit->resume != NULL && submit->resume[0] == '\0';
    ProtobufCMessage *response = NULL;
    MR_TRY(mr_client_call(client, "Submit", &request.base, &response));
    *out_job = (Millrace__V1__Job *)response;
    return MR_OK;
}

mr_status mr_job_run_init(mr_job_run *run, mr_client *client) {
    *run = (mr_job_run){.client = client};
    mr_interrupt_catch();
    MR_TRY(mr_queue_create(sizeof(mr_event), MR_EVENTS_MAX, &run->events));
    return mr_client_connect(client);
}

mr_status mr_job_run_start(mr_job_run *run, const mr_job_run_submit *submit) {
    mr_client *client = run->client;
    Millrace__V1__Job *job = NULL;
    MR_TRY(mr_job_submit(client, submit, &job));
    run->owned = true;
    if (client->output == MR_OUTPUT_NAME) {
        puts(job->id);
        fflush(stdout);
    }
    mr_status status = mr_watch_open(&run->watch, client, run->events, job->id);
    protobuf_c_message_free_unpacked(&job->base, NULL);
    return status;
}

mr_status mr_job_run_follow(mr_job_run *run, const char *job) {
    return mr_watch_open(&run->watch, run->client, run->events, job);
}

void mr_job_run_deinit(mr_job_run *run) {
    mr_event event;
    mr_terminal_live_end();
    MR_ASSERT(!mr_watch_is_open(&run->watch));
    while (run->events != NULL && mr_status_is_ok(mr_queue_pop(run->events, &event, 0)))
        mr_event_deinit(&event);
    mr_queue_destroy(run->events);
    *run = (mr_job_run){0};
}

static void job_run_end_by(mr_job_run *run, int64_t end_ms) {
    if (run->end_ms == 0)
        run->end_ms = end_ms;
}

/* Asks the coordinator to end our job. What it answers matters little: its end is watched. */
static void job_run_cancel(mr_job_run *run) {
    if (!run->owned || run->cancelled || run->watch.ended)
        return;
    run->cancelled = true;
    ProtobufCMessage *response = NULL;
    Millrace__V1__JobRequest request = MILLRACE__V1__JOB_REQUEST__INIT;
    request.job = run->watch.job_id;
    mr_status status =
        mr_client_call_within(run->client, "Cancel", &request.base, MR_JOB_RUN_END_MS, &response);
    if (mr_status_is_ok(status))
        protobuf_c_message_free_unpacked(response, NULL);
    if (mr_status_is_ok(status) || status.code == MR_CODE_FAILED_PRECONDITION)
        return; /* or it has just ended by itself */
    mr_client_warn("millrace: job %s could not be cancelled: %s", run->watch.job_id, status.text);
    mr_watch_cancel(&run->watch);
}

static void job_run_interrupt(mr_job_run *run) {
    run->interrupted = true;
    run->abandoned = true;
    mr_terminal_live_end();
    if (run->owned) {
        mr_client_say(run->client, "interrupted: cancelling job %s", run->watch.job_id);
        job_run_cancel(run);
        job_run_end_by(run, mr_clock_now_ms() + MR_JOB_RUN_END_MS);
    } else if (run->feeds) {
        mr_client_say(run->client,
                      "nobody feeds job %s now; millrace job feed %s goes on with it, within %d s",
                      run->watch.job_id, run->watch.job_id, MR_FEED_IDLE_TIMEOUT_MS / 1000);
        mr_watch_cancel(&run->watch);
    } else {
        mr_client_say(run->client, "job %s goes on; millrace job watch %s follows it again",
                      run->watch.job_id, run->watch.job_id);
        mr_watch_cancel(&run->watch);
    }
}

void mr_job_run_fail(mr_job_run *run, mr_status status) {
    if (mr_status_is_ok(status))
        return;
    if (mr_status_is_ok(run->error))
        run->error = status;
    run->abandoned = true;
    job_run_cancel(run);
    job_run_end_by(run, mr_clock_now_ms() + MR_JOB_RUN_END_MS);
}

/* What time and signals ask for, between events. */
static void job_run_tick(mr_job_run *run) {
    int64_t now_ms = mr_clock_now_ms();
    if (mr_interrupt_came() && !run->interrupted)
        job_run_interrupt(run);
    if (run->within_ms != 0 && now_ms >= run->within_ms && run->end_ms == 0) {
        mr_job_run_fail(
            run,
            MR_ERROR(DEADLINE_EXCEEDED, "job %s is still %s at step %" PRIu64, run->watch.job_id,
                     run->watch.known ? mr_watch_state_name(run->watch.state) : "unknown",
                     run->watch.step));
        mr_watch_cancel(&run->watch);
    }
    if (run->watch.known && mr_watch_state_final(run->watch.state)) {
        if (run->watch.state != MILLRACE__V1__JOB_STATE__JOB_STATE_SUCCEEDED)
            run->abandoned = true;
        job_run_end_by(run, now_ms + MR_JOB_RUN_END_MS);
    }
    if (run->end_ms != 0 && now_ms >= run->end_ms) {
        run->abandoned = true;
        if (!run->watch.ended)
            mr_watch_cancel(&run->watch);
    }
    mr_job_run_fail(run, mr_watch_tick(&run->watch));
}

bool mr_job_run_next(mr_job_run *run, mr_event *event, const Millrace__V1__StepResult **out_step) {
    *out_step = NULL;
    job_run_tick(run);
    if (!mr_status_is_ok(mr_queue_pop(run->events, event, MR_JOB_RUN_TICK_MS)))
        return false;
    if (event->kind == MR_EVENT_SENT || event->number != MR_EVENT_WATCH)
        return true;
    mr_job_run_fail(run, mr_watch_event(&run->watch, event, out_step));
    if (*out_step != NULL)
        return true;
    mr_event_deinit(event);
    return false;
}

bool mr_job_run_over(const mr_job_run *run) {
    return !mr_watch_is_open(&run->watch) &&
           (run->watch.ended || run->watch.events == NULL); /* NULL: it never began */
}

mr_status mr_job_run_result(mr_job_run *run) {
    mr_terminal_live_end();
    MR_TRY(run->error);
    run->client->exit_code = MR_EXIT_CODE_INTERRUPTED;
    if (!run->interrupted)
        run->client->exit_code = mr_watch_verdict(&run->watch);
    return MR_OK;
}
