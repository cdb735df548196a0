/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/coordinator/decision.h"

#include <stdio.h>
#include <string.h>

mr_action *mr_decision_order(mr_decision *decision, mr_job_record *job, uint32_t rank,
                             mr_order order) {
    MR_ASSERT(rank < job->spec->rank_count);
    const mr_member *member = mr_registry_find(&decision->state->registry, job->ranks[rank].member);
    if (member == NULL || member->state == MR_MEMBER_LOST)
        return NULL;
    MR_ASSERT(member->job == job->facts.number);
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_SEND);
    action->member = member->number;
    action->order = order;
    action->job = job;
    memcpy(action->job_id, job->facts.id, sizeof(action->job_id));
    action->epoch = job->facts.epoch;
    action->rank = rank;
    return action;
}

void mr_decision_order_all(mr_decision *decision, mr_job_record *job, mr_order order,
                           const char *tag, uint64_t step) {
    for (uint32_t rank = 0; rank < job->spec->rank_count; rank++) {
        mr_action *action = mr_decision_order(decision, job, rank, order);
        if (action == NULL)
            continue;
        (void)snprintf(action->tag, sizeof(action->tag), "%s", tag); /* tags fit */
        action->step = step;
    }
}

void mr_decision_order_exit(mr_decision *decision, const mr_member *member) {
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_SEND);
    action->member = member->number;
    action->order = MR_ORDER_SHUTDOWN;
}

void mr_decision_shut_down(mr_decision *decision, mr_member *member) {
    mr_decision_order_exit(decision, member);
    member->state = MR_MEMBER_DRAINING;
    member->draining = true;
    member->deadline_ms = decision->now_ms + MR_SHUTDOWN_TIMEOUT_MS + MR_HEARTBEAT_PERIOD_MS;
}

void mr_decision_set_idle(mr_decision *decision, mr_member *member) {
    member->state = MR_MEMBER_IDLE;
    member->job = 0;
    member->job_id[0] = '\0';
    member->rank = 0;
    member->epoch = 0;
    decision->state->queue_changed = true;
    if (member->draining)
        mr_decision_shut_down(decision, member);
}

void mr_decision_store(mr_decision *decision, mr_job_record *job) {
    mr_actions_add(decision->actions, MR_ACTION_STORE)->job = job;
}

void mr_decision_notify(mr_decision *decision, mr_job_record *job, uint64_t step) {
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_NOTIFY);
    action->job = job;
    action->step = step;
}

void mr_decision_answer_job(mr_decision *decision, uint64_t request, mr_job_record *job) {
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_ANSWER);
    action->request = request;
    action->reply = MR_REPLY_JOB;
    action->job = job;
}

void mr_decision_answer_error(mr_decision *decision, uint64_t request, mr_status status) {
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_ANSWER);
    action->request = request;
    action->reply = MR_REPLY_STATUS;
    action->status = status;
}

void mr_decision_log(mr_decision *decision, const char *message, const mr_member *member,
                     mr_job_record *job, mr_status status) {
    mr_action *action = mr_actions_add(decision->actions, MR_ACTION_LOG);
    action->message = message;
    action->member = member == NULL ? 0 : member->number;
    action->job = job;
    action->status = status;
}
