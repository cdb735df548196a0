/* SPDX-License-Identifier: Apache-2.0 */
/* runtime.h: the parts of a running coordinator and how they meet on LOOP: services turn messages
 * into events (services_*.c), an event is decided and its actions are carried out (perform.c), and
 * what needs a disk goes there and comes back as an event (checkpoints.c).
 * Owner: coordinator; only its own files include it. Thread: LOOP unless a function says
 * otherwise. */
#ifndef MR_COORDINATOR_RUNTIME_H
#define MR_COORDINATOR_RUNTIME_H

#include "daemon/base/loop.h"
#include "daemon/base/notify.h"
#include "daemon/coordinator/coordinator.h"
#include "daemon/coordinator/decide.h"
#include "daemon/coordinator/disk.h"
#include "daemon/coordinator/outbox.h"
#include "daemon/coordinator/store.h"
#include "daemon/coordinator/watchers.h"
#include "daemon/observe/metrics.h"
#include "daemon/observe/status_server.h"
#include "daemon/rpc/server.h"
#include "millrace/v1/control.pb-c.h"

enum { MR_CONNECTIONS_MAX = MR_MEMBERS_MAX + 64 };

typedef struct mr_connection mr_connection; /* services_control.c */
typedef struct mr_request mr_request;       /* request.h */

struct mr_coordinator {
    mr_loop *loop;
    mr_loop_timer *ticks;
    mr_notify notify;
    mr_store *store; /* store_disk's while it runs */
    mr_disk *store_disk;
    mr_disk *file_disk;
    mr_outbox *outbox;
    mr_watchers *watchers;
    size_t watchers_pending; /* Watch requests in the outbox */
    mr_rpc_server *server;
    mr_status_page *page;
    mr_metrics *metrics;
    mr_history *history;
    mr_timeline *timeline;
    mr_event_stream *events;
    mr_status_server *status_server;
    mr_coordinator_state state;
    mr_actions actions;
    bool deciding;
    mr_connection *connections; /* a list */
    size_t connection_count;
    uint64_t member_last; /* numbers given */
    mr_request *requests; /* a list of those without an answer */
    size_t request_count;
    uint64_t request_last;
    int64_t started_ms; /* wall clock */
    int64_t published_ms; /* when /status was; 0: it is due */
    bool stopping;
};

/* Decides one event and carries its actions out. The times in it are filled in here. */
void mr_runtime_take(mr_coordinator *coordinator, mr_event *event);
/* Carries out the actions of the last decision. */
void mr_perform_actions(mr_coordinator *coordinator);

/* ---- services -------------------------------------------------------------------------------- */

/* The method tables; contexts are the coordinator. */
mr_rpc_service mr_services_jobs(mr_coordinator *coordinator);
mr_rpc_service mr_services_control(mr_coordinator *coordinator);

/* The stream of an attached member; NULL where it has gone. Borrowed. */
mr_rpc_stream *mr_services_member_stream(mr_coordinator *coordinator, uint64_t member);
/* Closes streams that never register, and finds those whose end was not heard. */
void mr_services_control_tick(mr_coordinator *coordinator, int64_t now_ms);
/* Ends every stage's stream. */
void mr_services_control_stop(mr_coordinator *coordinator, mr_status status);

/* Answers a request by its number: with message (borrowed), or with status where message is
 * NULL. */
void mr_services_answer(mr_coordinator *coordinator, uint64_t request,
                        const ProtobufCMessage *message, mr_status status);
/* Ends every request that has no answer. */
void mr_services_jobs_stop(mr_coordinator *coordinator, mr_status status);
/* Tells the watchers of a job how it is; step NULL: a change. */
void mr_services_notify(mr_coordinator *coordinator, const mr_job_record *job,
                        const mr_job_step *step);

/* ---- checkpoints ----------------------------------------------------------------------------- */

/* Each does an action of decide on DISK, in its turn in the outbox: makes a save a checkpoint (how
 * it went comes back as an event), deletes an unfinished one, deletes what dead epochs left. */
void mr_checkpoints_commit(mr_coordinator *coordinator, const mr_action *action);
void mr_checkpoints_discard(mr_coordinator *coordinator, const mr_action *action);
void mr_checkpoints_sweep(mr_coordinator *coordinator, const mr_action *action);

/* ---- cuts ------------------------------------------------------------------------------------ */

/* Cuts a job by the times of its members on DISK; how it went comes back as an event. */
void mr_cuts_begin(mr_coordinator *coordinator, const mr_action *action);

/* ---- what happened --------------------------------------------------------------------------- */

/* Each adds an event for whoever follows /events. */
void mr_news_job(mr_coordinator *coordinator, const mr_job_record *job);
/* member and job may be NULL; why: "" for nothing wrong. */
void mr_news_tell(mr_coordinator *coordinator, const char *message, const mr_member *member,
                  const mr_job_record *job, const char *why);
/* A finished step, also into the history; of quick ones only some are events. */
void mr_news_step(mr_coordinator *coordinator, mr_job_record *job);
void mr_news_checkpoint(mr_coordinator *coordinator, mr_job_record *job, const char *tag,
                        uint64_t step, uint64_t bytes);

/* Asks the stages of the job's first replica what they did in its newest step, at most once in
 * MR_TIMELINE_PERIOD_MS. No decision hangs on it, and an order that cannot be sent is left out. */
void mr_step_spans_ask(mr_coordinator *coordinator, mr_job_record *job);
void mr_step_spans_take(mr_coordinator *coordinator, uint64_t member,
                        const Millrace__V1__StepSpans *report);

/* ---- what is shown --------------------------------------------------------------------------- */

/* /status and the gauges, about once a second. */
void mr_status_board_tick(mr_coordinator *coordinator, int64_t now_ms);
/* A finished step, into the counters. */
void mr_status_board_step(mr_coordinator *coordinator, mr_job_record *job);
void mr_status_board_save_failed(mr_coordinator *coordinator, const mr_job_record *job,
                                 mr_status why);
void mr_status_board_saved(mr_coordinator *coordinator, mr_job_record *job, const char *tag,
                           uint64_t step, uint64_t bytes, double seconds);

#endif
