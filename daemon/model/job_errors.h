/* SPDX-License-Identifier: Apache-2.0 */
/* job_errors.h: filling and ordering the list of errors that job.h declares.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_JOB_ERRORS_H
#define MR_MODEL_JOB_ERRORS_H

#include "daemon/model/job.h"

enum { MR_EXCERPT_BYTES = 48 };

/* Adds an error; beyond MR_JOB_ERRORS_MAX it is dropped (the first ones are what a user mends). A
 * text that is cut ends at a whole UTF-8 character. */
void mr_job_errors_add(mr_job_errors *errors, size_t line, const char *format, ...)
    MR_PRINTF(3, 4);
/* Puts the errors into file order; those of one line keep their order. */
void mr_job_errors_sort(mr_job_errors *errors);
/* The first error as a status: "line 7: ...". At least one error. */
MR_MUST_CHECK mr_status mr_job_errors_status(const mr_job_errors *errors);
/* A user's text for use inside an error, cut with "..." at a whole character. */
const char *mr_excerpt(const char *text, char out_excerpt[MR_EXCERPT_BYTES]);

#endif
