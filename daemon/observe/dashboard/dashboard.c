/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/observe/dashboard/dashboard.h"

#include <string.h>

#include "daemon/base/alloc.h"
#include "daemon/observe/dashboard/page_html.h"
#include "daemon/observe/dashboard/panels.h"

/* A place of the frame and who fills it. */
static const struct {
    const char *name;
    void (*add)(mr_text *text, const mr_dashboard_scene *scene);
} panels[] = {
    {"head", mr_panel_head},
    {"body", mr_panel_body},
};

/* Is this what must be shown without being told? An active job before one that has ended. */
static bool job_is_active(const json_t *job) {
    const char *state = mr_page_string(job, "state");
    return strcmp(state, "SUCCEEDED") != 0 && strcmp(state, "FAILED") != 0 &&
           strcmp(state, "CANCELLED") != 0;
}

/* The job that curves and charts are of; the list has the newest first. NULL: there is none. */
static const json_t *scene_job(const json_t *jobs, const char *word) {
    const json_t *active = NULL;
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        const json_t *job = json_array_get(jobs, i);
        if (word[0] != '\0' && (strcmp(mr_page_string(job, "id"), word) == 0 ||
                                strcmp(mr_page_string(job, "name"), word) == 0))
            return job;
        if (active == NULL && job_is_active(job) &&
            strcmp(mr_page_string(job, "state"), "QUEUED") != 0)
            active = job;
    }
    return active != NULL ? active : json_array_get(jobs, 0);
}

static mr_status scene_open(mr_dashboard_scene *scene, const mr_dashboard_view *view) {
    *scene = (mr_dashboard_scene){.view = view};
    scene->root = json_loads(view->status, 0, NULL); /* NULL reads as an empty object */
    scene->jobs = json_object_get(scene->root, "jobs");
    scene->members = json_object_get(scene->root, "members");
    if (view->history == NULL)
        return MR_OK;
    scene->job = scene_job(scene->jobs, view->job);
    if (scene->job == NULL)
        return MR_OK;
    const char *id = mr_page_string(scene->job, "id");
    MR_TRY(mr_history_read(view->history, id, 0, &scene->steps, &scene->step_count));
    return mr_timeline_read(view->timeline, id, &scene->timeline);
}

static void scene_close(mr_dashboard_scene *scene) {
    mr_timeline_step_deinit(&scene->timeline);
    mr_free(scene->steps);
    json_decref(scene->root);
}

static void page_fill(mr_text *text, const char *name, size_t name_bytes,
                      const mr_dashboard_scene *scene) {
    for (size_t i = 0; i < sizeof(panels) / sizeof(panels[0]); i++)
        if (strlen(panels[i].name) == name_bytes && memcmp(panels[i].name, name, name_bytes) == 0)
            panels[i].add(text, scene);
}

/* The frame, with each {{NAME}} replaced. */
static void page_add(mr_text *text, const mr_dashboard_scene *scene) {
    const char *at = mr_dashboard_html.bytes;
    const char *end = at + mr_dashboard_html.byte_count;
    while (at < end) {
        const char *open = memmem(at, (size_t)(end - at), "{{", 2);
        const char *close = open == NULL ? NULL : memmem(open, (size_t)(end - open), "}}", 2);
        if (close == NULL) {
            mr_text_add(text, "%.*s", (int)(end - at), at);
            return;
        }
        mr_text_add(text, "%.*s", (int)(open - at), at);
        page_fill(text, open + 2, (size_t)(close - open) - 2, scene);
        at = close + 2;
    }
}

mr_status mr_dashboard_render(const mr_dashboard_view *view, char **out_text, size_t *out_bytes) {
    mr_dashboard_scene scene;
    mr_text text = {0};
    mr_status status = scene_open(&scene, view);
    if (mr_status_is_ok(status)) {
        page_add(&text, &scene);
        status = mr_text_take(&text, out_text, out_bytes);
    }
    scene_close(&scene);
    return status;
}
