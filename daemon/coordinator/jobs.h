/* SPDX-License-Identifier: Apache-2.0 */
/* jobs.h: the jobs: one record each, with what is remembered across restarts (facts) and what is
 * true only now. Beyond MR_JOBS_MAX the oldest ended job is forgotten here; the store keeps it.
 * Owner: coordinator. Thread: LOOP. Limits: MR_JOBS_MAX, MR_JOB_SAVES_MAX, MR_JOB_WAITERS_MAX.
 * Not here: the moves from state to state (job_machine.h). */
#ifndef MR_COORDINATOR_JOBS_H
#define MR_COORDINATOR_JOBS_H

#include "daemon/coordinator/registry.h"
#include "daemon/coordinator/spec.h"
#include "daemon/plan/group_ids.h"

enum {
    MR_REQUEST_ID_BYTES = 64,
    MR_JOB_COMMITS_SHOWN = 8,
};

/* Numbers as on the wire (JobState of jobs.proto). */
typedef enum mr_job_state {
    MR_JOB_QUEUED = 1,
    MR_JOB_STARTING = 2,
    MR_JOB_RUNNING = 3,
    MR_JOB_PAUSED = 4,
    MR_JOB_CHECKPOINTING = 5, /* a save that was asked for while PAUSED */
    MR_JOB_DRAINING = 6,      /* pausing and saving because a stage is being drained */
    MR_JOB_SUCCEEDED = 7,
    MR_JOB_FAILED = 8,
    MR_JOB_CANCELLED = 9,
    MR_JOB_STATE_COUNT
} mr_job_state;

/* What layers added to a step's loss under one name. */
typedef struct mr_job_side_loss {
    char name[MR_SIDE_LOSS_NAME_BYTES];
    double value;
} mr_job_side_loss;

/* One finished optimizer step, as rank 0 reported it. */
typedef struct mr_job_step {
    uint64_t step; /* counts from 1 */
    double loss;
    double gradient_norm;
    double learning_rate;
    uint64_t tokens;
    double tokens_per_second;
    double bubble;
    double step_seconds;
    double loss_scale; /* of fp16; else 0 */
    bool skipped;      /* its gradients overflowed */
    double total_loss; /* with the side losses */
    size_t side_count;
    mr_job_side_loss sides[MR_SIDE_LOSSES_MAX];
} mr_job_step;

/* What the store keeps of a job. Plain data. Times are wall clock milliseconds, 0 for not yet. */
typedef struct mr_job_facts {
    uint64_t number; /* order of submission, never used twice */
    char id[MR_COORDINATOR_ID_BYTES];
    char name[MR_NAME_BYTES];
    mr_job_mode mode;
    mr_job_state state;
    char reason[MR_STATUS_TEXT_BYTES];
    uint64_t epoch;
    uint64_t step;
    uint64_t start_step;
    uint64_t total_steps;
    mr_job_step result;
    double predicted_step_seconds; /* 0: not known */
    double predicted_bubble;
    int64_t created_ms;
    int64_t started_ms;
    int64_t ended_ms;
    char checkpoint_tag[MR_NAME_BYTES];  /* newest committed by this job */
    char checkpoint_path[MR_PATH_BYTES]; /* what it continues from; "" for fresh weights */
    char load_note[MR_STATUS_TEXT_BYTES]; /* what checkpoint.load gave it; "" without */
    char request_id[MR_REQUEST_ID_BYTES];
} mr_job_facts;

/* A rank's progress in the present epoch. member 0: gone. */
typedef struct mr_job_rank {
    uint64_t member;
    bool profiled; /* its times are known: its own, or an entry of the spec's profile */
    mr_profile_device *profile; /* owned; NULL: that entry */
    size_t profile_entry;
    bool prepared;
    bool connected;
    bool paused;
    bool finished;
    bool held_known; /* from Prepared on; it stays when the job ends */
    mr_memory_bytes held;
    bool feed_open; /* a first stage: a client's stream is there */
    int64_t feed_idle_since_ms;
} mr_job_rank;

typedef enum mr_save_phase {
    MR_SAVE_FREE,
    MR_SAVE_GATHERING,  /* ranks report their files; before the first report step is unknown */
    MR_SAVE_COMMITTING, /* DISK writes the manifest */
    MR_SAVE_DONE,       /* committed or failed; kept until the slot is needed, against duplicates */
} mr_save_phase;

typedef struct mr_job_save {
    mr_save_phase phase;
    bool asked;               /* by a client or a drain; else by checkpoint.every_steps */
    char tag[MR_NAME_BYTES];  /* "": asked without a tag, not yet known */
    uint64_t epoch;
    uint64_t step;
    uint64_t optimizer_steps;
    mr_loss_scale loss_scale;
    size_t reported_count;
    bool *reported; /* by rank; the slot's own array */
    mr_checkpoint_file *files;
    size_t file_count;
    size_t file_capacity;
    mr_code error_code;
    char error[MR_STATUS_TEXT_BYTES]; /* first one; "" for none */
    int64_t deadline_ms;
    uint64_t sequence; /* order of beginning */
} mr_job_save;

/* A checkpoint that was committed, for people. */
typedef struct mr_job_commit {
    char tag[MR_NAME_BYTES];
    uint64_t step;
    uint64_t bytes;
    int64_t at_ms; /* wall clock */
} mr_job_commit;

/* A client's request that is answered later. save NULL: it waits for PAUSED. */
typedef struct mr_job_waiter {
    uint64_t request;
    mr_job_save *save;
    int64_t deadline_ms;
} mr_job_waiter;

/* Why the job is about to fail. A secondary failure waits a little for its cause. */
typedef struct mr_job_failure {
    bool noted;
    bool secondary;
    uint32_t rank;
    mr_code code;
    char text[MR_STATUS_TEXT_BYTES];
    int64_t deadline_ms;
} mr_job_failure;

/* What STARTING waits for. */
typedef enum mr_start_phase {
    MR_START_PROFILING,  /* PROFILE is out to those whose times are not known */
    MR_START_CUTTING,    /* DISK cuts the model by them */
    MR_START_PREPARING,  /* PREPARE is out */
    MR_START_CONNECTING, /* CONNECT is out */
    MR_START_PHASE_COUNT
} mr_start_phase;

typedef struct mr_job_record {
    mr_job_facts facts;
    mr_job_spec *spec;  /* owned */
    mr_job_rank *ranks; /* spec->rank_count */
    mr_group_ids group_ids; /* of this epoch, as its ranks gave them with Prepared */
    uint64_t epoch_floor; /* the highest epoch its checkpoint folder has seen */
    uint32_t queue_position;
    mr_start_phase phase; /* of STARTING */
    /* STARTING: bound of the phase. RUNNING: bound for the last ranks to finish and for the final
     * checkpoint. DRAINING: bound for the pause. */
    int64_t deadline_ms;
    bool pausing; /* PAUSE is out, not every rank has answered */
    bool finishing; /* a rank has finished */
    uint64_t finish_step;
    bool committed; /* a checkpoint of committed_step stands, made by this epoch */
    uint64_t committed_step;
    bool save_failed; /* the save of save_failed_step did, with this text */
    uint64_t save_failed_step;
    char save_failed_text[MR_STATUS_TEXT_BYTES];
    bool drain_saving;
    uint32_t drain_rank;
    mr_job_failure failure;
    mr_job_save saves[MR_JOB_SAVES_MAX];
    uint64_t save_sequence;
    mr_job_waiter waiters[MR_JOB_WAITERS_MAX];
    size_t waiter_count;
    bool dirty; /* the store has not got its newest facts */
    mr_job_state logged; /* the state that was last written to the log */
    bool has_series;     /* it has been shown in the metrics */
    int64_t told_ms;     /* when the last of its steps was an event */
    int64_t spans_ms;    /* when its stages were last asked for a step's spans */
    mr_job_commit commits[MR_JOB_COMMITS_SHOWN]; /* the newest, oldest first */
    size_t commit_count;
} mr_job_record;

typedef struct mr_jobs {
    mr_job_record **records; /* ascending numbers */
    size_t count;
    size_t capacity;
} mr_jobs;

/* Adds a record for facts and owned_spec (consumed in every outcome). facts->number must exceed all
 * others. RESOURCE_EXHAUSTED: every one of MR_JOBS_MAX jobs is active, or no memory. May forget the
 * oldest ended job. */
MR_MUST_CHECK mr_status mr_jobs_add(mr_jobs *jobs, const mr_job_facts *facts,
                                    mr_job_spec *owned_spec, mr_job_record **out_record);
/* NULL: no such job. */
mr_job_record *mr_jobs_find(const mr_jobs *jobs, uint64_t number);
/* By id; or by name: the active training job of that name, else the newest job of it. */
mr_job_record *mr_jobs_resolve(const mr_jobs *jobs, const char *id_or_name);
/* The one that holds the name: an active training job; NULL where the name is free. */
mr_job_record *mr_jobs_find_active(const mr_jobs *jobs, const char *name);
/* By request_id; NULL for none or "". */
mr_job_record *mr_jobs_find_request(const mr_jobs *jobs, const char *request_id);
void mr_jobs_deinit(mr_jobs *jobs);

/* Lets go of what was measured for the job. */
void mr_job_record_forget_profiles(mr_job_record *record);

/* SUCCEEDED, FAILED or CANCELLED. */
bool mr_job_state_is_final(mr_job_state state);
/* Has members: STARTING to DRAINING. */
bool mr_job_state_is_active(mr_job_state state);
/* "QUEUED", ... */
const char *mr_job_state_name(mr_job_state state);

#endif
