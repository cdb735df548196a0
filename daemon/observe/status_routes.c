/* SPDX-License-Identifier: Apache-2.0 */
/* A request is answered from the page, the metrics, the trace and what else is safe to read from
 * the server's thread. */
#include "daemon/observe/status_routes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/dashboard/dashboard.h"
#include "daemon/observe/status_page.h"
#include "daemon/observe/text.h"

#define TEXT_PLAIN "text/plain; charset=utf-8"
#define TEXT_HTML "text/html; charset=utf-8"
#define JSON "application/json"

/* What a handler works with. */
typedef struct route_request {
    const mr_status_sources *sources;
    struct MHD_Connection *connection;
    const char *job; /* of /jobs/ID..., else "" */
} route_request;

typedef mr_status (*route_handler)(const route_request *request, mr_status_answer *out);

mr_status mr_status_answer_line(mr_status_answer *out, unsigned code, const char *format, ...) {
    char line[2 * MR_STATUS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments); /* cut is intended */
    va_end(arguments);
    char *text = mr_strdup(line);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an answer");
    *out = (mr_status_answer){
        .code = code, .type = TEXT_PLAIN, .text = text, .bytes = strlen(text)};
    return MR_OK;
}

/* ---- arguments ---- */

static const char *request_argument(const route_request *request, const char *key) {
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, key);
}

/* A whole number of an argument; absent is preset. False: it is none, and out says so. */
static bool request_number(const route_request *request, const char *key, uint64_t preset,
                           uint64_t *out_number, mr_status_answer *out, mr_status *out_status) {
    const char *word = request_argument(request, key);
    *out_number = preset;
    if (word == NULL)
        return true;
    size_t bytes = strlen(word);
    if (bytes == 0 || bytes > 9 || strspn(word, "0123456789") != bytes) {
        *out_status =
            mr_status_answer_line(out, MHD_HTTP_BAD_REQUEST,
                                  "%s must be a whole number of at most 9 digits\n", key);
        return false;
    }
    *out_number = strtoull(word, NULL, 10);
    return true;
}

/* ---- health ---- */

static mr_status handle_livez(const route_request *request, mr_status_answer *out) {
    int64_t age_ms = 0;
    if (mr_status_page_is_live(request->sources->options.page, &age_ms))
        return mr_status_answer_line(out, MHD_HTTP_OK, "ok\n");
    return mr_status_answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE,
                                 "the loop has been silent for %" PRId64 " ms; the most is %d\n",
                                 age_ms, MR_STATUS_LIVE_TIMEOUT_MS);
}

static mr_status readyz_verbose(mr_status_page *page, mr_status_answer *out) {
    mr_text text = {0};
    bool ready = mr_status_page_add_checks(page, &text);
    mr_text_add(&text, "readyz check %s\n", ready ? "passed" : "failed");
    out->code = ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    out->type = TEXT_PLAIN;
    return mr_text_take(&text, &out->text, &out->bytes);
}

static mr_status handle_readyz(const route_request *request, mr_status_answer *out) {
    mr_status_page *page = request->sources->options.page;
    char reason[MR_STATUS_TEXT_BYTES];
    int64_t age_ms = 0;
    if (MHD_lookup_connection_value_n(request->connection, MHD_GET_ARGUMENT_KIND, "verbose",
                                      strlen("verbose"), NULL, NULL) == MHD_YES)
        return readyz_verbose(page, out);
    if (!mr_status_page_is_ready(page, reason))
        return mr_status_answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE, "not ready: %s\n", reason);
    if (!mr_status_page_is_live(page, &age_ms))
        return mr_status_answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE,
                                     "not ready: the loop is silent\n");
    return mr_status_answer_line(out, MHD_HTTP_OK, "ok\n");
}

static mr_status handle_startupz(const route_request *request, mr_status_answer *out) {
    if (mr_status_page_is_started(request->sources->options.page))
        return mr_status_answer_line(out, MHD_HTTP_OK, "ok\n");
    return mr_status_answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE, "starting\n");
}

/* ---- numbers ---- */

static mr_status handle_metrics(const route_request *request, mr_status_answer *out) {
    const char *accept = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND,
                                                     MHD_HTTP_HEADER_ACCEPT);
    bool open = accept != NULL && strcasestr(accept, "application/openmetrics-text") != NULL;
    mr_metrics_format format = open ? MR_METRICS_OPENMETRICS : MR_METRICS_TEXT;
    out->type = mr_metrics_content_type(format);
    return mr_metrics_render(request->sources->options.metrics, format, &out->text, &out->bytes);
}

static mr_status handle_status(const route_request *request, mr_status_answer *out) {
    out->type = JSON;
    return mr_status_page_copy(request->sources->options.page, &out->text, &out->bytes);
}

static mr_status handle_trace(const route_request *request, mr_status_answer *out) {
    uint64_t steps = 0;
    mr_status status = MR_OK;
    if (!request_number(request, "steps", 0, &steps, out, &status))
        return status;
    out->type = JSON;
    return mr_trace_render(request->sources->options.trace, steps, &out->text, &out->bytes);
}

static mr_status handle_version(const route_request *request, mr_status_answer *out) {
    mr_text text = {0};
    mr_text_add(&text, "{\"version\":\"");
    mr_text_add_escaped(&text, request->sources->version);
    mr_text_add(&text, "\",\"commit\":\"");
    mr_text_add_escaped(&text, request->sources->commit);
    mr_text_add(&text, "\"}\n");
    out->type = JSON;
    return mr_text_take(&text, &out->text, &out->bytes);
}

static mr_status handle_config(const route_request *request, mr_status_answer *out) {
    const mr_status_server_options *options = &request->sources->options;
    mr_text text = {0};
    mr_text_add(&text, "{\"schema\":\"millrace.config/v1\",\"settings\":[");
    for (size_t i = 0; i < options->setting_count; i++) {
        const mr_status_setting *setting = &options->settings[i];
        mr_text_add(&text, "%s\n{\"name\":\"", i == 0 ? "" : ",");
        mr_text_add_escaped(&text, setting->name);
        mr_text_add(&text, "\",\"value\":");
        if (setting->value == NULL) {
            mr_text_add(&text, "null");
        } else {
            mr_text_add(&text, "\"");
            mr_text_add_escaped(&text, setting->secret ? "(masked)" : setting->value);
            mr_text_add(&text, "\"");
        }
        mr_text_add(&text, ",\"origin\":\"%s\"}", setting->given ? "command line" : "default");
    }
    mr_text_add(&text, "]}\n");
    out->type = JSON;
    return mr_text_take(&text, &out->text, &out->bytes);
}

/* ---- jobs ---- */

/* The page as JSON; NULL where it cannot be read, which is answered like a missing one. */
static json_t *request_status(const route_request *request) {
    char *text = NULL;
    size_t bytes = 0;
    mr_status status = mr_status_page_copy(request->sources->options.page, &text, &bytes);
    if (!mr_status_is_ok(status))
        return NULL;
    json_t *root = json_loadb(text, bytes, 0, NULL);
    mr_free(text);
    return root;
}

/* Takes a JSON value over; NULL: it could not be made. */
static mr_status answer_json(json_t *owned_value, mr_status_answer *out) {
    size_t bytes = json_dumpb(owned_value, NULL, 0, JSON_COMPACT); /* 0 of NULL */
    char *text = bytes == 0 ? NULL : mr_alloc(bytes + 1);
    if (text != NULL)
        bytes = json_dumpb(owned_value, text, bytes, JSON_COMPACT);
    json_decref(owned_value);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an answer");
    out->type = JSON;
    out->text = text;
    out->bytes = bytes;
    return MR_OK;
}

static mr_status handle_jobs(const route_request *request, mr_status_answer *out) {
    json_t *root = request_status(request);
    json_t *jobs = json_object_get(root, "jobs");
    json_t *answer = json_pack("{s:s, s:O?}", "schema", "millrace.jobs/v1", "jobs", jobs);
    json_decref(root);
    return answer_json(answer, out);
}

/* The job of this id, or the newest of this name; borrowed from root. */
static json_t *status_job(json_t *root, const char *word) {
    size_t i;
    json_t *job;
    json_t *named = NULL;
    json_array_foreach(json_object_get(root, "jobs"), i, job) {
        const char *id = json_string_value(json_object_get(job, "id"));
        const char *name = json_string_value(json_object_get(job, "name"));
        if (id != NULL && strcmp(id, word) == 0)
            return job;
        if (named == NULL && name != NULL && strcmp(name, word) == 0)
            named = job;
    }
    return named;
}

/* The id that the path's word stands for. False: there is no such job, and out says so. */
static bool request_job_id(const route_request *request, char id[MR_NAME_BYTES],
                           mr_status_answer *out, mr_status *out_status) {
    json_t *root = request_status(request);
    const char *found = json_string_value(json_object_get(status_job(root, request->job), "id"));
    if (found == NULL)
        *out_status = mr_status_answer_line(out, MHD_HTTP_NOT_FOUND,
                                            "no such job; /jobs lists those that are shown\n");
    else
        (void)snprintf(id, MR_NAME_BYTES, "%s", found); /* ids fit */
    json_decref(root);
    return found != NULL;
}

static mr_status handle_job(const route_request *request, mr_status_answer *out) {
    json_t *root = request_status(request);
    json_t *job = json_incref(status_job(root, request->job));
    json_decref(root);
    if (job == NULL)
        return mr_status_answer_line(out, MHD_HTTP_NOT_FOUND,
                                     "no such job; /jobs lists those that are shown\n");
    return answer_json(job, out);
}

static mr_status handle_history(const route_request *request, mr_status_answer *out) {
    char id[MR_NAME_BYTES];
    uint64_t since = 0;
    mr_status status = MR_OK;
    if (!request_number(request, "since", 0, &since, out, &status) ||
        !request_job_id(request, id, out, &status))
        return status;
    out->type = JSON;
    return mr_history_render(request->sources->options.history, id, since, &out->text,
                             &out->bytes);
}

static mr_status handle_timeline(const route_request *request, mr_status_answer *out) {
    char id[MR_NAME_BYTES];
    mr_status status = MR_OK;
    if (!request_job_id(request, id, out, &status))
        return status;
    out->type = JSON;
    return mr_timeline_render(request->sources->options.timeline, id, &out->text, &out->bytes);
}

/* ---- for people ---- */

static mr_status handle_home(const route_request *request, mr_status_answer *out) {
    const mr_status_server_options *options = &request->sources->options;
    char *json = NULL;
    size_t bytes = 0;
    MR_TRY(mr_status_page_copy(options->page, &json, &bytes));
    const char *scale = request_argument(request, "scale");
    const char *job = request_argument(request, "job");
    char reason[MR_STATUS_TEXT_BYTES];
    bool ready = mr_status_page_is_ready(options->page, reason);
    const mr_dashboard_view view = {
        .status = json,
        .ready = ready,
        .reason = reason,
        .history = options->history,
        .timeline = options->timeline,
        .events = options->events,
        .job = job == NULL ? "" : job,
        .logarithmic = scale != NULL && strcmp(scale, "log") == 0,
    };
    out->type = TEXT_HTML;
    mr_status status = mr_dashboard_render(&view, &out->text, &out->bytes);
    mr_free(json);
    return status;
}

static mr_status answer_asset(const mr_dashboard_asset *asset, mr_status_answer *out) {
    out->type = asset->type;
    out->text = (char *)(uintptr_t)asset->bytes; /* only read */
    out->bytes = asset->byte_count;
    out->fixed = true;
    return MR_OK;
}

static mr_status handle_css(const route_request *request, mr_status_answer *out) {
    (void)request;
    return answer_asset(&mr_dashboard_css, out);
}

static mr_status handle_js(const route_request *request, mr_status_answer *out) {
    (void)request;
    return answer_asset(&mr_dashboard_js, out);
}

static mr_status handle_icon(const route_request *request, mr_status_answer *out) {
    (void)request;
    return answer_asset(&mr_dashboard_icon, out);
}

/* ---- paths ---- */

static const struct {
    const char *path;
    route_handler handle;
} pages[] = {
    {"/", handle_home},           {"/dashboard.css", handle_css}, {"/dashboard.js", handle_js},
    {"/icon.svg", handle_icon},   {"/livez", handle_livez},       {"/readyz", handle_readyz},
    {"/startupz", handle_startupz}, {"/metrics", handle_metrics}, {"/status", handle_status},
    {"/trace", handle_trace},     {"/config", handle_config},     {"/version", handle_version},
    {"/jobs", handle_jobs},
};

static const struct {
    const char *rest; /* after /jobs/ID */
    route_handler handle;
} job_pages[] = {
    {"", handle_job},
    {"/history", handle_history},
    {"/timeline", handle_timeline},
};

/* Does this daemon have what the handler needs? */
static bool route_serves(const mr_status_server_options *options, route_handler handle) {
    if (handle == handle_metrics)
        return options->metrics != NULL;
    if (handle == handle_trace)
        return options->trace != NULL;
    if (handle == handle_config)
        return options->setting_count > 0;
    if (handle == handle_jobs)
        return options->history != NULL;
    return true;
}

/* The handler of "/jobs/ID..." and the ID; NULL: there is none. */
static route_handler route_find_job(const char *path, char job[MR_NAME_BYTES]) {
    static const char prefix[] = "/jobs/";
    if (strncmp(path, prefix, sizeof(prefix) - 1) != 0)
        return NULL;
    const char *word = path + sizeof(prefix) - 1;
    size_t bytes = strcspn(word, "/");
    if (bytes == 0 || bytes >= MR_NAME_BYTES)
        return NULL;
    memcpy(job, word, bytes);
    job[bytes] = '\0';
    for (size_t i = 0; i < sizeof(job_pages) / sizeof(job_pages[0]); i++)
        if (strcmp(job_pages[i].rest, word + bytes) == 0)
            return job_pages[i].handle;
    return NULL;
}

static route_handler route_find(const mr_status_server_options *options, const char *path,
                                char job[MR_NAME_BYTES]) {
    job[0] = '\0';
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        if (strcmp(pages[i].path, path) == 0)
            return route_serves(options, pages[i].handle) ? pages[i].handle : NULL;
    return options->history == NULL ? NULL : route_find_job(path, job);
}

mr_status mr_status_routes_answer(const mr_status_sources *sources,
                                  struct MHD_Connection *connection, const char *path,
                                  mr_status_answer *out_answer) {
    char job[MR_NAME_BYTES];
    route_handler handle = route_find(&sources->options, path, job);
    if (handle == NULL)
        return mr_status_answer_line(
            out_answer, MHD_HTTP_NOT_FOUND,
            "no such page; there are /livez /readyz /startupz /metrics /status /trace /config "
            "/version, and on a coordinator / /events /jobs /jobs/ID /jobs/ID/history "
            "/jobs/ID/timeline\n");
    const route_request request = {.sources = sources, .connection = connection, .job = job};
    *out_answer = (mr_status_answer){.code = MHD_HTTP_OK};
    return handle(&request, out_answer);
}
