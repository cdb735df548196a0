/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/stage.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "daemon/base/loop.h"
#include "daemon/base/notify.h"
#include "daemon/base/version.h"
#include "daemon/observe/status_server.h"
#include "daemon/rpc/runtime.h"
#include "daemon/stage/control.h"
#include "daemon/stage/executor.h"
#include "daemon/stage/reports.h"
#include "daemon/stage/stage_metrics.h"
#include "daemon/stage/stage_status.h"

enum { STAGE_INSTANCE_BYTES = 33, STAGE_TRACE_SPANS = 16384, STAGE_REASON_BYTES = 160 };

typedef enum stage_state {
    STAGE_DETACHED,
    STAGE_IDLE,
    STAGE_PROFILING, /* until EXEC has timed the job's layers */
    STAGE_PREPARING, /* from Prepare to Run */
    STAGE_RUNNING,
    STAGE_DROPPING, /* until EXEC has let go of everything */
} stage_state;

static const char *const stage_state_names[] = {"detached",  "idle",    "profiling",
                                                "preparing", "running", "dropping"};

/* What LOOP knows of the job this stage holds. The assignment itself is EXEC's. */
typedef struct stage_job {
    char id[MR_JOB_ID_BYTES];
    char schedule_hash[65];
    uint64_t epoch;
    uint64_t released_epoch; /* of the order that Released answers */
    uint32_t rank;
    bool inference;
    uint64_t next_step;
    mr_step_result result; /* of the last step, rank 0 */
    mr_memory_held held;   /* zero until EXEC has prepared */
    size_t interval;       /* activation_checkpoint_interval in use; likewise */
    mr_assignment *assignment; /* borrowed by EXEC until it reports Released */
    mr_group_ids ids;          /* of Connect; likewise */
    mr_profiler_order *profiled; /* borrowed by EXEC while PROFILING; without an assignment */
    mr_status ending;                /* what the client's feed is told */
} stage_job;

typedef struct stage {
    const mr_stage_options *options;
    stage_state state;
    int64_t state_since_ms;
    mr_notify notify;
    stage_job job;
    char instance[STAGE_INSTANCE_BYTES];
    mr_loop *loop;
    mr_link_hub *links;
    mr_group_hub *groups;
    mr_feed *feed;
    mr_rpc_server *server;
    mr_trace *trace;
    mr_trace_track *track;
    mr_trace_track *reduce_track;
    mr_status_page *page;
    mr_stage_metrics *metrics;
    mr_status_server *status_server;
    mr_executor *executor;
    mr_control *control;
    mr_loop_timer *heartbeat;
    bool leaving; /* a signal came: the job is saved, then this ends */
    mr_loop_timer *leaving_end;
    Millrace__V1__Register identity;
} stage;

static mr_report_subject stage_subject(const stage *self) {
    return (mr_report_subject){.job_id = self->job.id, .epoch = self->job.epoch};
}

static bool stage_holds_job(const stage *self) {
    return self->state == STAGE_PROFILING || self->state == STAGE_PREPARING ||
           self->state == STAGE_RUNNING;
}

static void stage_ready_publish(stage *self) {
    char reason[STAGE_REASON_BYTES];
    (void)snprintf(reason, sizeof(reason), "waits for the coordinator at %s",
                   self->options->coordinator);
    if (self->leaving)
        (void)snprintf(reason, sizeof(reason), "stops once its job is saved");
    bool ready = self->state != STAGE_DETACHED && !self->leaving;
    mr_status_page_ready_set(self->page, ready, ready ? NULL : reason);
    mr_status_page_check_set(self->page, "coordinator", ready ? NULL : reason);
    mr_rpc_server_health_set(self->server, "", ready);
}

static void stage_state_set(stage *self, stage_state state) {
    self->state = state;
    self->state_since_ms = mr_clock_now_ms();
    stage_ready_publish(self);
}

/* Posts to EXEC; a full queue means that EXEC does not run any more, which ends the job. */
static void stage_post(stage *self, const mr_executor_event *event) {
    mr_status status = mr_executor_post(self->executor, event);
    if (!mr_status_is_ok(status))
        mr_report_failed(self->control, stage_subject(self), status);
}

/* ---- letting go of a job ---- */

static void stage_drop(stage *self, uint64_t released_epoch, mr_status ending) {
    if (!stage_holds_job(self))
        return;
    self->job.released_epoch = released_epoch;
    self->job.ending = ending;
    stage_state_set(self, STAGE_DROPPING);
    mr_executor_interrupt(self->executor, mr_status_is_ok(ending) ? "released" : ending.text);
    stage_post(self, &(mr_executor_event){.kind = MR_EXECUTOR_DROP});
}

/* EXEC holds nothing any more: the feed's window may go, and the next job may come. */
static void stage_released(stage *self) {
    mr_feed_stop(self->feed, self->job.ending);
    mr_report_released(self->control, (mr_report_subject){.job_id = self->job.id,
                                                          .epoch = self->job.released_epoch});
    MR_LOG(INFO, "job released", MR_S("job", self->job.id), MR_I("epoch", self->job.epoch));
    mr_stage_metrics_release(self->metrics);
    mr_assignment_destroy(self->job.assignment);
    mr_profiler_order_destroy(self->job.profiled);
    mr_group_ids_deinit(&self->job.ids);
    self->job = (stage_job){0};
    bool attached = mr_control_attached(self->control);
    stage_state_set(self, attached ? STAGE_IDLE : STAGE_DETACHED);
    if (!attached)
        mr_control_attach(self->control);
}

/* ---- orders ---- */

static void stage_refuse(stage *self, mr_report_subject subject, mr_status status) {
    MR_LOG(WARN, "assignment refused", MR_S("job", subject.job_id), MR_S("why", status.text));
    mr_report_failed(self->control, subject, status);
}

static mr_status stage_busy(const stage *self) {
    return MR_ERROR(FAILED_PRECONDITION, "this stage is %s with job %s",
                    stage_state_names[self->state], self->job.id);
}

static void stage_profile(stage *self, const Millrace__V1__Profile *order) {
    const mr_report_subject subject = {.job_id = order->job_id, .epoch = order->epoch};
    mr_profiler_order *profiled = NULL;
    mr_status status = self->state == STAGE_IDLE ? MR_OK : stage_busy(self);
    if (mr_status_is_ok(status))
        status = mr_profiler_order_make(order, self->identity.address, &profiled);
    if (!mr_status_is_ok(status)) {
        stage_refuse(self, subject, status);
        return;
    }
    self->job = (stage_job){.epoch = profiled->epoch, .profiled = profiled};
    memcpy(self->job.id, profiled->job_id, sizeof(self->job.id));
    stage_state_set(self, STAGE_PROFILING);
    MR_LOG(INFO, "profiling", MR_S("job", self->job.id), MR_I("epoch", self->job.epoch),
           MR_I("layers", profiled->job->layer_count));
    stage_post(self, &(mr_executor_event){.kind = MR_EXECUTOR_PROFILE, .order = profiled});
}

static void stage_take_assignment(stage *self, mr_assignment *assignment) {
    self->job = (stage_job){
        .epoch = assignment->epoch,
        .rank = assignment->rank,
        .inference = assignment->inference,
        .assignment = assignment,
    };
    memcpy(self->job.id, assignment->job_id, sizeof(self->job.id));
    memcpy(self->job.schedule_hash, assignment->plan->schedule_hash,
           sizeof(self->job.schedule_hash));
    mr_stage_metrics_assign(self->metrics, assignment);
    char name[MR_NAME_BYTES];
    (void)snprintf(name, sizeof(name), "stage %u", assignment->stage);
    mr_trace_process_set(self->trace, name);
    stage_state_set(self, STAGE_PREPARING);
}

static void stage_prepare(stage *self, const Millrace__V1__Prepare *order) {
    const mr_report_subject subject = {.job_id = order->job_id, .epoch = order->epoch};
    mr_assignment *assignment = NULL;
    mr_status status = self->state == STAGE_IDLE ? MR_OK : stage_busy(self);
    if (mr_status_is_ok(status))
        status = mr_assignment_make(order, &assignment);
    if (!mr_status_is_ok(status)) {
        stage_refuse(self, subject, status);
        return;
    }
    stage_take_assignment(self, assignment);
    MR_LOG(INFO, "job assigned", MR_S("job", self->job.id), MR_S("name", order->job_name),
           MR_I("epoch", self->job.epoch), MR_I("rank", self->job.rank));
    stage_post(self,
               &(mr_executor_event){.kind = MR_EXECUTOR_PREPARE, .assignment = assignment});
}

static void stage_connect(stage *self, const Millrace__V1__Connect *order) {
    mr_status status = MR_OK;
    if (self->job.ids.count > 0)
        status = MR_ERROR(FAILED_PRECONDITION, "connect comes twice");
    for (size_t i = 0; i < order->n_group_ids && mr_status_is_ok(status); i++) {
        const Millrace__V1__GroupId *id = order->group_ids[i];
        status = mr_group_ids_add(&self->job.ids, id->group_key, id->id.data, id->id.len);
    }
    if (mr_status_is_ok(status))
        stage_post(self,
                   &(mr_executor_event){.kind = MR_EXECUTOR_CONNECT, .ids = &self->job.ids});
    else
        mr_report_failed(self->control, stage_subject(self), status);
}

/* Is an order about the job and the epoch that this stage holds? Others are too late or a mistake,
 * and are not obeyed (law 5). */
static bool stage_owns_order(const stage *self, const char *order, const char *job_id,
                             uint64_t epoch) {
    if (stage_holds_job(self) && strcmp(job_id, self->job.id) == 0 && epoch == self->job.epoch)
        return true;
    MR_LOG(WARN, "order ignored: not of this job and epoch", MR_S("order", order),
           MR_S("job", job_id), MR_I("epoch", epoch), MR_S("own_job", self->job.id),
           MR_I("own_epoch", self->job.epoch));
    return false;
}

/* Rank 0 decides when to run, pause and save; the other ranks only need to be told to begin. */
static void stage_forward(stage *self, mr_executor_event_kind kind, const char *tag) {
    bool begins = kind == MR_EXECUTOR_RUN && self->state != STAGE_RUNNING;
    if (self->job.rank != 0 && !begins)
        return;
    mr_executor_event event = {.kind = kind};
    (void)snprintf(event.tag, sizeof(event.tag), "%s", tag);
    if (begins)
        stage_state_set(self, STAGE_RUNNING);
    stage_post(self, &event);
}

static void stage_set(stage *self, const Millrace__V1__Set *order) {
    if (self->job.rank == 0)
        stage_post(self, &(mr_executor_event){.kind = MR_EXECUTOR_SET,
                                              .interval = order->activation_checkpoint_interval});
}

/* End of the assignment, by the coordinator's word. A job this stage does not hold is released at
 * once, so that the coordinator never waits for nothing. */
static void stage_end_order(stage *self, const char *job_id, uint64_t epoch, mr_status ending) {
    bool same = strcmp(job_id, self->job.id) == 0;
    if (self->state == STAGE_DROPPING && same) {
        self->job.released_epoch = epoch;
    } else if (!stage_holds_job(self) || !same) {
        mr_report_released(self->control, (mr_report_subject){.job_id = job_id, .epoch = epoch});
    } else if (epoch >= self->job.epoch) {
        stage_drop(self, epoch, ending);
    }
}

/* Of a job that is over by now nothing is told. */
static void stage_tell_spans(stage *self, const Millrace__V1__TellSpans *order) {
    if (self->state == STAGE_RUNNING && order->step > 0 && order->epoch == self->job.epoch &&
        strcmp(order->job_id, self->job.id) == 0)
        mr_report_spans(self->control, stage_subject(self), self->track, order->step - 1,
                        &self->job.held);
}

static void stage_order_arrived(void *context, const Millrace__V1__StageOrder *order) {
    stage *self = context;
    switch (order->order_case) {
    case MILLRACE__V1__STAGE_ORDER__ORDER_REGISTERED:
        stage_state_set(self, STAGE_IDLE); /* before the line that says so */
        MR_LOG(INFO, "attached", MR_S("member", order->registered->member_id),
               MR_S("coordinator", self->options->coordinator));
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_PROFILE:
        stage_profile(self, order->profile);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_TELL_SPANS:
        stage_tell_spans(self, order->tell_spans);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_PREPARE:
        stage_prepare(self, order->prepare);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_CONNECT:
        if (stage_owns_order(self, "connect", order->connect->job_id, order->connect->epoch))
            stage_connect(self, order->connect);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_RUN:
        if (stage_owns_order(self, "run", order->run->job_id, order->run->epoch))
            stage_forward(self, MR_EXECUTOR_RUN, "");
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_PAUSE:
        if (stage_owns_order(self, "pause", order->pause->job_id, order->pause->epoch))
            stage_forward(self, MR_EXECUTOR_PAUSE, "");
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_SAVE:
        if (stage_owns_order(self, "save", order->save->job_id, order->save->epoch))
            stage_forward(self, MR_EXECUTOR_SAVE, order->save->tag);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_SET:
        if (stage_owns_order(self, "set", order->set->job_id, order->set->epoch))
            stage_set(self, order->set);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_COMMITTED:
        if (stage_owns_order(self, "committed", order->committed->job_id, order->committed->epoch))
            mr_feed_send_committed(self->feed, order->committed->step, order->committed->tag);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_ABORT:
        stage_end_order(self, order->abort->job_id, order->abort->epoch,
                        MR_ERROR(ABORTED, "%s", order->abort->reason));
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_RELEASE:
        stage_end_order(self, order->release->job_id, order->release->epoch, MR_OK);
        break;
    case MILLRACE__V1__STAGE_ORDER__ORDER_SHUTDOWN:
        MR_LOG(INFO, "shutdown ordered by the coordinator", MR_S("state",
               stage_state_names[self->state]));
        mr_loop_stop(self->loop);
        break;
    default:
        MR_LOG(WARN, "order of an unknown kind ignored", MR_I("kind", order->order_case));
    }
}

static void stage_detached(void *context, mr_status why) {
    stage *self = context;
    MR_LOG(WARN, "not attached to the coordinator; trying again",
           MR_S("coordinator", self->options->coordinator), MR_S("why", why.text));
    if (self->leaving) {
        mr_loop_stop(self->loop); /* nobody is left who could save */
    } else if (stage_holds_job(self)) {
        stage_drop(self, self->job.epoch, MR_ERROR(UNAVAILABLE, "the coordinator is lost"));
    } else if (self->state != STAGE_DROPPING) {
        stage_state_set(self, STAGE_DETACHED);
        mr_control_attach(self->control);
    }
}

/* ---- EXEC's reports ---- */

static void stage_prepared(stage *self, const mr_executor_report *report) {
    mr_status status = MR_OK;
    self->job.next_step = report->step;
    self->job.held = report->held;
    self->job.interval = report->interval;
    mr_stage_metrics_memory(self->metrics, &report->held);
    if (mr_assignment_is_fed(self->job.assignment))
        status = mr_feed_start(self->feed, self->job.assignment, report->step);
    if (mr_status_is_ok(status))
        mr_report_prepared(self->control, stage_subject(self), self->job.schedule_hash,
                           report);
    else
        mr_report_failed(self->control, stage_subject(self), status);
}

/* Nothing is held any more: the stage is as idle as before. */
static void stage_profiled(stage *self, const mr_executor_report *report) {
    if (!mr_status_is_ok(report->status))
        MR_LOG(WARN, "link not measured", MR_S("address", self->identity.address),
               MR_S("why", report->status.text));
    mr_report_profiled(self->control, stage_subject(self), report->profile);
    MR_LOG(INFO, "profiled", MR_S("job", self->job.id), MR_I("epoch", self->job.epoch));
    mr_profiler_order_destroy(self->job.profiled);
    self->job = (stage_job){0};
    stage_state_set(self, STAGE_IDLE);
}

static void stage_step_done(stage *self, const mr_executor_report *report) {
    self->job.next_step = report->step + 1;
    self->job.result = report->result;
    mr_feed_send_applied(self->feed, report->step, report->result.loss);
    if (self->job.rank != 0)
        return;
    mr_report_step(self->control, stage_subject(self), report);
    mr_stage_metrics_step(self->metrics, report->step + 1, &report->result);
}

static void stage_executor_report(void *context, mr_executor_report *report) {
    stage *self = context;
    /* While dropping, only the end of it matters: the coordinator has moved on. */
    bool holds = stage_holds_job(self);
    switch (report->kind) {
    case MR_EXECUTOR_PREPARED:
        if (holds)
            stage_prepared(self, report);
        mr_group_ids_deinit(&report->ids);
        break;
    case MR_EXECUTOR_CONNECTED:
        if (holds)
            mr_report_connected(self->control, stage_subject(self));
        break;
    case MR_EXECUTOR_STEP_DONE:
        if (holds)
            stage_step_done(self, report);
        break;
    case MR_EXECUTOR_SAVED:
        if (holds)
            mr_report_saved(self->control, stage_subject(self), report);
        mr_free(report->files.files);
        break;
    case MR_EXECUTOR_PAUSED:
        if (holds)
            mr_report_paused(self->control, stage_subject(self), report->step);
        break;
    case MR_EXECUTOR_RESIZED:
        self->job.held = report->held;
        self->job.interval = report->interval;
        mr_stage_metrics_memory(self->metrics, &report->held);
        MR_LOG(INFO, "activation checkpointing", MR_S("job", self->job.id),
               MR_I("interval", report->interval), MR_I("step", report->step),
               MR_I("activation_bytes", report->held.activations));
        if (holds)
            mr_report_resized(self->control, stage_subject(self), &report->held);
        break;
    case MR_EXECUTOR_FINISHED:
        if (holds)
            mr_report_finished(self->control, stage_subject(self), report->step);
        break;
    case MR_EXECUTOR_FAILED:
        MR_LOG(ERROR, "job failed on this stage", MR_S("job", self->job.id),
               MR_S("why", report->status.text));
        if (holds)
            mr_report_failed(self->control, stage_subject(self), report->status);
        break;
    case MR_EXECUTOR_RELEASED:
        stage_released(self);
        break;
    case MR_EXECUTOR_PROFILED:
        if (holds)
            stage_profiled(self, report);
        mr_profile_device_destroy(report->profile);
        break;
    case MR_EXECUTOR_RESULT:
        if (holds)
            self->job.next_step = report->step + 1;
        mr_feed_send_result(self->feed, report->step, report->result.loss, report->logits,
                            &report->logit_shape);
        break;
    }
}

/* ---- the feed's events ---- */

/* RPC thread. A queue that is full of events already wakes EXEC. */
static void stage_feed_ready(void *context, uint64_t step) {
    (void)step;
    stage *self = context;
    mr_status status = mr_executor_post(
        self->executor, &(mr_executor_event){.kind = MR_EXECUTOR_FEED_READY});
    (void)status;
}

static void stage_feed_state(void *context, bool open) {
    stage *self = context;
    if (!stage_holds_job(self))
        return;
    mr_report_feed(self->control, stage_subject(self), open);
    if (!open && self->job.inference && self->job.rank == 0)
        stage_post(self, &(mr_executor_event){.kind = MR_EXECUTOR_FEED_CLOSED});
}

/* ---- heartbeat and status ---- */

/* Does EXEC make progress? One instruction, and letting go of a job, have a bound; without work it
 * waits for an event, and preparing and saving are bounded by the coordinator, who ends the job. */
static bool stage_progresses(const stage *self, const mr_executor_progress *progress,
                             int64_t now_ms) {
    if (self->state == STAGE_DROPPING)
        return now_ms - self->state_since_ms < MR_EXECUTOR_STUCK_MS;
    return progress->instruction[0] == 0 || progress->age_ms < MR_EXECUTOR_STUCK_MS;
}

/* To the service manager: one line for people, and a sign of life where there is life. */
static void stage_notify(stage *self, const mr_executor_progress *progress) {
    char text[MR_NOTIFY_STATUS_BYTES];
    int64_t now_ms = mr_clock_now_ms();
    bool progresses = stage_progresses(self, progress, now_ms);
    if (!stage_holds_job(self))
        (void)snprintf(text, sizeof(text), "%s, coordinator %s", stage_state_names[self->state],
                       self->options->coordinator);
    else
        (void)snprintf(text, sizeof(text), "%s job %s as rank %u, step %" PRIu64 "%s",
                       stage_state_names[self->state], self->job.id, self->job.rank,
                       self->job.next_step, progresses ? "" : ", stuck");
    mr_notify_tick(&self->notify, now_ms, progresses, text);
}

/* The addresses are for a node, which shows them. */
static void stage_notify_ready(stage *self) {
    char text[MR_NOTIFY_STATUS_BYTES];
    (void)snprintf(text, sizeof(text), "serves at %s", self->identity.address);
    mr_notify_send("X_MILLRACE_ADDRESS=%s\nX_MILLRACE_STATUS_ADDRESS=%s", self->identity.address,
                   self->identity.status_address);
    mr_notify_ready(&self->notify, text);
}

static void stage_heartbeat(void *context) {
    stage *self = context;
    mr_executor_progress progress;
    mr_executor_progress_read(self->executor, &progress);
    mr_status_page_beat(self->page);
    mr_stage_metrics_tick(self->metrics, mr_clock_now_ms());
    mr_status_server_tick(self->status_server, mr_clock_now_ms());
    mr_status_page_check_set(self->page, "device",
                             stage_progresses(self, &progress, mr_clock_now_ms())
                                 ? NULL
                                 : "an instruction takes too long");
    stage_notify(self, &progress);
    if (mr_control_attached(self->control))
        mr_report_heartbeat(self->control, stage_subject(self), &progress);
    mr_stage_status status = {
        .state = stage_state_names[self->state],
        .address = self->identity.address,
        .coordinator = self->options->coordinator,
        .device = self->options->device.kind,
        .threads = self->identity.threads,
        .job_id = self->job.id,
        .epoch = self->job.epoch,
        .rank = self->job.rank,
        .next_step = self->job.next_step,
        .progress = progress,
        .result = self->job.result,
        .held = self->job.held,
        .interval = self->job.interval,
        .assignment = stage_holds_job(self) ? self->job.assignment : NULL,
    };
    mr_stage_status_publish(self->page, &status);
}

static void stage_leaving_over(void *context) {
    stage *self = context;
    MR_LOG(WARN, "stopping before the job was saved", MR_S("job", self->job.id),
           MR_I("waited_seconds", self->options->drain_seconds));
    mr_loop_stop(self->loop);
}

/* The coordinator pauses and saves the job, takes it away, and then orders the shutdown. */
static mr_status stage_leave(stage *self) {
    MR_TRY(mr_loop_timer_start(self->loop, (uint64_t)self->options->drain_seconds * 1000, 0,
                               stage_leaving_over, self, &self->leaving_end));
    self->leaving = true;
    mr_notify_stopping((int64_t)self->options->drain_seconds * 1000 + MR_SHUTDOWN_TIMEOUT_MS);
    stage_ready_publish(self);
    mr_report_leaving(self->control);
    return MR_OK;
}

static void stage_signalled(void *context, int signal_number) {
    stage *self = context;
    bool waits = signal_number == SIGTERM && self->options->drain_seconds > 0 && !self->leaving &&
                 stage_holds_job(self) && mr_control_attached(self->control);
    MR_LOG(INFO, waits ? "stopping once the job is saved" : "stopping",
           MR_I("signal", signal_number), MR_S("state", stage_state_names[self->state]));
    if (!waits || !mr_status_is_ok(stage_leave(self)))
        mr_loop_stop(self->loop);
}

/* ---- building and ending ---- */

static mr_status stage_serve(stage *self) {
    const mr_rpc_service services[] = {
        mr_link_hub_service(self->links),
        mr_group_hub_service(self->groups),
        mr_feed_service(self->feed),
    };
    mr_rpc_server_options options = {
        .listen = self->options->listen,
        .credentials = self->options->credentials,
        .services = services,
        .service_count = sizeof(services) / sizeof(services[0]),
        .metrics = mr_stage_metrics_table(self->metrics),
    };
    return mr_rpc_server_start(&options, &self->server);
}

static mr_status stage_build_status(stage *self) {
    MR_TRY(mr_status_page_create(&self->page));
    MR_TRY(mr_stage_metrics_create(&self->metrics));
    MR_TRY(mr_trace_create("stage", &self->trace));
    MR_TRY(mr_trace_track_add(self->trace, "exec", STAGE_TRACE_SPANS, &self->track));
    MR_TRY(mr_trace_track_add(self->trace, "reduce", STAGE_TRACE_SPANS, &self->reduce_track));
    if (self->options->status_listen == NULL)
        return MR_OK;
    mr_status_server_options options = {
        .address = self->options->status_listen,
        .any_address = self->options->credentials.insecure,
        .version = MR_VERSION,
        .commit = MR_COMMIT,
        .page = self->page,
        .metrics = mr_stage_metrics_table(self->metrics),
        .trace = self->trace,
        .settings = self->options->settings,
        .setting_count = self->options->setting_count,
    };
    return mr_status_server_start(&options, &self->status_server);
}

static mr_status stage_build_executor(stage *self) {
    mr_executor_options options = {
        .device = self->options->device,
        .fabric_open = self->options->fabric_open,
        .transport = {.links = self->links,
                      .groups = self->groups,
                      .credentials = &self->options->credentials},
        .feed = self->feed,
        .track = self->track,
        .reduce_track = self->reduce_track,
        .meter = mr_stage_metrics_meter(self->metrics),
        .loop = self->loop,
        .report = stage_executor_report,
        .context = self,
    };
    return mr_executor_start(&options, &self->executor);
}

/* A random name for this process: a stage that comes back is another one. */
static void stage_name(stage *self) {
    unsigned char bytes[16] = {0};
    ssize_t got = getrandom(bytes, sizeof(bytes), 0);
    MR_ASSERT(got == (ssize_t)sizeof(bytes)); /* Linux gives up to 256 bytes whole */
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(self->instance + 2 * i, 3, "%02x", bytes[i]);
}

static char *borrowed(const char *text) {
    return (char *)(uintptr_t)text;
}

static mr_status stage_build_control(stage *self) {
    struct sysinfo info = {0};
    (void)sysinfo(&info); /* zero memory is shown as unknown */
    stage_name(self);
    millrace__v1__register__init(&self->identity);
    self->identity.instance_id = self->instance;
    self->identity.device = borrowed(self->options->device.kind);
    self->identity.threads = self->options->device.threads > 0
                                 ? (uint32_t)self->options->device.threads
                                 : (uint32_t)get_nprocs();
    self->identity.address = borrowed(self->options->advertise != NULL
                                          ? self->options->advertise
                                          : mr_rpc_server_address(self->server));
    self->identity.status_address = borrowed(
        self->status_server != NULL ? mr_status_server_address(self->status_server) : "");
    self->identity.version = borrowed(MR_VERSION);
    self->identity.memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    self->identity.process_id = (uint64_t)getpid();
    mr_control_options options = {
        .loop = self->loop,
        .coordinator = self->options->coordinator,
        .credentials = &self->options->credentials,
        .identity = &self->identity,
        .events = {.order = stage_order_arrived, .detached = stage_detached, .context = self},
    };
    return mr_control_create(&options, &self->control);
}

static mr_status stage_build(stage *self) {
    mr_notify_extend(2 * MR_PREPARE_TIMEOUT_MS); /* a device may take its time */
    mr_feed_events feed_events = {
        .step_ready = stage_feed_ready, .state = stage_feed_state, .context = self};
    MR_TRY(mr_loop_create(&self->loop));
    MR_TRY(mr_loop_signal_watch(self->loop, SIGTERM, stage_signalled, self));
    MR_TRY(mr_loop_signal_watch(self->loop, SIGINT, stage_signalled, self));
    MR_TRY(mr_link_hub_create(&self->links));
    MR_TRY(mr_group_hub_create(&self->groups));
    MR_TRY(mr_feed_create(self->loop, &feed_events, &self->feed));
    MR_TRY(stage_build_status(self));
    MR_TRY(stage_build_executor(self));
    MR_TRY(stage_serve(self));
    MR_TRY(stage_build_control(self));
    return mr_loop_timer_start(self->loop, 0, MR_HEARTBEAT_PERIOD_MS, stage_heartbeat, self,
                               &self->heartbeat);
}

/* SIGALRM after the bound: a step in the middle of a long operation is abandoned with the process.
 * Nothing is lost by it that was not uncommitted anyway. */
static void stage_overdue(int signal_number) {
    (void)signal_number;
    _exit(0);
}

/* The reverse of building. The executor goes first: it uses everything else. */
static void stage_end(stage *self) {
    (void)signal(SIGALRM, stage_overdue);
    (void)alarm(MR_SHUTDOWN_TIMEOUT_MS / 1000);
    mr_notify_stopping(MR_SHUTDOWN_TIMEOUT_MS);
    if (self->heartbeat != NULL)
        mr_loop_timer_stop(self->heartbeat);
    if (self->leaving_end != NULL)
        mr_loop_timer_stop(self->leaving_end);
    self->state = STAGE_DETACHED; /* nothing is reported any more */
    mr_control_destroy(self->control);
    mr_executor_stop(self->executor);
    if (self->feed != NULL)
        mr_feed_stop(self->feed, MR_ERROR(UNAVAILABLE, "this stage is shutting down"));
    mr_rpc_server_stop(self->server, MR_SHUTDOWN_TIMEOUT_MS / 8);
    mr_status_server_stop(self->status_server);
    mr_rpc_stop(); /* the last events of streams are posted before it returns */
    mr_loop_destroy(self->loop);
    mr_executor_destroy(self->executor);
    mr_assignment_destroy(self->job.assignment);
    mr_profiler_order_destroy(self->job.profiled);
    mr_group_ids_deinit(&self->job.ids);
    mr_feed_destroy(self->feed);
    mr_group_hub_destroy(self->groups);
    mr_link_hub_destroy(self->links);
    mr_stage_metrics_destroy(self->metrics);
    mr_trace_destroy(self->trace);
    mr_status_page_destroy(self->page);
}

mr_status mr_stage_run(const mr_stage_options *options) {
    stage *self = mr_alloc(sizeof(*self));
    if (self == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a stage");
    self->options = options;
    mr_status status = mr_rpc_start();
    if (!mr_status_is_ok(status)) {
        mr_free(self);
        return status;
    }
    status = stage_build(self);
    if (mr_status_is_ok(status)) {
        mr_status_page_started_set(self->page, true); /* before the line that says so */
        MR_LOG(INFO, "stage ready", MR_S("address", mr_rpc_server_address(self->server)),
               MR_S("status_address", self->identity.status_address),
               MR_S("device", options->device.kind), MR_S("coordinator", options->coordinator));
        stage_notify_ready(self);
        mr_control_attach(self->control);
        mr_loop_run(self->loop);
    }
    stage_end(self);
    mr_free(self);
    return status;
}
