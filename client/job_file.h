/* SPDX-License-Identifier: Apache-2.0 */
/* job_file.h: a job file on this machine: its text, the folder that its paths start from, and what
 * is wrong with it, found before any server is asked. Owner: client. Thread: main. Limits:
 * MR_JOB_FILE_BYTES_MAX. */
#ifndef MR_CLIENT_JOB_FILE_H
#define MR_CLIENT_JOB_FILE_H

#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/model/job.h"

typedef struct mr_job_file {
    char *text;
    size_t bytes;
    char *base_directory; /* absolute */
    mr_job *job;
} mr_job_file;

/* Reads and parses path ("-": stdin, paths then start from the working folder). errors, which may
 * be NULL, gets every error of the text. INVALID_ARGUMENT has path and line in its text; NOT_FOUND,
 * PERMISSION_DENIED: the file. Free with mr_job_file_deinit, also after an error. */
MR_MUST_CHECK mr_status mr_job_file_read(const char *path, mr_job_file *out_file,
                                         mr_job_errors *errors);
/* The same from text that a coordinator keeps; both are copied. label stands for the path. */
MR_MUST_CHECK mr_status mr_job_file_copy(const char *label, const char *text,
                                         const char *base_directory, mr_job_file *out_file);
/* Reads the text alone, of a file in another format: job stays NULL. Errors of the file as above.
 */
MR_MUST_CHECK mr_status mr_job_file_load(const char *path, mr_job_file *out_file);
void mr_job_file_deinit(mr_job_file *file);

#endif
