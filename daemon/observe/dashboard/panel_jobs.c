/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: all that are shown, those that wait and why, and the checkpoints of one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/observe/dashboard/panels.h"

/* A state has a shape as well as a word. */
static const char *state_shape(const char *state) {
    static const char *const shapes[][2] = {
        {"QUEUED", "◌"},  {"STARTING", "◔"},  {"RUNNING", "▶"}, {"PAUSED", "‖"},
        {"DRAINING", "⏏"}, {"SUCCEEDED", "✓"}, {"FAILED", "✗"},  {"CANCELLED", "⊘"},
        {"CHECKPOINTING", "▼"},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        if (strcmp(shapes[i][0], state) == 0)
            return shapes[i][1];
    return "";
}

static void job_add_link(mr_text *text, const mr_dashboard_scene *scene, const json_t *job) {
    const char *id = mr_page_string(job, "id");
    mr_text_add(text, "<th scope=\"row\"><a id=\"job-");
    mr_page_add_escaped(text, id);
    mr_text_add(text, "\" href=\"/?job=");
    mr_page_add_url(text, id);
    mr_text_add(text, "\"%s>", job == scene->job ? " aria-current=\"true\"" : "");
    mr_page_add_escaped(text, mr_page_string(job, "name"));
    mr_text_add(text, "</a> <small>");
    mr_page_add_escaped(text, id);
    mr_text_add(text, "</small></th>");
}

static void job_add_state(mr_text *text, const json_t *job) {
    const char *state = mr_page_string(job, "state");
    mr_text_add(text, "<td class=\"state\"><span aria-hidden=\"true\">%s</span> ",
                state_shape(state));
    mr_page_add_escaped(text, state);
    mr_text_add(text, "</td>");
}

static void job_add_progress(mr_text *text, const json_t *job) {
    int64_t step = mr_page_integer(job, "step");
    int64_t total = mr_page_integer(job, "total_steps");
    mr_text_add(text, "<td>");
    if (total > 0)
        mr_text_add(text,
                    "<progress max=\"%" PRId64 "\" value=\"%" PRId64
                    "\" aria-label=\"steps done\"></progress> %" PRId64 " of %" PRId64,
                    total, step, step, total);
    else
        mr_text_add(text, "%" PRId64, step);
    mr_text_add(text, "</td>");
}

static void job_add_number(mr_text *text, const json_t *job, const char *key) {
    mr_text_add(text, "<td>");
    if (mr_page_integer(job, "step") == 0 || !json_is_number(json_object_get(job, key)))
        mr_text_add(text, json_is_null(json_object_get(job, key)) ? "not finite" : "–");
    else
        mr_page_add_number(text, mr_page_number(job, key));
    mr_text_add(text, "</td>");
}

static void job_add_bubble(mr_text *text, const json_t *job) {
    mr_text_add(text, "<td>");
    if (mr_page_integer(job, "step") > 0)
        mr_text_add(text, "%.0f %%, ", 100 * mr_page_number(job, "bubble"));
    mr_text_add(text, "planned %.0f %%</td><td>", 100 * mr_page_number(job, "bubble_planned"));
    int64_t left = mr_page_integer(job, "total_steps") - mr_page_integer(job, "step");
    double seconds = mr_page_number(job, "step_seconds");
    if (strcmp(mr_page_string(job, "state"), "RUNNING") == 0 && left > 0 && seconds > 0)
        mr_page_add_seconds(text, (double)left * seconds);
    else
        mr_text_add(text, "–");
    mr_text_add(text, "</td>");
}

void mr_panel_jobs(mr_text *text, const mr_dashboard_scene *scene) {
    mr_page_open_panel(text, "jobs", "Jobs");
    mr_page_add_command(text, "command-jobs", "millrace job list");
    if (json_array_size(scene->jobs) == 0) {
        mr_text_add(text, "<p>No job was submitted yet.</p>\n");
        mr_page_close_panel(text);
        return;
    }
    mr_page_open_table(text, "Jobs", "Job|State|Step|Loss|Tokens/s|Bubble|Time left|Why");
    for (size_t i = 0; i < json_array_size(scene->jobs); i++) {
        const json_t *job = json_array_get(scene->jobs, i);
        mr_text_add(text, "<tr>");
        job_add_link(text, scene, job);
        job_add_state(text, job);
        job_add_progress(text, job);
        job_add_number(text, job, "loss");
        job_add_number(text, job, "tokens_per_second");
        job_add_bubble(text, job);
        mr_page_add_long_cell(text, mr_page_string(job, "reason"));
        mr_text_add(text, "</tr>\n");
    }
    mr_page_close_table(text);
    mr_page_close_panel(text);
}

void mr_panel_queue(mr_text *text, const mr_dashboard_scene *scene) {
    size_t waiting = 0;
    mr_page_open_panel(text, "queue", "Queue");
    mr_page_add_command(text, "command-queue", "millrace job list");
    for (size_t i = json_array_size(scene->jobs); i > 0; i--) { /* who came first is first */
        const json_t *job = json_array_get(scene->jobs, i - 1);
        if (strcmp(mr_page_string(job, "state"), "QUEUED") != 0)
            continue;
        if (waiting++ == 0)
            mr_page_open_table(text, "Queue", "Place|Job|Waits for|Since");
        mr_text_add(text, "<tr><td>%" PRId64 "</td>", mr_page_integer(job, "queue_position"));
        mr_page_add_cell(text, mr_page_string(job, "name"));
        mr_page_add_long_cell(text, mr_page_string(job, "reason"));
        mr_text_add(text, "<td>");
        mr_page_add_time(text, mr_page_integer(job, "created_ms"));
        mr_text_add(text, "</td></tr>\n");
    }
    if (waiting == 0)
        mr_text_add(text, "<p>No job waits.</p>\n");
    else
        mr_page_close_table(text);
    mr_page_close_panel(text);
}

static void checkpoint_add(mr_text *text, const json_t *checkpoint, size_t number) {
    char id[32];
    (void)snprintf(id, sizeof(id), "verify-%zu", number);
    mr_text_add(text, "<tr>");
    mr_page_add_cell(text, mr_page_string(checkpoint, "tag"));
    mr_text_add(text, "<td>%" PRId64 "</td><td>", mr_page_integer(checkpoint, "step"));
    mr_page_add_bytes(text, mr_page_number(checkpoint, "bytes"));
    mr_text_add(text, "</td><td>");
    mr_page_add_time(text, mr_page_integer(checkpoint, "committed_ms"));
    mr_text_add(text, "</td><td>");
    mr_page_add_command(text, id, "millrace checkpoint verify %s",
                        mr_page_string(checkpoint, "path"));
    mr_text_add(text, "</td></tr>\n");
}

void mr_panel_checkpoints(mr_text *text, const mr_dashboard_scene *scene) {
    const json_t *list = json_object_get(scene->job, "checkpoints");
    const char *newest = mr_page_string(scene->job, "checkpoint");
    mr_page_open_panel(text, "checkpoints", "Checkpoints");
    if (scene->job != NULL)
        mr_page_add_command(text, "command-checkpoints", "millrace checkpoint list %s",
                            mr_page_string(scene->job, "id"));
    if (json_array_size(list) > 0) {
        mr_page_open_table(text, "Checkpoints", "Tag|Step|Size|Committed|Verify");
        for (size_t i = json_array_size(list); i > 0; i--)
            checkpoint_add(text, json_array_get(list, i - 1), i);
        mr_page_close_table(text);
    } else if (newest[0] != '\0') {
        mr_text_add(text, "<p>The newest is ");
        mr_page_add_escaped(text, newest);
        mr_text_add(text, ", committed before this coordinator started.</p>\n");
    } else {
        mr_text_add(text, "<p>No checkpoint was committed yet.</p>\n");
    }
    mr_page_close_panel(text);
}
