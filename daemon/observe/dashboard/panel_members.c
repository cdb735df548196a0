/* SPDX-License-Identifier: Apache-2.0 */
/* Members: every stage daemon that is attached; and what happened, newest first. */
#include <inttypes.h>
#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/dashboard/panels.h"

enum { EVENTS_SHOWN_MAX = 40 };

static void member_add(mr_text *text, const json_t *member) {
    const char *status = mr_page_string(member, "status_address");
    mr_text_add(text, "<tr>");
    mr_page_add_cell(text, mr_page_string(member, "id"));
    mr_page_add_cell(text, mr_page_string(member, "state"));
    mr_text_add(text, "<td>");
    mr_page_add_escaped(text, mr_page_string(member, "device"));
    mr_text_add(text, ", %" PRId64 " threads</td>", mr_page_integer(member, "threads"));
    mr_page_add_cell(text, mr_page_string(member, "address"));
    mr_page_add_cell(text, mr_page_string(member, "job"));
    mr_page_add_cell(text, mr_page_string(member, "instruction"));
    mr_text_add(text, "<td>");
    mr_page_add_seconds(text, mr_page_number(member, "heartbeat_age_ms") / 1000);
    mr_text_add(text, " ago</td><td>");
    if (status[0] != '\0') {
        mr_text_add(text, "<a href=\"http://");
        mr_page_add_escaped(text, status);
        mr_text_add(text, "/\">");
        mr_page_add_escaped(text, status);
        mr_text_add(text, "</a>");
    } else {
        mr_text_add(text, "–");
    }
    mr_text_add(text, "</td></tr>\n");
}

void mr_panel_members(mr_text *text, const mr_dashboard_scene *scene) {
    size_t count = json_array_size(scene->members);
    mr_page_open_panel(text, "members", "Members");
    mr_page_add_command(text, "command-members", "millrace stage list");
    if (count == 0)
        mr_text_add(text, "<p>No stage is attached.</p>\n");
    else
        mr_page_open_table(text, "Members",
                           "Member|State|Device|Address|Job|Instruction|Heard|Status page");
    for (size_t i = 0; i < count; i++)
        member_add(text, json_array_get(scene->members, i));
    if (count > 0)
        mr_page_close_table(text);
    mr_page_close_panel(text);
}

/* ---- events ---- */

static void event_add(mr_text *text, const mr_event_record *record) {
    const char *key;
    json_t *value;
    json_t *event = json_loads(record->json, 0, NULL);
    mr_text_add(text, "<tr><td>");
    mr_page_add_time(text, record->at_ms);
    mr_text_add(text, "</td>");
    mr_page_add_cell(text, mr_page_string(event, "message"));
    mr_text_add(text, "<td class=\"long\">");
    json_object_foreach(event, key, value) {
        if (strcmp(key, "message") == 0 || strcmp(key, "at_ms") == 0)
            continue;
        if (json_is_string(value) && json_string_value(value)[0] == '\0')
            continue;
        mr_text_add(text, "<span class=\"fact\"><b>");
        mr_page_add_escaped(text, key);
        mr_text_add(text, "</b> ");
        if (json_is_string(value))
            mr_page_add_escaped(text, json_string_value(value));
        else
            mr_page_add_number(text, json_number_value(value));
        mr_text_add(text, "</span> ");
    }
    mr_text_add(text, "</td></tr>\n");
    json_decref(event);
}

void mr_panel_events(mr_text *text, const mr_dashboard_scene *scene) {
    mr_event_record *records = mr_alloc_array(EVENTS_SHOWN_MAX, sizeof(*records));
    size_t count = 0;
    if (records != NULL && scene->view->events != NULL)
        count = mr_event_stream_read(scene->view->events, records, EVENTS_SHOWN_MAX);
    mr_page_open_panel(text, "events", "Events");
    mr_page_add_command(text, "command-events", "millrace cluster events");
    if (count == 0)
        mr_text_add(text, "<p>Nothing has happened yet.</p>\n");
    else
        mr_page_open_table(text, "Events", "Time (UTC)|What|About");
    for (size_t i = 0; i < count; i++)
        event_add(text, &records[i]);
    if (count > 0)
        mr_page_close_table(text);
    mr_page_close_panel(text);
    mr_free(records);
}
