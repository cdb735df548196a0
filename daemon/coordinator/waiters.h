/* SPDX-License-Identifier: Apache-2.0 */
/* waiters.h: clients' requests that are answered when something has happened to a job: it is
 * PAUSED, or a save of it is committed.
 * Owner: coordinator; only decide's own files include it. Thread: LOOP. Limits:
 * MR_JOB_WAITERS_MAX. */
#ifndef MR_COORDINATOR_WAITERS_H
#define MR_COORDINATOR_WAITERS_H

#include "daemon/coordinator/decision.h"

/* save NULL: waits for PAUSED. RESOURCE_EXHAUSTED: MR_JOB_WAITERS_MAX wait already. */
MR_MUST_CHECK mr_status mr_waiters_add(mr_decision *decision, mr_job_record *job, uint64_t request,
                                       mr_job_save *save, int64_t timeout_ms);
/* Is there room for one more? The status that mr_waiters_add would give. */
MR_MUST_CHECK mr_status mr_waiters_check(const mr_job_record *job);
/* Those that wait for PAUSED get the job. */
void mr_waiters_paused(mr_decision *decision, mr_job_record *job);
/* Those that wait for this save get the checkpoint, or status where it is an error. */
void mr_waiters_saved(mr_decision *decision, mr_job_record *job, const mr_job_save *save,
                      uint64_t bytes, mr_status status);
/* All of those that wait for PAUSED, or only the late ones, get status. */
void mr_waiters_fail(mr_decision *decision, mr_job_record *job, bool late_only, mr_status status);

#endif
