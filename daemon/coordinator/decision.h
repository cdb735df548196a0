/* SPDX-License-Identifier: Apache-2.0 */
/* decision.h: one decision while it is being made: the state, the time and the actions so far.
 * Passed down by decide.c to the parts that know members, jobs, saves, the queue and requests.
 * Owner: coordinator; only decide's own files include it. Thread: LOOP. */
#ifndef MR_COORDINATOR_DECISION_H
#define MR_COORDINATOR_DECISION_H

#include "daemon/coordinator/decide.h"

typedef struct mr_decision {
    mr_coordinator_state *state;
    mr_actions *actions;
    int64_t now_ms;
    int64_t wall_ms;
} mr_decision;

/* Queues order for one rank's member with the job's present epoch; nothing where the member is
 * gone. Returns the action for what else the order needs; NULL where nothing was queued. */
mr_action *mr_decision_order(mr_decision *decision, mr_job_record *job, uint32_t rank,
                             mr_order order);
/* The same for every rank of the job; tag and step for SAVE and COMMITTED. */
void mr_decision_order_all(mr_decision *decision, mr_job_record *job, mr_order order,
                           const char *tag, uint64_t step);
/* Tells a member to exit. */
void mr_decision_order_exit(mr_decision *decision, const mr_member *member);
/* The same for one that has no job: it is DRAINING; its stream is closed when it does not go. */
void mr_decision_shut_down(mr_decision *decision, mr_member *member);
/* The member has no job any more. */
void mr_decision_set_idle(mr_decision *decision, mr_member *member);

/* One action each: the job's facts to the store, what its watchers shall see, an answer to a
 * client's request (the job as it is now, or why not), a line in the log. */
void mr_decision_store(mr_decision *decision, mr_job_record *job);
void mr_decision_notify(mr_decision *decision, mr_job_record *job, uint64_t step);
void mr_decision_answer_job(mr_decision *decision, uint64_t request, mr_job_record *job);
void mr_decision_answer_error(mr_decision *decision, uint64_t request, mr_status status);
void mr_decision_log(mr_decision *decision, const char *message, const mr_member *member,
                     mr_job_record *job, mr_status status);

#endif
