/* SPDX-License-Identifier: Apache-2.0 */
/* node_status.h: what people and Prometheus see of a node: /status as one JSON text, and gauges.
 * Owner: node. Thread: LOOP.
 * Not here: HTTP (observe/). */
#ifndef MR_NODE_NODE_STATUS_H
#define MR_NODE_NODE_STATUS_H

#include "daemon/node/stages.h"
#include "daemon/observe/metrics.h"
#include "daemon/observe/status_server.h"

/* Where it is published; borrowed. */
typedef struct mr_node_board {
    mr_status_page *page;
    mr_metrics *metrics;
    const char *coordinator;
    const char *cards; /* why no CUDA card was found; "" */
} mr_node_board;

/* Publishes /status, /readyz's answer and the gauges. */
void mr_node_board_publish(const mr_node_board *board, const mr_node_stages *stages, bool draining,
                           int64_t now_ms);

#endif
