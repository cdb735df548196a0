/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc/health.h"

#include <pthread.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/limits.h"
#include "grpc/health/v1/health.pb-c.h"

enum { HEALTH_NAMES_MAX = 64, HEALTH_NAME_BYTES = 128 };

typedef Grpc__Health__V1__HealthCheckRequest health_request;
typedef Grpc__Health__V1__HealthCheckResponse health_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus health_state;

#define HEALTH_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define HEALTH_NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define HEALTH_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

/* One Watch; also known for a name that does not exist yet. */
typedef struct health_watcher {
    mr_rpc_health *health;
    mr_rpc_stream *stream;
    char name[HEALTH_NAME_BYTES];
    struct health_watcher *next;
} health_watcher;

struct mr_rpc_health {
    pthread_mutex_t lock;
    struct {
        char name[HEALTH_NAME_BYTES];
        health_state state;
    } names[HEALTH_NAMES_MAX];
    size_t name_count;
    health_watcher *watchers;
    size_t watcher_count;
    bool stopping;
};

/* Under the lock, as all that follow. */
static health_state health_find(const mr_rpc_health *health, const char *name) {
    for (size_t i = 0; i < health->name_count; i++)
        if (strcmp(health->names[i].name, name) == 0)
            return health->names[i].state;
    return HEALTH_UNKNOWN;
}

static void health_send(mr_rpc_stream *stream, health_state state) {
    health_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = state;
    mr_status status = mr_rpc_stream_send(stream, &response.base, NULL);
    if (!mr_status_is_ok(status))
        mr_rpc_stream_cancel(stream); /* gone, or too slow to be told */
}

static void health_tell(mr_rpc_health *health, const char *name, health_state state) {
    for (health_watcher *watcher = health->watchers; watcher != NULL; watcher = watcher->next)
        if (strcmp(watcher->name, name) == 0)
            health_send(watcher->stream, state);
}

/* ---- the two methods ---- */

static void health_check(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    mr_rpc_health *health = context;
    health_request *request = (health_request *)owned_request;
    (void)pthread_mutex_lock(&health->lock);
    health_state state = health_find(health, request->service);
    (void)pthread_mutex_unlock(&health->lock);
    if (state == HEALTH_UNKNOWN) {
        mr_rpc_stream_finish(stream, MR_ERROR(NOT_FOUND, "no service %.100s", request->service));
    } else {
        health_send(stream, state);
        mr_rpc_stream_finish(stream, MR_OK);
    }
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static void watch_ended(mr_rpc_stream *stream, mr_status status, void *context) {
    health_watcher *watcher = context;
    mr_rpc_health *health = watcher->health;
    (void)status; /* either way it is over */
    (void)pthread_mutex_lock(&health->lock);
    health_watcher **at = &health->watchers;
    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    health->watcher_count--;
    (void)pthread_mutex_unlock(&health->lock);
    mr_rpc_stream_unref(stream);
    mr_free(watcher);
}

static mr_status watch_start(mr_rpc_health *health, mr_rpc_stream *stream, const char *name) {
    if (strlen(name) >= HEALTH_NAME_BYTES)
        return MR_ERROR(INVALID_ARGUMENT, "a service's name has at most %d bytes; this has %zu",
                        HEALTH_NAME_BYTES - 1, strlen(name));
    health_watcher *watcher = mr_alloc(sizeof(*watcher));
    if (watcher == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for a watch");
    watcher->health = health;
    memcpy(watcher->name, name, strlen(name) + 1);
    (void)pthread_mutex_lock(&health->lock);
    bool refused = health->watcher_count == MR_WATCHERS_MAX || health->stopping;
    if (!refused) {
        watcher->stream = mr_rpc_stream_ref(stream);
        watcher->next = health->watchers;
        health->watchers = watcher;
        health->watcher_count++;
        mr_rpc_stream_end_watch(stream, watch_ended, watcher);
        health_send(stream, health_find(health, name));
    }
    (void)pthread_mutex_unlock(&health->lock);
    if (!refused)
        return MR_OK;
    mr_free(watcher);
    return MR_ERROR(RESOURCE_EXHAUSTED, "%d watches are open, or the server stops",
                    MR_WATCHERS_MAX);
}

static void health_watch(mr_rpc_stream *stream, ProtobufCMessage *owned_request, void *context) {
    health_request *request = (health_request *)owned_request;
    mr_status status = watch_start(context, stream, request->service);
    if (!mr_status_is_ok(status))
        mr_rpc_stream_finish(stream, status);
    protobuf_c_message_free_unpacked(owned_request, NULL);
}

static const mr_rpc_method health_methods[] = {
    {.name = "Check", .on_request = health_check},
    {.name = "Watch", .on_request = health_watch},
};

mr_rpc_service mr_rpc_health_service(mr_rpc_health *health) {
    return (mr_rpc_service){
        .descriptor = &grpc__health__v1__health__descriptor,
        .methods = health_methods,
        .method_count = sizeof(health_methods) / sizeof(health_methods[0]),
        .context = health,
        .receive_bytes_max = 4096,
    };
}

/* ---- life ---- */

mr_status mr_rpc_health_create(mr_rpc_health **out_health) {
    mr_rpc_health *health = mr_alloc(sizeof(*health));
    if (health == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the health service");
    (void)pthread_mutex_init(&health->lock, NULL);
    *out_health = health;
    return MR_OK;
}

void mr_rpc_health_destroy(mr_rpc_health *health) {
    if (health == NULL)
        return;
    MR_ASSERT(health->watchers == NULL);
    (void)pthread_mutex_destroy(&health->lock);
    mr_free(health);
}

static mr_status health_name_at(mr_rpc_health *health, const char *service, size_t *out_index) {
    size_t i = 0;
    while (i < health->name_count && strcmp(health->names[i].name, service) != 0)
        i++;
    if (i == HEALTH_NAMES_MAX || strlen(service) >= HEALTH_NAME_BYTES)
        return MR_ERROR(RESOURCE_EXHAUSTED,
                        "no room for the health of %.100s: at most %d names of %d bytes", service,
                        HEALTH_NAMES_MAX, HEALTH_NAME_BYTES - 1);
    if (i == health->name_count) {
        memcpy(health->names[i].name, service, strlen(service) + 1);
        health->names[i].state = HEALTH_UNKNOWN;
        health->name_count++;
    }
    *out_index = i;
    return MR_OK;
}

mr_status mr_rpc_health_set(mr_rpc_health *health, const char *service, bool serving) {
    health_state state = serving ? HEALTH_SERVING : HEALTH_NOT_SERVING;
    size_t index = 0;
    (void)pthread_mutex_lock(&health->lock);
    mr_status status = health_name_at(health, service, &index);
    if (mr_status_is_ok(status) && !health->stopping && health->names[index].state != state) {
        health->names[index].state = state;
        health_tell(health, service, state);
    }
    (void)pthread_mutex_unlock(&health->lock);
    return status;
}

void mr_rpc_health_stop(mr_rpc_health *health) {
    (void)pthread_mutex_lock(&health->lock);
    health->stopping = true;
    for (size_t i = 0; i < health->name_count; i++) {
        if (health->names[i].state != HEALTH_NOT_SERVING)
            health_tell(health, health->names[i].name, HEALTH_NOT_SERVING);
        health->names[i].state = HEALTH_NOT_SERVING;
    }
    for (health_watcher *watcher = health->watchers; watcher != NULL; watcher = watcher->next)
        mr_rpc_stream_finish(watcher->stream, MR_ERROR(UNAVAILABLE, "the server stops"));
    (void)pthread_mutex_unlock(&health->lock);
}
