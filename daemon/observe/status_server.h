/* SPDX-License-Identifier: Apache-2.0 */
/* status_server.h: the status port of every daemon: plain HTTP/1.1, GET and HEAD, read-only.
 *   /livez    200 while the role's loop beats (mr_status_page_beat), else 503
 *   /startupz 200 once the role has started
 *   /readyz   200, or 503 with the role's reason; ?verbose: a line for each check
 *   /metrics  text 0.0.4, or OpenMetrics where Accept offers it
 *   /status   the JSON that the role published last
 *   /trace    Chrome trace; ?steps=N for the last N steps
 *   /config   the settings in use and where each comes from; secrets are masked
 *   /version  {"version":...,"commit":...}
 *   /         a page for people, with /dashboard.css, /dashboard.js and /icon.svg
 * and where the role has jobs (history is given)
 *   /jobs, /jobs/ID                 the jobs of /status, or one of them
 *   /jobs/ID/history?since=STEP     its newest steps (history.h)
 *   /jobs/ID/timeline               what its stages did in one of its newest steps (timeline.h)
 *   /events   server-sent events (event_stream.h), after Last-Event-ID or ?since=ID
 * Anything else is 404, any other method 405. No answer may be cached; nothing can be changed here.
 * A connection has MR_STATUS_HEADER_TIMEOUT_MS for its first headers, which must be
 * MR_STATUS_HEADER_BYTES_MAX at most; later it may be silent for MR_STATUS_IDLE_TIMEOUT_MS.
 *
 * libmicrohttpd runs a thread of its own, which must never call into a role. So a role publishes:
 * it writes snapshots into a page whenever it likes, and the server only reads the page.
 * Owner: the role's root object. Thread: page functions any; start, tick and stop LOOP.
 * Limits: MR_STATUS_*.
 * Not here: control of any kind (rpc). */
#ifndef MR_OBSERVE_STATUS_SERVER_H
#define MR_OBSERVE_STATUS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/limits.h"
#include "daemon/base/status.h"
#include "daemon/observe/event_stream.h"
#include "daemon/observe/history.h"
#include "daemon/observe/metrics.h"
#include "daemon/observe/timeline.h"
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
/* One of the things that readiness also hangs on, shown by /readyz?verbose under its name. wrong:
 * what is wrong with it; NULL: nothing. A role has at most MR_STATUS_CHECKS_MAX of them. */
void mr_status_page_check_set(mr_status_page *page, const char *name, const char *wrong);
/* The role's loop is alive. /livez is 503 when the last beat is older than
 * MR_STATUS_LIVE_TIMEOUT_MS; a page that never beats is alive. Lock-free. */
void mr_status_page_beat(mr_status_page *page);

/* ---- the server ---- */

typedef struct mr_status_server mr_status_server;

/* One setting of the daemon, as /config shows it. */
typedef struct mr_status_setting {
    const char *name;
    const char *value; /* NULL: not set */
    bool given;        /* on the command line; else it is the default */
    bool secret;       /* shown only as given or not */
} mr_status_setting;

/* All borrowed; all but the texts until stop. */
typedef struct mr_status_server_options {
    const char *address; /* "127.0.0.1:9780", "[::1]:0", "localhost:9780" */
    bool any_address;    /* allow addresses other than loopback (--insecure) */
    const char *version; /* "0.1.0" */
    const char *commit;  /* "" where unknown */
    mr_status_page *page;
    mr_metrics *metrics; /* NULL: /metrics is 404 */
    mr_trace *trace;     /* NULL: /trace is 404 */
    mr_history *history; /* NULL: a role without jobs */
    mr_timeline *timeline;   /* with history */
    mr_event_stream *events; /* NULL: /events is 404 */
    const mr_status_setting *settings;
    size_t setting_count; /* 0: /config is 404 */
} mr_status_server_options;

/* Binds and serves. INVALID_ARGUMENT: the address, or not loopback without any_address;
 * ALREADY_EXISTS: the port is in use; PERMISSION_DENIED: a privileged port; UNAVAILABLE:
 * anything else. */
MR_MUST_CHECK mr_status mr_status_server_start(const mr_status_server_options *options,
                                               mr_status_server **out_server);
/* The address in use, with the real port: "127.0.0.1:41207". Borrowed. */
const char *mr_status_server_address(const mr_status_server *server);
/* About every second, or more often: drops connections whose headers are overdue, and keeps
 * listeners company. NULL is fine. */
void mr_status_server_tick(mr_status_server *server, int64_t now_ms);
/* Ends every connection and the thread; bounded. NULL is fine. */
void mr_status_server_stop(mr_status_server *server);

#endif
