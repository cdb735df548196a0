/* SPDX-License-Identifier: Apache-2.0 */
/* history.h: what happened, as far as the coordinator's state tells: it keeps when a job was
 * created, started and ended, and its newest checkpoint, not every change between. So the past is
 * those moments; followed, every change from then on is seen by comparing what is with what was.
 * An event: {"time_ms", "subject": "job/ID" or "stage/ID", "event", "detail"}.
 * Owner: client. Thread: main. */
#ifndef MR_CLIENT_HISTORY_H
#define MR_CLIENT_HISTORY_H

#include <jansson.h>

/* Events of a job's past, in order; an array that the caller owns. */
json_t *mr_history_of_job(const json_t *job);
/* Appends what changed from before to now (either may be NULL: it was not, or is not, there) to
 * events. */
void mr_history_job_changed(const json_t *before, const json_t *now, int64_t now_ms,
                            json_t *events);
void mr_history_member_changed(const json_t *before, const json_t *now, int64_t now_ms,
                               json_t *events);
/* Puts events in the order of their times; equal times stay as they are. */
json_t *mr_history_sorted(json_t *owned_events);

#endif
