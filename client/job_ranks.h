/* SPDX-License-Identifier: Apache-2.0 */
/* job_ranks.h: --ranks N: a job file that leaves open how many stages or replicas it has, for a
 * cluster of N. The text is changed before anybody reads it, so that the client, the coordinator
 * and the stages plan the same job.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_JOB_RANKS_H
#define MR_CLIENT_JOB_RANKS_H

#include "client/commands.h"
#include "client/job_file.h"

/* Where --ranks is given, sets the axes of pipeline.topology that file leaves open (plan/grid.h);
 * otherwise nothing. INVALID_ARGUMENT: N does not fit the axes that are given, with both numbers,
 * or the job does not fit the axes that follow. On an error file is as it was. */
MR_MUST_CHECK mr_status mr_job_ranks_apply(const mr_invocation *invocation, mr_job_file *file);

#endif
