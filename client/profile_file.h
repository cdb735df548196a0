/* SPDX-License-Identifier: Apache-2.0 */
/* profile_file.h: a printed profile on this machine, read for a job: what --profile names, else
 * what the job file's pipeline.profile does.
 * Owner: client. Thread: main. Limits: MR_PROFILE_BYTES_MAX. */
#ifndef MR_CLIENT_PROFILE_FILE_H
#define MR_CLIENT_PROFILE_FILE_H

#include "client/job_file.h"
#include "daemon/plan/profile.h"

typedef struct mr_profile_file {
    char *text; /* NULL: the job has none */
    mr_profile *profile;
} mr_profile_file;

/* path: of --profile, or NULL. NOT_FOUND, PERMISSION_DENIED: the file; INVALID_ARGUMENT: it is no
 * profile; FAILED_PRECONDITION: it is of another job; each names the file. Free with
 * mr_profile_file_deinit, also after an error. */
MR_MUST_CHECK mr_status mr_profile_file_read(const mr_job_file *job, const char *path,
                                             mr_profile_file *out_file);
void mr_profile_file_deinit(mr_profile_file *file);

#endif
