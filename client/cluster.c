/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.c: the coordinator, where it listens and what it runs, with its members; and whether all
 * is well with it. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/job_view.h"
#include "client/nouns.h"
#include "client/repeat.h"
#include "client/roster.h"
#include "daemon/base/limits.h"

/* ---- status ---------------------------------------------------------------------------------- */

static void cell_started(const json_t *item, char *out, size_t bytes) {
    mr_render_time(json_integer_value(json_object_get(item, "started_ms")), out, bytes);
}

static const mr_column cluster_columns[] = {
    {"coordinator", "address", NULL},  {"status page", "status_address", NULL},
    {"version", "version", NULL},      {"started", NULL, cell_started},
    {"members", "members", NULL},      {"idle", "members_idle", NULL},
    {"running", "jobs_running", NULL}, {"queued", "jobs_queued", NULL},
};
static const mr_view cluster_view = {
    .singular = "cluster",
    .plural = "clusters",
    .name_key = "address",
    .columns = cluster_columns,
    .column_count = sizeof(cluster_columns) / sizeof(cluster_columns[0]),
};

static mr_status cluster_fetch(mr_client *client, json_t **out_value) {
    json_t *stages = NULL;
    json_t *cluster = NULL;
    MR_TRY(mr_roster_members(client, &stages));
    mr_status status = mr_roster_coordinator(client, &cluster);
    if (!mr_status_is_ok(status)) {
        json_decref(stages);
        return status;
    }
    (void)json_object_set_new(cluster, "stages", stages);
    *out_value = cluster;
    return MR_OK;
}

static mr_status cluster_print(mr_client *client, json_t *owned_value) {
    json_t *stages = json_incref(json_object_get(owned_value, "stages"));
    mr_status status = mr_render_item(client, &cluster_view, owned_value);
    if (mr_status_is_ok(status) && client->output == MR_OUTPUT_TABLE &&
        json_array_size(stages) > 0) {
        putchar('\n');
        mr_render_rows(client, &mr_member_view, stages);
    }
    json_decref(stages);
    return status;
}

mr_status mr_command_cluster(mr_client *client) {
    return mr_repeat_run(client, cluster_fetch, cluster_print);
}

mr_status mr_command_cluster_status(mr_client *client) {
    return mr_repeat_run(client, cluster_fetch, cluster_print);
}

/* ---- health ---------------------------------------------------------------------------------- */

static const mr_column health_columns[] = {
    {"CHECK", "check", NULL},
    {"STATE", "state", NULL},
    {"DETAIL", "detail", NULL},
};
static const mr_view health_view = {
    .singular = "check",
    .plural = "checks",
    .name_key = "check",
    .columns = health_columns,
    .column_count = sizeof(health_columns) / sizeof(health_columns[0]),
};

static void health_add(json_t *checks, const char *check, const char *state, const char *format,
                       ...) MR_PRINTF(4, 5);
static void health_add(json_t *checks, const char *check, const char *state, const char *format,
                       ...) {
    char detail[MR_RENDER_CELL_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(detail, sizeof(detail), format, arguments);
    va_end(arguments);
    MR_ASSERT(length >= 0);
    (void)json_array_append_new(checks, json_pack("{s:s, s:s, s:o}", "check", check, "state", state,
                                                  "detail", mr_render_string(detail)));
}

static const char *health_text(const json_t *item, const char *key) {
    const char *text = json_string_value(json_object_get(item, key));
    return text ? text : "";
}

static void health_add_members(json_t *checks, const json_t *members) {
    size_t lost = 0;
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);
        const char *state = health_text(member, "state");
        const char *job = health_text(member, "job_id");
        char check[MR_NAME_BYTES + 16];
        if (strcmp(state, "lost") != 0)
            continue;
        lost++;
        snprintf(check, sizeof(check), "stage/%s", health_text(member, "id"));
        health_add(checks, check, "fail", "silent for %.1f s%s%s",
                   (double)json_integer_value(json_object_get(member, "heartbeat_age_ms")) / 1000,
                   job[0] ? "; it held job " : "", job);
    }
    size_t living = json_array_size(members) - lost;
    health_add(checks, "stages", living > 0 ? "ok" : "fail", "%zu attached, %zu lost", living,
               lost);
}

/* A queued job waits for something that a person may have to bring. */
static void health_add_jobs(json_t *checks, const json_t *jobs) {
    for (size_t i = 0; i < json_array_size(jobs); i++) {
        const json_t *job = json_array_get(jobs, i);
        char check[MR_NAME_BYTES + 16];
        if (strcmp(health_text(job, "state"), "QUEUED") != 0)
            continue;
        snprintf(check, sizeof(check), "job/%s", health_text(job, "id"));
        health_add(checks, check, "warn", "queued: %s", health_text(job, "reason"));
    }
}

static mr_status health_fetch(mr_client *client, json_t **out_value) {
    json_t *coordinator = NULL;
    json_t *members = NULL;
    json_t *jobs = NULL;
    mr_status status = mr_roster_coordinator(client, &coordinator);
    if (mr_status_is_ok(status))
        status = mr_roster_members(client, &members);
    if (mr_status_is_ok(status))
        status = mr_roster_jobs(client, &jobs);
    if (mr_status_is_ok(status)) {
        json_t *checks = json_array();
        health_add(checks, "coordinator", "ok", "%s answers, version %s",
                   health_text(coordinator, "address"), health_text(coordinator, "version"));
        health_add_members(checks, members);
        health_add_jobs(checks, jobs);
        *out_value = checks;
    }
    json_decref(coordinator);
    json_decref(members);
    json_decref(jobs);
    return status;
}

static mr_status health_print(mr_client *client, json_t *owned_value) {
    client->exit_code = MR_EXIT_CODE_DONE;
    for (size_t i = 0; i < json_array_size(owned_value); i++) {
        if (strcmp(health_text(json_array_get(owned_value, i), "state"), "fail") == 0)
            client->exit_code = MR_EXIT_CODE_OTHER;
    }
    return mr_render_list(client, &health_view, owned_value);
}

mr_status mr_command_cluster_health(mr_client *client) {
    return mr_repeat_run(client, health_fetch, health_print);
}
