/* SPDX-License-Identifier: Apache-2.0 */
/* Curves: loss and speed over the newest steps. A curve is at most as many points as it is wide:
 * of the steps of one column the lowest and the highest are drawn, so that no spike is lost. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "daemon/observe/dashboard/panels.h"

enum { CURVE_WIDTH = 600, CURVE_HEIGHT = 160, CURVE_COLUMNS = 300, CURVE_STEPS_SHOWN = 12 };

/* What is drawn and how. */
typedef struct curve {
    const char *name; /* "loss" */
    double (*value)(const mr_history_step *step);
    bool logarithmic;
    double low;  /* of what is drawn, on its scale */
    double high;
    size_t drawn;
} curve;

static double step_loss(const mr_history_step *step) {
    return step->loss;
}

static double step_speed(const mr_history_step *step) {
    return step->tokens_per_second;
}

/* On the curve's scale; NAN: it has no place there. */
static double curve_value(const curve *c, const mr_history_step *step) {
    double value = c->value(step);
    if (!isfinite(value))
        return NAN;
    if (!c->logarithmic)
        return value;
    return value > 0 ? log10(value) : NAN;
}

static void curve_measure(curve *c, const mr_dashboard_scene *scene) {
    c->low = INFINITY;
    c->high = -INFINITY;
    for (size_t i = 0; i < scene->step_count; i++) {
        double value = curve_value(c, &scene->steps[i]);
        if (isnan(value))
            continue;
        c->drawn++;
        c->low = fmin(c->low, value);
        c->high = fmax(c->high, value);
    }
    if (c->drawn > 0 && c->high - c->low < 1e-9 * fmax(1, fabs(c->high))) {
        c->low -= 0.5; /* a flat line runs through the middle */
        c->high += 0.5;
    }
}

static void curve_add_point(mr_text *text, const curve *c, double share, double value) {
    double height = (value - c->low) / (c->high - c->low);
    mr_text_add(text, "%.1f,%.1f ", share * CURVE_WIDTH,
                2 + (1 - height) * (CURVE_HEIGHT - 4));
}

/* The steps of one column as one or two points. */
static void curve_add_column(mr_text *text, const curve *c, const mr_dashboard_scene *scene,
                             size_t first, size_t end) {
    double low = INFINITY;
    double high = -INFINITY;
    double share =
        scene->step_count < 2 ? 0.5 : (double)first / (double)(scene->step_count - 1);
    for (size_t i = first; i < end; i++) {
        double value = curve_value(c, &scene->steps[i]);
        low = fmin(low, value); /* NAN is passed over */
        high = fmax(high, value);
    }
    if (!isfinite(low))
        return;
    curve_add_point(text, c, share, high);
    if (high > low)
        curve_add_point(text, c, share, low);
}

static void curve_add_line(mr_text *text, const curve *c, const mr_dashboard_scene *scene) {
    size_t columns = scene->step_count < CURVE_COLUMNS ? scene->step_count : CURVE_COLUMNS;
    mr_text_add(text,
                "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" "
                "aria-label=\"%s over steps\">"
                "<path class=\"grid\" d=\"M0 2H%dM0 %dH%dM0 %dH%d\"/><polyline class=\"line\" "
                "points=\"",
                CURVE_WIDTH, CURVE_HEIGHT, c->name, CURVE_WIDTH, CURVE_HEIGHT / 2, CURVE_WIDTH,
                CURVE_HEIGHT - 2, CURVE_WIDTH);
    for (size_t i = 0; i < columns; i++)
        curve_add_column(text, c, scene, i * scene->step_count / columns,
                         (i + 1) * scene->step_count / columns);
    mr_text_add(text, "\"/></svg>");
}

static void curve_add_tick(mr_text *text, const curve *c, double value) {
    mr_text_add(text, "<span>");
    mr_page_add_number(text, c->logarithmic ? pow(10, value) : value);
    mr_text_add(text, "</span>");
}

static void curve_add(mr_text *text, curve *c, const mr_dashboard_scene *scene) {
    curve_measure(c, scene);
    mr_text_add(text, "<figure class=\"curve\"><figcaption>%s", c->name);
    if (c->drawn < scene->step_count)
        mr_text_add(text, ", %zu steps have no place here", scene->step_count - c->drawn);
    mr_text_add(text, "</figcaption>");
    if (c->drawn > 0) {
        mr_text_add(text, "<div class=\"plot\"><div class=\"ticks\">");
        curve_add_tick(text, c, c->high);
        curve_add_tick(text, c, (c->low + c->high) / 2);
        curve_add_tick(text, c, c->low);
        mr_text_add(text, "</div>");
        curve_add_line(text, c, scene);
        mr_text_add(text, "</div><div class=\"steps\"><span>step %" PRIu64 "</span><span>%" PRIu64
                          "</span></div>",
                    scene->steps[0].step, scene->steps[scene->step_count - 1].step);
    }
    mr_text_add(text, "</figure>\n");
}

/* Linear or logarithmic: links, which need no script. */
static void curves_add_scales(mr_text *text, const mr_dashboard_scene *scene) {
    static const char *const names[] = {"linear", "logarithmic"};
    mr_text_add(text, "<nav aria-label=\"Scale of the loss\">");
    for (int i = 0; i < 2; i++) {
        mr_text_add(text, "<a id=\"scale-%s\" href=\"/?job=", names[i]);
        mr_page_add_url(text, mr_page_string(scene->job, "id"));
        mr_text_add(text, "%s\"%s>%s</a> ", i == 1 ? "&amp;scale=log" : "",
                    scene->view->logarithmic == (i == 1) ? " aria-current=\"true\"" : "", names[i]);
    }
    mr_text_add(text, "</nav>\n");
}

static void curves_add_steps(mr_text *text, const mr_dashboard_scene *scene) {
    size_t shown = scene->step_count < CURVE_STEPS_SHOWN ? scene->step_count : CURVE_STEPS_SHOWN;
    mr_text_add(text, "<details id=\"steps-table\"><summary id=\"steps-summary\">The newest steps "
                      "as a table</summary>\n");
    mr_page_open_table(text, "Newest steps",
                       "Step|Loss|Gradient norm|Learning rate|Tokens/s|Bubble|Step time");
    for (size_t i = 0; i < shown; i++) {
        const mr_history_step *step = &scene->steps[scene->step_count - 1 - i];
        mr_text_add(text, "<tr><th scope=\"row\">%" PRIu64 "</th><td>", step->step);
        mr_page_add_number(text, step->loss);
        mr_text_add(text, "</td><td>");
        mr_page_add_number(text, step->gradient_norm);
        mr_text_add(text, "</td><td>");
        mr_page_add_number(text, step->learning_rate);
        mr_text_add(text, "</td><td>");
        mr_page_add_number(text, step->tokens_per_second);
        mr_text_add(text, "</td><td>%.0f %%</td><td>", 100 * step->bubble);
        mr_page_add_seconds(text, step->step_seconds);
        mr_text_add(text, "</td></tr>\n");
    }
    mr_page_close_table(text);
    mr_text_add(text, "</details>\n");
}

void mr_panel_curves(mr_text *text, const mr_dashboard_scene *scene) {
    mr_page_open_panel(text, "curves", "Loss and speed");
    if (scene->job != NULL)
        mr_page_add_command(text, "command-curves", "millrace job watch %s",
                            mr_page_string(scene->job, "id"));
    if (scene->step_count == 0) {
        mr_text_add(text, "<p>No step of this job is known.</p>\n");
        mr_page_close_panel(text);
        return;
    }
    curve loss = {.name = "Loss", .value = step_loss, .logarithmic = scene->view->logarithmic};
    curve speed = {.name = "Tokens per second", .value = step_speed};
    curves_add_scales(text, scene);
    mr_text_add(text, "<div class=\"pair\">\n");
    curve_add(text, &loss, scene);
    curve_add(text, &speed, scene);
    mr_text_add(text, "</div>\n");
    curves_add_steps(text, scene);
    mr_page_close_panel(text);
}
