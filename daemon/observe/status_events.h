/* SPDX-License-Identifier: Apache-2.0 */
/* status_events.h: /events: a listener of an event stream as an answer without an end. A connection
 * that has nothing to be sent is suspended, which costs nothing.
 * Owner: observe; private to this folder. Thread: the server's. */
#ifndef MR_OBSERVE_STATUS_EVENTS_H
#define MR_OBSERVE_STATUS_EVENTS_H

#include <microhttpd.h>

#include "daemon/observe/event_stream.h"

/* An answer whose content type is still to be set. RESOURCE_EXHAUSTED: too many listeners, or no
 * memory; UNAVAILABLE: the stream has ended. The caller destroys it as any other. */
MR_MUST_CHECK mr_status mr_status_events_response(mr_event_stream *stream, uint64_t after,
                                                  struct MHD_Connection *connection,
                                                  struct MHD_Response **out_response);

#endif
