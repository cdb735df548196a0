/* SPDX-License-Identifier: Apache-2.0 */
/* event_stream.h: what happened, as server-sent events: the newest MR_EVENTS_HELD_MAX of them,
 * numbered from 1, and the listeners that follow. An event with a key takes the place of the
 * earlier one with that key, so that steps, of which there are many, do not push out what is rare.
 *
 * A listener has no queue of its own: it has a place in the ring. One that is too slow goes on at
 * the oldest event there is.
 * Owner: the role's root object. Thread: any; the lock is never held while a socket is used.
 * Limits: MR_EVENTS_*, MR_EVENT_BYTES_MAX, MR_STATUS_LISTENERS_MAX.
 * Not here: HTTP (status_server.h). */
#ifndef MR_OBSERVE_EVENT_STREAM_H
#define MR_OBSERVE_EVENT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"

enum {
    MR_EVENT_KIND_BYTES = 16,
    MR_EVENT_TEXT_BYTES = MR_EVENT_BYTES_MAX + 128, /* with id, kind and line ends */
};

#define MR_EVENT_FROM_NOW UINT64_MAX

typedef struct mr_event_stream mr_event_stream;
typedef struct mr_event_listener mr_event_listener;

typedef struct mr_event_record {
    uint64_t id;
    int64_t at_ms; /* wall clock */
    char kind[MR_EVENT_KIND_BYTES];
    char key[MR_NAME_BYTES + MR_EVENT_KIND_BYTES];
    char json[MR_EVENT_BYTES_MAX];
} mr_event_record;

/* An empty stream. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_event_stream_create(mr_event_stream **out_stream);
/* After the last listener has closed. NULL is fine. */
void mr_event_stream_destroy(mr_event_stream *stream);
/* Adds an event and wakes the listeners. kind: one word ("job"); key: "" for none; json: one line.
 * One above MR_EVENT_BYTES_MAX is not added: false. */
bool mr_event_stream_add(mr_event_stream *stream, const char *kind, const char *key,
                         const char *json);
/* Copies of the newest count events without a key, newest first; returns how many. */
size_t mr_event_stream_read(mr_event_stream *stream, mr_event_record *out_records, size_t count);
/* Wakes listeners that have heard nothing for MR_EVENTS_KEEPALIVE_MS. */
void mr_event_stream_tick(mr_event_stream *stream, int64_t now_ms);
/* Every listener ends soon, and none can be opened any more. */
void mr_event_stream_end(mr_event_stream *stream);

/* ---- listeners, for the server ---- */

/* Both are called under the stream's lock, with the context of open; they must not call back. */
typedef struct mr_event_listener_calls {
    void (*sleep)(void *context); /* nothing to read: until wake it is not read */
    void (*wake)(void *context);
} mr_event_listener_calls;

/* Reads what comes after event after (Last-Event-ID); MR_EVENT_FROM_NOW: only what comes from now
 * on. A number that was not given yet is of a daemon before this one: everything there is.
 * RESOURCE_EXHAUSTED: MR_STATUS_LISTENERS_MAX or no memory; UNAVAILABLE: the stream has ended. */
MR_MUST_CHECK mr_status mr_event_stream_listen(mr_event_stream *stream, uint64_t after,
                                               const mr_event_listener_calls *calls, void *context,
                                               mr_event_listener **out_listener);
typedef enum mr_event_read {
    MR_EVENT_READ_SOME,
    MR_EVENT_READ_NOTHING, /* it sleeps now */
    MR_EVENT_READ_END,
} mr_event_read;
/* Up to capacity bytes of the text/event-stream. */
mr_event_read mr_event_listener_read(mr_event_listener *listener, char *bytes, size_t capacity,
                                     size_t *out_bytes);
void mr_event_listener_close(mr_event_listener *listener);

#endif
