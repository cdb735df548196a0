/* SPDX-License-Identifier: Apache-2.0 */
#include "client/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/render.h"

static const char *history_text(const json_t *item, const char *key) {
    const char *text = json_string_value(json_object_get(item, key));
    return text ? text : "";
}

static json_int_t history_integer(const json_t *item, const char *key) {
    return json_integer_value(json_object_get(item, key));
}

static void history_add(json_t *events, int64_t time_ms, const char *kind, const json_t *item,
                        const char *event, const char *detail) {
    char subject[MR_RENDER_CELL_BYTES];
    snprintf(subject, sizeof(subject), "%s/%s", kind, history_text(item, "id"));
    (void)json_array_append_new(events,
                                json_pack("{s:I, s:s, s:s, s:o}", "time_ms", (json_int_t)time_ms,
                                          "subject", subject, "event", event, "detail",
                                          mr_render_string(detail)));
}

/* "FAILED at step 7: stage 1 is lost": a job's state in words. */
static void history_add_state(json_t *events, int64_t time_ms, const json_t *job) {
    char detail[MR_RENDER_CELL_BYTES];
    const char *reason = history_text(job, "reason");
    snprintf(detail, sizeof(detail), "step %" JSON_INTEGER_FORMAT "%s%s",
             history_integer(job, "step"), reason[0] ? ": " : "", reason);
    history_add(events, time_ms, "job", job, history_text(job, "state"), detail);
}

json_t *mr_history_of_job(const json_t *job) {
    json_t *events = json_array();
    char detail[MR_RENDER_CELL_BYTES];
    int64_t created_ms = history_integer(job, "created_ms");
    int64_t started_ms = history_integer(job, "started_ms");
    int64_t ended_ms = history_integer(job, "ended_ms");
    snprintf(detail, sizeof(detail), "%s, %s", history_text(job, "name"),
             history_text(job, "mode"));
    history_add(events, created_ms, "job", job, "created", detail);
    if (history_text(job, "load_note")[0] != '\0')
        history_add(events, created_ms, "job", job, "load", history_text(job, "load_note"));
    if (started_ms > 0) {
        snprintf(detail, sizeof(detail), "from step %" JSON_INTEGER_FORMAT " on %zu stages",
                 history_integer(job, "start_step"),
                 json_array_size(json_object_get(job, "stages")));
        history_add(events, started_ms, "job", job, "started", detail);
    }
    if (ended_ms > 0)
        history_add_state(events, ended_ms, job);
    return events;
}

void mr_history_job_changed(const json_t *before, const json_t *now, int64_t now_ms,
                            json_t *events) {
    if (now == NULL)
        return; /* jobs of long ago are forgotten; that is no event */
    if (before == NULL || strcmp(history_text(before, "state"), history_text(now, "state")) != 0 ||
        strcmp(history_text(before, "reason"), history_text(now, "reason")) != 0)
        history_add_state(events, now_ms, now);
    const char *tag = history_text(now, "checkpoint_tag");
    if (before != NULL && tag[0] != '\0' &&
        strcmp(history_text(before, "checkpoint_tag"), tag) != 0)
        history_add(events, now_ms, "job", now, "checkpoint", tag);
}

void mr_history_member_changed(const json_t *before, const json_t *now, int64_t now_ms,
                               json_t *events) {
    char detail[MR_RENDER_CELL_BYTES];
    if (now == NULL) {
        history_add(events, now_ms, "stage", before, "gone", history_text(before, "address"));
        return;
    }
    if (before == NULL) {
        snprintf(detail, sizeof(detail), "%s at %s", history_text(now, "device"),
                 history_text(now, "address"));
        history_add(events, now_ms, "stage", now, "attached", detail);
        return;
    }
    const char *job = history_text(now, "job_id");
    if (strcmp(history_text(before, "state"), history_text(now, "state")) != 0) {
        snprintf(detail, sizeof(detail), "%s%s", job[0] ? "job " : "", job);
        history_add(events, now_ms, "stage", now, history_text(now, "state"), detail);
    }
}

json_t *mr_history_sorted(json_t *owned_events) {
    json_t *sorted = json_array();
    for (size_t i = 0; i < json_array_size(owned_events); i++) {
        json_t *event = json_array_get(owned_events, i);
        size_t at = json_array_size(sorted);
        while (at > 0 && history_integer(json_array_get(sorted, at - 1), "time_ms") >
                             history_integer(event, "time_ms"))
            at--;
        (void)json_array_insert(sorted, at, event);
    }
    json_decref(owned_events);
    return sorted;
}
