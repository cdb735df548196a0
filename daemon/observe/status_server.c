/* SPDX-License-Identifier: Apache-2.0 */
/* libmicrohttpd with one thread of its own, bounded connections and memory. What a path is answered
 * by is in status_routes.c; /events, which has no end, in status_events.c. */
#include "daemon/observe/status_server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"
#include "daemon/observe/status_connections.h"
#include "daemon/observe/status_events.h"
#include "daemon/observe/status_routes.h"
#include "daemon/observe/status_socket.h"

struct mr_status_server {
    struct MHD_Daemon *http;
    char address[MR_STATUS_ADDRESS_BYTES];
    mr_status_sources sources;
    mr_status_connections connections;
};

static bool method_reads(const char *method) {
    return strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

/* ---- answers ---- */

static bool response_add(struct MHD_Response *response, const char *name, const char *value) {
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

/* Gives the library its answer, whose headers are the same for all. Destroys response. */
static enum MHD_Result server_queue(struct MHD_Connection *connection, unsigned code,
                                    const char *type, struct MHD_Response *response) {
    bool complete = response_add(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) &&
                    response_add(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") &&
                    response_add(response, "Content-Security-Policy", "default-src 'self'") &&
                    response_add(response, "X-Content-Type-Options", "nosniff") &&
                    response_add(response, "Referrer-Policy", "no-referrer");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        complete = complete && response_add(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    if (code == MHD_HTTP_SERVICE_UNAVAILABLE)
        complete = complete && response_add(response, MHD_HTTP_HEADER_RETRY_AFTER, "2");
    enum MHD_Result sent = complete ? MHD_queue_response(connection, code, response) : MHD_NO;
    MHD_destroy_response(response);
    return sent;
}

/* Hands the answer's text to the library, which frees it where it is not fixed. */
static enum MHD_Result server_send(struct MHD_Connection *connection, const mr_status_answer *a) {
    struct MHD_Response *response =
        a->fixed ? MHD_create_response_from_buffer(a->bytes, a->text, MHD_RESPMEM_PERSISTENT)
                 : MHD_create_response_from_buffer_with_free_callback(a->bytes, a->text, mr_free);
    if (response == NULL) {
        if (!a->fixed)
            mr_free(a->text);
        return MHD_NO;
    }
    return server_queue(connection, a->code, a->type, response);
}

/* Memory is short: a text that needs none. */
static enum MHD_Result server_send_exhausted(struct MHD_Connection *connection) {
    static char text[] = "out of memory\n";
    const mr_status_answer answer = {.code = MHD_HTTP_INTERNAL_SERVER_ERROR,
                                     .type = "text/plain; charset=utf-8",
                                     .text = text,
                                     .bytes = sizeof(text) - 1,
                                     .fixed = true};
    return server_send(connection, &answer);
}

/* ---- requests ---- */

/* The number of the last event that a listener has; false: it is none. */
static bool events_after(struct MHD_Connection *connection, uint64_t *out_after) {
    const char *word =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Last-Event-ID");
    if (word == NULL)
        word = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "since");
    *out_after = MR_EVENT_FROM_NOW;
    if (word == NULL)
        return true;
    size_t bytes = strlen(word);
    if (bytes == 0 || bytes > 18 || strspn(word, "0123456789") != bytes)
        return false;
    *out_after = strtoull(word, NULL, 10);
    return true;
}

static enum MHD_Result server_answer_events(mr_status_server *server,
                                            struct MHD_Connection *connection) {
    uint64_t after = 0;
    mr_status_answer answer = {0};
    struct MHD_Response *response = NULL;
    mr_status status;
    if (!events_after(connection, &after)) {
        status = mr_status_answer_line(
            &answer, MHD_HTTP_BAD_REQUEST,
            "Last-Event-ID and since must be whole numbers of at most 18 digits\n");
        return mr_status_is_ok(status) ? server_send(connection, &answer)
                                       : server_send_exhausted(connection);
    }
    status = mr_status_events_response(server->sources.options.events, after, connection,
                                       &response);
    if (mr_status_is_ok(status))
        return server_queue(connection, MHD_HTTP_OK, "text/event-stream", response);
    status = mr_status_answer_line(&answer, MHD_HTTP_SERVICE_UNAVAILABLE, "%s\n", status.text);
    return mr_status_is_ok(status) ? server_send(connection, &answer)
                                   : server_send_exhausted(connection);
}

static size_t header_bytes(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return info == NULL ? 0 : info->header_size;
}

static mr_status server_answer(mr_status_server *server, struct MHD_Connection *connection,
                               const char *url, const char *method, mr_status_answer *out) {
    size_t bytes = header_bytes(connection);
    if (bytes > MR_STATUS_HEADER_BYTES_MAX)
        return mr_status_answer_line(out, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE,
                                     "headers of %zu bytes; the most is %d\n", bytes,
                                     MR_STATUS_HEADER_BYTES_MAX);
    if (!method_reads(method))
        return mr_status_answer_line(out, MHD_HTTP_METHOD_NOT_ALLOWED,
                                     "this port only answers GET and HEAD\n");
    return mr_status_routes_answer(&server->sources, connection, url, out);
}

static mr_status_connection *server_connection(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info == NULL ? NULL : info->socket_context;
}

/* The library's entry: once with the headers, then once more when the request is complete. */
static enum MHD_Result server_handle(void *context, struct MHD_Connection *connection,
                                     const char *url, const char *method, const char *version,
                                     const char *upload, size_t *upload_bytes, void **state) {
    mr_status_server *server = context;
    (void)version;
    (void)upload;
    bool reads = method_reads(method);
    if (*state == NULL) {
        mr_status_connections_expect(&server->connections, server_connection(connection), 0);
        (void)MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                        (unsigned)(MR_STATUS_IDLE_TIMEOUT_MS / 1000));
        *state = server; /* any mark will do */
        if (reads)
            return MHD_YES;
    }
    if (*upload_bytes > 0 && reads)
        return MHD_NO; /* a body where none belongs */
    if (reads && server->sources.options.events != NULL && strcmp(url, "/events") == 0 &&
        header_bytes(connection) <= MR_STATUS_HEADER_BYTES_MAX)
        return server_answer_events(server, connection);
    mr_status_answer answer = {0};
    mr_status status = server_answer(server, connection, url, method, &answer);
    return mr_status_is_ok(status) ? server_send(connection, &answer)
                                   : server_send_exhausted(connection);
}

/* ---- connections ---- */

static void server_connection_changed(void *context, struct MHD_Connection *connection,
                                      void **socket_context,
                                      enum MHD_ConnectionNotificationCode code) {
    mr_status_server *server = context;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        mr_status_connections_close(&server->connections, *socket_context);
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info != NULL)
        *socket_context = mr_status_connections_open(
            &server->connections, info->connect_fd,
            mr_clock_now_ms() + MR_STATUS_HEADER_TIMEOUT_MS);
}

/* An answer is sent: the next request of the connection may take its time, but not for ever. */
static void server_request_ended(void *context, struct MHD_Connection *connection, void **state,
                                 enum MHD_RequestTerminationCode code) {
    mr_status_server *server = context;
    (void)state;
    (void)code;
    mr_status_connections_expect(&server->connections, server_connection(connection),
                                 mr_clock_now_ms() + MR_STATUS_IDLE_TIMEOUT_MS);
}

/* The library's thread takes no signal: those belong to the loop. */
static struct MHD_Daemon *server_start_http(mr_status_server *server, int fd) {
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all);
    MR_ASSERT(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
    struct MHD_Daemon *http = MHD_start_daemon(
        MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
        server_handle, server, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)MR_STATUS_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)MR_STATUS_CONNECTION_BYTES_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)(MR_STATUS_HEADER_TIMEOUT_MS / 1000), MHD_OPTION_NOTIFY_CONNECTION,
        server_connection_changed, server, MHD_OPTION_NOTIFY_COMPLETED, server_request_ended,
        server, MHD_OPTION_END);
    MR_ASSERT(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    return http;
}

/* ---- lifecycle ---- */

static void sources_fill(mr_status_sources *sources, const mr_status_server_options *options) {
    sources->options = *options;
    sources->options.address = NULL;
    (void)snprintf(sources->version, sizeof(sources->version), "%s",
                   options->version == NULL ? "" : options->version);
    (void)snprintf(sources->commit, sizeof(sources->commit), "%s",
                   options->commit == NULL ? "" : options->commit);
}

static mr_status server_open(mr_status_server *server, const mr_status_server_options *options) {
    int fd = -1;
    MR_TRY(mr_status_socket_listen(options->address, options->any_address, &fd, server->address));
    sources_fill(&server->sources, options);
    server->http = server_start_http(server, fd);
    if (server->http != NULL)
        return MR_OK;
    (void)close(fd);
    return MR_ERROR(UNAVAILABLE, "cannot start the status port on %s", server->address);
}

mr_status mr_status_server_start(const mr_status_server_options *options,
                                 mr_status_server **out_server) {
    MR_ASSERT(options->page != NULL);
    MR_ASSERT((options->history == NULL) == (options->timeline == NULL));
    mr_status_server *server = mr_alloc(sizeof(*server));
    if (server == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the status port");
    mr_status status = mr_status_connections_init(&server->connections);
    if (!mr_status_is_ok(status)) {
        mr_free(server);
        return status;
    }
    status = server_open(server, options);
    if (!mr_status_is_ok(status)) {
        mr_status_connections_deinit(&server->connections);
        mr_free(server);
        return status;
    }
    *out_server = server;
    return MR_OK;
}

const char *mr_status_server_address(const mr_status_server *server) {
    return server->address;
}

void mr_status_server_tick(mr_status_server *server, int64_t now_ms) {
    if (server == NULL)
        return;
    mr_status_connections_sweep(&server->connections, now_ms);
    if (server->sources.options.events != NULL)
        mr_event_stream_tick(server->sources.options.events, now_ms);
}

void mr_status_server_stop(mr_status_server *server) {
    if (server == NULL)
        return;
    if (server->sources.options.events != NULL)
        mr_event_stream_end(server->sources.options.events); /* none may stay suspended */
    MHD_stop_daemon(server->http); /* closes the socket and every connection, joins the thread */
    mr_status_connections_deinit(&server->connections);
    mr_free(server);
}
