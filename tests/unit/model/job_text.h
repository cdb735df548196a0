/* SPDX-License-Identifier: Apache-2.0 */
/* job_text.h: a good job file, and edits of it, for the tests of this folder.
 * Owner: tests. */
#ifndef MR_TESTS_UNIT_MODEL_JOB_TEXT_H
#define MR_TESTS_UNIT_MODEL_JOB_TEXT_H

#include "daemon/model/job.h"

/* DESIGN's example, two stages. */
extern const char *const job_text_good;

/* The good text with its first occurrence of from replaced; from must occur. Valid until the next
 * call. */
const char *job_text_edit(const char *from, const char *to);
/* Parses a text that must be good; the caller destroys the job. */
mr_job *job_text_parse(const char *text);
/* Parses a text that must have exactly one error, on this line, whose text starts so. */
void job_text_refuse(const char *text, size_t line, const char *start);

/* An edit of the good text and its only error: line, and how its text starts. */
typedef struct job_mistake {
    const char *from;
    const char *to;
    size_t line;
    const char *start;
} job_mistake;
void job_text_refuse_all(const job_mistake *mistakes, size_t count);
/* mistakes: an array of job_mistake. */
#define JOB_TEXT_REFUSE_ALL(mistakes) \
    job_text_refuse_all(mistakes, sizeof(mistakes) / sizeof((mistakes)[0]))

/* At least one error, the first of them on this line and starting so. */
void job_text_refuse_first(const char *text, size_t line, const char *start);

#endif
