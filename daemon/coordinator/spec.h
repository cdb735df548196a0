/* SPDX-License-Identifier: Apache-2.0 */
/* spec.h: what the coordinator must know of a job, taken once from its job file and plan: plain
 * facts, so that decisions need neither model nor plan, and a simulator can make one by hand.
 * Owner: coordinator. Thread: made on DISK (reading and planning take milliseconds), then LOOP's.
 * Not here: the job's life (jobs.h), finding the checkpoint it continues from (admission.h). */
#ifndef MR_COORDINATOR_SPEC_H
#define MR_COORDINATOR_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/checkpoint/layout.h"
#include "daemon/model/job.h"
#include "daemon/plan/plan.h"
#include "daemon/plan/profile.h"

typedef struct mr_spec_rank {
    uint32_t stage; /* pipe coordinate */
    uint32_t layer_first;
    uint32_t layer_end;
    bool first; /* a first stage: clients feed it; ranks are in order of the replicas */
    mr_memory_bytes memory; /* as planned */
} mr_spec_rank;

typedef struct mr_spec_group {
    const char *kind; /* "tied", "data", "model", "pipe" */
    char key[MR_NAME_BYTES];
    size_t rank_count;
    uint32_t *ranks; /* owned */
} mr_spec_group;

typedef struct mr_job_spec {
    char name[MR_NAME_BYTES];
    mr_job_mode mode;
    bool profiles;        /* its members' times are needed before it is cut */
    char *job_file;       /* owned; as it was sent */
    char *base_directory; /* owned */
    char *profile_text;   /* owned; millrace.profile/v1; NULL: none */
    mr_profile *profile;  /* owned; the same, read; NULL: none, or the job has ended */
    double predicted_step_seconds; /* 0: not known */
    double predicted_bubble;
    size_t bound_count; /* of a job that was cut by its profile; 0: the job file says it all */
    uint32_t *bounds;   /* owned */
    uint64_t total_steps; /* 0 without training */
    size_t rank_count;    /* members it needs; 0 in the spec of a job that has ended */
    mr_spec_rank *ranks;
    size_t group_count;
    mr_spec_group *groups;
    char schedule_hash[MR_SHA256_HEX_BYTES];
    char model_hash[MR_SHA256_HEX_BYTES];
    char checkpoint_dir[MR_PATH_BYTES]; /* absolute; "" for none */
    char tensorboard_dir[MR_PATH_BYTES]; /* likewise */
    uint64_t checkpoint_keep;           /* 0: all */
    uint64_t checkpoint_every_steps;    /* 0: only at the end and on request */
    size_t saved_layers; /* layers that a checkpoint has weights of; 0: not known */
    uint64_t samples_per_step;
    double bubble_planned; /* share of a step in which devices wait, by the plan */
    mr_job *job; /* owned; NULL in tests and in the spec of a job that has ended */
} mr_job_spec;

/* What a spec is made from. Borrowed. */
typedef struct mr_spec_source {
    const char *job_file;
    const char *base_directory;
    mr_job_mode mode;
    const char *profile; /* millrace.profile/v1; "" or NULL: none */
    bool cut; /* the profile is of the job's own members in rank order: cut by it */
    const uint32_t *bounds; /* of a job that was cut before; NULL: as file and profile say */
    size_t bound_count;
} mr_spec_source;

/* Reads and plans a job file. INVALID_ARGUMENT: the job file's first error, what cannot be planned,
 * or the profile; FAILED_PRECONDITION: the profile is of another job; RESOURCE_EXHAUSTED: no cut
 * fits the members' memory. Owner frees with mr_job_spec_destroy. */
MR_MUST_CHECK mr_status mr_job_spec_read(const mr_spec_source *source, mr_job_spec **out_spec);
/* The same without a profile. */
MR_MUST_CHECK mr_status mr_job_spec_make(const char *job_file, const char *base_directory,
                                         mr_job_mode mode, mr_job_spec **out_spec);
/* Keeps a copy of a profile's text; NULL or "": none. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_job_spec_keep_profile(mr_job_spec *spec, const char *profile);
/* Of a job that is over: name, texts and folder, without topology. */
MR_MUST_CHECK mr_status mr_job_spec_ended(const char *name, const char *job_file,
                                          const char *base_directory, mr_job_mode mode,
                                          mr_job_spec **out_spec);
/* NULL is fine. */
void mr_job_spec_destroy(mr_job_spec *spec);

/* May the job write checkpoints? */
bool mr_job_spec_saves(const mr_job_spec *spec);

#endif
