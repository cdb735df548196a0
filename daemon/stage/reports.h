/* SPDX-License-Identifier: Apache-2.0 */
/* reports.h: EXEC's reports in the words of the wire.
 * Owner: stage. Thread: LOOP. */
#ifndef MR_STAGE_REPORTS_H
#define MR_STAGE_REPORTS_H

#include "daemon/observe/trace.h"
#include "daemon/stage/control.h"
#include "daemon/stage/executor.h"

/* Which job and epoch a report is about. */
typedef struct mr_report_subject {
    const char *job_id;
    uint64_t epoch;
} mr_report_subject;

/* Each sends one report of control.proto; without a stream it is dropped (control.h). */
void mr_report_prepared(mr_control *control, mr_report_subject subject, const char *schedule_hash,
                        const mr_executor_report *report);
void mr_report_resized(mr_control *control, mr_report_subject subject, const mr_memory_held *held);
void mr_report_profiled(mr_control *control, mr_report_subject subject,
                        const mr_profile_device *profile);
void mr_report_connected(mr_control *control, mr_report_subject subject);
void mr_report_step(mr_control *control, mr_report_subject subject,
                    const mr_executor_report *report);
void mr_report_saved(mr_control *control, mr_report_subject subject,
                     const mr_executor_report *report);
void mr_report_paused(mr_control *control, mr_report_subject subject, uint64_t step);
void mr_report_finished(mr_control *control, mr_report_subject subject, uint64_t step);
/* A lost or silent neighbour makes it secondary: somebody else is the cause. */
void mr_report_failed(mr_control *control, mr_report_subject subject, mr_status status);
void mr_report_released(mr_control *control, mr_report_subject subject);
/* This stage is about to stop: its job is to be saved first. */
void mr_report_leaving(mr_control *control);
void mr_report_feed(mr_control *control, mr_report_subject subject, bool open);
/* The spans of one step (from 0) on a track, those of them that are still held; at most
 * MR_TIMELINE_SPANS_MAX. Without memory nothing is sent. */
void mr_report_spans(mr_control *control, mr_report_subject subject, const mr_trace_track *track,
                     uint64_t step, const mr_memory_held *held);
void mr_report_heartbeat(mr_control *control, mr_report_subject subject,
                         const mr_executor_progress *progress);

#endif
