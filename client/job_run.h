/* SPDX-License-Identifier: Apache-2.0 */
/* job_run.h: one job that a command follows to its end, whether it submitted it (train, generate,
 * eval) or only watches: the event queue, the Watch stream, Ctrl-C and the order of ending.
 *
 *     init, then start or follow
 *     while (!mr_job_run_over(run) || streams of the caller are open)
 *         mr_job_run_next: one event, or a tick each MR_JOB_RUN_TICK_MS
 *     mr_job_run_deinit
 *
 * Ctrl-C in a run that submitted its job cancels the job and waits for its end; in a run that only
 * watches, or feeds what another submitted, it ends the watching and the feeding. Both give exit
 * code 130.
 * Owner: client. Thread: main. Limits: MR_JOB_RUN_*. */
#ifndef MR_CLIENT_JOB_RUN_H
#define MR_CLIENT_JOB_RUN_H

#include "client/client.h"
#include "client/event.h"
#include "client/job_file.h"
#include "client/watch.h"

enum {
    MR_JOB_RUN_TICK_MS = 100,
    MR_JOB_RUN_END_MS = 10000, /* from cancel or a final state to the end of all streams */
};

typedef struct mr_job_run {
    mr_client *client;
    mr_queue *events;
    mr_watch watch;
    bool owned; /* we submitted it: our end is its end */
    bool feeds; /* we feed it, whoever submitted it */
    bool interrupted;
    bool cancelled;    /* by us */
    bool abandoned;    /* the caller's streams must end now */
    int64_t within_ms; /* give up at this time; 0: never */
    int64_t end_ms;    /* streams are cut at this time; 0: not ending yet */
    mr_status error;   /* the first thing that went wrong here */
} mr_job_run;

typedef struct mr_job_run_submit {
    const mr_job_file *file;
    mr_job_mode mode;
    const char *profile; /* millrace.profile/v1; NULL: none */
    const char *resume; /* NULL: from step 0; "": the newest checkpoint; else a tag */
} mr_job_run_submit;

/* Submits a job without following it; *out_job is freed with protobuf_c_message_free_unpacked. */
MR_MUST_CHECK mr_status mr_job_submit(mr_client *client, const mr_job_run_submit *submit,
                                      Millrace__V1__Job **out_job);
/* Makes the event queue and the connection; from here on Ctrl-C is noted. */
MR_MUST_CHECK mr_status mr_job_run_init(mr_job_run *run, mr_client *client);
/* Submits and follows. The job's id is printed with -o name. */
MR_MUST_CHECK mr_status mr_job_run_start(mr_job_run *run, const mr_job_run_submit *submit);
/* Follows a job that somebody submitted. */
MR_MUST_CHECK mr_status mr_job_run_follow(mr_job_run *run, const char *job);
/* After mr_job_run_over, with the caller's streams closed. A zeroed run is fine. */
void mr_job_run_deinit(mr_job_run *run);

/* Waits for one event, at most MR_JOB_RUN_TICK_MS. The run takes its Watch events itself. True:
 * *event is one (the caller frees it with mr_event_deinit): either one for the caller's streams, or
 * one with *out_step set. */
bool mr_job_run_next(mr_job_run *run, mr_event *event, const Millrace__V1__StepResult **out_step);
/* Something is wrong here: notes it, if it is the first, and cancels an owned job. OK is ignored.
 */
void mr_job_run_fail(mr_job_run *run, mr_status status);
/* Nothing more will come of the job. */
bool mr_job_run_over(const mr_job_run *run);
/* The result: the first error, else OK with client->exit_code set from the job's end. */
MR_MUST_CHECK mr_status mr_job_run_result(mr_job_run *run);

#endif
