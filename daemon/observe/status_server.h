/* SPDX-License-Identifier: Apache-2.0 */
/* status_server.h: the status port of every daemon: plain HTTP/1.1, GET and HEAD, read-only.
 *   /livez    200 while the role's loop beats (mr_status_page_beat), else 503
 *   /startupz 200 once the role has started
 *   /readyz   200, or 503 with the role's reason
 *   /metrics  text 0.0.4, or OpenMetrics where Accept offers it
 *   /status   the JSON that the role published last
 *   /trace    Chrome trace; ?steps=N for the last N steps
 *   /version  {"version":...,"commit":...}
 * Anything else is 404, any other method 405. No answer may be cached; nothing can be changed here.
 *
 * libmicrohttpd runs a thread of its own, which must never call into a role. So a role publishes:
 * it writes snapshots into a page whenever it likes, and the server only reads the page.
 * Owner: the role's root object. Thread: page functions any; start and stop LOOP.
 * Limits: MR_STATUS_*.
 * Not here: control of any kind (rpc). */
#ifndef MR_OBSERVE_STATUS_SERVER_H
#define MR_OBSERVE_STATUS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/observe/metrics.h"
#include "daemon/observe/trace.h"

/* ---- the page ---- */

typedef struct mr_status_page mr_status_page;

/* A new page is neither started nor ready ("starting"), and its status is {}. */
MR_MUST_CHECK mr_status mr_status_page_create(mr_status_page **out_page);
void mr_status_page_destroy(mr_status_page *page);
/* What /status answers from now on: one JSON text, copied under a lock that is held for a copy
 * only. RESOURCE_EXHAUSTED: no memory, or over MR_STATUS_PAGE_BYTES_MAX. */
MR_MUST_CHECK mr_status mr_status_page_publish(mr_status_page *page, const char *json);
/* The role has started: /startupz is 200 from now on. */
void mr_status_page_started_set(mr_status_page *page, bool started);
/* reason: one line, why it is not ready ("draining: 2 jobs"); NULL where ready. Cut at
 * MR_STATUS_TEXT_BYTES. */
void mr_status_page_ready_set(mr_status_page *page, bool ready, const char *reason);
/* The role's loop is alive. /livez is 503 when the last beat is older than
 * MR_STATUS_LIVE_TIMEOUT_MS; a page that never beats is alive. Lock-free. */
void mr_status_page_beat(mr_status_page *page);

/* ---- the server ---- */

typedef struct mr_status_server mr_status_server;

/* All borrowed; page, metrics and trace until stop. */
typedef struct mr_status_server_options {
    const char *address; /* "127.0.0.1:9780", "[::1]:0", "localhost:9780" */
    bool any_address;    /* allow addresses other than loopback (--insecure) */
    const char *version; /* "0.1.0" */
    const char *commit;  /* "" where unknown */
    mr_status_page *page;
    mr_metrics *metrics; /* NULL: /metrics is 404 */
    mr_trace *trace;     /* NULL: /trace is 404 */
} mr_status_server_options;

/* Binds and serves. INVALID_ARGUMENT: the address, or not loopback without any_address;
 * ALREADY_EXISTS: the port is in use; PERMISSION_DENIED: a privileged port; UNAVAILABLE:
 * anything else. */
MR_MUST_CHECK mr_status mr_status_server_start(const mr_status_server_options *options,
                                               mr_status_server **out_server);
/* The address in use, with the real port: "127.0.0.1:41207". Borrowed. */
const char *mr_status_server_address(const mr_status_server *server);
/* Ends every connection and the thread; bounded. NULL is fine. */
void mr_status_server_stop(mr_status_server *server);

#endif
