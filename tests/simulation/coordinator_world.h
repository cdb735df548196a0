/* SPDX-License-Identifier: Apache-2.0 */
/* coordinator_world.h: a cluster in virtual time around mr_decide: stages that attach, work, fail,
 * fall silent, repeat themselves and die; clients that ask for anything at any moment; a disk that
 * is slow and sometimes full. One seed is one history, to the bit.
 * Owner: tests. Thread: one.
 * Not here: what must hold (coordinator_test.c). */
#ifndef MR_TESTS_SIMULATION_COORDINATOR_WORLD_H
#define MR_TESTS_SIMULATION_COORDINATOR_WORLD_H

#include "daemon/coordinator/decide.h"

enum {
    WORLD_STAGES_MAX = 24,
    WORLD_JOBS_MAX = 64,
    WORLD_RANKS_MAX = 4,
    WORLD_MAIL_MAX = 8192,
    WORLD_REQUESTS_MAX = 512,
    WORLD_PAST_MAX = 32,
};

typedef enum world_mail_kind {
    WORLD_EVENT, /* to the coordinator */
    WORLD_ORDER, /* to a stage */
    WORLD_BEAT,  /* a stage's heartbeat is due */
    WORLD_WORK,  /* a job could take a step */
    WORLD_FAULT, /* something breaks */
    WORLD_CLIENT, /* a client wants something */
    WORLD_TICK,
} world_mail_kind;

/* Something on its way. */
typedef struct world_mail {
    int64_t at_ms;
    uint64_t sequence; /* breaks ties, so that a history repeats */
    world_mail_kind kind;
    size_t index; /* of the stage or job that it concerns */
    uint64_t member;
    mr_order order;
    mr_event event; /* its strings are fixed up from the fields below when it arrives */
    char job[MR_COORDINATOR_ID_BYTES];
    uint64_t epoch;
    char tag[MR_NAME_BYTES];
    char text[80];
} world_mail;

/* A stage daemon. */
typedef struct world_stage {
    bool alive;
    bool mute;       /* hangs: hears nothing, says nothing */
    uint64_t member; /* its attachment; 0: none */
    int64_t report_ms; /* streams keep order: nothing overtakes what was sent before */
    int64_t order_ms;
    char job[MR_COORDINATOR_ID_BYTES];
    uint64_t epoch;
    uint32_t rank;
    bool running;
    bool paused;
    bool pause_wanted;
    bool save_wanted;
    char save_tag[MR_NAME_BYTES];
} world_stage;

/* What really happened to a job, against which the coordinator's words are checked. */
typedef struct world_job {
    char id[MR_COORDINATOR_ID_BYTES];
    uint64_t step;
    uint64_t total;
    uint64_t every;
    size_t ranks;
    bool trains;
    bool profiles;     /* its stages are asked for times before they prepare */
    bool profile_only; /* and then it ends */
    uint32_t profiled; /* ranks whose times have reached the coordinator in this epoch */
    bool cut;
    bool feed_told;
    bool done;
    uint64_t killed_member; /* first member that died in it */
    int64_t killed_ms;      /* 0: none */
    bool other_cause;       /* it may fail for another reason than that death */
    uint64_t last_epoch; /* after the last decision */
    uint64_t sent_epoch; /* of the newest order */
    mr_job_state last_state;
} world_job;

typedef struct world {
    uint64_t random;
    int64_t now_ms;
    mr_coordinator_state state;
    mr_actions actions;
    world_mail *mail; /* a heap by (at_ms, sequence) */
    size_t mail_count;
    uint64_t sequence;
    world_stage stages[WORLD_STAGES_MAX];
    size_t stage_count;
    uint64_t members; /* numbers given */
    world_job jobs[WORLD_JOBS_MAX];
    size_t job_count;
    bool answered[WORLD_REQUESTS_MAX];
    size_t request_count;
    world_mail past[WORLD_PAST_MAX]; /* old reports, to be repeated */
    size_t past_count;
    bool faults; /* false: the end game, everything works and everybody helps */
    bool disk_fails;
} world;

/* A fresh cluster; everything that happens follows from seed. */
void world_init(world *w, uint64_t seed);
void world_deinit(world *w);
/* Next random number below bound (>= 1). */
uint64_t world_random(world *w, uint64_t bound);
/* Lets the next thing happen. True: it is an event for mr_decide, in *out_mail. */
bool world_next(world *w, world_mail *out_mail);
/* Carries the actions of the last decision out. */
void world_act(world *w);
/* The record of what happened to a job; NULL where the id is unknown. */
world_job *world_job_find(world *w, const char *id);

#endif
