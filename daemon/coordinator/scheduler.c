/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/scheduler.h"

#include "daemon/coordinator/job_machine.h"

/* Why the first job of the queue does not start. */
static void scheduler_explain_first(mr_decision *decision, mr_job_record *job, size_t idle) {
    size_t needed = job->spec->rank_count;
    if (decision->state->store_error[0] != '\0')
        mr_job_machine_explain(decision, job, "waits for the coordinator's store: %s",
                               decision->state->store_error);
    else
        mr_job_machine_explain(decision, job, "waits for %zu more stage%s (needs %zu, idle %zu)",
                               needed - idle, needed - idle == 1 ? "" : "s", needed, idle);
}

void mr_scheduler_run(mr_decision *decision) {
    mr_coordinator_state *state = decision->state;
    size_t idle = mr_registry_idle_count(&state->registry);
    const mr_job_record *first = NULL;
    uint32_t position = 0;
    for (size_t i = 0; i < state->jobs.count; i++) {
        mr_job_record *job = state->jobs.records[i];
        if (job->facts.state != MR_JOB_QUEUED)
            continue;
        size_t needed = job->spec->rank_count;
        if (first == NULL && needed <= idle && state->store_error[0] == '\0') {
            mr_job_machine_start(decision, job);
            idle -= needed;
            continue;
        }
        bool moved = job->queue_position != ++position;
        job->queue_position = position;
        if (first == NULL) {
            first = job;
            scheduler_explain_first(decision, job, idle);
        } else {
            mr_job_machine_explain(decision, job, "waits for job %s, which waits for stages",
                                   first->facts.id);
        }
        if (moved)
            mr_decision_notify(decision, job, 0);
    }
    state->queue_changed = false;
}
