/* SPDX-License-Identifier: Apache-2.0 */
/* admission.h: everything about a new job that takes reading: its file, its plan, the checkpoint it
 * continues from, and the epochs that its folder has seen.
 * Owner: coordinator. Thread: DISK.
 * Not here: whether it may run now (decide.h). */
#ifndef MR_COORDINATOR_ADMISSION_H
#define MR_COORDINATOR_ADMISSION_H

#include "daemon/coordinator/spec.h"

typedef struct mr_admission_request {
    const char *job_file;
    const char *base_directory;
    mr_job_mode mode;
    const char *profile; /* millrace.profile/v1; "" for none */
    const char *resume_tag; /* "" for none */
    bool resume_newest;
} mr_admission_request;

typedef struct mr_admission {
    mr_job_spec *spec; /* owned until taken */
    char checkpoint_path[MR_PATH_BYTES]; /* "" for fresh weights */
    uint64_t start_step;
    uint64_t epoch_floor;
    /* What checkpoint.load loads, leaves as drawn and ignores; "" without it. */
    char note[MR_STATUS_TEXT_BYTES];
} mr_admission;

/* INVALID_ARGUMENT: the job file or the profile; NOT_FOUND: no such checkpoint;
 * FAILED_PRECONDITION: the checkpoint is of another model, a strict load lacks a parameter or has
 * one too many (named), or the profile is of another job; DATA_LOSS: it is damaged. A lenient load
 * logs every parameter that does not fit. */
MR_MUST_CHECK mr_status mr_admission_make(const mr_admission_request *request,
                                          mr_admission *out_admission);

#endif
