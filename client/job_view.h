/* SPDX-License-Identifier: Apache-2.0 */
/* job_view.h: jobs, members and checkpoints of the coordinator as JSON and tables, shared by the
 * nouns that print them. Owner: client. Thread: main. */
#ifndef MR_CLIENT_JOB_VIEW_H
#define MR_CLIENT_JOB_VIEW_H

#include "client/render.h"
#include "millrace/v1/jobs.pb-c.h"

extern const mr_view mr_job_list_view; /* one line a job */
extern const mr_view mr_job_item_view; /* one job in full */
extern const mr_view mr_job_stage_view; /* of mr_job_view_stages */
extern const mr_view mr_member_view;
extern const mr_view mr_member_item_view; /* one member in full */
extern const mr_view mr_checkpoint_view;

/* NULL: no memory. text: with the job file's text. */
json_t *mr_job_view_job(const Millrace__V1__Job *job, bool text);
/* The job's ranks: an array. */
json_t *mr_job_view_stages(const Millrace__V1__Job *job);
json_t *mr_job_view_member(const Millrace__V1__Member *member);
json_t *mr_job_view_checkpoint(const Millrace__V1__Checkpoint *checkpoint);

#endif
