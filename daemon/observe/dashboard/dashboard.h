/* SPDX-License-Identifier: Apache-2.0 */
/* dashboard.h: the page at /: what a daemon publishes, as HTML that is whole without scripts:
 * tables, and curves and charts as SVG. dashboard.js only fetches the same page again and puts the
 * panels that changed in place of the old ones. Every text that comes from outside is escaped on
 * its way in (page.h); no style and no script stands in the HTML.
 * Owner: observe. Thread: the status server's.
 * Not here: HTTP (status_server.h), what is published (the roles). */
#ifndef MR_OBSERVE_DASHBOARD_DASHBOARD_H
#define MR_OBSERVE_DASHBOARD_DASHBOARD_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/base/status.h"
#include "daemon/observe/event_stream.h"
#include "daemon/observe/history.h"
#include "daemon/observe/timeline.h"

/* What is to be shown. Borrowed. */
typedef struct mr_dashboard_view {
    const char *status; /* millrace.status/v1, of any role */
    bool ready;
    const char *reason; /* why it is not */
    mr_history *history; /* NULL: a role without jobs, whose page is its status */
    mr_timeline *timeline;
    mr_event_stream *events; /* NULL: none */
    const char *job;         /* id or name; "": the newest that is active, or the newest */
    bool logarithmic;        /* the scale of the loss */
} mr_dashboard_view;

/* A whole HTML document; *out_text: mr_free. RESOURCE_EXHAUSTED: no memory. */
MR_MUST_CHECK mr_status mr_dashboard_render(const mr_dashboard_view *view, char **out_text,
                                            size_t *out_bytes);

/* A file that the page asks for. */
typedef struct mr_dashboard_asset {
    const char *type;
    const char *bytes;
    size_t byte_count;
} mr_dashboard_asset;

extern const mr_dashboard_asset mr_dashboard_css;
extern const mr_dashboard_asset mr_dashboard_js;
extern const mr_dashboard_asset mr_dashboard_icon;

#endif
