/* SPDX-License-Identifier: Apache-2.0 */
/* stage_status.h: the JSON of a stage's /status.
 * Owner: stage. Thread: LOOP. */
#ifndef MR_STAGE_STAGE_STATUS_H
#define MR_STAGE_STAGE_STATUS_H

#include "daemon/observe/status_server.h"
#include "daemon/stage/assignment.h"
#include "daemon/stage/executor.h"

typedef struct mr_stage_status {
    const char *state;
    const char *address;
    const char *coordinator;
    const char *device;
    uint32_t threads;
    const char *job_id; /* "" when idle */
    uint64_t epoch;
    uint32_t rank;
    uint64_t next_step;
    mr_executor_progress progress;
    mr_step_result result;           /* of the last step; zero where this rank does not know it */
    size_t interval; /* activation_checkpoint_interval in use */
    mr_memory_held held;             /* zero until prepared */
    const mr_assignment *assignment; /* NULL when idle */
} mr_stage_status;

/* Publishes {"schema":"millrace.status/v1","role":"stage",...}. Without memory the old page
 * stays. */
void mr_stage_status_publish(mr_status_page *page, const mr_stage_status *status);

#endif
