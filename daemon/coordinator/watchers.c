/* SPDX-License-Identifier: Apache-2.0 */
/* The rpc layer's own queue is the fast path. Only when it is full are changes kept here, packed
 * once per watcher. */
#include "daemon/coordinator/watchers.h"

#include "daemon/base/alloc.h"
#include "daemon/coordinator/message_copy.h"

typedef struct watcher {
    mr_rpc_stream *stream;
    uint64_t job_number;
    int64_t heard_ms; /* when something was last sent */
    ProtobufCMessage *waiting[MR_WATCHER_WAITING_MAX];
    size_t waiting_count;
    bool ending; /* the last one that waits is the final one */
} watcher;

struct mr_watchers {
    watcher *items[MR_WATCHERS_MAX];
    size_t count;
};

mr_status mr_watchers_create(mr_watchers **out_watchers) {
    mr_watchers *watchers = mr_alloc(sizeof(*watchers));
    if (watchers == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for the watchers");
    *out_watchers = watchers;
    return MR_OK;
}

void mr_watchers_destroy(mr_watchers *watchers) {
    if (watchers == NULL)
        return;
    MR_ASSERT(watchers->count == 0);
    mr_free(watchers);
}

mr_status mr_watchers_add(mr_watchers *watchers, mr_rpc_stream *stream, uint64_t job_number,
                          int64_t now_ms) {
    if (watchers->count == MR_WATCHERS_MAX)
        return MR_ERROR(RESOURCE_EXHAUSTED, "%zu clients watch jobs; the limit is %d",
                        watchers->count, MR_WATCHERS_MAX);
    watcher *item = mr_alloc(sizeof(*item));
    if (item == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more watcher");
    *item = (watcher){
        .stream = mr_rpc_stream_ref(stream), .job_number = job_number, .heard_ms = now_ms};
    watchers->items[watchers->count++] = item;
    return MR_OK;
}

bool mr_watchers_any(const mr_watchers *watchers, uint64_t job_number) {
    for (size_t i = 0; i < watchers->count; i++)
        if (watchers->items[i]->job_number == job_number)
            return true;
    return false;
}

/* Ends the stream and forgets the watcher; the last one takes its place. */
static void watchers_remove(mr_watchers *watchers, size_t index, mr_status status) {
    watcher *item = watchers->items[index];
    for (size_t i = 0; i < item->waiting_count; i++)
        protobuf_c_message_free_unpacked(item->waiting[i], NULL);
    mr_rpc_stream_finish(item->stream, status);
    mr_rpc_stream_unref(item->stream);
    mr_free(item);
    watchers->items[index] = watchers->items[--watchers->count];
}

/* Sends what waits, oldest first. OK also where some still wait; CANCELLED: the client is gone. */
static mr_status watcher_flush(watcher *item, int64_t now_ms) {
    size_t sent = 0;
    mr_status status = MR_OK;
    while (sent < item->waiting_count && mr_status_is_ok(status)) {
        status = mr_rpc_stream_send(item->stream, item->waiting[sent], NULL);
        if (!mr_status_is_ok(status))
            break;
        protobuf_c_message_free_unpacked(item->waiting[sent++], NULL);
        item->heard_ms = now_ms;
    }
    for (size_t i = sent; i < item->waiting_count; i++)
        item->waiting[i - sent] = item->waiting[i];
    item->waiting_count -= sent;
    return status.code == MR_CODE_RESOURCE_EXHAUSTED ? MR_OK : status;
}

/* Sends one event, or lets it wait, or drops it where it is a step. */
static mr_status watcher_send(watcher *item, const ProtobufCMessage *event, bool step,
                              int64_t now_ms) {
    MR_TRY(watcher_flush(item, now_ms));
    mr_status status =
        MR_ERROR(RESOURCE_EXHAUSTED, "%zu changes of the job wait to be read", item->waiting_count);
    if (item->waiting_count == 0)
        status = mr_rpc_stream_send(item->stream, event, NULL);
    if (mr_status_is_ok(status))
        item->heard_ms = now_ms;
    if (status.code != MR_CODE_RESOURCE_EXHAUSTED)
        return status;
    if (step)
        return MR_OK;
    if (item->waiting_count == MR_WATCHER_WAITING_MAX)
        return status;
    ProtobufCMessage *copy = mr_message_copy(event);
    if (copy == NULL)
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory to keep a change of the job");
    item->waiting[item->waiting_count++] = copy;
    return MR_OK;
}

void mr_watchers_send(mr_watchers *watchers, uint64_t job_number, const ProtobufCMessage *event,
                      bool step, bool final, int64_t now_ms) {
    for (size_t i = watchers->count; i > 0; i--) {
        watcher *item = watchers->items[i - 1];
        if (item->job_number != job_number || item->ending)
            continue;
        mr_status status = watcher_send(item, event, step, now_ms);
        item->ending = final;
        if (!mr_status_is_ok(status) || (final && item->waiting_count == 0))
            watchers_remove(watchers, i - 1, status);
    }
}

void mr_watchers_tick(mr_watchers *watchers, int64_t now_ms,
                      void (*repeat)(void *context, uint64_t job_number), void *context) {
    uint64_t quiet[MR_WATCHERS_MAX];
    size_t quiet_count = 0;
    for (size_t i = watchers->count; i > 0; i--) {
        watcher *item = watchers->items[i - 1];
        mr_status status = watcher_flush(item, now_ms);
        if (!mr_status_is_ok(status) || (item->ending && item->waiting_count == 0)) {
            watchers_remove(watchers, i - 1, status);
            continue;
        }
        if (now_ms - item->heard_ms < MR_WATCHER_REPEAT_MS)
            continue;
        item->heard_ms = now_ms; /* once a period, however slowly it reads */
        quiet[quiet_count++] = item->job_number;
    }
    for (size_t i = 0; i < quiet_count; i++) /* it may remove watchers */
        if (i == 0 || quiet[i] != quiet[i - 1])
            repeat(context, quiet[i]);
}

void mr_watchers_end(mr_watchers *watchers, mr_status status) {
    while (watchers->count > 0)
        watchers_remove(watchers, watchers->count - 1, status);
}
