/* SPDX-License-Identifier: Apache-2.0 */
/* The head of the page, the order of its panels, and the page of a role without jobs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/base/clock.h"
#include "daemon/observe/dashboard/panels.h"

enum { STATUS_DEPTH_MAX = 8, STATUS_PATH_BYTES = 512 };

void mr_panel_head(mr_text *text, const mr_dashboard_scene *scene) {
    const mr_dashboard_view *view = scene->view;
    int64_t now_ms = mr_clock_wall_ms();
    mr_text_add(text, "<h1>Millrace <span>");
    mr_page_add_escaped(text, mr_page_string(scene->root, "role"));
    mr_text_add(text, " ");
    mr_page_add_escaped(text, mr_page_string(scene->root, "address"));
    mr_text_add(text, "</span></h1>\n<p><span class=\"health %s\">%s</span>",
                view->ready ? "good" : "bad", view->ready ? "✓ ready" : "✗ not ready: ");
    if (!view->ready)
        mr_page_add_escaped(text, view->reason);
    mr_text_add(text, " <span>version ");
    mr_page_add_escaped(text, mr_page_string(scene->root, "version"));
    mr_text_add(text, "</span> <span>as of ");
    mr_page_add_time(text, now_ms);
    mr_text_add(text, " UTC <span id=\"age\" data-at=\"%" PRId64 "\"></span></span></p>\n", now_ms);
}

void mr_panel_body(mr_text *text, const mr_dashboard_scene *scene) {
    if (scene->view->history == NULL) {
        mr_panel_status(text, scene);
        return;
    }
    mr_panel_jobs(text, scene);
    mr_panel_curves(text, scene);
    mr_panel_stages(text, scene);
    mr_panel_timeline(text, scene);
    mr_panel_queue(text, scene);
    mr_panel_checkpoints(text, scene);
    mr_panel_members(text, scene);
    mr_panel_events(text, scene);
}

/* ---- any role's status ---- */

static void status_add_value(mr_text *text, const char *path, const json_t *value) {
    mr_text_add(text, "<tr><th scope=\"row\">");
    mr_page_add_escaped(text, path);
    mr_text_add(text, "</th><td class=\"long\">");
    if (json_is_string(value))
        mr_page_add_escaped(text, json_string_value(value));
    else if (json_is_integer(value))
        mr_text_add(text, "%" PRId64, (int64_t)json_integer_value(value));
    else if (json_is_real(value))
        mr_page_add_number(text, json_real_value(value));
    else
        mr_text_add(text, json_is_true(value) ? "true" : json_is_false(value) ? "false" : "–");
    mr_text_add(text, "</td></tr>\n");
}

/* The values below one, depth first; what lies deeper than our own status does is left out. */
static void status_add(mr_text *text, const char *path, json_t *value, int depth) {
    char below[STATUS_PATH_BYTES];
    const char *key;
    size_t i;
    json_t *item;
    if (depth == STATUS_DEPTH_MAX)
        return;
    if (!json_is_object(value) && !json_is_array(value)) {
        status_add_value(text, path, value);
        return;
    }
    json_object_foreach(value, key, item) {
        (void)snprintf(below, sizeof(below), "%s%s%s", path, path[0] == '\0' ? "" : ".", key);
        status_add(text, below, item, depth + 1);
    }
    json_array_foreach(value, i, item) {
        (void)snprintf(below, sizeof(below), "%s[%zu]", path, i);
        status_add(text, below, item, depth + 1);
    }
}

void mr_panel_status(mr_text *text, const mr_dashboard_scene *scene) {
    mr_page_open_panel(text, "status", "Status");
    mr_page_add_command(text, "command-status", "millrace stage list");
    mr_page_open_table(text, "Status", "What|Value");
    status_add(text, "", scene->root, 0);
    mr_page_close_table(text);
    mr_page_close_panel(text);
}
