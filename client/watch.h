/* SPDX-License-Identifier: Apache-2.0 */
/* watch.h: a job as it goes: the Watch stream, opened again where it breaks, and what the user is
 * told about changes of state. Owner: client. Thread: main. Limits: MR_WATCH_RETRY_MS. Not here:
 * the live line (progress.h), feeding (feeder.h). */
#ifndef MR_CLIENT_WATCH_H
#define MR_CLIENT_WATCH_H

#include "client/client.h"
#include "client/event.h"
#include "daemon/base/limits.h"
#include "millrace/v1/jobs.pb-c.h"

enum {
    MR_WATCH_RETRY_MS = 10000, /* how long a coordinator may be away */
    MR_WATCH_RETRY_PERIOD_MS = 500,
    MR_WATCH_TEXT_BYTES = 512,
};

typedef struct mr_watch {
    const mr_client *client;
    mr_rpc_channel *channel;
    mr_queue *events;
    mr_event_stream stream;
    char job_id[MR_NAME_BYTES];
    char name[MR_NAME_BYTES];
    /* what the last event said */
    Millrace__V1__JobState state;
    uint64_t epoch;
    uint64_t step;
    uint64_t total_steps;
    double loss;
    char reason[MR_WATCH_TEXT_BYTES];
    char checkpoint_tag[MR_NAME_BYTES];
    bool known; /* an event has come */
    /* a broken stream */
    int64_t lost_ms;  /* since when; 0: not */
    int64_t retry_ms; /* when to try again */
    bool ended;       /* no more events will come */
} mr_watch;

/* Is the state one that a job never leaves? */
bool mr_watch_state_final(Millrace__V1__JobState state);
/* "RUNNING". */
const char *mr_watch_state_name(Millrace__V1__JobState state);

/* Follows job (an id or name), its events go to the queue with number MR_EVENT_WATCH. */
MR_MUST_CHECK mr_status mr_watch_open(mr_watch *watch, const mr_client *client, mr_queue *events,
                                      const char *job);
/* Takes one of its events: notes the state and says what changed on stderr. *out_step is the step
 * that the event reports, NULL where it reports none; it lives as long as the event. UNAVAILABLE:
 * the coordinator was away for MR_WATCH_RETRY_MS. Other errors: as Watch gives them (NOT_FOUND). */
MR_MUST_CHECK mr_status mr_watch_event(mr_watch *watch, const mr_event *event,
                                       const Millrace__V1__StepResult **out_step);
/* Opens a broken stream again when it is time. To be called at least each MR_WATCH_RETRY_PERIOD_MS.
 */
MR_MUST_CHECK mr_status mr_watch_tick(mr_watch *watch);
/* Asks the stream to end; its end still has to be popped while mr_watch_is_open. */
void mr_watch_cancel(mr_watch *watch);
bool mr_watch_is_open(const mr_watch *watch);
/* The job runs, as far as a living stream tells. */
bool mr_watch_running(const mr_watch *watch);
/* The job's end as an exit code, with a line on stderr where it failed or was cancelled. */
mr_exit_code mr_watch_verdict(const mr_watch *watch);

#endif
