/* SPDX-License-Identifier: Apache-2.0 */
/* trace.c: what every stage of a job did in its last steps, as one Chrome trace for Perfetto: one
 * process a rank, one thread a track, and arrows from each send to its receive. Each daemon always
 * keeps the newest spans; here they are fetched from the status ports, and their clocks laid
 * together. Daemons of one host share a clock, so its offset to the wall is taken once; between
 * hosts the wall clocks' difference remains. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/http_page.h"
#include "client/nouns.h"
#include "client/render.h"
#include "client/roster.h"
#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"

#define TRACE_NANOSECOND 0.001 /* in a trace's microseconds */

typedef struct trace {
    mr_client *client;
    json_t *job;
    json_t *members;
    json_t *offsets; /* by host: nanoseconds from its monotonic clock to the wall */
    json_t *events;
    json_int_t width;     /* ranks of one stage: what a neighbour in the pipeline is apart */
    json_int_t origin_ns; /* the first offset; the times of the trace begin near its zero */
} trace;

static const char *trace_text(const json_t *item, const char *key) {
    const char *text = json_string_value(json_object_get(item, key));
    return text ? text : "";
}

/* The member that holds a rank of the job, and still does. */
static mr_status trace_member(const trace *self, const json_t *stage, const json_t **out_member) {
    const char *id = trace_text(stage, "member_id");
    const char *job = trace_text(self->job, "id");
    for (size_t i = 0; i < json_array_size(self->members); i++) {
        const json_t *member = json_array_get(self->members, i);
        const char *busy = trace_text(member, "job_id");
        if (strcmp(trace_text(member, "id"), id) != 0)
            continue;
        if (busy[0] != '\0' && strcmp(busy, job) != 0)
            return MR_ERROR(FAILED_PRECONDITION, "stage %s works for job %s now", id, busy);
        *out_member = member;
        return MR_OK;
    }
    return MR_ERROR(FAILED_PRECONDITION, "stage %s, which held a part of job %s, is gone", id, job);
}

/* The offset of a daemon's host; the first daemon that is asked there gives it. */
static json_int_t trace_offset(trace *self, const char *address, const json_t *document) {
    char host[MR_STATUS_TEXT_BYTES];
    const char *colon = strrchr(address, ':');
    snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - address) : 0, address);
    if (json_object_get(self->offsets, host) == NULL) {
        json_t *own = json_object_get(json_object_get(document, "otherData"), "wall_offset_ns");
        if (json_object_size(self->offsets) == 0)
            self->origin_ns = json_integer_value(own);
        (void)json_object_set(self->offsets, host, own);
    }
    return json_integer_value(json_object_get(self->offsets, host));
}

/* An arrow's end on a span that sends (SA3, SG3) or receives (RA3, RG3): both ends have one id, the
 * sender's rank in it. A receive ends when its message is there, where the arrow points. */
static void trace_take_flow(trace *self, json_int_t rank, const json_t *span) {
    const char *name = trace_text(span, "name");
    bool sends = name[0] == 'S';
    bool activation = name[0] != '\0' && name[1] == 'A';
    char id[64];
    if ((!sends && name[0] != 'R') || (!activation && name[1] != 'G'))
        return;
    json_int_t sender = sends ? rank : activation ? rank - self->width : rank + self->width;
    snprintf(id, sizeof(id), "%" PRId64 ".%.24s.%" PRId64,
             (int64_t)json_integer_value(
                 json_object_get(json_object_get(span, "args"), "step")),
             name + 1, (int64_t)sender);
    double at = json_number_value(json_object_get(span, "ts"));
    double duration = json_number_value(json_object_get(span, "dur"));
    if (!sends && duration > TRACE_NANOSECOND)
        at += duration - TRACE_NANOSECOND; /* still within the span, to which it belongs */
    json_t *flow = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:O, s:f}", "ph", sends ? "s" : "f", "cat", "link", "name",
        activation ? "activation" : "gradient", "id", id, "pid", rank, "tid",
        json_object_get(span, "tid"), "ts", at);
    if (!sends)
        (void)json_object_set_new(flow, "bp", json_string("e"));
    (void)json_array_append_new(self->events, flow); /* NULL is refused */
}

/* Ranks are shown in their order. */
static void trace_take_order(trace *self, json_int_t rank) {
    (void)json_array_append_new(
        self->events, json_pack("{s:s, s:s, s:I, s:i, s:{s:I}}", "ph", "M", "name",
                                "process_sort_index", "pid", rank, "tid", 0, "args", "sort_index",
                                rank));
}

/* One daemon's events, as those of a rank. */
static void trace_take(trace *self, json_int_t rank, json_int_t offset_ns, const json_t *document) {
    const json_t *events = json_object_get(document, "traceEvents");
    const double shift_us = (double)(offset_ns - self->origin_ns) / 1000;
    for (size_t i = 0; i < json_array_size(events); i++) {
        json_t *event = json_array_get(events, i);
        json_t *start = json_object_get(event, "ts");
        (void)json_object_set_new(event, "pid", json_integer(rank));
        if (json_is_number(start))
            (void)json_object_set_new(event, "ts",
                                      json_real(json_number_value(start) + shift_us));
        (void)json_array_append(self->events, event);
        if (strcmp(trace_text(event, "ph"), "X") == 0)
            trace_take_flow(self, rank, event);
    }
    trace_take_order(self, rank);
}

static mr_status trace_fetch_rank(trace *self, const json_t *stage) {
    char path[64];
    char *text = NULL;
    size_t bytes = 0;
    json_error_t error;
    const json_t *member = NULL;
    MR_TRY(trace_member(self, stage, &member));
    const char *address = trace_text(member, "status_address");
    snprintf(path, sizeof(path), "trace?steps=%" PRId64,
             mr_invocation_integer(self->client->invocation, "steps"));
    MR_TRY(mr_status_prefix(
        mr_http_page_get(address, path, self->client->timeout_ms, &text, &bytes), "stage %s",
        trace_text(member, "id")));
    json_t *document = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    mr_free(text);
    if (document == NULL)
        return MR_ERROR(DATA_LOSS, "stage %s: its trace is no JSON: line %d: %s",
                        trace_text(member, "id"), error.line, error.text);
    json_int_t offset_ns = trace_offset(self, address, document);
    trace_take(self, json_integer_value(json_object_get(stage, "rank")), offset_ns, document);
    json_decref(document);
    return MR_OK;
}

static mr_status trace_fetch_all(trace *self) {
    MR_TRY(mr_roster_job(self->client, self->client->invocation->arguments[0], &self->job));
    MR_TRY(mr_roster_members(self->client, &self->members));
    const json_t *stages = json_object_get(self->job, "stages");
    if (json_array_size(stages) == 0)
        return MR_ERROR(FAILED_PRECONDITION, "job %s has no stages yet; it is %s",
                        trace_text(self->job, "id"), trace_text(self->job, "state"));
    for (size_t i = 0; i < json_array_size(stages); i++)
        self->width +=
            json_integer_value(json_object_get(json_array_get(stages, i), "stage")) == 0;
    for (size_t i = 0; i < json_array_size(stages); i++)
        MR_TRY(trace_fetch_rank(self, json_array_get(stages, i)));
    return MR_OK;
}

mr_status mr_command_trace_fetch(mr_client *client) {
    trace self = {.client = client, .offsets = json_object(), .events = json_array()};
    mr_status status = trace_fetch_all(&self);
    if (mr_status_is_ok(status) && client->output == MR_OUTPUT_NAME)
        puts(trace_text(self.job, "id"));
    else if (mr_status_is_ok(status))
        status = mr_render_plain(
            json_pack("{s:s, s:{s:s, s:s, s:I}, s:O}", "displayTimeUnit", "ms", "otherData",
                      "schema", "millrace.trace/v1", "job", trace_text(self.job, "id"),
                      "wall_offset_ns", self.origin_ns, "traceEvents", self.events),
            client->output == MR_OUTPUT_JSON);
    json_decref(self.job);
    json_decref(self.members);
    json_decref(self.offsets);
    json_decref(self.events);
    return status;
}
