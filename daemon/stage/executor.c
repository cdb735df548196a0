/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/stage/executor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/base/queue.h"
#include "daemon/stage/session.h"

/* How long one wait for an event lasts before the thread looks again; only a bound, events wake
 * it. */
enum { EXECUTOR_IDLE_WAIT_MS = 60000 };

/* What all ranks do next, as rank 0 decided it. Broadcast as bytes between equal builds (the
 * schedule's hash was compared before). */
typedef enum boundary_action {
    BOUNDARY_STEP = 1,
    BOUNDARY_SAVE,
    BOUNDARY_PAUSE,
    BOUNDARY_SET,
    BOUNDARY_FINISH
} boundary_action;

typedef struct boundary_record {
    uint32_t action;
    uint32_t wants_logits; /* of an evaluated step */
    uint32_t micro_batches; /* of a step, as replica 0 was fed */
    uint32_t reserved;
    uint64_t step;
    uint64_t interval; /* of SET */
    char tag[MR_NAME_BYTES];
} boundary_record;

/* Rank 0's wishes between steps. EXEC's. */
typedef struct boundary_wishes {
    bool paused;
    bool pause;
    bool feed_closed;
    bool finished;
    bool set;
    uint64_t interval;
    bool save;
    char save_tag[MR_NAME_BYTES];
    uint64_t saved_step; /* the last step-N save; UINT64_MAX: none */
    bool periodic;       /* a step-N save is due */
} boundary_wishes;

struct mr_executor {
    mr_executor_options options;
    pthread_t thread;
    mr_queue *events;
    mr_queue *reports;
    mr_queue *started; /* one status: how the device's creation went */
    _Atomic bool stop; /* give up the present work; reset by DROP */
    _Atomic(mr_session *) connected; /* for interrupt; see there */
    bool dropping;                   /* LOOP's: DROP is posted and not yet answered */
    bool stopped;                    /* LOOP's: the thread has ended */
    mr_session_progress progress;
    /* EXEC's */
    mr_device *device;
    mr_session *session;
    mr_executor_event held; /* an event that ended the run and is handled after it */
    bool holds;
    boundary_wishes wishes;
};

/* ---- reports ---- */

static void report_free(mr_executor_report *report) {
    mr_group_ids_deinit(&report->ids);
    mr_free(report->files.files);
    mr_free(report->logits);
    mr_profile_device_destroy(report->profile);
}

/* LOOP: hands over every report that waits; after stop there is nobody to hand it to. */
static void executor_drain(void *context) {
    mr_executor *executor = context;
    mr_executor_report report;
    while (mr_status_is_ok(mr_queue_pop(executor->reports, &report, 0))) {
        if (report.kind == MR_EXECUTOR_RELEASED)
            executor->dropping = false;
        if (executor->stopped)
            report_free(&report);
        else
            executor->options.report(executor->options.context, &report);
    }
}

/* LOOP drains at once; a full queue would mean that it has stood still for hundreds of steps, and
 * then the heartbeat has long ended this stage. */
static void executor_report(mr_executor *executor, const mr_executor_report *report) {
    mr_status status = mr_queue_push(executor->reports, report);
    MR_ASSERT(mr_status_is_ok(status));
    status = mr_loop_post(executor->options.loop, executor_drain, executor);
    (void)status; /* a full loop drains this with the next post */
}

static void executor_report_kind(mr_executor *executor, mr_executor_report_kind kind,
                                 mr_status status) {
    mr_executor_report report = {.kind = kind, .status = status};
    if (executor->session != NULL)
        report.step = mr_session_next_step(executor->session);
    executor_report(executor, &report);
}

/* A failure that follows from our own interrupt is no news. */
static void executor_report_failure(mr_executor *executor, mr_status status) {
    if (!atomic_load(&executor->stop))
        executor_report_kind(executor, MR_EXECUTOR_FAILED, status);
}

/* ---- between steps, rank 0 ---- */

/* Takes one event into the wishes; false: it ends the run and is held for later. */
static bool wishes_take(mr_executor *executor, const mr_executor_event *event) {
    boundary_wishes *wishes = &executor->wishes;
    switch (event->kind) {
    case MR_EXECUTOR_RUN:
        wishes->paused = false;
        wishes->pause = false;
        return true;
    case MR_EXECUTOR_PAUSE:
        wishes->pause = true;
        return true;
    case MR_EXECUTOR_SAVE:
        wishes->save = true;
        memcpy(wishes->save_tag, event->tag, sizeof(wishes->save_tag));
        return true;
    case MR_EXECUTOR_SET:
        wishes->set = true;
        wishes->interval = event->interval;
        return true;
    case MR_EXECUTOR_FEED_CLOSED:
        wishes->feed_closed = true;
        return true;
    case MR_EXECUTOR_FEED_READY:
        return true;
    case MR_EXECUTOR_PREPARE:
    case MR_EXECUTOR_CONNECT:
    case MR_EXECUTOR_DROP:
    case MR_EXECUTOR_PROFILE:
    case MR_EXECUTOR_EXIT:
        break;
    }
    executor->held = *event;
    executor->holds = true;
    return false;
}

/* Fills the record when there is something to do now; false: nothing, wait for an event. */
static bool wishes_choose(mr_executor *executor, boundary_record *record) {
    boundary_wishes *wishes = &executor->wishes;
    const mr_assignment *assignment = mr_session_assignment(executor->session);
    uint64_t step = mr_session_next_step(executor->session);
    bool ended = !assignment->inference && step >= assignment->job->total_steps;
    bool saves = assignment->checkpoint_dir[0] != 0 && !assignment->inference;
    bool final_due = ended && saves && wishes->saved_step != step && step > 0;
    *record = (boundary_record){.step = step};
    if (wishes->set) {
        wishes->set = false;
        record->action = BOUNDARY_SET;
        record->interval = wishes->interval;
    } else if (wishes->save) {
        wishes->save = false;
        record->action = BOUNDARY_SAVE;
        memcpy(record->tag, wishes->save_tag, sizeof(record->tag));
        if (record->tag[0] == 0)
            mr_layout_step_tag(step, record->tag);
    } else if (wishes->periodic || final_due) {
        record->action = BOUNDARY_SAVE;
        mr_layout_step_tag(step, record->tag);
    } else if (ended || (wishes->feed_closed && assignment->inference)) {
        record->action = BOUNDARY_FINISH;
    } else if (wishes->pause && !wishes->paused) {
        wishes->paused = true;
        record->action = BOUNDARY_PAUSE;
    } else if (!wishes->paused && mr_feed_ready(executor->options.feed, step)) {
        record->action = BOUNDARY_STEP;
        record->micro_batches = mr_feed_micro_batches(executor->options.feed, step);
        record->wants_logits = mr_feed_wants_logits(executor->options.feed, step);
    }
    return record->action != 0;
}

/* Rank 0: the next record, waiting for an event when there is nothing to do. CANCELLED: the run
 * ends. An inference feed that closes is honoured only after the steps that are here. */
static mr_status executor_choose(mr_executor *executor, boundary_record *record) {
    for (;;) {
        mr_executor_event event;
        while (mr_status_is_ok(mr_queue_pop(executor->events, &event, 0)))
            if (!wishes_take(executor, &event))
                return MR_ERROR(CANCELLED, "the run is over");
        uint64_t step = mr_session_next_step(executor->session);
        bool closed = executor->wishes.feed_closed;
        executor->wishes.feed_closed = closed && !mr_feed_ready(executor->options.feed, step);
        bool chosen = wishes_choose(executor, record);
        executor->wishes.feed_closed = closed;
        if (chosen)
            return MR_OK;
        mr_status waited = mr_queue_pop(executor->events, &event, EXECUTOR_IDLE_WAIT_MS);
        bool over = mr_status_is_ok(waited) ? !wishes_take(executor, &event)
                                            : waited.code == MR_CODE_CANCELLED;
        if (over)
            return MR_ERROR(CANCELLED, "the run is over");
    }
}

/* ---- what a record asks for, on every rank ---- */

static void executor_save(mr_executor *executor, const boundary_record *record) {
    mr_executor_report report = {
        .kind = MR_EXECUTOR_SAVED,
        .step = mr_session_next_step(executor->session),
    };
    memcpy(report.tag, record->tag, sizeof(report.tag));
    report.applied = mr_session_applied(executor->session);
    report.status = mr_session_save(executor->session, record->tag, &report.files);
    uint64_t step;
    if (mr_layout_step_parse(record->tag, &step))
        executor->wishes.saved_step = step;
    executor->wishes.periodic = false;
    executor_report(executor, &report);
}

/* What the last stage found goes to the client through rank 0. */
static mr_status executor_report_result(mr_executor *executor, mr_executor_report *report) {
    const float *logits = mr_session_logits(executor->session, &report->logit_shape);
    size_t bytes = 0;
    MR_ASSERT(mr_shape_bytes(&report->logit_shape, &bytes));
    report->kind = MR_EXECUTOR_RESULT;
    report->logits = logits == NULL ? NULL : mr_alloc(bytes);
    if (logits != NULL && report->logits == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu bytes of logits", bytes);
    if (logits != NULL)
        memcpy(report->logits, logits, bytes);
    executor_report(executor, report);
    return MR_OK;
}

/* The first stage of another replica: rank 0 has its microbatches, this one's may still come; they
 * must be as many. */
static mr_status executor_await_feed(mr_executor *executor, uint32_t micro_batches) {
    uint64_t step = mr_session_next_step(executor->session);
    int64_t end_ms = mr_clock_now_ms() + MR_STEP_WAIT_TIMEOUT_MS;
    while (!mr_feed_ready(executor->options.feed, step)) {
        mr_executor_event event;
        int64_t left_ms = end_ms - mr_clock_now_ms();
        if (left_ms <= 0)
            return MR_ERROR(DEADLINE_EXCEEDED, "step %llu: the feed of replica %u is late",
                            (unsigned long long)step + 1,
                            mr_session_assignment(executor->session)->replica);
        mr_status waited = mr_queue_pop(executor->events, &event, left_ms);
        bool over = mr_status_is_ok(waited) ? !wishes_take(executor, &event)
                                            : waited.code == MR_CODE_CANCELLED;
        if (over)
            return MR_ERROR(CANCELLED, "the run is over");
    }
    uint32_t fed = mr_feed_micro_batches(executor->options.feed, step);
    if (fed != micro_batches)
        return MR_ERROR(FAILED_PRECONDITION,
                        "step %llu: replica %u was fed %u microbatches and replica 0 %u",
                        (unsigned long long)step + 1,
                        mr_session_assignment(executor->session)->replica, fed, micro_batches);
    return MR_OK;
}

static mr_status executor_step(mr_executor *executor, const boundary_record *record) {
    const mr_assignment *assignment = mr_session_assignment(executor->session);
    if (mr_assignment_is_fed(assignment) && assignment->replica > 0)
        MR_TRY(executor_await_feed(executor, record->micro_batches));
    mr_executor_report report = {
        .kind = MR_EXECUTOR_STEP_DONE,
        .step = mr_session_next_step(executor->session),
    };
    MR_TRY(mr_session_set_micro_batches(executor->session, record->micro_batches));
    MR_TRY(mr_session_step(executor->session, record->wants_logits != 0, &report.result));
    uint64_t every = assignment->job->checkpoint_every_steps;
    uint64_t done = mr_session_next_step(executor->session);
    executor->wishes.periodic = !assignment->inference && assignment->checkpoint_dir[0] != 0 &&
                                every > 0 && done % every == 0;
    if (!mr_assignment_is_fed(assignment))
        return MR_OK;
    if (assignment->inference)
        return executor_report_result(executor, &report);
    executor_report(executor, &report);
    return MR_OK;
}

static mr_status executor_set(mr_executor *executor, size_t interval) {
    MR_TRY(mr_session_set_interval(executor->session, interval));
    mr_executor_report report = {
        .kind = MR_EXECUTOR_RESIZED,
        .step = mr_session_next_step(executor->session),
        .held = mr_session_memory(executor->session),
        .interval = mr_session_interval(executor->session),
    };
    executor_report(executor, &report);
    return MR_OK;
}

static mr_status executor_follow(mr_executor *executor, const boundary_record *record,
                                 bool *out_finished) {
    uint64_t step = mr_session_next_step(executor->session);
    if (record->step != step)
        return MR_ERROR(INTERNAL, "rank 0 stands before step %llu and this rank before %llu",
                        (unsigned long long)record->step, (unsigned long long)step);
    switch ((boundary_action)record->action) {
    case BOUNDARY_STEP:
        return executor_step(executor, record);
    case BOUNDARY_SAVE:
        executor_save(executor, record);
        return MR_OK;
    case BOUNDARY_PAUSE:
        executor_report_kind(executor, MR_EXECUTOR_PAUSED, MR_OK);
        return MR_OK;
    case BOUNDARY_SET:
        return executor_set(executor, record->interval);
    case BOUNDARY_FINISH:
        *out_finished = true;
        executor->wishes.finished = true;
        executor_report_kind(executor, MR_EXECUTOR_FINISHED, MR_OK);
        return MR_OK;
    }
    return MR_ERROR(INTERNAL, "rank 0 asks for action %u, which is none", record->action);
}

/* From the first step to the last, or until an event ends it. */
static mr_status executor_run(mr_executor *executor) {
    const mr_assignment *assignment = mr_session_assignment(executor->session);
    bool finished = false;
    while (!finished) {
        boundary_record record = {0};
        if (assignment->rank == 0)
            MR_TRY(executor_choose(executor, &record));
        MR_TRY(mr_session_agree(executor->session, &record, sizeof(record)));
        MR_TRY(executor_follow(executor, &record, &finished));
    }
    return MR_OK;
}

/* ---- events ---- */

static void executor_prepare(mr_executor *executor, const mr_assignment *assignment) {
    mr_session_options options = {
        .device = executor->device,
        .transport = executor->options.transport,
        .feed = executor->options.feed,
        .track = executor->options.track,
        .reduce_track = executor->options.reduce_track,
        .progress = &executor->progress,
        .stop = &executor->stop,
    };
    MR_ASSERT(executor->session == NULL);
    executor->wishes = (boundary_wishes){.saved_step = UINT64_MAX};
    mr_status status = mr_session_create(&options, assignment, &executor->session);
    if (!mr_status_is_ok(status)) {
        executor_report_failure(executor, status);
        return;
    }
    uint64_t step = mr_session_next_step(executor->session);
    executor->wishes.periodic = !assignment->inference && assignment->job->checkpoint_initial &&
                                assignment->checkpoint_dir[0] != 0 && step == 0;
    if (assignment->checkpoint_path[0] != 0)
        executor->wishes.saved_step = step;
    mr_executor_report report = {
        .kind = MR_EXECUTOR_PREPARED,
        .step = step,
        .ids = mr_session_take_ids(executor->session),
        .held = mr_session_memory(executor->session),
        .interval = mr_session_interval(executor->session),
    };
    executor_report(executor, &report);
}

static void executor_connect(mr_executor *executor, const mr_group_ids *ids) {
    mr_status status = executor->session == NULL
                           ? MR_ERROR(FAILED_PRECONDITION, "nothing is prepared to be connected")
                           : mr_session_connect(executor->session, ids);
    if (!mr_status_is_ok(status)) {
        executor_report_failure(executor, status);
        return;
    }
    atomic_store(&executor->connected, executor->session);
    executor_report_kind(executor, MR_EXECUTOR_CONNECTED, MR_OK);
}

static void executor_profile(mr_executor *executor, const mr_profiler_order *order) {
    const mr_profiler_options options = {
        .device = executor->device,
        .order = order,
        .links = executor->options.transport.links,
        .credentials = executor->options.transport.credentials,
        .stop = &executor->stop,
    };
    mr_executor_report report = {.kind = MR_EXECUTOR_PROFILED};
    MR_ASSERT(executor->session == NULL);
    mr_status status = mr_profiler_run(&options, &report.profile, &report.status);
    if (mr_status_is_ok(status))
        executor_report(executor, &report);
    else
        executor_report_failure(executor, status);
}

static void executor_drop(mr_executor *executor) {
    atomic_store(&executor->connected, NULL);
    mr_session_destroy(executor->session);
    executor->session = NULL;
    atomic_store(&executor->progress.instruction, 0);
}

static void executor_handle(mr_executor *executor, const mr_executor_event *event) {
    switch (event->kind) {
    case MR_EXECUTOR_PREPARE:
        executor_prepare(executor, event->assignment);
        break;
    case MR_EXECUTOR_CONNECT:
        executor_connect(executor, event->ids);
        break;
    case MR_EXECUTOR_RUN:
        if (atomic_load(&executor->connected) != NULL && !executor->wishes.finished) {
            mr_status status = executor_run(executor);
            if (!mr_status_is_ok(status) && !executor->holds)
                executor_report_failure(executor, status);
        }
        break;
    case MR_EXECUTOR_PROFILE:
        executor_profile(executor, event->order);
        break;
    case MR_EXECUTOR_DROP:
        executor_drop(executor);
        atomic_store(&executor->stop, false);
        executor_report_kind(executor, MR_EXECUTOR_RELEASED, MR_OK);
        break;
    case MR_EXECUTOR_PAUSE:
    case MR_EXECUTOR_SAVE:
    case MR_EXECUTOR_SET:
    case MR_EXECUTOR_FEED_READY:
    case MR_EXECUTOR_FEED_CLOSED:
    case MR_EXECUTOR_EXIT:
        break; /* only of use within a run */
    }
}

static mr_status executor_next(mr_executor *executor, mr_executor_event *event) {
    if (executor->holds) {
        *event = executor->held;
        executor->holds = false;
        return MR_OK;
    }
    return mr_queue_pop(executor->events, event, EXECUTOR_IDLE_WAIT_MS);
}

/* The device, and what carries its tensors. */
static mr_status executor_open_device(mr_executor *executor) {
    const mr_executor_options *options = &executor->options;
    MR_TRY(mr_device_create(&options->device, &executor->device));
    if (options->fabric_open == NULL)
        return MR_OK;
    return options->fabric_open(&options->device, executor->device,
                                &executor->options.transport.fabric);
}

static void *executor_main(void *context) {
    mr_executor *executor = context;
    mr_executor_event event = {.kind = MR_EXECUTOR_RUN};
    mr_status status = executor_open_device(executor);
    mr_status pushed = mr_queue_push(executor->started, &status);
    MR_ASSERT(mr_status_is_ok(pushed));
    while (mr_status_is_ok(status) && event.kind != MR_EXECUTOR_EXIT) {
        mr_status next = executor_next(executor, &event);
        if (mr_status_is_ok(next))
            executor_handle(executor, &event);
        else if (next.code == MR_CODE_CANCELLED)
            event.kind = MR_EXECUTOR_EXIT; /* closed and drained */
    }
    executor_drop(executor);
    mr_fabric *fabric = executor->options.transport.fabric;
    if (fabric != NULL)
        fabric->close(fabric);
    mr_device_destroy(executor->device);
    return NULL;
}

/* ---- LOOP ---- */

static mr_status executor_fill(mr_executor *executor) {
    MR_TRY(mr_queue_create(sizeof(mr_executor_event), MR_EXECUTOR_EVENTS_MAX, &executor->events));
    MR_TRY(mr_queue_create(sizeof(mr_executor_report), MR_EXECUTOR_EVENTS_MAX, &executor->reports));
    MR_TRY(mr_queue_create(sizeof(mr_status), 1, &executor->started));
    int error = pthread_create(&executor->thread, NULL, executor_main, executor);
    if (error != 0)
        return MR_ERROR(RESOURCE_EXHAUSTED, "the executor's thread: %s", strerror(error));
    mr_status status = MR_OK;
    mr_status waited = mr_queue_pop(executor->started, &status, MR_PREPARE_TIMEOUT_MS);
    if (mr_status_is_ok(waited) && mr_status_is_ok(status))
        return MR_OK;
    if (mr_status_is_ok(waited))
        (void)pthread_join(executor->thread, NULL); /* it has ended already */
    return mr_status_is_ok(waited) ? status : mr_status_prefix(waited, "the device's creation");
}

static void executor_free(mr_executor *executor) {
    mr_queue_destroy(executor->started);
    mr_queue_destroy(executor->reports);
    mr_queue_destroy(executor->events);
    mr_free(executor);
}

mr_status mr_executor_start(const mr_executor_options *options, mr_executor **out_executor) {
    mr_executor *executor = mr_alloc(sizeof(*executor));
    if (executor == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an executor");
    executor->options = *options;
    mr_status status = executor_fill(executor);
    if (!mr_status_is_ok(status)) {
        executor_free(executor);
        return status;
    }
    *out_executor = executor;
    return MR_OK;
}

mr_status mr_executor_post(mr_executor *executor, const mr_executor_event *event) {
    MR_TRY(mr_queue_push(executor->events, event));
    if (event->kind == MR_EXECUTOR_DROP)
        executor->dropping = true;
    return MR_OK;
}

/* The session is freed on EXEC only while it handles DROP or EXIT. LOOP interrupts before it posts
 * either, and not again until the answer, so the pointer it reads here is alive. */
void mr_executor_interrupt(mr_executor *executor, const char *reason) {
    if (executor->dropping)
        return;
    atomic_store(&executor->stop, true);
    mr_session *session = atomic_load(&executor->connected);
    if (session != NULL)
        mr_session_interrupt(session, reason);
}

void mr_executor_progress_read(const mr_executor *executor, mr_executor_progress *out_progress) {
    uint64_t packed = atomic_load(&executor->progress.instruction);
    *out_progress = (mr_executor_progress){.step = atomic_load(&executor->progress.step)};
    if (packed == 0)
        return;
    mr_instruction instruction = {
        .opcode = (mr_opcode)((packed >> 56) - 1),
        .chunk = (uint32_t)(packed >> 32) & 0xffffffu,
        .micro_batch = (uint32_t)packed,
    };
    mr_instruction_text(&instruction, out_progress->instruction);
    int64_t age_ns = mr_clock_now_ns() - atomic_load(&executor->progress.since_ns);
    out_progress->age_ms = age_ns > 0 ? (uint64_t)age_ns / 1000000 : 0;
}

/* One device operation cannot be stopped in its middle; stage.c bounds the whole shutdown. */
void mr_executor_stop(mr_executor *executor) {
    if (executor == NULL)
        return;
    mr_executor_interrupt(executor, "this stage is shutting down");
    mr_status status = mr_executor_post(executor, &(mr_executor_event){.kind = MR_EXECUTOR_EXIT});
    (void)status; /* a full queue still ends: it is closed next, and every event in it is handled */
    mr_queue_close(executor->events);
    (void)pthread_join(executor->thread, NULL);
    executor->stopped = true;
    executor_drain(executor);
}

void mr_executor_destroy(mr_executor *executor) {
    if (executor != NULL)
        executor_free(executor);
}
