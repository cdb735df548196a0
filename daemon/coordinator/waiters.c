/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/waiters.h"

#include <string.h>

mr_status mr_waiters_check(const mr_job_record *job) {
    if (job->waiter_count < MR_JOB_WAITERS_MAX)
        return MR_OK;
    return MR_ERROR(RESOURCE_EXHAUSTED, "%zu requests wait for job %s; the limit is %d",
                    job->waiter_count, job->facts.id, MR_JOB_WAITERS_MAX);
}

mr_status mr_waiters_add(mr_decision *decision, mr_job_record *job, uint64_t request,
                         mr_job_save *save, int64_t timeout_ms) {
    MR_TRY(mr_waiters_check(job));
    job->waiters[job->waiter_count++] = (mr_job_waiter){
        .request = request, .save = save, .deadline_ms = decision->now_ms + timeout_ms};
    return MR_OK;
}

/* Order does not matter to those who wait, so the last one fills the hole. */
static void waiters_remove(mr_job_record *job, size_t index) {
    job->waiters[index] = job->waiters[--job->waiter_count];
}

void mr_waiters_paused(mr_decision *decision, mr_job_record *job) {
    for (size_t i = job->waiter_count; i > 0; i--) {
        if (job->waiters[i - 1].save != NULL)
            continue;
        mr_decision_answer_job(decision, job->waiters[i - 1].request, job);
        waiters_remove(job, i - 1);
    }
}

void mr_waiters_saved(mr_decision *decision, mr_job_record *job, const mr_job_save *save,
                      uint64_t bytes, mr_status status) {
    for (size_t i = job->waiter_count; i > 0; i--) {
        if (job->waiters[i - 1].save != save)
            continue;
        if (mr_status_is_ok(status)) {
            mr_action *action = mr_actions_add(decision->actions, MR_ACTION_ANSWER);
            action->request = job->waiters[i - 1].request;
            action->reply = MR_REPLY_CHECKPOINT;
            action->job = job;
            memcpy(action->tag, save->tag, sizeof(action->tag));
            action->step = save->step;
            action->bytes = bytes;
        } else {
            mr_decision_answer_error(decision, job->waiters[i - 1].request, status);
        }
        waiters_remove(job, i - 1);
    }
}

void mr_waiters_fail(mr_decision *decision, mr_job_record *job, bool late_only, mr_status status) {
    for (size_t i = job->waiter_count; i > 0; i--) {
        const mr_job_waiter *waiter = &job->waiters[i - 1];
        if (waiter->save != NULL || (late_only && decision->now_ms < waiter->deadline_ms))
            continue;
        mr_decision_answer_error(decision, waiter->request, status);
        waiters_remove(job, i - 1);
    }
}
