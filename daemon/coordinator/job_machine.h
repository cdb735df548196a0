/* SPDX-License-Identifier: Apache-2.0 */
/* job_machine.h: the moves of a job from state to state. Reports only set facts in the record;
 * mr_job_machine_advance looks at all of them and makes the moves that they allow, so the order of
 * arrival and duplicates do not matter.
 * Owner: coordinator; only decide's own files include it. Thread: LOOP. */
#ifndef MR_COORDINATOR_JOB_MACHINE_H
#define MR_COORDINATOR_JOB_MACHINE_H

#include "daemon/coordinator/decision.h"

/* Changes state and reason: stored, watchers told. */
void mr_job_machine_set(mr_decision *decision, mr_job_record *job, mr_job_state state,
                        const char *format, ...) MR_PRINTF(4, 5);
/* Changes the reason alone: watchers told. */
void mr_job_machine_explain(mr_decision *decision, mr_job_record *job, const char *format, ...)
    MR_PRINTF(3, 4);
/* QUEUED -> STARTING on the idle members; there must be enough. */
void mr_job_machine_start(mr_decision *decision, mr_job_record *job);
/* STARTING, from CUTTING to PREPARING, with the spec that knows the bounds (consumed); the end of a
 * job that only measures. */
void mr_job_machine_cut(mr_decision *decision, mr_job_record *job, mr_job_spec *owned_spec);
/* PAUSE to every rank, unless it is out already. */
void mr_job_machine_pause(mr_decision *decision, mr_job_record *job);
/* RUN to every rank: from PAUSED, and when all are connected. */
void mr_job_machine_run(mr_decision *decision, mr_job_record *job);
/* A member of the job is to go: DRAINING, or FAILED at once. */
void mr_job_machine_drain(mr_decision *decision, mr_job_record *job, uint32_t rank);
/* Ends an active or queued job without success: new epoch, ABORT, waiters answered. */
void mr_job_machine_end(mr_decision *decision, mr_job_record *job, mr_job_state state,
                        const char *format, ...) MR_PRINTF(4, 5);
/* Notes why the job fails; a primary cause replaces a secondary one, never the reverse. */
void mr_job_machine_fail(mr_decision *decision, mr_job_record *job, uint32_t rank, mr_code code,
                         const char *text, bool secondary);
/* Makes every move that the facts and the time allow. */
void mr_job_machine_advance(mr_decision *decision, mr_job_record *job);
/* "stage 1 (rank 1, member m2 at 127.0.0.1:7002)" */
enum { MR_RANK_NAME_BYTES = 224 };
void mr_job_machine_rank_name(const mr_decision *decision, const mr_job_record *job, uint32_t rank,
                              char out_name[MR_RANK_NAME_BYTES]);

#endif
