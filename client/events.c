/* SPDX-License-Identifier: Apache-2.0 */
/* events.c: what happened in the cluster or to one job, and with --follow what happens (history.h
 * says what can be known). Followed events are printed one a line as they are seen. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/history.h"
#include "client/interrupt.h"
#include "client/nouns.h"
#include "client/render.h"
#include "client/roster.h"
#include "client/watch.h"
#include "daemon/base/clock.h"

typedef struct events {
    mr_client *client;
    const char *job; /* only this job, by id or name; NULL: the cluster */
    json_t *jobs;    /* as last seen */
    json_t *members;
    int64_t lost_ms; /* since when the coordinator is away; 0: it is not */
    bool ended;      /* the one job has ended */
} events;

static void cell_time(const json_t *item, char *out, size_t bytes) {
    mr_render_time(json_integer_value(json_object_get(item, "time_ms")), out, bytes);
}

static const mr_column event_columns[] = {
    {"TIME", NULL, cell_time},
    {"SUBJECT", "subject", NULL},
    {"EVENT", "event", NULL},
    {"DETAIL", "detail", NULL},
};
static const mr_view event_view = {
    .singular = "event",
    .plural = "events",
    .name_key = "subject",
    .columns = event_columns,
    .column_count = sizeof(event_columns) / sizeof(event_columns[0]),
};

static const json_t *events_find(const json_t *items, const json_t *wanted) {
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        if (json_equal(json_object_get(item, "id"), json_object_get(wanted, "id")))
            return item;
    }
    return NULL;
}

/* The one job as a list, or all jobs. */
static mr_status events_jobs(const events *self, json_t **out_jobs) {
    if (self->job == NULL)
        return mr_roster_jobs(self->client, out_jobs);
    json_t *job = NULL;
    MR_TRY(mr_roster_job(self->client, self->job, &job));
    *out_jobs = json_array();
    (void)json_array_append_new(*out_jobs, job);
    return MR_OK;
}

static mr_status events_ask(const events *self, json_t **out_jobs, json_t **out_members) {
    MR_TRY(events_jobs(self, out_jobs));
    if (self->job != NULL) {
        *out_members = json_array();
        return MR_OK;
    }
    mr_status status = mr_roster_members(self->client, out_members);
    if (!mr_status_is_ok(status))
        json_decref(*out_jobs);
    return status;
}

static void events_remember(events *self, json_t *owned_jobs, json_t *owned_members) {
    json_decref(self->jobs);
    json_decref(self->members);
    self->jobs = owned_jobs;
    self->members = owned_members;
    const json_t *ended = json_object_get(json_array_get(owned_jobs, 0), "ended_ms");
    self->ended = self->job != NULL && json_integer_value(ended) > 0;
}

static mr_status events_past(events *self) {
    json_t *jobs = NULL;
    json_t *members = NULL;
    MR_TRY(events_ask(self, &jobs, &members));
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        json_t *past = mr_history_of_job(json_array_get(jobs, i));
        (void)json_array_extend(list, past);
        json_decref(past);
    }
    events_remember(self, jobs, members);
    return mr_render_list(self->client, &event_view, mr_history_sorted(list));
}

static json_t *events_changed(const events *self, const json_t *jobs, const json_t *members) {
    const int64_t now_ms = (int64_t)time(NULL) * 1000;
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        const json_t *job = json_array_get(jobs, i);
        mr_history_job_changed(events_find(self->jobs, job), job, now_ms, list);
    }
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);
        mr_history_member_changed(events_find(self->members, member), member, now_ms, list);
    }
    for (size_t i = 0; i < json_array_size(self->members); i++) {
        const json_t *member = json_array_get(self->members, i);
        if (events_find(members, member) == NULL)
            mr_history_member_changed(member, NULL, now_ms, list);
    }
    return list;
}

/* One event a line, in columns of a fixed place: what follows is not known yet. */
static mr_status events_print(const mr_client *client, json_t *owned_list) {
    if (client->output != MR_OUTPUT_TABLE)
        return mr_render_list(client, &event_view, owned_list);
    for (size_t i = 0; i < json_array_size(owned_list); i++) {
        const json_t *event = json_array_get(owned_list, i);
        const char *detail = json_string_value(json_object_get(event, "detail"));
        char when[32];
        cell_time(event, when, sizeof(when));
        printf("%s  %s  %s  %s\n", when, json_string_value(json_object_get(event, "subject")),
               json_string_value(json_object_get(event, "event")), detail ? detail : "-");
    }
    json_decref(owned_list);
    return MR_OK;
}

static mr_status events_next(events *self) {
    json_t *jobs = NULL;
    json_t *members = NULL;
    mr_status status = events_ask(self, &jobs, &members);
    int64_t now_ms = mr_clock_now_ms();
    if (status.code == MR_CODE_UNAVAILABLE) {
        if (self->lost_ms == 0)
            mr_client_say(self->client, "%s; trying again", status.text);
        self->lost_ms = self->lost_ms == 0 ? now_ms : self->lost_ms;
        return now_ms - self->lost_ms < MR_WATCH_RETRY_MS ? MR_OK : status;
    }
    MR_TRY(status);
    self->lost_ms = 0;
    json_t *list = events_changed(self, jobs, members);
    events_remember(self, jobs, members);
    if (json_array_size(list) > 0)
        status = events_print(self->client, list);
    else
        json_decref(list);
    if (fflush(stdout) != 0 && mr_status_is_ok(status))
        status = MR_ERROR(UNKNOWN, "stdout does not take what is followed");
    return status;
}

static mr_status events_run(mr_client *client, const char *job) {
    const bool follow = mr_invocation_given(client->invocation, "follow");
    events self = {.client = client, .job = job};
    int64_t interval_ms = (int64_t)(mr_invocation_number(client->invocation, "interval") * 1000);
    if (follow)
        mr_interrupt_catch();
    mr_status status = events_past(&self);
    while (follow && mr_status_is_ok(status) && !self.ended &&
           !mr_interrupt_wait(interval_ms, -1, NULL))
        status = events_next(&self);
    if (follow && mr_interrupt_came()) {
        client->exit_code = MR_EXIT_CODE_INTERRUPTED;
        status = MR_OK;
    }
    json_decref(self.jobs);
    json_decref(self.members);
    return status;
}

mr_status mr_command_cluster_events(mr_client *client) {
    return events_run(client, NULL);
}

mr_status mr_command_job_logs(mr_client *client) {
    return events_run(client, client->invocation->arguments[0]);
}
