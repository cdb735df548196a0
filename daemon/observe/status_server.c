/* SPDX-License-Identifier: Apache-2.0 */
/* status_server.c: libmicrohttpd with one thread of its own, bounded connections and memory. A
 * request is answered from the page, the metrics and the trace, which are all safe to read from
 * here. */
#include "daemon/observe/status_server.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/status_page.h"
#include "daemon/observe/status_socket.h"
#include "daemon/observe/text.h"

#define TEXT_PLAIN "text/plain; charset=utf-8"
#define JSON "application/json"

struct mr_status_server {
    struct MHD_Daemon *http;
    char address[MR_STATUS_ADDRESS_BYTES];
    mr_status_page *page;
    mr_metrics *metrics;
    mr_trace *trace;
    char version[MR_NAME_BYTES];
    char commit[MR_NAME_BYTES];
};

/* An answer before it is sent; text is owned. */
typedef struct answer {
    unsigned code;
    const char *type;
    char *text;
    size_t bytes;
} answer;

/* One handler for each page. Fills the answer, or fails, which is answered by 500. */
typedef mr_status (*page_handler)(mr_status_server *server, struct MHD_Connection *connection,
                                  answer *out);

static mr_status answer_line(answer *out, unsigned code, const char *format, ...) MR_PRINTF(3, 4);

static mr_status answer_line(answer *out, unsigned code, const char *format, ...) {
    char line[2 * MR_STATUS_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments); /* cut is intended */
    va_end(arguments);
    char *text = mr_strdup(line);
    if (text == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for an answer");
    *out = (answer){.code = code, .type = TEXT_PLAIN, .text = text, .bytes = strlen(text)};
    return MR_OK;
}

static mr_status handle_livez(mr_status_server *server, struct MHD_Connection *connection,
                              answer *out) {
    int64_t age_ms = 0;
    (void)connection;
    if (mr_status_page_is_live(server->page, &age_ms))
        return answer_line(out, MHD_HTTP_OK, "ok\n");
    return answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE,
                       "the loop has been silent for %" PRId64 " ms; the most is %d\n", age_ms,
                       MR_STATUS_LIVE_TIMEOUT_MS);
}

static mr_status handle_readyz(mr_status_server *server, struct MHD_Connection *connection,
                               answer *out) {
    char reason[MR_STATUS_TEXT_BYTES];
    (void)connection;
    if (mr_status_page_is_ready(server->page, reason))
        return answer_line(out, MHD_HTTP_OK, "ok\n");
    return answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE, "not ready: %s\n", reason);
}

static mr_status handle_startupz(mr_status_server *server, struct MHD_Connection *connection,
                                 answer *out) {
    (void)connection;
    if (mr_status_page_is_started(server->page))
        return answer_line(out, MHD_HTTP_OK, "ok\n");
    return answer_line(out, MHD_HTTP_SERVICE_UNAVAILABLE, "starting\n");
}

static mr_status handle_metrics(mr_status_server *server, struct MHD_Connection *connection,
                                answer *out) {
    const char *accept =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    bool open = accept != NULL && strcasestr(accept, "application/openmetrics-text") != NULL;
    mr_metrics_format format = open ? MR_METRICS_OPENMETRICS : MR_METRICS_TEXT;
    out->code = MHD_HTTP_OK;
    out->type = mr_metrics_content_type(format);
    return mr_metrics_render(server->metrics, format, &out->text, &out->bytes);
}

static mr_status handle_status(mr_status_server *server, struct MHD_Connection *connection,
                               answer *out) {
    (void)connection;
    out->code = MHD_HTTP_OK;
    out->type = JSON;
    return mr_status_page_copy(server->page, &out->text, &out->bytes);
}

static mr_status handle_trace(mr_status_server *server, struct MHD_Connection *connection,
                              answer *out) {
    const char *word = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "steps");
    uint64_t steps = 0;
    if (word != NULL) {
        size_t bytes = strlen(word);
        if (bytes == 0 || bytes > 9 || strspn(word, "0123456789") != bytes)
            return answer_line(out, MHD_HTTP_BAD_REQUEST,
                               "steps must be a whole number of at most 9 digits\n");
        steps = strtoull(word, NULL, 10);
    }
    out->code = MHD_HTTP_OK;
    out->type = JSON;
    return mr_trace_render(server->trace, steps, &out->text, &out->bytes);
}

static mr_status handle_version(mr_status_server *server, struct MHD_Connection *connection,
                                answer *out) {
    mr_text text = {0};
    (void)connection;
    mr_text_add(&text, "{\"version\":\"");
    mr_text_add_escaped(&text, server->version);
    mr_text_add(&text, "\",\"commit\":\"");
    mr_text_add_escaped(&text, server->commit);
    mr_text_add(&text, "\"}\n");
    out->code = MHD_HTTP_OK;
    out->type = JSON;
    return mr_text_take(&text, &out->text, &out->bytes);
}

static const struct {
    const char *path;
    page_handler handle;
} pages[] = {
    {"/livez", handle_livez},     {"/readyz", handle_readyz}, {"/startupz", handle_startupz},
    {"/metrics", handle_metrics}, {"/status", handle_status}, {"/trace", handle_trace},
    {"/version", handle_version},
};

static page_handler server_find(const mr_status_server *server, const char *url) {
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        if (strcmp(pages[i].path, url) != 0)
            continue;
        if (pages[i].handle == handle_metrics && server->metrics == NULL)
            return NULL;
        if (pages[i].handle == handle_trace && server->trace == NULL)
            return NULL;
        return pages[i].handle;
    }
    return NULL;
}

static mr_status server_answer(mr_status_server *server, struct MHD_Connection *connection,
                               const char *url, const char *method, answer *out) {
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_line(out, MHD_HTTP_METHOD_NOT_ALLOWED,
                           "this port only answers GET and HEAD\n");
    page_handler handle = server_find(server, url);
    if (handle == NULL)
        return answer_line(out, MHD_HTTP_NOT_FOUND,
                           "no such page; there are /livez /readyz /startupz /metrics /status "
                           "/trace /version\n");
    return handle(server, connection, out);
}

/* Hands the answer's text to the library, which frees it. */
static enum MHD_Result server_send(struct MHD_Connection *connection, const answer *a) {
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(a->bytes, a->text, mr_free);
    if (response == NULL) {
        mr_free(a->text);
        return MHD_NO;
    }
    bool complete =
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type) == MHD_YES &&
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") == MHD_YES &&
        MHD_add_response_header(response, "Content-Security-Policy", "default-src 'self'") ==
            MHD_YES &&
        MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES;
    if (a->code == MHD_HTTP_METHOD_NOT_ALLOWED)
        complete = complete &&
                   MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES;
    enum MHD_Result sent = complete ? MHD_queue_response(connection, a->code, response) : MHD_NO;
    MHD_destroy_response(response);
    return sent;
}

/* The library's entry: once with the headers, then once more when the request is complete. */
static enum MHD_Result server_handle(void *context, struct MHD_Connection *connection,
                                     const char *url, const char *method, const char *version,
                                     const char *upload, size_t *upload_bytes, void **state) {
    mr_status_server *server = context;
    (void)version;
    (void)upload;
    (void)upload_bytes;
    bool reads =
        strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    if (*state == NULL && reads) {
        *state = server; /* any mark will do */
        return MHD_YES;
    }
    if (*upload_bytes > 0 && reads)
        return MHD_NO; /* a body where none belongs */
    answer a = {0};
    mr_status status = server_answer(server, connection, url, method, &a);
    if (!mr_status_is_ok(status)) {
        /* Memory is short: a text that needs none. */
        static char text[] = "out of memory\n";
        struct MHD_Response *response =
            MHD_create_response_from_buffer(sizeof(text) - 1, text, MHD_RESPMEM_PERSISTENT);
        if (response == NULL)
            return MHD_NO;
        enum MHD_Result sent =
            MHD_queue_response(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, response);
        MHD_destroy_response(response);
        return sent;
    }
    return server_send(connection, &a);
}

/* The library's thread takes no signal: those belong to the loop. */
static struct MHD_Daemon *server_start_http(mr_status_server *server, int fd) {
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all);
    MR_ASSERT(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
    struct MHD_Daemon *http =
        MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, server_handle,
                         server, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                         (unsigned)MR_STATUS_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)MR_STATUS_CONNECTION_BYTES_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
                         (unsigned)(MR_STATUS_IDLE_TIMEOUT_MS / 1000), MHD_OPTION_END);
    MR_ASSERT(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    return http;
}

mr_status mr_status_server_start(const mr_status_server_options *options,
                                 mr_status_server **out_server) {
    MR_ASSERT(options->page != NULL);
    mr_status_server *server = mr_alloc(sizeof(*server));
    if (server == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the status port");
    int fd = -1;
    mr_status status =
        mr_status_socket_listen(options->address, options->any_address, &fd, server->address);
    if (!mr_status_is_ok(status)) {
        mr_free(server);
        return status;
    }
    server->page = options->page;
    server->metrics = options->metrics;
    server->trace = options->trace;
    (void)snprintf(server->version, sizeof(server->version), "%s",
                   options->version == NULL ? "" : options->version);
    (void)snprintf(server->commit, sizeof(server->commit), "%s",
                   options->commit == NULL ? "" : options->commit);
    server->http = server_start_http(server, fd);
    if (server->http == NULL) {
        status = MR_ERROR(UNAVAILABLE, "cannot start the status port on %s", server->address);
        (void)close(fd);
        mr_free(server);
        return status;
    }
    *out_server = server;
    return MR_OK;
}

const char *mr_status_server_address(const mr_status_server *server) {
    return server->address;
}

void mr_status_server_stop(mr_status_server *server) {
    if (server == NULL)
        return;
    MHD_stop_daemon(server->http); /* closes the socket and every connection, joins the thread */
    mr_free(server);
}
