/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/server.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "daemon/rpc/arguments.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/certificate.h"
#include "daemon/rpc/core.h"
#include "daemon/rpc/health.h"
#include "daemon/rpc/reflection.h"
#include "daemon/rpc/security.h"

enum {
    SERVER_OWN_SERVICES = 1 + MR_RPC_REFLECTION_SERVICES, /* health, reflection */
    SERVER_PATH_BYTES = 160,
    /* After every call is cancelled, only core's own work is left. */
    SERVER_STOP_SECONDS = 20,
};

/* One method that can be called: "/package.Service/Method". */
typedef struct server_route {
    char path[SERVER_PATH_BYTES];
    const ProtobufCMethodDescriptor *method;
    const mr_rpc_method *handler; /* NULL: described, but not served here */
    const mr_rpc_service *service;
} server_route;

struct mr_rpc_server {
    grpc_server *core;
    mr_rpc_queue *queue;
    mr_rpc_address address;
    mr_rpc_service *services; /* the caller's, then our own */
    size_t service_count;
    server_route *routes;
    size_t route_count;
    mr_metrics *metrics; /* NULL: none */
    mr_rpc_health *health;
    mr_rpc_reflection reflection;

    /* The next call, as it arrives. RPC thread only, after start. */
    mr_rpc_tag arrival;
    grpc_call *arrived;
    grpc_call_details details;
    grpc_metadata_array metadata;

    atomic_bool stopping;
    mr_rpc_tag shutdown;
    pthread_mutex_t lock;
    pthread_cond_t stopped_changed; /* on the monotonic clock */
    bool stopped;
};

/* ---- dispatch, on the RPC thread ---- */

static const server_route *server_route_find(const mr_rpc_server *server, grpc_slice path) {
    for (size_t i = 0; i < server->route_count; i++)
        if (grpc_slice_str_cmp(path, server->routes[i].path) == 0)
            return &server->routes[i];
    return NULL;
}

static size_t service_bytes_max(const mr_rpc_service *service) {
    return service->receive_bytes_max != 0 ? service->receive_bytes_max : MR_RPC_CONTROL_BYTES_MAX;
}

/* Answers a call that nobody serves. */
static void server_decline(mr_rpc_server *server, mr_rpc_call *call) {
    mr_rpc_stream *stream = NULL;
    mr_status status = mr_rpc_stream_start_server(call, &stream);
    if (!mr_status_is_ok(status))
        return; /* no memory: core has cancelled the call */
    const uint8_t *path = GRPC_SLICE_START_PTR(server->details.method);
    int length = (int)(GRPC_SLICE_LENGTH(server->details.method) < SERVER_PATH_BYTES
                           ? GRPC_SLICE_LENGTH(server->details.method)
                           : SERVER_PATH_BYTES);
    mr_rpc_stream_finish(stream, MR_ERROR(UNIMPLEMENTED, "no method %.*s is served here", length,
                                          (const char *)path));
    mr_rpc_stream_unref(stream);
}

static void server_dispatch(const server_route *route, mr_rpc_call *call) {
    const mr_rpc_method *handler = route->handler;
    bool bidi = handler->events != NULL;
    call->form = (mr_rpc_codec_form){.type = route->method->input,
                                     .bytes_max = service_bytes_max(route->service),
                                     .tail = bidi};
    call->method = route->path + 1; /* without the first slash */
    call->events = handler->events;
    call->on_request = bidi ? NULL : handler->on_request;
    call->context = route->service->context;
    mr_rpc_stream *stream = NULL;
    mr_status status = mr_rpc_stream_start_server(call, &stream);
    if (!mr_status_is_ok(status))
        return; /* no memory: core has cancelled the call */
    if (bidi) /* the reference is the handler's */
        mr_rpc_stream_context_set(stream, handler->on_open(stream, route->service->context));
    else
        mr_rpc_stream_unref(stream);
}

static void server_request(mr_rpc_server *server) {
    mr_rpc_queue_begin(server->queue);
    grpc_completion_queue *queue = mr_rpc_queue_core(server->queue);
    MR_ASSERT(grpc_server_request_call(server->core, &server->arrived, &server->details,
                                       &server->metadata, queue, queue,
                                       &server->arrival) == GRPC_CALL_OK);
}

static void server_arrived(mr_rpc_tag *tag, bool success) {
    mr_rpc_server *server =
        (mr_rpc_server *)(void *)((char *)tag - offsetof(mr_rpc_server, arrival));
    if (!success)
        return; /* the server stops; asking again would only fail again (grpc-core.md item 4) */
    char *peer = grpc_call_get_peer(server->arrived);
    mr_rpc_call call = {.queue = server->queue, .owned_call = server->arrived, .peer = peer,
                        .metrics = server->metrics, .method = "unknown"};
    const server_route *route = server_route_find(server, server->details.method);
    if (route != NULL && route->handler != NULL)
        server_dispatch(route, &call);
    else
        server_decline(server, &call);
    gpr_free(peer);
    grpc_slice_unref(server->details.method);
    grpc_slice_unref(server->details.host);
    grpc_metadata_array_destroy(&server->metadata); /* its elements are the call's */
    grpc_metadata_array_init(&server->metadata);
    server->arrived = NULL;
    if (!atomic_load(&server->stopping))
        server_request(server);
}

static void server_shut_down(mr_rpc_tag *tag, bool success) {
    mr_rpc_server *server =
        (mr_rpc_server *)(void *)((char *)tag - offsetof(mr_rpc_server, shutdown));
    (void)success; /* always */
    (void)pthread_mutex_lock(&server->lock);
    server->stopped = true;
    (void)pthread_cond_signal(&server->stopped_changed);
    (void)pthread_mutex_unlock(&server->lock);
}

/* ---- start ---- */

static const mr_rpc_method *service_handler(const mr_rpc_service *service, const char *name) {
    for (size_t i = 0; i < service->method_count; i++)
        if (strcmp(service->methods[i].name, name) == 0)
            return &service->methods[i];
    return NULL;
}

/* A row whose name the descriptor lacks would never be called: our bug. */
static void service_check(const mr_rpc_service *service) {
    for (size_t i = 0; i < service->method_count; i++) {
        const mr_rpc_method *row = &service->methods[i];
        MR_ASSERT(protobuf_c_service_descriptor_get_method_by_name(service->descriptor,
                                                                   row->name) != NULL);
        MR_ASSERT((row->events != NULL) == (row->on_open != NULL));
        MR_ASSERT((row->events != NULL) != (row->on_request != NULL));
    }
}

static mr_status server_routes_make(mr_rpc_server *server) {
    size_t count = 0;
    for (size_t i = 0; i < server->service_count; i++)
        count += server->services[i].descriptor->n_methods;
    server->routes = mr_alloc_array(count, sizeof(server->routes[0]));
    if (server->routes == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu methods", count);
    for (size_t i = 0; i < server->service_count; i++) {
        const mr_rpc_service *service = &server->services[i];
        service_check(service);
        for (unsigned m = 0; m < service->descriptor->n_methods; m++) {
            server_route *route = &server->routes[server->route_count++];
            route->method = &service->descriptor->methods[m];
            route->handler = service_handler(service, route->method->name);
            route->service = service;
            int length = snprintf(route->path, sizeof(route->path), "/%s/%s",
                                  service->descriptor->name, route->method->name);
            MR_ASSERT(length > 0 && length < SERVER_PATH_BYTES);
        }
    }
    return MR_OK;
}

static mr_status server_services_copy(mr_rpc_server *server,
                                      const mr_rpc_server_options *options) {
    size_t count = options->service_count + SERVER_OWN_SERVICES;
    server->services = mr_alloc_array(count, sizeof(server->services[0]));
    if (server->services == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %zu services", count);
    MR_TRY(mr_rpc_health_create(&server->health));
    for (size_t i = 0; i < options->service_count; i++)
        server->services[server->service_count++] = options->services[i];
    server->services[server->service_count++] = mr_rpc_health_service(server->health);
    mr_rpc_reflection_services(&server->reflection, &server->services[server->service_count]);
    server->service_count += MR_RPC_REFLECTION_SERVICES;
    server->reflection = (mr_rpc_reflection){server->services, server->service_count};
    MR_TRY(mr_rpc_health_set(server->health, "", true));
    for (size_t i = 0; i < server->service_count; i++)
        MR_TRY(mr_rpc_health_set(server->health, server->services[i].descriptor->name, true));
    return server_routes_make(server);
}

/* Binds; the address then has the real port. */
static mr_status server_bind(mr_rpc_server *server, grpc_server_credentials *credentials) {
    mr_rpc_address *address = &server->address;
    if (address->port != 0 || address->kind == MR_RPC_ADDRESS_UNIX)
        MR_TRY(mr_rpc_address_probe(address)); /* core says only that it failed, not why */
    mode_t mask = 0;
    if (address->kind == MR_RPC_ADDRESS_UNIX)
        mask = umask(0177); /* the socket is for its owner */
    /* Here core takes no URI but HOST:PORT and unix:PATH, which is how people write it. */
    int port = grpc_server_add_http2_port(server->core, address->text, credentials);
    if (address->kind == MR_RPC_ADDRESS_UNIX)
        (void)umask(mask);
    if (port <= 0)
        return MR_ERROR(UNAVAILABLE,
                        "cannot listen on %s: the address cannot be bound, or the certificate or "
                        "key cannot be used",
                        address->text);
    if (address->kind == MR_RPC_ADDRESS_IP)
        mr_rpc_address_port_set(address, (uint16_t)port);
    return MR_OK;
}

static mr_status server_core_start(mr_rpc_server *server,
                                   const mr_rpc_credentials *credentials) {
    size_t bytes_max = 0;
    for (size_t i = 0; i < server->service_count; i++)
        if (service_bytes_max(&server->services[i]) > bytes_max)
            bytes_max = service_bytes_max(&server->services[i]);
    MR_ASSERT(bytes_max <= MR_RPC_MESSAGE_BYTES_MAX);
    grpc_server_credentials *core_credentials;
    MR_TRY(mr_rpc_security_server(credentials, &server->address, &core_credentials));
    mr_status status = mr_rpc_queue_create("rpc-server", &server->queue);
    if (mr_status_is_ok(status)) {
        mr_rpc_arguments arguments;
        mr_rpc_arguments_server(&arguments, bytes_max);
        server->core = grpc_server_create(&arguments.args, NULL);
        grpc_server_register_completion_queue(server->core, mr_rpc_queue_core(server->queue),
                                              NULL);
        status = server_bind(server, core_credentials);
    }
    grpc_server_credentials_release(core_credentials);
    if (!mr_status_is_ok(status))
        return status;
    grpc_server_start(server->core);
    server_request(server);
    return MR_OK;
}

/* Waits until core says that every call is finished; false when seconds and nanoseconds from now
 * have passed. */
static bool server_stopped_wait(mr_rpc_server *server, int64_t timeout_ms) {
    struct timespec limit;
    (void)clock_gettime(CLOCK_MONOTONIC, &limit);
    int64_t ns = limit.tv_nsec + timeout_ms % 1000 * 1000000;
    limit.tv_sec += timeout_ms / 1000 + ns / 1000000000;
    limit.tv_nsec = ns % 1000000000;
    (void)pthread_mutex_lock(&server->lock);
    int error = 0;
    while (!server->stopped && error == 0)
        error = pthread_cond_timedwait(&server->stopped_changed, &server->lock, &limit);
    bool stopped = server->stopped;
    (void)pthread_mutex_unlock(&server->lock);
    return stopped;
}

/* The order is grpc-core.md item 5. Also for a server that never started. */
static void server_core_stop(mr_rpc_server *server, int64_t grace_ms) {
    if (server->core != NULL) {
        mr_rpc_queue_begin(server->queue);
        grpc_server_shutdown_and_notify(server->core, mr_rpc_queue_core(server->queue),
                                        &server->shutdown);
        if (!server_stopped_wait(server, grace_ms)) {
            grpc_server_cancel_all_calls(server->core);
            MR_ASSERT(server_stopped_wait(server, SERVER_STOP_SECONDS * 1000));
        }
        grpc_server_destroy(server->core);
    }
    mr_rpc_queue_destroy(server->queue);
}

static void server_free(mr_rpc_server *server) {
    mr_rpc_health_destroy(server->health);
    grpc_metadata_array_destroy(&server->metadata);
    (void)pthread_cond_destroy(&server->stopped_changed);
    (void)pthread_mutex_destroy(&server->lock);
    mr_free(server->routes);
    mr_free(server->services);
    mr_free(server);
}

static mr_status server_create(mr_rpc_server **out_server) {
    mr_rpc_server *server = mr_alloc(sizeof(*server));
    if (server == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a server");
    server->arrival.done = server_arrived;
    server->shutdown.done = server_shut_down;
    grpc_metadata_array_init(&server->metadata);
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes); /* these cannot fail on Linux */
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&server->stopped_changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&server->lock, NULL);
    *out_server = server;
    return MR_OK;
}

/* TLS has read the file by now, so that a failure can only be a matter of the moment. */
static void server_tell_certificate(mr_rpc_server *server, const mr_rpc_credentials *credentials) {
    int64_t end = 0;
    if (server->metrics == NULL || credentials->certificate_file == NULL)
        return;
    if (mr_status_is_ok(mr_rpc_certificate_end(credentials->certificate_file, &end)))
        mr_series_set(mr_metrics_series_find(server->metrics, MR_METRIC_TLS_EXPIRY, NULL, 0),
                      (double)end);
}

mr_status mr_rpc_server_start(const mr_rpc_server_options *options, mr_rpc_server **out_server) {
    mr_rpc_address address;
    MR_TRY(mr_rpc_address_parse(options->listen, &address));
    if (address.kind == MR_RPC_ADDRESS_NAME)
        return MR_ERROR(INVALID_ARGUMENT,
                        "cannot listen on %.100s: a server listens on an IP address, localhost or "
                        "unix:PATH",
                        address.text);
    mr_rpc_server *server = NULL;
    MR_TRY(server_create(&server));
    server->address = address;
    server->metrics = options->metrics;
    sigset_t previous;
    mr_rpc_signals_block(&previous);
    mr_status status = server_services_copy(server, options);
    if (mr_status_is_ok(status))
        status = server_core_start(server, &options->credentials);
    mr_rpc_signals_restore(&previous);
    if (!mr_status_is_ok(status)) {
        server_core_stop(server, 0);
        server_free(server);
        return status;
    }
    server_tell_certificate(server, &options->credentials);
    *out_server = server;
    return MR_OK;
}

const char *mr_rpc_server_address(const mr_rpc_server *server) {
    return server->address.text;
}

void mr_rpc_server_health_set(mr_rpc_server *server, const char *service, bool serving) {
    mr_status status = mr_rpc_health_set(server->health, service, serving);
    MR_ASSERT(mr_status_is_ok(status)); /* the names are our own, and few */
}

void mr_rpc_server_stop(mr_rpc_server *server, int64_t grace_ms) {
    if (server == NULL)
        return;
    MR_ASSERT(!mr_rpc_queue_is_own_thread(server->queue));
    mr_rpc_health_stop(server->health);
    atomic_store(&server->stopping, true);
    server_core_stop(server, grace_ms);
    server_free(server);
}
