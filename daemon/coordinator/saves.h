/* SPDX-License-Identifier: Apache-2.0 */
/* saves.h: checkpoints while they are being made: ranks report their files, and when every rank of
 * one epoch has, the manifest is committed. A save that fails or is late is given up with its
 * reason; the job goes on.
 * Owner: coordinator; only decide's own files include it. Thread: LOOP. Limits: MR_JOB_SAVES_MAX,
 * MR_SAVE_TIMEOUT_MS, MR_CHECKPOINT_FILES_MAX.
 * Not here: files (checkpoint/), which steps are saved (the stages know it from the job file). */
#ifndef MR_COORDINATOR_SAVES_H
#define MR_COORDINATOR_SAVES_H

#include "daemon/coordinator/decision.h"

/* Orders a save of every rank; tag "" is step-N. ALREADY_EXISTS: the tag is being saved;
 * RESOURCE_EXHAUSTED: MR_JOB_SAVES_MAX are under way. */
MR_MUST_CHECK mr_status mr_saves_ask(mr_decision *decision, mr_job_record *job, const char *tag,
                                     mr_job_save **out_save);
/* A rank's report. */
void mr_saves_report(mr_decision *decision, mr_job_record *job, uint32_t rank,
                     const mr_event *event);
/* DISK's answer to a COMMIT. Also right when the job has ended meanwhile. */
void mr_saves_committed(mr_decision *decision, mr_job_record *job, const mr_event *event);
/* Gives up what is late. */
void mr_saves_tick(mr_decision *decision, mr_job_record *job);
/* Gives up everything: the job has ended. A commit under way is left to DISK. */
void mr_saves_end(mr_decision *decision, mr_job_record *job, mr_status why);
/* Is an asked one under way? */
bool mr_saves_asked_pending(const mr_job_record *job);
/* Is the save of this step at the manifest, so that no stage is needed for it any more? */
bool mr_saves_is_committing(const mr_job_record *job, uint64_t step);

#endif
