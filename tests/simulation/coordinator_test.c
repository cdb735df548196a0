/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: whatever stages, clients and the disk do, in whatever order, the coordinator keeps its
 * promises: a member has one job, and knows it; epochs only grow; no order carries an old one; a
 * job that is cut by its layers' times prepares only when every rank's times are known and the cut
 * is back, and one that only measures never prepares; a manifest is committed only when every rank
 * has saved in that epoch; jobs start in the order in which they came; a final state is final;
 * every request gets one answer; a stage's death ends its job within ten seconds with that stage
 * named; in the end, when nothing breaks any more, every job has ended and every stage is free.
 * Method: thousands of seeded histories in virtual time (coordinator_world.h), each with faults for
 * a minute and then an end game; all promises are checked after every single decision. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/base/alloc.h"
#include "tests/simulation/coordinator_world.h"

/* A sanitizer makes each history some ten times slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { HISTORIES = 200 };
#else
enum { HISTORIES = 2000 };
#endif

enum {
    FAULTS_MS = 60000,
    END_GAME_MS = 1200000,
    NAMED_WITHIN_MS = 10000,
    SAVED_MAX = 4096,
};

/* The Saved reports that have reached the coordinator: (job, epoch, tag) -> ranks. */
typedef struct saved_ranks {
    char job[MR_COORDINATOR_ID_BYTES];
    uint64_t epoch;
    char tag[MR_NAME_BYTES];
    uint32_t ranks;
} saved_ranks;

typedef struct history {
    uint64_t seed;
    world w;
    saved_ranks saved[SAVED_MAX];
    size_t saved_count;
    uint64_t epoch_last;
    uint64_t started_last; /* number of the newest job that has left the queue */
} history;

#define CHECK(h, condition)                                                                        \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            print_error("seed %" PRIu64 ", %" PRId64 " ms: %s\n", (h)->seed, (h)->w.now_ms,        \
                        #condition);                                                               \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

/* ---- promises -------------------------------------------------------------------------------- */

static void check_members(history *h) {
    const mr_coordinator_state *state = &h->w.state;
    for (size_t i = 0; i < state->registry.count; i++) {
        const mr_member *member = state->registry.members[i];
        bool has = member->state == MR_MEMBER_PREPARING || member->state == MR_MEMBER_RUNNING ||
                   member->state == MR_MEMBER_RELEASING;
        CHECK(h, has == (member->job != 0));
        if (!has || member->state == MR_MEMBER_RELEASING)
            continue;
        const mr_job_record *job = mr_jobs_find(&state->jobs, member->job);
        CHECK(h, job != NULL && mr_job_state_is_active(job->facts.state));
        CHECK(h, job->ranks[member->rank].member == member->number);
        CHECK(h, member->epoch == job->facts.epoch);
    }
    for (size_t i = 0; i < state->jobs.count; i++) {
        const mr_job_record *job = state->jobs.records[i];
        if (!mr_job_state_is_active(job->facts.state))
            continue;
        for (uint32_t rank = 0; rank < job->spec->rank_count; rank++) {
            const mr_member *member = mr_registry_find(&state->registry, job->ranks[rank].member);
            CHECK(h, member == NULL || (member->job == job->facts.number && member->rank == rank));
        }
    }
}

static void check_jobs(history *h) {
    world *w = &h->w;
    for (size_t i = 0; i < w->state.jobs.count; i++) {
        const mr_job_record *job = w->state.jobs.records[i];
        const mr_job_facts *facts = &job->facts;
        world_job *known = world_job_find(w, facts->id);
        if (known == NULL)
            continue;
        CHECK(h, facts->epoch >= known->last_epoch);
        CHECK(h, facts->epoch <= w->state.epoch_last);
        bool was_final = mr_job_state_is_final(known->last_state);
        CHECK(h, !was_final || facts->state == known->last_state);
        CHECK(h, !was_final || facts->epoch == known->last_epoch);
        /* Who is not at work says why not. */
        CHECK(h, facts->state == MR_JOB_RUNNING || facts->state == MR_JOB_SUCCEEDED ||
                     facts->reason[0] != '\0');
        if (known->last_state == MR_JOB_QUEUED && facts->state != MR_JOB_QUEUED &&
            facts->state != MR_JOB_CANCELLED) {
            CHECK(h, facts->number > h->started_last);
            h->started_last = facts->number;
        }
        known->last_epoch = facts->epoch;
        known->last_state = facts->state;
        known->done = mr_job_state_is_final(facts->state);
    }
    CHECK(h, w->state.epoch_last >= h->epoch_last);
    h->epoch_last = w->state.epoch_last;
}

/* A death in an active job: ended in time, and the dead one named where nothing else went wrong. */
static void check_deaths(history *h) {
    world *w = &h->w;
    for (size_t i = 0; i < w->job_count; i++) {
        world_job *job = &w->jobs[i];
        if (job->killed_ms == 0)
            continue;
        if (!job->done) {
            CHECK(h, w->now_ms - job->killed_ms <= NAMED_WITHIN_MS);
            continue;
        }
        job->killed_ms = 0;
        const mr_job_record *record = mr_jobs_resolve(&w->state.jobs, job->id);
        if (record == NULL || record->facts.state != MR_JOB_FAILED || job->other_cause)
            continue;
        char name[32];
        (void)snprintf(name, sizeof(name), "member m%" PRIu64 " ", job->killed_member);
        if (strstr(record->facts.reason, "no client has fed") == NULL &&
            strstr(record->facts.reason, "last checkpoint") == NULL &&
            strstr(record->facts.reason, name) == NULL) {
            print_error("killed %s, reason: %s\n", name, record->facts.reason);
            CHECK(h, !"the dead member is named");
        }
    }
}

static void note_saved(history *h, const mr_event *event) {
    const mr_member *member = mr_registry_find(&h->w.state.registry, event->member);
    if (event->kind != MR_EVENT_SAVED || event->u.saved.error[0] != '\0' || member == NULL)
        return;
    for (size_t i = 0; i < h->saved_count; i++) {
        saved_ranks *saved = &h->saved[i];
        if (saved->epoch == event->epoch && strcmp(saved->job, event->job) == 0 &&
            strcmp(saved->tag, event->u.saved.tag) == 0) {
            saved->ranks |= 1u << member->rank;
            return;
        }
    }
    CHECK(h, h->saved_count < SAVED_MAX);
    saved_ranks *saved = &h->saved[h->saved_count++];
    *saved = (saved_ranks){.epoch = event->epoch, .ranks = 1u << member->rank};
    (void)snprintf(saved->job, sizeof(saved->job), "%s", event->job);
    (void)snprintf(saved->tag, sizeof(saved->tag), "%s", event->u.saved.tag);
}

static void check_commit(history *h, const mr_action *action) {
    uint32_t wanted = (1u << action->job->spec->rank_count) - 1;
    const world_job *known = world_job_find(&h->w, action->job->facts.id);
    CHECK(h, action->epoch >= known->last_epoch);
    for (size_t i = 0; i < h->saved_count; i++) {
        const saved_ranks *saved = &h->saved[i];
        if (saved->epoch == action->epoch && strcmp(saved->job, action->job->facts.id) == 0 &&
            strcmp(saved->tag, action->tag) == 0) {
            CHECK(h, saved->ranks == wanted);
            return;
        }
    }
    CHECK(h, !"a commit without a report");
}

/* The ranks whose times have come in the job's epoch. */
static void note_profiled(history *h, const mr_event *event) {
    const mr_member *member = mr_registry_find(&h->w.state.registry, event->member);
    world_job *known = event->kind == MR_EVENT_PROFILED ? world_job_find(&h->w, event->job) : NULL;
    if (known != NULL && member != NULL && event->epoch == known->last_epoch)
        known->profiled |= 1u << member->rank;
}

static void check_order(history *h, const mr_action *action) {
    const world_job *known = world_job_find(&h->w, action->job_id);
    if (known == NULL || action->job == NULL)
        return;
    if (action->order == MR_ORDER_PROFILE)
        CHECK(h, known->profiles && !known->cut);
    if (action->order != MR_ORDER_PREPARE)
        return;
    CHECK(h, !known->profile_only);
    CHECK(h, !known->profiles ||
                 (known->cut && known->profiled == (1u << action->job->spec->rank_count) - 1));
}

static void check_actions(history *h) {
    for (size_t i = 0; i < h->w.actions.count; i++) {
        const mr_action *action = &h->w.actions.items[i];
        if (action->kind == MR_ACTION_COMMIT)
            check_commit(h, action);
        if (action->kind != MR_ACTION_SEND || action->job == NULL)
            continue;
        check_order(h, action);
        /* A decision may order something and then end the epoch; it never goes back. */
        const world_job *known = world_job_find(&h->w, action->job_id);
        CHECK(h, known == NULL || action->epoch >= known->sent_epoch);
        CHECK(h, known == NULL || action->epoch >= known->last_epoch);
        CHECK(h, action->epoch <= action->job->facts.epoch);
    }
    for (size_t i = 0; i < h->w.actions.count; i++) {
        const mr_action *action = &h->w.actions.items[i];
        world_job *known =
            action->kind == MR_ACTION_SEND ? world_job_find(&h->w, action->job_id) : NULL;
        if (known != NULL && action->job != NULL)
            known->sent_epoch = action->epoch;
    }
}

/* ---- histories ------------------------------------------------------------------------------- */

/* Nothing is under way: every job has ended and every stage is free. */
static bool history_is_quiet(const history *h) {
    const mr_coordinator_state *state = &h->w.state;
    for (size_t i = 0; i < state->jobs.count; i++)
        if (!mr_job_state_is_final(state->jobs.records[i]->facts.state))
            return false;
    for (size_t i = 0; i < state->registry.count; i++)
        if (state->registry.members[i]->job != 0)
            return false;
    for (size_t i = 0; i < h->w.request_count; i++)
        if (!h->w.answered[i])
            return false;
    return true;
}

static void history_print(const history *h) {
    for (size_t i = 0; i < h->w.state.jobs.count; i++) {
        const mr_job_facts *facts = &h->w.state.jobs.records[i]->facts;
        if (!mr_job_state_is_final(facts->state))
            print_error("%s: %s: %s\n", facts->id, mr_job_state_name(facts->state), facts->reason);
    }
    for (size_t i = 0; i < h->w.request_count; i++)
        if (!h->w.answered[i])
            print_error("request %zu has no answer\n", i);
}

static void history_run(history *h, uint64_t seed, size_t ends[MR_JOB_STATE_COUNT],
                        size_t *cuts) {
    *h = (history){.seed = seed};
    world *w = &h->w;
    world_init(w, seed);
    while (w->faults || !history_is_quiet(h)) {
        w->faults = w->now_ms < FAULTS_MS;
        if (w->now_ms > FAULTS_MS + END_GAME_MS) {
            history_print(h);
            CHECK(h, !"everything comes to an end");
        }
        world_mail mail;
        if (!world_next(w, &mail))
            continue;
        note_saved(h, &mail.event);
        note_profiled(h, &mail.event);
        assert_int_equal(mr_decide(&w->state, &mail.event, &w->actions).code, MR_CODE_OK);
        check_actions(h);
        world_act(w);
        check_jobs(h);
        check_members(h);
        check_deaths(h);
    }
    for (size_t i = 0; i < w->state.jobs.count; i++)
        ends[w->state.jobs.records[i]->facts.state]++;
    for (size_t i = 0; i < w->job_count; i++)
        *cuts += w->jobs[i].cut;
    world_deinit(w);
}

static void test_any_history_keeps_every_promise(void **unused) {
    (void)unused;
    history *h = mr_alloc(sizeof(*h));
    assert_non_null(h);
    const char *only = getenv("MR_SIMULATION_SEED"); /* to look at one history again */
    size_t ends[MR_JOB_STATE_COUNT] = {0};
    size_t cuts = 0;
    if (only != NULL)
        history_run(h, strtoull(only, NULL, 10), ends, &cuts);
    for (uint64_t seed = 1; only == NULL && seed <= HISTORIES; seed++)
        history_run(h, seed, ends, &cuts);
    mr_free(h);
    if (only != NULL)
        return;
    /* The histories are worth something: jobs end in every way. */
    print_message("succeeded %zu, failed %zu, cancelled %zu; cut by times %zu\n",
                  ends[MR_JOB_SUCCEEDED], ends[MR_JOB_FAILED], ends[MR_JOB_CANCELLED], cuts);
    assert_true(cuts > HISTORIES / 2);
    assert_true(ends[MR_JOB_SUCCEEDED] > HISTORIES);
    assert_true(ends[MR_JOB_FAILED] > HISTORIES);
    assert_true(ends[MR_JOB_CANCELLED] > HISTORIES / 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_history_keeps_every_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
