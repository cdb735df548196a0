/* SPDX-License-Identifier: Apache-2.0 */
/* The timeline: a row for each stage, a box for each instruction of its step. What computes is
 * tall, what moves data is low, so that the bubbles are the empty parts of a row; the same as sums
 * in a table. Clocks of several machines are as far apart as they are kept. */
#include <inttypes.h>
#include <string.h>

#include "daemon/observe/dashboard/panels.h"
#include "daemon/observe/dashboard/span_kind.h"

enum { ROW_WIDTH = 1000, ROW_HEIGHT = 24 };

/* Top and height of a kind's box in its row. */
static void span_place(mr_span_kind kind, int *out_top, int *out_height) {
    static const int places[MR_SPAN_KIND_COUNT][2] = {
        [MR_SPAN_FORWARD] = {7, 14},  [MR_SPAN_BACKWARD] = {2, 19}, [MR_SPAN_OPTIMIZER] = {2, 19},
        [MR_SPAN_SEND] = {21, 3},     [MR_SPAN_RECEIVE] = {21, 3},  [MR_SPAN_REDUCE] = {11, 10},
        [MR_SPAN_LOAD] = {16, 5},
    };
    *out_top = places[kind][0];
    *out_height = places[kind][1];
}

static void span_add(mr_text *text, const mr_timeline_span *span, int64_t start_ns,
                     double length_ns) {
    mr_span_kind kind = mr_span_kind_of(span->name);
    int top = 0;
    int height = 0;
    span_place(kind, &top, &height);
    mr_text_add(text,
                "<rect class=\"%s\" x=\"%.2f\" y=\"%d\" width=\"%.2f\" height=\"%d\"><title>",
                mr_span_kind_name(kind),
                (double)(span->start_ns - start_ns) / length_ns * ROW_WIDTH, top,
                (double)(span->end_ns - span->start_ns) / length_ns * ROW_WIDTH, height);
    mr_page_add_escaped(text, span->name);
    mr_text_add(text, " %s, %.3f ms from %.3f ms on</title></rect>", mr_span_kind_name(kind),
                (double)(span->end_ns - span->start_ns) / 1e6,
                (double)(span->start_ns - start_ns) / 1e6);
}

static void row_add(mr_text *text, const mr_timeline_stage *stage, int64_t start_ns,
                    double length_ns) {
    mr_text_add(text,
                "<div class=\"row\"><span>stage %" PRIu32 "</span><svg viewBox=\"0 0 %d %d\" "
                "preserveAspectRatio=\"none\" role=\"img\" aria-label=\"stage %" PRIu32
                ", %zu instructions\"><rect class=\"idle\" width=\"%d\" height=\"%d\"/>",
                stage->stage, ROW_WIDTH, ROW_HEIGHT, stage->stage, stage->span_count, ROW_WIDTH,
                ROW_HEIGHT);
    for (size_t i = 0; i < stage->span_count; i++)
        span_add(text, &stage->spans[i], start_ns, length_ns);
    mr_text_add(text, "</svg></div>\n");
}

static void timeline_add_legend(mr_text *text) {
    mr_text_add(text, "<p class=\"legend\">");
    for (int kind = 0; kind < MR_SPAN_KIND_COUNT; kind++) {
        int top = 0;
        int height = 0;
        span_place((mr_span_kind)kind, &top, &height);
        const char *name = mr_span_kind_name((mr_span_kind)kind);
        mr_text_add(text,
                    "<span><svg viewBox=\"0 0 %d %d\" aria-hidden=\"true\"><rect class=\"%s\" "
                    "y=\"%d\" width=\"%d\" height=\"%d\"/></svg> %s</span> ",
                    ROW_HEIGHT, ROW_HEIGHT, name, top, ROW_HEIGHT, height, name);
    }
    mr_text_add(text, "<span>empty: idle, a bubble</span></p>\n");
}

static void timeline_add_sums(mr_text *text, const mr_dashboard_scene *scene) {
    mr_text_add(text, "<details id=\"timeline-table\"><summary id=\"timeline-summary\">The same as "
                      "a table</summary>\n");
    mr_page_open_table(
        text, "Seconds of each stage",
        "Stage|Instructions|forward|backward|optimizer|send|receive|reduce|load|Whole");
    for (size_t i = 0; i < scene->timeline.stage_count; i++) {
        const mr_timeline_stage *stage = &scene->timeline.stages[i];
        double seconds[MR_SPAN_KIND_COUNT];
        mr_span_kind_sum(stage, seconds);
        mr_text_add(text, "<tr><th scope=\"row\">%" PRIu32 "</th><td>%zu</td>", stage->stage,
                    stage->span_count);
        for (int kind = 0; kind < MR_SPAN_KIND_COUNT; kind++) {
            mr_text_add(text, "<td>");
            mr_page_add_seconds(text, seconds[kind]);
            mr_text_add(text, "</td>");
        }
        mr_text_add(text, "<td>%s</td></tr>\n", stage->whole ? "yes" : "no, cut");
    }
    mr_page_close_table(text);
    mr_text_add(text, "</details>\n");
}

/* The steps before are on the stages themselves. */
static void timeline_add_traces(mr_text *text, const mr_dashboard_scene *scene) {
    const char *id = mr_page_string(scene->job, "id");
    mr_text_add(text, "<p>More steps, for Perfetto or chrome://tracing:");
    for (size_t i = 0; i < json_array_size(scene->members); i++) {
        const json_t *member = json_array_get(scene->members, i);
        const char *address = mr_page_string(member, "status_address");
        if (address[0] == '\0' || strcmp(mr_page_string(member, "job"), id) != 0)
            continue;
        mr_text_add(text, " <a href=\"http://");
        mr_page_add_escaped(text, address);
        mr_text_add(text, "/trace?steps=5\">trace of rank %" PRId64 "</a>",
                    mr_page_integer(member, "rank"));
    }
    mr_text_add(text, " <a href=\"/jobs/");
    mr_page_add_url(text, id);
    mr_text_add(text, "/timeline\">this step as JSON</a></p>\n");
}

void mr_panel_timeline(mr_text *text, const mr_dashboard_scene *scene) {
    int64_t start_ns = 0;
    int64_t end_ns = 0;
    mr_page_open_panel(text, "timeline", "Timeline of a step");
    if (scene->job != NULL)
        mr_page_add_command(text, "command-timeline", "millrace trace fetch %s",
                            mr_page_string(scene->job, "id"));
    if (!mr_span_kind_bounds(&scene->timeline, &start_ns, &end_ns)) {
        mr_text_add(text, "<p>No stage has told of a step of this job yet.</p>\n");
        mr_page_close_panel(text);
        return;
    }
    double length_ns = (double)(end_ns - start_ns);
    mr_text_add(text, "<p>Step %" PRIu64 " of the first replica, ", scene->timeline.step);
    mr_page_add_seconds(text, length_ns / 1e9);
    mr_text_add(text, " in all.</p>\n<div class=\"gantt\" data-step=\"%" PRIu64 "\">\n",
                scene->timeline.step);
    for (size_t i = 0; i < scene->timeline.stage_count; i++)
        row_add(text, &scene->timeline.stages[i], start_ns, length_ns);
    mr_text_add(text, "</div>\n");
    timeline_add_legend(text);
    timeline_add_sums(text, scene);
    timeline_add_traces(text, scene);
    mr_page_close_panel(text);
}
