/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node/node_status.h"

#include <stdlib.h>

#include <jansson.h>

#include "daemon/base/version.h"

static json_t *board_stage(const mr_node_stage *stage, int64_t now_ms) {
    const mr_ward *ward = &stage->ward;
    char why[MR_STATUS_TEXT_BYTES];
    mr_node_stage_describe(stage, now_ms, why, sizeof(why));
    json_t *row = json_pack(
        "{s:s, s:s, s:i, s:I, s:I, s:i, s:s, s:s, s:s, s:s}", "device", stage->device.name, "state",
        mr_ward_state_name(ward->state), "process_id", (int)stage->process, "state_age_ms",
        (json_int_t)(now_ms - ward->since_ms), "starts", (json_int_t)ward->starts, "failures",
        (int)ward->failures, "why", why, "says", stage->said.status, "address",
        stage->said.address, "status_address", stage->said.status_address);
    if (row != NULL && ward->last_signal != 0)
        (void)json_object_set_new(row, "last_signal", json_integer(ward->last_signal));
    else if (row != NULL && ward->last_exit >= 0)
        (void)json_object_set_new(row, "last_exit_code", json_integer(ward->last_exit));
    if (row != NULL && ward->state == MR_WARD_WAITING)
        (void)json_object_set_new(row, "next_start_ms", json_integer(ward->deadline_ms - now_ms));
    return row;
}

static void board_status(const mr_node_board *board, const mr_node_stages *stages, bool draining,
                         int64_t now_ms) {
    json_t *list = json_array();
    for (size_t i = 0; i < stages->count; i++)
        (void)json_array_append_new(list, board_stage(&stages->items[i], now_ms)); /* not NULL */
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:o}", "schema", "millrace.status/v1",
                             "role", "node", "version", MR_VERSION, "coordinator",
                             board->coordinator, "draining", draining, "cards", board->cards,
                             "stages", list);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    if (text != NULL) {
        mr_status published = mr_status_page_publish(board->page, text);
        (void)published; /* the page before stays */
    }
    free(text);
    json_decref(root);
}

static void board_gauges(const mr_node_board *board, const mr_node_stages *stages) {
    for (mr_ward_state state = MR_WARD_WAITING; state < MR_WARD_STATE_COUNT; state++)
        mr_series_set(
            mr_metrics_series(board->metrics, MR_METRIC_NODE_STAGES, mr_ward_state_name(state)),
            (double)mr_node_stages_count(stages, state));
    for (size_t i = 0; i < stages->count; i++) {
        const mr_node_stage *stage = &stages->items[i];
        mr_series_set(
            mr_metrics_series(board->metrics, MR_METRIC_NODE_STAGE_READY, stage->device.name),
            stage->ward.state == MR_WARD_READY ? 1 : 0);
    }
}

void mr_node_board_publish(const mr_node_board *board, const mr_node_stages *stages, bool draining,
                           int64_t now_ms) {
    size_t serving = mr_node_stages_count(stages, MR_WARD_READY);
    bool ready = !draining && serving == stages->count;
    char text[MR_STATUS_TEXT_BYTES];
    mr_node_stages_describe(stages, now_ms, text, sizeof(text));
    mr_status_page_ready_set(board->page, ready, ready ? NULL : draining ? "draining" : text);
    board_gauges(board, stages);
    board_status(board, stages, draining, now_ms);
}
