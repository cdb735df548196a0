/* SPDX-License-Identifier: Apache-2.0 */
/* What happened, as it happens: events for /events and the page, and the history of steps. Rare
 * things are kept each; of a job's steps only the newest is an event, and only every so often. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "daemon/base/clock.h"
#include "daemon/coordinator/runtime.h"

enum { NEWS_STEP_PERIOD_MS = 250 };

/* Takes the event over. What cannot be told is not: nothing hangs on it. */
static void news_add(mr_coordinator *coordinator, const char *kind, const char *key,
                     json_t *owned_event) {
    char text[MR_EVENT_BYTES_MAX];
    size_t bytes = owned_event == NULL
                       ? 0
                       : json_dumpb(owned_event, text, sizeof(text) - 1, JSON_COMPACT);
    bool fits = bytes > 0 && bytes < sizeof(text);
    text[fits ? bytes : 0] = '\0';
    if (!fits || !mr_event_stream_add(coordinator->events, kind, key, text))
        MR_LOG(DEBUG, "event not told", MR_S("kind", kind), MR_I("bytes", bytes));
    json_decref(owned_event);
}

static json_t *news_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

void mr_news_job(mr_coordinator *coordinator, const mr_job_record *job) {
    const mr_job_facts *facts = &job->facts;
    news_add(coordinator, "job", "",
             json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "message", "job state", "job",
                       facts->id, "name", facts->name, "state", mr_job_state_name(facts->state),
                       "reason", facts->reason, "step", (json_int_t)facts->step, "at_ms",
                       (json_int_t)mr_clock_wall_ms()));
}

void mr_news_tell(mr_coordinator *coordinator, const char *message, const mr_member *member,
                  const mr_job_record *job, const char *why) {
    news_add(coordinator, job == NULL ? "member" : "job", "",
             json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "message", message, "member",
                       member == NULL ? "" : member->id, "address",
                       member == NULL ? "" : member->address, "job",
                       job == NULL ? "" : job->facts.id, "why", why, "at_ms",
                       (json_int_t)mr_clock_wall_ms()));
}

void mr_news_checkpoint(mr_coordinator *coordinator, mr_job_record *job, const char *tag,
                        uint64_t step, uint64_t bytes) {
    if (job->commit_count == MR_JOB_COMMITS_SHOWN) {
        job->commit_count--;
        memmove(job->commits, job->commits + 1, job->commit_count * sizeof(job->commits[0]));
    }
    mr_job_commit *commit = &job->commits[job->commit_count++];
    *commit = (mr_job_commit){.step = step, .bytes = bytes, .at_ms = mr_clock_wall_ms()};
    (void)snprintf(commit->tag, sizeof(commit->tag), "%s", tag); /* tags fit */
    news_add(coordinator, "checkpoint", "",
             json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "message", "checkpoint committed", "job",
                       job->facts.id, "tag", tag, "step", (json_int_t)step, "bytes",
                       (json_int_t)bytes, "at_ms", (json_int_t)commit->at_ms));
}

static json_t *news_of_step(const mr_job_record *job, const mr_history_step *step) {
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:I}", "job", job->facts.id,
                     "step", (json_int_t)step->step, "loss", news_number(step->loss), "grad_norm",
                     news_number(step->gradient_norm), "lr", news_number(step->learning_rate),
                     "tokens", (json_int_t)step->tokens, "tokens_per_second",
                     news_number(step->tokens_per_second), "bubble", news_number(step->bubble),
                     "step_seconds", news_number(step->step_seconds), "at_ms",
                     (json_int_t)step->at_ms);
}

void mr_news_step(mr_coordinator *coordinator, mr_job_record *job) {
    const mr_job_step *result = &job->facts.result;
    const mr_history_step step = {
        .step = result->step,
        .at_ms = mr_clock_wall_ms(),
        .loss = result->loss,
        .gradient_norm = result->gradient_norm,
        .learning_rate = result->learning_rate,
        .tokens = result->tokens,
        .tokens_per_second = result->tokens_per_second,
        .bubble = result->bubble,
        .step_seconds = result->step_seconds,
    };
    mr_status added = mr_history_add(coordinator->history, job->facts.id, &step);
    if (!mr_status_is_ok(added))
        MR_LOG(DEBUG, "step not kept", MR_S("job", job->facts.id), MR_S("why", added.text));
    int64_t now_ms = mr_clock_now_ms();
    bool last = result->step == job->facts.total_steps;
    if (!last && job->told_ms > 0 && now_ms - job->told_ms < NEWS_STEP_PERIOD_MS)
        return;
    job->told_ms = now_ms;
    news_add(coordinator, "step", job->facts.id, news_of_step(job, &step));
}
