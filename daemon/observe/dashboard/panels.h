/* SPDX-License-Identifier: Apache-2.0 */
/* panels.h: the parts of the page. Each writes HTML that stands alone; what it shows is in a scene,
 * which is one moment of the daemon.
 * Owner: observe; private to this folder. Thread: the status server's. */
#ifndef MR_OBSERVE_DASHBOARD_PANELS_H
#define MR_OBSERVE_DASHBOARD_PANELS_H

#include "daemon/observe/dashboard/dashboard.h"
#include "daemon/observe/dashboard/page.h"

typedef struct mr_dashboard_scene {
    const mr_dashboard_view *view;
    json_t *root; /* the status; may be NULL, which jansson reads as empty */
    const json_t *jobs;
    const json_t *members;
    const json_t *job; /* that is looked at; NULL: none */
    mr_history_step *steps; /* of it, oldest first */
    size_t step_count;
    mr_timeline_step timeline; /* of it; step 0: none */
} mr_dashboard_scene;

/* Who this is, how it is, and when that was. */
void mr_panel_head(mr_text *text, const mr_dashboard_scene *scene);
/* All panels of a coordinator; of another role a table of its status. */
void mr_panel_body(mr_text *text, const mr_dashboard_scene *scene);

/* ---- of a coordinator ---- */

/* Every job that is published, newest first. */
void mr_panel_jobs(mr_text *text, const mr_dashboard_scene *scene);
/* Those that wait, and what for. */
void mr_panel_queue(mr_text *text, const mr_dashboard_scene *scene);
/* Curves of loss and speed. */
void mr_panel_curves(mr_text *text, const mr_dashboard_scene *scene);
void mr_panel_stages(mr_text *text, const mr_dashboard_scene *scene);
/* What each stage did in one of the newest steps. */
void mr_panel_timeline(mr_text *text, const mr_dashboard_scene *scene);
void mr_panel_members(mr_text *text, const mr_dashboard_scene *scene);
void mr_panel_checkpoints(mr_text *text, const mr_dashboard_scene *scene);
void mr_panel_events(mr_text *text, const mr_dashboard_scene *scene);

/* ---- of any role ---- */

/* Every value of the status by its path. */
void mr_panel_status(mr_text *text, const mr_dashboard_scene *scene);

#endif
