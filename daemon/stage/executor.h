/* SPDX-License-Identifier: Apache-2.0 */
/* executor.h: the EXEC thread of a stage: it owns the device and everything on it, runs the rank's
 * instruction list step after step, and holds the only loop over microbatches.
 *
 * LOOP hands it events through one bounded queue and gets reports back through another; nothing
 * else is shared but the progress words (atomics) and the interrupt.
 *
 * Between steps all ranks of a pipeline agree on what comes next: rank 0 decides (its feed is
 * ready, a pause, a save, the end) and broadcasts one boundary record over the pipe group; the
 * others wait for it. So a save and a pause happen at the same step everywhere, without the
 * coordinator on the way.
 * Owner: stage. Thread: LOOP, unless said. Limits: MR_EXECUTOR_EVENTS_MAX.
 * Not here: orders and their checks (stage.c), the wire (control.c, link/, group/). */
#ifndef MR_STAGE_EXECUTOR_H
#define MR_STAGE_EXECUTOR_H

#include "daemon/base/loop.h"
#include "daemon/observe/trace.h"
#include "daemon/stage/applied.h"
#include "daemon/stage/connections.h"
#include "daemon/stage/feed.h"
#include "daemon/stage/layer_save.h"
#include "daemon/stage/profiler.h"
#include "daemon/stage/side_losses.h"

typedef struct mr_executor mr_executor;

typedef enum mr_executor_event_kind {
    MR_EXECUTOR_PREPARE, /* borrows assignment until RELEASED; PREPARED or FAILED */
    MR_EXECUTOR_CONNECT, /* CONNECTED or FAILED */
    MR_EXECUTOR_RUN,     /* start, or go on after a pause */
    MR_EXECUTOR_PAUSE,   /* rank 0 only: PAUSED from every rank */
    MR_EXECUTOR_SAVE,    /* rank 0 only, with tag ("": step-N): SAVED from every rank */
    MR_EXECUTOR_SET,     /* rank 0 only: the interval, from the next boundary on */
    MR_EXECUTOR_DROP,    /* end the assignment, in order or not; answered by RELEASED */
    MR_EXECUTOR_FEED_READY,
    MR_EXECUTOR_FEED_CLOSED,
    MR_EXECUTOR_PROFILE, /* borrows order until the answer: PROFILED or FAILED, or RELEASED */
    MR_EXECUTOR_EXIT,
} mr_executor_event_kind;

typedef struct mr_executor_event {
    mr_executor_event_kind kind;
    const mr_assignment *assignment;
    char tag[MR_NAME_BYTES];
    const mr_group_ids *ids; /* CONNECT: borrowed until RELEASED */
    const mr_profiler_order *order; /* PROFILE */
    uint64_t interval;       /* SET: activation_checkpoint_interval */
} mr_executor_event;

typedef enum mr_executor_report_kind {
    MR_EXECUTOR_PREPARED,
    MR_EXECUTOR_CONNECTED,
    MR_EXECUTOR_STEP_DONE, /* first stages */
    MR_EXECUTOR_SAVED,     /* status: OK, or why not; owns files */
    MR_EXECUTOR_PAUSED,
    MR_EXECUTOR_RESIZED, /* held and interval have changed */
    MR_EXECUTOR_FINISHED,
    MR_EXECUTOR_FAILED, /* status */
    MR_EXECUTOR_RELEASED,
    MR_EXECUTOR_RESULT,   /* rank 0, a step without training; owns logits */
    MR_EXECUTOR_PROFILED, /* owns profile; status: why its link was not measured */
} mr_executor_report_kind;

/* What a finished optimizer step was. */
typedef struct mr_step_result {
    double loss; /* the model's own */
    double total_loss; /* with the side losses: what is optimized */
    mr_side_values sides;
    double gradient_norm;
    double learning_rate;
    double step_seconds;
    double bubble; /* barrier metric, measured */
    uint64_t tokens;
    uint64_t allocations; /* heap allocations of EXEC within the step */
    double loss_scale; /* of fp16; else 0 */
    bool skipped;      /* gradients overflowed: nothing was applied */
    double transport_seconds; /* EXEC's time in link calls that was not waiting for data */
    double reduce_seconds;    /* the reducer's time in sums over replicas */
    double reduce_exposed_seconds; /* EXEC's wait for them in RD */
} mr_step_result;

/* Device memory that a prepared stage really holds, in the words of the plan's memory. */
typedef struct mr_memory_held {
    size_t weights;
    size_t gradients;
    size_t optimizer;
    size_t activations;
    size_t activations_predicted; /* by the plan's layout, for the interval in use */
} mr_memory_held;

typedef struct mr_executor_report {
    mr_executor_report_kind kind;
    uint64_t step; /* the step that comes next, from 0; STEP_DONE, RESULT: the step done */
    mr_status status;
    mr_step_result result;
    mr_memory_held held; /* PREPARED, RESIZED */
    size_t interval;     /* activation_checkpoint_interval in use; PREPARED, RESIZED */
    char tag[MR_NAME_BYTES];
    mr_applied applied; /* SAVED */
    mr_layer_save_files files;
    float *logits; /* RESULT: of logit_shape; NULL where they were not wanted */
    mr_shape logit_shape;
    mr_group_ids ids; /* PREPARED: of groups and edges, made here; owned */
    mr_profile_device *profile;
} mr_executor_report;

/* What EXEC is at, for heartbeats and status. Any thread may read. */
typedef struct mr_executor_progress {
    uint64_t step;
    char instruction[MR_INSTRUCTION_TEXT_BYTES]; /* "" when idle */
    uint64_t age_ms;
} mr_executor_progress;

typedef struct mr_executor_options {
    mr_device_options device;
    mr_fabric_opener fabric_open; /* NULL: the device's tensors are in host memory */
    mr_transport transport;       /* without a fabric, which EXEC opens */
    mr_feed *feed;         /* borrowed */
    mr_trace_track *track; /* may be NULL */
    mr_trace_track *reduce_track; /* of the thread that sums gradients; may be NULL */
    mr_loop *loop;
    /* LOOP: one report; what it owns passes to the callee. */
    void (*report)(void *context, mr_executor_report *report);
    void *context;
} mr_executor_options;

/* Starts the thread and waits until its device stands. Errors of mr_device_create. */
MR_MUST_CHECK mr_status mr_executor_start(const mr_executor_options *options,
                                          mr_executor **out_executor);
/* Any thread (DROP: LOOP). Queues an event; RESOURCE_EXHAUSTED: the queue is full. */
MR_MUST_CHECK mr_status mr_executor_post(mr_executor *executor, const mr_executor_event *event);
/* Makes every wait of the present assignment end and its present work stop at the next instruction;
 * for use before posting DROP or EXIT. */
void mr_executor_interrupt(mr_executor *executor, const char *reason);
void mr_executor_progress_read(const mr_executor *executor, mr_executor_progress *out_progress);
/* Interrupts and ends the thread; reports that are left are dropped. NULL is fine. */
void mr_executor_stop(mr_executor *executor);
/* After stop and after the loop is destroyed, which may still hold a wake-up. NULL is fine. */
void mr_executor_destroy(mr_executor *executor);

#endif
