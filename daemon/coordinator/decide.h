/* SPDX-License-Identifier: Apache-2.0 */
/* decide.h: the coordinator's decisions: one function, event -> actions, over a state that is plain
 * data. No I/O, no clock (every event carries the time), no thread: the same code runs under libuv
 * and under a simulator with virtual time (tests/simulation).
 *
 * A job's life:
 *   QUEUED -> STARTING: PREPARE to every rank; all Prepared: CONNECT; all Connected: RUN -> RUNNING
 *   A job that is cut by its layers' times is profiled first, still STARTING: PROFILE to every rank
 *     whose member's times are not in the job's profile; all Profiled: DISK cuts the model, and the
 *     spec that comes back has the bounds that PREPARE carries. One that only measures ends there.
 *   RUNNING <-> PAUSED: PAUSE to every rank; all Paused. RUN again.
 *   PAUSED <-> CHECKPOINTING: a save that was asked for while paused. A save of a running job
 *     leaves it RUNNING, for it goes on working.
 *   RUNNING -> SUCCEEDED: every rank Finished and the checkpoint of the last step is committed
 *     (inference: rank 0 Finished); RELEASE.
 *   any -> FAILED: epoch + 1, ABORT to every member of the job. The reason names stage, member and
 *     cause. What a stage reports as secondary (it saw a neighbour go) waits MR_SECONDARY_WAIT_MS
 *     for the cause, and longer while a member of the job is silent: that one will be lost, or
 *     heard.
 *   any -> CANCELLED: likewise, on a client's request.
 *   A drained stage: the job goes to DRAINING: it is paused and saved, and then FAILED with the
 *     words how to go on; without a checkpoint folder, or before it runs, it fails at once.
 *   Members are idle again when they report Released; one that does not in MR_ABORT_TIMEOUT_MS is
 *     told to exit and its stream is closed.
 * The queue is first come, first served: nobody overtakes a job that waits for stages.
 * Reports of another epoch than the job's are ignored; facts, not arrivals, move a job on, so late
 * and duplicated reports do no harm.
 *
 * When the store fails, running jobs go on and their facts are stored again later (each second); no
 * job is started and none is accepted meanwhile, so that no epoch is used that could be forgotten.
 * Owner: coordinator. Thread: LOOP.
 * Not here: carrying actions out (outbox.h), reading job files (spec.h, admission.h). */
#ifndef MR_COORDINATOR_DECIDE_H
#define MR_COORDINATOR_DECIDE_H

#include "daemon/coordinator/actions.h"
#include "daemon/coordinator/jobs.h"
#include "daemon/coordinator/registry.h"

enum {
    MR_TICK_PERIOD_MS = 200,
    MR_SECONDARY_WAIT_MS = 1000,
    MR_SILENT_MS = MR_HEARTBEAT_PERIOD_MS + MR_HEARTBEAT_PERIOD_MS / 2, /* a heartbeat is missing */
    MR_MEMBER_FORGET_MS = 60000, /* a lost member is shown this long */
    MR_MEMBER_LEAVE_MS = 5000,   /* and one that was told to exit this long */
    MR_STORE_RETRY_MS = 1000,
    MR_STARTING_SLACK_MS = 5000, /* above a stage's own bounds: it can say itself what is late */
};
static_assert(MR_HEARTBEAT_TIMEOUT_MS + MR_SECONDARY_WAIT_MS + MR_TICK_PERIOD_MS < 10000,
              "a killed stage fails its job within ten seconds");
static_assert(MR_SILENT_MS < MR_SECONDARY_WAIT_MS,
              "a stage that fell silent is known as silent when its neighbours' reports are due");

typedef struct mr_coordinator_state {
    mr_registry registry;
    mr_jobs jobs;
    uint64_t epoch_last; /* only grows */
    uint64_t job_last;   /* newest job's number */
    char store_error[MR_STATUS_TEXT_BYTES]; /* "" while the store works */
    int64_t store_retry_ms;
    bool queue_changed; /* within one decision: members or jobs came or went */
} mr_coordinator_state;

typedef enum mr_event_kind {
    MR_EVENT_TICK,
    /* members */
    MR_EVENT_ATTACHED,
    MR_EVENT_LOST,
    MR_EVENT_HEARTBEAT,
    MR_EVENT_PREPARED,
    MR_EVENT_CONNECTED,
    MR_EVENT_STEP_DONE,
    MR_EVENT_SAVED,
    MR_EVENT_PAUSED,
    MR_EVENT_FINISHED,
    MR_EVENT_FAILED,
    MR_EVENT_RELEASED,
    MR_EVENT_FEED_STATE,
    MR_EVENT_LEAVING,
    MR_EVENT_PROFILED,
    MR_EVENT_RESIZED,
    /* clients */
    MR_EVENT_SUBMIT,
    MR_EVENT_PAUSE,
    MR_EVENT_RESUME,
    MR_EVENT_CANCEL,
    MR_EVENT_SAVE,
    MR_EVENT_SET,
    MR_EVENT_DRAIN,
    /* DISK */
    MR_EVENT_COMMIT,
    MR_EVENT_CUT,
    MR_EVENT_STORED,
    MR_EVENT_RESTORE,
    MR_EVENT_KIND_COUNT
} mr_event_kind;

/* Strings and arrays are borrowed. member: of reports. job: an id in reports and COMMIT, an id or a
 * name in requests. request: answered exactly once by an ANSWER action, now or later. */
typedef struct mr_event {
    mr_event_kind kind;
    int64_t now_ms;  /* monotonic */
    int64_t wall_ms; /* for people */
    uint64_t member;
    const char *job;
    uint64_t epoch;
    uint64_t request;
    union {
        mr_member_info attached; /* member: its new number, above all others */
        struct {
            const char *text; /* why */
        } lost;
        struct {
            uint64_t step;
            const char *instruction;
            uint64_t instruction_age_ms;
        } heartbeat;
        struct {
            const char *schedule_hash;
            uint64_t next_step;
            const mr_group_id *group_ids;
            size_t group_id_count;
            mr_memory_bytes held;
        } prepared;
        struct {
            mr_memory_bytes held;
        } resized;
        mr_job_step step_done;
        struct {
            const char *tag;
            uint64_t step;
            const mr_checkpoint_file *files;
            size_t file_count;
            mr_code error_code; /* where error is not empty */
            const char *error;
            uint64_t optimizer_steps;
            mr_loss_scale loss_scale;
        } saved;
        struct {
            uint64_t step;
        } paused, finished;
        struct {
            mr_code code;
            const char *text;
            bool secondary;
        } failed;
        struct {
            bool open;
        } feed_state;
        struct {
            mr_profile_device *owned_profile; /* consumed in every outcome */
        } profiled;
        struct {
            mr_job_spec *owned_spec; /* consumed; NULL: status says why */
            mr_status status;
        } cut;
        struct {
            mr_job_spec *owned_spec; /* consumed in every outcome */
            const char *request_id;
            const char *checkpoint_path; /* "" for fresh weights */
            const char *note; /* what it loads; "" or NULL for nothing to say */
            uint64_t start_step;
            uint64_t epoch_floor;
        } submit;
        struct {
            const char *tag; /* "" for step-N */
            bool tag_taken;  /* a checkpoint of that tag stands in the job's folder */
        } save;
        struct {
            mr_job_spec *owned_spec; /* the job with its new settings; consumed */
            const char *old_file;    /* what they were made of */
        } set;
        struct {
            const char *member_id;
        } drain;
        struct {
            const char *tag;
            uint64_t step;
            uint64_t bytes;
            mr_status status;
        } commit;
        struct {
            uint64_t number; /* of the job whose facts were stored, or were not */
            mr_status status;
        } stored;
        struct {
            const mr_job_facts *facts;
            mr_job_spec *owned_spec; /* consumed */
            uint64_t epoch_floor;
            mr_status status; /* of a QUEUED job: can it still run? */
        } restore;
    } u;
} mr_event;

/* Takes one event in: changes state and says in actions (emptied first) what is to be done.
 * RESOURCE_EXHAUSTED: no memory; nothing has changed, no action is wanted, no request is answered,
 * and what the event owned is freed. */
MR_MUST_CHECK mr_status mr_decide(mr_coordinator_state *state, const mr_event *event,
                                  mr_actions *actions);
void mr_coordinator_state_deinit(mr_coordinator_state *state);

#endif
