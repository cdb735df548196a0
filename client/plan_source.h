/* SPDX-License-Identifier: Apache-2.0 */
/* plan_source.h: what a plan is made of: a job file on this machine, or with --job a job that the
 * coordinator knows, as it is cut and with what its ranks hold.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_PLAN_SOURCE_H
#define MR_CLIENT_PLAN_SOURCE_H

#include "client/client.h"
#include "client/job_file.h"
#include "client/profile_file.h"
#include "millrace/v1/jobs.pb-c.h"

typedef struct mr_plan_source {
    const char *label; /* the FILE or the JOB, as it was given; borrowed */
    mr_job_file file;
    mr_profile_file profile;
    bool forward;           /* the job does not train */
    Millrace__V1__Job *job; /* NULL: of a FILE */
} mr_plan_source;

/* Reads what arguments and options name. Errors of mr_job_file_read, mr_profile_file_read and of
 * the calls; INVALID_ARGUMENT: both FILE and --job, or neither. Free with mr_plan_source_deinit,
 * also after an error. */
MR_MUST_CHECK mr_status mr_plan_source_read(mr_client *client, mr_plan_source *out_source);
void mr_plan_source_deinit(mr_plan_source *source);

#endif
