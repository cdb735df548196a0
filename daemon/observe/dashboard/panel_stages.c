/* SPDX-License-Identifier: Apache-2.0 */
/* Stages: one row for each rank of the job: its layers, who does it, how busy it was in the step
 * of the timeline, and what its device holds. The slowest is marked by a word and an arrow. */
#include <inttypes.h>
#include <string.h>

#include "daemon/observe/dashboard/panels.h"
#include "daemon/observe/dashboard/span_kind.h"

static const json_t *stage_member(const mr_dashboard_scene *scene, const char *id) {
    for (size_t i = 0; i < json_array_size(scene->members); i++) {
        const json_t *member = json_array_get(scene->members, i);
        if (id[0] != '\0' && strcmp(mr_page_string(member, "id"), id) == 0)
            return member;
    }
    return NULL;
}

static const mr_timeline_stage *stage_timeline(const mr_dashboard_scene *scene, int64_t rank) {
    for (size_t i = 0; i < scene->timeline.stage_count; i++)
        if (scene->timeline.stages[i].rank == rank)
            return &scene->timeline.stages[i];
    return NULL;
}

/* A bar of up to 100 %; label: what of. */
static void stage_add_bar(mr_text *text, double share, const char *label) {
    if (!(share > 0))
        share = 0;
    if (share > 1)
        share = 1;
    mr_text_add(text,
                "<svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" "
                "role=\"img\" aria-label=\"%s %.0f percent\"><rect class=\"back\" width=\"100\" "
                "height=\"10\"/><rect class=\"fill\" width=\"%.1f\" height=\"10\"/></svg> ",
                label, 100 * share, 100 * share);
}

static void stage_add_busy(mr_text *text, const mr_dashboard_scene *scene,
                           const mr_timeline_stage *stage) {
    int64_t start_ns = 0;
    int64_t end_ns = 0;
    mr_text_add(text, "<td>");
    if (stage == NULL || !mr_span_kind_bounds(&scene->timeline, &start_ns, &end_ns)) {
        mr_text_add(text, "–</td>");
        return;
    }
    double busy = mr_span_kind_busy(stage);
    double share = busy / ((double)(end_ns - start_ns) / 1e9);
    stage_add_bar(text, share, "busy");
    mr_text_add(text, "%.0f %%, ", 100 * share);
    mr_page_add_seconds(text, busy);
    if (stage == mr_span_kind_slowest(&scene->timeline))
        mr_text_add(text, " <strong class=\"slowest\">◀ slowest</strong>");
    mr_text_add(text, "</td>");
}

static void stage_add_memory(mr_text *text, const json_t *member, const mr_timeline_stage *stage) {
    double size = mr_page_number(member, "memory_bytes");
    mr_text_add(text, "<td>");
    if (stage == NULL) {
        mr_text_add(text, "–</td>");
        return;
    }
    const mr_timeline_memory *memory = &stage->memory;
    double held = (double)memory->weights + (double)memory->gradients +
                  (double)memory->optimizer + (double)memory->activations;
    if (size > 0)
        stage_add_bar(text, held / size, "memory");
    mr_page_add_bytes(text, held);
    if (size > 0) {
        mr_text_add(text, " of ");
        mr_page_add_bytes(text, size);
    }
    mr_text_add(text, "</td>");
}

static void stage_add(mr_text *text, const mr_dashboard_scene *scene, const json_t *stage) {
    const json_t *layers = json_object_get(stage, "layers");
    const json_t *member = stage_member(scene, mr_page_string(stage, "member"));
    const mr_timeline_stage *timeline =
        stage_timeline(scene, mr_page_integer(stage, "rank"));
    int64_t first = (int64_t)json_integer_value(json_array_get(layers, 0));
    int64_t end = (int64_t)json_integer_value(json_array_get(layers, 1));
    mr_text_add(text, "<tr><th scope=\"row\">%" PRId64 "</th><td>%" PRId64 "</td><td>",
                mr_page_integer(stage, "stage"), mr_page_integer(stage, "rank"));
    mr_text_add(text, first + 1 == end ? "%" PRId64 : "%" PRId64 " to %" PRId64, first, end - 1);
    mr_text_add(text, "</td>");
    mr_page_add_cell(text, mr_page_string(stage, "member"));
    stage_add_busy(text, scene, timeline);
    stage_add_memory(text, member, timeline);
    mr_text_add(text, "<td>");
    if (member != NULL) {
        mr_page_add_seconds(text, mr_page_number(member, "heartbeat_age_ms") / 1000);
        mr_text_add(text, " ago");
    } else {
        mr_text_add(text, "–");
    }
    mr_text_add(text, "</td></tr>\n");
}

void mr_panel_stages(mr_text *text, const mr_dashboard_scene *scene) {
    const json_t *stages = json_object_get(scene->job, "stages");
    mr_page_open_panel(text, "stages", "Stages");
    if (scene->job != NULL)
        mr_page_add_command(text, "command-stages", "millrace job get %s",
                            mr_page_string(scene->job, "id"));
    if (json_array_size(stages) == 0) {
        mr_text_add(text, "<p>No job has stages now.</p>\n");
        mr_page_close_panel(text);
        return;
    }
    mr_page_open_table(text, "Stages", "Stage|Rank|Layers|Member|Busy in its step|Memory|Heard");
    for (size_t i = 0; i < json_array_size(stages); i++)
        stage_add(text, scene, json_array_get(stages, i));
    mr_page_close_table(text);
    mr_page_close_panel(text);
}
