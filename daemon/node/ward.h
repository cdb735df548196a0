/* SPDX-License-Identifier: Apache-2.0 */
/* ward.h: one stage process in a node's care, as a pure function: what is known of it and what has
 * happened give what is known next and what is to be done.
 *
 *                          READY                      exit 0 by itself
 *   STARTING ------------------------------> READY -------------------> ENDED
 *     |   ^  \                               |   \
 *     |   |   \ late: KILLING                |    \ silent: KILLING
 *     |   | the pause is over                |     exit 64, 65, 77, 78 -> REFUSED
 *     v   |                                  v
 *    WAITING <------------ any other exit, or a signal
 *   drain, any state: TERM to what lives (STOPPING; past its bound KILLING), else STOPPED
 *
 * After the n-th failure in a row the pause is drawn from the upper half of
 * MR_NODE_BACKOFF_FIRST_MS x 2^(n-1), at most MR_NODE_BACKOFF_LAST_MS, so that the stages of many
 * nodes do not come back as one. A stage that was READY for MR_NODE_STABLE_MS has no past.
 * Exit 75 asks for a new start and is no failure, 64, 65, 77 and 78 say that another start would
 * end the same way, and 0 is an end in good order (drained by the coordinator): only a reload
 * starts such a stage again.
 * Owner: node. Plain data; no clock, no I/O. Limits: MR_NODE_*.
 * Not here: processes (child.h), what people see (node_status.h). */
#ifndef MR_NODE_WARD_H
#define MR_NODE_WARD_H

#include <stdbool.h>
#include <stdint.h>

typedef enum mr_ward_state {
    MR_WARD_WAITING,  /* for the next start; the first comes at once */
    MR_WARD_STARTING, /* the process lives and is not ready */
    MR_WARD_READY,
    MR_WARD_STOPPING, /* TERM was sent */
    MR_WARD_KILLING,  /* KILL was sent */
    MR_WARD_REFUSED,  /* its exit code forbids another start */
    MR_WARD_ENDED,    /* it ended by itself in good order */
    MR_WARD_STOPPED,  /* drained */
    MR_WARD_STATE_COUNT
} mr_ward_state;

typedef enum mr_ward_reason {
    MR_WARD_REASON_NONE,
    MR_WARD_REASON_EXIT,   /* last_exit, last_signal */
    MR_WARD_REASON_LATE,   /* not ready within its bound */
    MR_WARD_REASON_SILENT, /* no sign of life within its bound */
    MR_WARD_REASON_SPAWN,  /* no process could be made */
} mr_ward_reason;

typedef struct mr_ward {
    mr_ward_state state;
    mr_ward_reason reason; /* of the last end or kill */
    bool draining;
    uint32_t failures; /* in a row */
    uint64_t starts;
    int last_exit;       /* code of the last end; -1: a signal, or none yet */
    int last_signal;     /* or 0 */
    int64_t since_ms;    /* when the state began */
    int64_t deadline_ms; /* when the state ends by itself; INT64_MAX: never */
} mr_ward;

typedef enum mr_ward_event_kind {
    MR_WARD_TICK,   /* time has passed */
    MR_WARD_ALIVE,  /* a sign of life */
    MR_WARD_SERVES, /* READY=1 */
    MR_WARD_EXTEND, /* extend_ms from now the start, or the stop, may still take */
    MR_WARD_EXITED, /* exit_code, or signal_number and exit_code -1 */
    MR_WARD_UNBORN, /* the start that was asked for made no process */
    MR_WARD_DRAIN,  /* end it, within drain_ms */
    MR_WARD_DROP,   /* end it at once: the second signal */
    MR_WARD_RELOAD, /* start what waits, was refused or has ended */
} mr_ward_event_kind;

typedef struct mr_ward_event {
    mr_ward_event_kind kind;
    int64_t now_ms;
    int exit_code;
    int signal_number;
    int64_t extend_ms;
    int64_t drain_ms;
    uint32_t draw; /* a uniform word, for the pause */
} mr_ward_event;

typedef enum mr_ward_action {
    MR_WARD_NOTHING,
    MR_WARD_START,
    MR_WARD_TERMINATE,
    MR_WARD_KILL,
} mr_ward_action;

typedef struct mr_ward_decision {
    mr_ward ward; /* from now on */
    mr_ward_action action;
} mr_ward_decision;

/* A ward that starts at the first tick. */
mr_ward mr_ward_make(int64_t now_ms);
/* The rules above. Cannot fail; an event that means nothing in a state changes nothing. */
mr_ward_decision mr_ward_decide(mr_ward ward, const mr_ward_event *event);
/* Is there a process? */
bool mr_ward_lives(const mr_ward *ward);
/* The pause after failures in a row, of which draw chooses one. */
int64_t mr_ward_pause_ms(uint32_t failures, uint32_t draw);
/* "ready", "waiting", ... */
const char *mr_ward_state_name(mr_ward_state state);

#endif
