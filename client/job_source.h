/* SPDX-License-Identifier: Apache-2.0 */
/* job_source.h: the job file that a command works on: its FILE argument, or with --job the file of
 * a job that the coordinator knows. Owner: client. Thread: main. */
#ifndef MR_CLIENT_JOB_SOURCE_H
#define MR_CLIENT_JOB_SOURCE_H

#include "client/client.h"
#include "client/job_file.h"

/* Errors of mr_job_file_read and of the call Get; INVALID_ARGUMENT: both, or neither. Free with
 * mr_job_file_deinit, also after an error. */
MR_MUST_CHECK mr_status mr_job_source_read(mr_client *client, mr_job_file *out_file);

#endif
