/* SPDX-License-Identifier: Apache-2.0 */
/* replies.h: the coordinator's state as messages of jobs.proto and control.proto. Messages borrow
 * their strings from the state and hold only until it changes; arrays are the reply's own.
 * Owner: coordinator. Thread: LOOP. */
#ifndef MR_COORDINATOR_REPLIES_H
#define MR_COORDINATOR_REPLIES_H

#include "daemon/coordinator/decide.h"
#include "millrace/v1/control.pb-c.h"
#include "millrace/v1/jobs.pb-c.h"

/* The two memories of a rank. */
typedef struct mr_reply_memory {
    Millrace__V1__MemoryBytes predicted;
    Millrace__V1__MemoryBytes held;
} mr_reply_memory;

typedef struct mr_reply_member {
    Millrace__V1__Member message;
    mr_reply_memory memory;
} mr_reply_member;

typedef struct mr_reply_job {
    Millrace__V1__Job message;
    Millrace__V1__JobStage *stages;
    Millrace__V1__JobStage **stage_pointers;
    mr_reply_memory *memories;
    Millrace__V1__JobGroup *groups;
    Millrace__V1__JobGroup **group_pointers;
    char (*group_ids)[MR_NAME_BYTES];
} mr_reply_job;

/* with_file: job_file too. RESOURCE_EXHAUSTED: no memory. Freed with mr_reply_job_deinit. */
MR_MUST_CHECK mr_status mr_reply_job_init(mr_reply_job *reply, const mr_coordinator_state *state,
                                          const mr_job_record *job, bool with_file);
void mr_reply_job_deinit(mr_reply_job *reply);

typedef struct mr_reply_step_result {
    Millrace__V1__StepResult message;
    Millrace__V1__SideLoss sides[MR_SIDE_LOSSES_MAX];
    Millrace__V1__SideLoss *pointers[MR_SIDE_LOSSES_MAX];
} mr_reply_step_result;

/* Fills a message from a record; its texts are borrowed from there. */
void mr_reply_step(mr_reply_step_result *reply, const mr_job_step *step);
/* Its message points into it: it must not be moved. */
void mr_reply_member_init(mr_reply_member *reply, const mr_coordinator_state *state,
                          const mr_member *member, int64_t now_ms);

/* One order with all that it may need. */
typedef struct mr_reply_order {
    Millrace__V1__StageOrder message;
    Millrace__V1__Registered registered;
    Millrace__V1__Profile profile;
    Millrace__V1__Prepare prepare;
    Millrace__V1__Connect connect;
    Millrace__V1__Run run;
    Millrace__V1__Pause pause;
    Millrace__V1__Save save;
    Millrace__V1__Committed committed;
    Millrace__V1__Abort abort;
    Millrace__V1__Release release;
    Millrace__V1__Shutdown shutdown;
    Millrace__V1__Set set;
    Millrace__V1__Peer *peers;
    Millrace__V1__Peer **peer_pointers;
    Millrace__V1__GroupId *group_ids;
    Millrace__V1__GroupId **group_id_pointers;
} mr_reply_order;

/* From a SEND action. RESOURCE_EXHAUSTED: no memory. Freed with mr_reply_order_deinit. */
MR_MUST_CHECK mr_status mr_reply_order_init(mr_reply_order *reply,
                                            const mr_coordinator_state *state,
                                            const mr_action *action);
void mr_reply_order_deinit(mr_reply_order *reply);

#endif
