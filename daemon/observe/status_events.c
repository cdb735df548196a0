/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/status_events.h"

#include <inttypes.h>

enum { EVENTS_BLOCK_BYTES = 1024 }; /* handed to the library at once */

static void events_sleep(void *connection) {
    MHD_suspend_connection(connection);
}

static void events_wake(void *connection) {
    MHD_resume_connection(connection);
}

static ssize_t events_read(void *context, uint64_t position, char *bytes, size_t capacity) {
    size_t read = 0;
    (void)position;
    switch (mr_event_listener_read(context, bytes, capacity, &read)) {
    case MR_EVENT_READ_SOME:
        return (ssize_t)read;
    case MR_EVENT_READ_NOTHING:
        return 0; /* it is suspended, so that this does not spin */
    case MR_EVENT_READ_END:
        break;
    }
    return MHD_CONTENT_READER_END_OF_STREAM;
}

static void events_close(void *context) {
    mr_event_listener_close(context);
}

mr_status mr_status_events_response(mr_event_stream *stream, uint64_t after,
                                    struct MHD_Connection *connection,
                                    struct MHD_Response **out_response) {
    static const mr_event_listener_calls calls = {.sleep = events_sleep, .wake = events_wake};
    mr_event_listener *listener = NULL;
    MR_TRY(mr_event_stream_listen(stream, after, &calls, connection, &listener));
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, EVENTS_BLOCK_BYTES, events_read, listener, events_close);
    if (response == NULL) {
        mr_event_listener_close(listener);
        return MR_ERROR(RESOURCE_EXHAUSTED, "no memory for one more listener");
    }
    *out_response = response;
    return MR_OK;
}
