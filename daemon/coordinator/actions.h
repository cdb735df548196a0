/* SPDX-License-Identifier: Apache-2.0 */
/* actions.h: what a decision wants done: an ordered list that the coordinator carries out after the
 * state it belongs to is stored.
 * Pointers in an action are into the coordinator's state and hold until the next decision.
 * Owner: coordinator. Thread: LOOP. */
#ifndef MR_COORDINATOR_ACTIONS_H
#define MR_COORDINATOR_ACTIONS_H

#include "daemon/coordinator/jobs.h"

/* The orders of control.proto, without Registered. */
typedef enum mr_order {
    MR_ORDER_REGISTERED,
    MR_ORDER_PROFILE,
    MR_ORDER_PREPARE,
    MR_ORDER_CONNECT,
    MR_ORDER_RUN,
    MR_ORDER_PAUSE,
    MR_ORDER_SAVE,
    MR_ORDER_COMMITTED,
    MR_ORDER_ABORT,
    MR_ORDER_RELEASE,
    MR_ORDER_SHUTDOWN,
    MR_ORDER_SET,
    MR_ORDER_COUNT
} mr_order;

typedef enum mr_action_kind {
    MR_ACTION_SEND,    /* order to member; job_id, epoch, tag, step, rank as the order needs */
    MR_ACTION_CLOSE,   /* end member's stream; status says why */
    MR_ACTION_STORE,   /* job's facts, before any other action of this decision is carried out */
    MR_ACTION_NOTIFY,  /* job's watchers: it has changed; step > 0: a step is done */
    MR_ACTION_ANSWER,  /* request: status, or what it asked for (reply) */
    MR_ACTION_COMMIT,  /* job's save: write the manifest, keep the newest, report MR_EVENT_COMMIT */
    MR_ACTION_DISCARD, /* job's files of a save that failed: tag, epoch, step */
    MR_ACTION_SWEEP,   /* job's checkpoint folder: what epochs below epoch left */
    MR_ACTION_CUT,     /* job by its ranks' profiles; report MR_EVENT_CUT of this epoch */
    MR_ACTION_LOG,     /* one line: message, member, job, status */
    MR_ACTION_KIND_COUNT
} mr_action_kind;

typedef enum mr_reply {
    MR_REPLY_STATUS, /* an error */
    MR_REPLY_JOB,
    MR_REPLY_MEMBER,
    MR_REPLY_CHECKPOINT, /* job, tag, step, bytes */
} mr_reply;

typedef struct mr_action {
    mr_action_kind kind;
    uint64_t member;
    mr_order order;
    mr_job_record *job; /* NULL where there is none, or for a job that is not known */
    const mr_job_save *save;
    char job_id[MR_COORDINATOR_ID_BYTES];
    uint64_t epoch;
    uint64_t step;
    uint32_t rank;
    char tag[MR_NAME_BYTES];
    uint64_t request;
    mr_reply reply;
    uint64_t bytes;
    const char *message;
    mr_status status;
} mr_action;

typedef struct mr_actions {
    mr_action *items;
    size_t count;
    size_t capacity;
} mr_actions;

/* Empties the list and makes room for count actions. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_actions_reset(mr_actions *actions, size_t count);
/* The next action, zeroed but for its kind. There must be room. */
mr_action *mr_actions_add(mr_actions *actions, mr_action_kind kind);
void mr_actions_deinit(mr_actions *actions);

#endif
