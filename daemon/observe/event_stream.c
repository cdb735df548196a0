/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/event_stream.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/base/clock.h"

struct mr_event_listener {
    mr_event_stream *stream; /* NULL: a free place */
    mr_event_listener_calls calls;
    void *context;
    uint64_t last; /* id of the event that was read last */
    int64_t heard_ms;
    bool sleeping;
    bool greeted;
    char text[MR_EVENT_TEXT_BYTES]; /* what is being read */
    size_t used;
    size_t given;
};

struct mr_event_stream {
    pthread_mutex_t lock; /* everything */
    uint64_t last;        /* id given last */
    bool ended;
    size_t count;
    mr_event_record *records; /* MR_EVENTS_HELD_MAX, ascending ids */
    mr_event_listener listeners[MR_STATUS_LISTENERS_MAX];
};

static void stream_lock(mr_event_stream *stream) {
    MR_ASSERT(pthread_mutex_lock(&stream->lock) == 0);
}

static void stream_unlock(mr_event_stream *stream) {
    MR_ASSERT(pthread_mutex_unlock(&stream->lock) == 0);
}

mr_status mr_event_stream_create(mr_event_stream **out_stream) {
    mr_event_stream *stream = mr_alloc(sizeof(*stream));
    mr_event_record *records = mr_alloc_array(MR_EVENTS_HELD_MAX, sizeof(*records));
    if (stream == NULL || records == NULL || pthread_mutex_init(&stream->lock, NULL) != 0) {
        mr_free(records);
        mr_free(stream);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for %d events", MR_EVENTS_HELD_MAX);
    }
    stream->records = records;
    *out_stream = stream;
    return MR_OK;
}

void mr_event_stream_destroy(mr_event_stream *stream) {
    if (stream == NULL)
        return;
    for (size_t i = 0; i < MR_STATUS_LISTENERS_MAX; i++)
        MR_ASSERT(stream->listeners[i].stream == NULL);
    (void)pthread_mutex_destroy(&stream->lock); /* nobody holds it any more */
    mr_free(stream->records);
    mr_free(stream);
}

/* Under the lock. */
static void listener_wake(mr_event_listener *listener) {
    if (listener->stream == NULL || !listener->sleeping)
        return;
    listener->sleeping = false;
    listener->calls.wake(listener->context);
}

static void stream_remove(mr_event_stream *stream, size_t index) {
    stream->count--;
    memmove(&stream->records[index], &stream->records[index + 1],
            (stream->count - index) * sizeof(stream->records[0]));
}

/* Room for one more: the one of the same key, or the oldest of a full ring, goes. */
static void stream_make_room(mr_event_stream *stream, const char *key) {
    for (size_t i = 0; key[0] != '\0' && i < stream->count; i++)
        if (strcmp(stream->records[i].key, key) == 0) {
            stream_remove(stream, i);
            return;
        }
    if (stream->count == MR_EVENTS_HELD_MAX)
        stream_remove(stream, 0);
}

bool mr_event_stream_add(mr_event_stream *stream, const char *kind, const char *key,
                         const char *json) {
    if (strlen(json) >= MR_EVENT_BYTES_MAX)
        return false;
    MR_ASSERT(strchr(json, '\n') == NULL);
    stream_lock(stream);
    stream_make_room(stream, key);
    mr_event_record *record = &stream->records[stream->count++];
    *record = (mr_event_record){.id = ++stream->last, .at_ms = mr_clock_wall_ms()};
    (void)snprintf(record->kind, sizeof(record->kind), "%s", kind);
    (void)snprintf(record->key, sizeof(record->key), "%s", key);
    (void)snprintf(record->json, sizeof(record->json), "%s", json); /* measured above */
    for (size_t i = 0; i < MR_STATUS_LISTENERS_MAX; i++)
        listener_wake(&stream->listeners[i]);
    stream_unlock(stream);
    return true;
}

size_t mr_event_stream_read(mr_event_stream *stream, mr_event_record *out_records, size_t count) {
    size_t read = 0;
    stream_lock(stream);
    for (size_t i = stream->count; i > 0 && read < count; i--)
        if (stream->records[i - 1].key[0] == '\0')
            out_records[read++] = stream->records[i - 1];
    stream_unlock(stream);
    return read;
}

void mr_event_stream_tick(mr_event_stream *stream, int64_t now_ms) {
    stream_lock(stream);
    for (size_t i = 0; i < MR_STATUS_LISTENERS_MAX; i++)
        if (now_ms - stream->listeners[i].heard_ms >= MR_EVENTS_KEEPALIVE_MS)
            listener_wake(&stream->listeners[i]);
    stream_unlock(stream);
}

void mr_event_stream_end(mr_event_stream *stream) {
    stream_lock(stream);
    stream->ended = true;
    for (size_t i = 0; i < MR_STATUS_LISTENERS_MAX; i++)
        listener_wake(&stream->listeners[i]);
    stream_unlock(stream);
}

/* ---- listeners ---- */

static mr_status stream_listen(mr_event_stream *stream, uint64_t after,
                               const mr_event_listener_calls *calls, void *context,
                               mr_event_listener **out_listener) {
    if (stream->ended)
        return MR_ERROR(UNAVAILABLE, "the daemon is stopping");
    for (size_t i = 0; i < MR_STATUS_LISTENERS_MAX; i++) {
        mr_event_listener *listener = &stream->listeners[i];
        if (listener->stream != NULL)
            continue;
        *listener = (mr_event_listener){
            .stream = stream,
            .calls = *calls,
            .context = context,
            .last = after == MR_EVENT_FROM_NOW ? stream->last
                    : after > stream->last     ? 0
                                               : after,
            .heard_ms = mr_clock_now_ms(),
        };
        *out_listener = listener;
        return MR_OK;
    }
    return MR_ERROR(RESOURCE_EXHAUSTED, "%d listeners follow the events already; the limit is %d",
                    MR_STATUS_LISTENERS_MAX, MR_STATUS_LISTENERS_MAX);
}

mr_status mr_event_stream_listen(mr_event_stream *stream, uint64_t after,
                                 const mr_event_listener_calls *calls, void *context,
                                 mr_event_listener **out_listener) {
    stream_lock(stream);
    mr_status status = stream_listen(stream, after, calls, context, out_listener);
    stream_unlock(stream);
    return status;
}

static void listener_say(mr_event_listener *listener, const char *text) {
    listener->used = (size_t)snprintf(listener->text, sizeof(listener->text), "%s", text);
    listener->given = 0;
}

/* The next event, a keepalive comment, or nothing. */
static void listener_fill(mr_event_listener *listener, int64_t now_ms) {
    const mr_event_stream *stream = listener->stream;
    if (!listener->greeted) {
        listener->greeted = true;
        listener_say(listener, "retry: 2000\n\n");
        return;
    }
    const mr_event_record *next = NULL;
    for (size_t i = stream->count; i > 0 && stream->records[i - 1].id > listener->last; i--)
        next = &stream->records[i - 1];
    if (next != NULL) {
        listener->used =
            (size_t)snprintf(listener->text, sizeof(listener->text),
                             "id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", next->id, next->kind,
                             next->json);
        MR_ASSERT(listener->used < sizeof(listener->text));
        listener->given = 0;
        listener->last = next->id;
    } else if (now_ms - listener->heard_ms >= MR_EVENTS_KEEPALIVE_MS) {
        listener_say(listener, ": still here\n\n");
    }
}

static mr_event_read listener_read(mr_event_listener *listener, char *bytes, size_t capacity,
                                   size_t *out_bytes) {
    int64_t now_ms = mr_clock_now_ms();
    if (listener->stream->ended)
        return MR_EVENT_READ_END;
    if (listener->given == listener->used)
        listener_fill(listener, now_ms);
    size_t left = listener->used - listener->given;
    if (left == 0) {
        listener->sleeping = true;
        listener->calls.sleep(listener->context);
        return MR_EVENT_READ_NOTHING;
    }
    size_t given = left < capacity ? left : capacity;
    memcpy(bytes, listener->text + listener->given, given);
    listener->given += given;
    listener->heard_ms = now_ms;
    *out_bytes = given;
    return MR_EVENT_READ_SOME;
}

mr_event_read mr_event_listener_read(mr_event_listener *listener, char *bytes, size_t capacity,
                                     size_t *out_bytes) {
    mr_event_stream *stream = listener->stream;
    stream_lock(stream);
    mr_event_read read = listener_read(listener, bytes, capacity, out_bytes);
    stream_unlock(stream);
    return read;
}

void mr_event_listener_close(mr_event_listener *listener) {
    mr_event_stream *stream = listener->stream;
    stream_lock(stream);
    listener->stream = NULL;
    stream_unlock(stream);
}
