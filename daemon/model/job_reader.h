/* SPDX-License-Identifier: Apache-2.0 */
/* job_reader.h: the job file's fields: one table with every key, its type, bounds, default and
 * meaning (job_reader.c), and the reading of a document by it. What must hold between fields is
 * job_check.h's matter.
 * Owner: model. Pure, any thread. */
#ifndef MR_MODEL_JOB_READER_H
#define MR_MODEL_JOB_READER_H

#include "daemon/model/field.h"
#include "daemon/model/job.h"
#include "daemon/model/yaml_tree.h"

enum { MR_JOB_FIELDS_MAX = 64 };

/* A job while it is read: the job, and what of the file the job does not keep. */
typedef struct mr_job_draft {
    mr_job job;    /* owns its arrays until it is handed on */
    size_t stages; /* pipeline.stages, the short form of topology: {pipe: N} */
    int schema;    /* has one value so far */
    mr_field_mark marks[MR_JOB_FIELDS_MAX];
} mr_job_draft;

/* Every key of the job file outside model.layers. */
extern const mr_field_table mr_job_fields;

/* Fills a zeroed draft. root is the document. False when anything was wrong. The draft's arrays are
 * to be freed in either case (mr_job_draft_deinit). */
bool mr_job_read(const mr_yaml_node *root, mr_job_draft *draft, mr_job_errors *errors);
void mr_job_draft_deinit(mr_job_draft *draft);
/* Where a field was given (0: it was not). */
size_t mr_job_draft_line(const mr_job_draft *draft, const char *path);
/* Was it read without an error (or left to its default)? */
bool mr_job_draft_good(const mr_job_draft *draft, const char *path);

#endif
